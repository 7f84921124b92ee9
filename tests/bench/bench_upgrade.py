"""How long clients of the API wait while the server is upgraded: `python -m tests.bench.bench_upgrade [ROUTES] [TIMES]`, as root.

A client asks for the status again and again, waiting for ready; the longest answer is the gap. Another one puts a route.
"""

import os
import signal
import statistics
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any

import grpc

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import route_service_pb2_grpc as rs_grpc
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcastd.model.address import Family
from tests.e2e.router import Router
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until

PAUSE = 0.002
"""Seconds between two calls."""


class Caller(threading.Thread):
    """Calls until told to end; how long each answer took."""

    def __init__(self, call: Any, request: object) -> None:
        """Call with this request."""
        super().__init__(daemon=True)
        self._call, self._request = call, request
        self.took: list[float] = []
        self.refused = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Call, and call again at once where the server says that it is ending."""
        while not self.ended.wait(PAUSE):
            began = time.monotonic()
            while True:
                try:
                    self._call(self._request, timeout=60, wait_for_ready=True)
                    break
                except grpc.RpcError as exc:
                    if exc.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    self.refused += 1
            self.took.append(time.monotonic() - began)

    def longest(self) -> float:
        """Seconds of the longest answer since the last look."""
        took, self.took = self.took, []
        return max(took)


def main(routes: int = 1000, times: int = 10) -> None:
    """Print the gaps."""
    with ExitStack() as stack:
        router = stack.enter_context(Router(stack.enter_context(Testbed()), Family.IPV4))
        daemon = router.daemon
        daemon.replace(router.route(number, "down1", "down2") for number in range(1, routes + 1))
        path = f"unix:{daemon.socket}"
        reading, writing = (stack.enter_context(grpc.insecure_channel(path, (("n", n),))) for n in range(2))
        put = rs.PutRoutesRequest(routes=[router.route(routes + 9, "down1")])
        callers = [
            Caller(sv_grpc.DaemonServiceStub(reading).GetStatus, sv.GetStatusRequest()),
            Caller(rs_grpc.RouteServiceStub(writing).PutRoutes, put),
        ]
        for caller in callers:
            caller.start()
        gaps: list[list[float]] = []
        for number in range(times):
            time.sleep(1)
            for caller in callers:
                caller.longest()
            os.kill(daemon.process.pid, signal.SIGUSR2)
            wait_until(lambda n=number: daemon.log().count("the server serves") == n + 2, 60, daemon.log)  # type: ignore[misc]
            time.sleep(0.5)
            gaps.append([caller.longest() * 1000 for caller in callers])
        for caller in callers:
            caller.ended.set()
            caller.join()
        for name, column, caller in zip(("read", "write"), zip(*gaps, strict=True), callers, strict=True):
            gap = f"median {statistics.median(column):.0f} ms, most {max(column):.0f} ms"
            sys.stdout.write(f"{routes} routes, {name}: {gap}; {caller.refused} calls refused in {times} upgrades\n")


if __name__ == "__main__":
    main(*(int(one) for one in sys.argv[1:] if one.isdigit()))
