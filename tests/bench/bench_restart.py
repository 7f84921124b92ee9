"""What a restart costs: time without an API, and packets lost, beside SMCRoute in the same run.

    python -m tests.bench.bench_restart [times [packets a second]]

10,000 packets a second go through exact routes, templates and shared trees of both families, and 20 new flows begin each
second, while mcastd's server is killed with -9 and upgraded (SIGUSR2), its keeper re-executed (SIGUSR1) and restarted by a
service manager that keeps its descriptors; then while SMCRoute (Debian package smcroute; left out where it is not installed),
with the same in its own words, is restarted and has its configuration read again. The time without an API is the longest one
between two answers; of SMCRoute, from the signal to its control socket's first answer. Exits 1 where mcastd lost or doubled a
packet.
"""

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mcastd.keeper.ending import STEADY_AFTER
from mcastd.model.address import Family
from tests.bench.bench_first_packet import Smcroute
from tests.e2e.stream import EXACT, FRESH, RATE, RECEIVERS, TEMPLATE, WITHIN, Streams, Verdict
from tests.testbed import Star, Testbed, become_able
from tests.testbed.daemon import McastdProcess, wait_until
from tests.testbed.manager import FakeManager

TIMES = 5
BETWEEN = 1.0
"""Seconds from one restart to the next, in which packets flow and flows begin."""

_CALL_EVERY = 0.002
_EAGER = (
    ("grpc.initial_reconnect_backoff_ms", 5),
    ("grpc.min_reconnect_backoff_ms", 5),
    ("grpc.max_reconnect_backoff_ms", 5),
    ("grpc.use_local_subchannel_pool", 1),
)


class Outcome(NamedTuple):
    """Of one case."""

    name: str
    away: list[float]
    """Seconds without an API, of each restart."""
    verdict: Verdict

    def __str__(self) -> str:
        away = [1000 * seconds for seconds in self.away]
        found = self.verdict
        return (
            f"{self.name:<38} {len(away)} times  API away median {statistics.median(away):7.1f}  worst {max(away):7.1f} ms"
            f"   lost {found.lost_in_all:6} of {found.sent}, {found.duplicates} twice, {found.new_flows} new flows"
            f", {100 * found.rate_kept:.0f}% of the rate"
        )


class Caller:
    """Calls the API without a pause and knows the longest time between two answers."""

    def __init__(self, path: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{path}", options=_EAGER)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._last = time.monotonic()
        self._longest = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._call, daemon=True)
        self._thread.start()

    def take(self) -> float:
        """The longest since the last call of this, in seconds."""
        longest, self._longest = self._longest, 0.0
        return longest

    def close(self) -> None:
        """Call no more."""
        self._end.set()
        self._thread.join()
        self._channel.close()

    def _call(self) -> None:
        request = health_pb2.HealthCheckRequest(service="mcast.v1.RouteService")
        while not self._end.wait(_CALL_EVERY):
            with contextlib.suppress(grpc.RpcError):
                if self._health.Check(request, timeout=0.5).status == health_pb2.HealthCheckResponse.SERVING:
                    now = time.monotonic()
                    self._longest = max(self._longest, now - self._last)
                    self._last = now


# --- mcastd ----------------------------------------------------------------------------------------------------------


class Bench:
    """mcastd under the stream."""

    def __init__(self, star: Star, directory: Path, manager: FakeManager) -> None:
        self._star, self._directory, self._manager = star, directory, manager
        self.daemon = self._start()

    def kill_server(self) -> None:
        """`kill -9`."""
        before = self.daemon.kill_server()
        self._wait_next(before)

    def upgrade(self) -> None:
        """SIGUSR2."""
        before = self.daemon.server_pid()
        self.daemon.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: not Path(f"/proc/{before}").exists(), 30, self.daemon.log)
        self._wait_next(before)

    def re_execute(self) -> None:
        """SIGUSR1; the server lives on, and its API is not away."""
        count = self.daemon.log().count("the keeper is re-executed")
        self.daemon.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: self.daemon.log().count("the keeper is re-executed") > count, 30, self.daemon.log)

    def restart(self) -> None:
        """As `systemctl restart`."""
        self._manager.stop(self.daemon.process)
        self.daemon.close()
        self.daemon = self._start()

    def kill_keeper(self) -> None:
        """`kill -9`, and the service manager starts it again."""
        self._manager.stop(self.daemon.process, signal.SIGKILL)
        self.daemon.close()
        self.daemon = self._start()

    def _start(self) -> McastdProcess:
        return McastdProcess(self._star.router, self._directory, **self._manager.options())

    def _wait_next(self, before: int) -> None:
        wait_until(lambda: self.daemon.server_pid() not in {0, before}, 30, self.daemon.log)
        self.daemon.wait_ready()


def measure_mcastd(times: int, rate: float) -> Iterator[Outcome]:
    """All cases of mcastd."""
    cases: dict[str, Callable[[Bench], None]] = {
        "mcastd, server killed (-9)": Bench.kill_server,
        "mcastd, server upgraded": Bench.upgrade,
        "mcastd, keeper re-executed": Bench.re_execute,
        "mcastd, restarted (fd store)": Bench.restart,
        "mcastd, keeper killed (-9, fd store)": Bench.kill_keeper,
    }
    for name, disturb in cases.items():
        # A server that dies early is waited for longer each time: so each has lived long enough.
        between = STEADY_AFTER + BETWEEN if disturb is Bench.kill_server else BETWEEN
        with Testbed() as bed, tempfile.TemporaryDirectory() as directory, FakeManager() as manager:
            Path(directory).chmod(0o755)
            star = bed.star(2)
            bench = Bench(star, Path(directory), manager)
            try:
                with Streams(star, rate) as streams:
                    bench.daemon.put(*streams.routes())
                    streams.start()
                    streams.wait_flowing()
                    caller = Caller(bench.daemon.socket)
                    away = []
                    for _ in range(times):
                        time.sleep(between)
                        caller.take()
                        disturb(bench)
                        time.sleep(0.2)
                        away.append(caller.take())
                    caller.close()
                    yield Outcome(name, away, streams.finish())
            finally:
                bench.daemon.close()


# --- SMCRoute --------------------------------------------------------------------------------------------------------


def rules(star: Star, streams: Streams) -> list[str]:
    """The same routes as SMCRoute has them; a shared tree is a (*,G) rule there."""
    found = []
    for flow in streams.flows:
        to = " ".join(f"down{at + 1}" for at in RECEIVERS[flow.kind])
        source = f"source {star.source.address(flow.family)} " if flow.kind == EXACT else ""
        if flow.kind != TEMPLATE:
            found.append(f"mroute from up {source}group {flow.group} to {to}")
    for family in Family:
        found.append(f"mroute from up group {WITHIN[family]} to down1")
        found.append(f"mroute from up group {FRESH[family]} to down1 down2")
    return found


def measure_smcroute(times: int, rate: float) -> Iterator[Outcome]:
    """A restart, and its own reload, as they are."""
    for name, number in (("SMCRoute, restarted", signal.SIGTERM), ("SMCRoute, reloaded", signal.SIGHUP)):
        with Testbed() as bed, tempfile.TemporaryDirectory() as directory:
            star = bed.star(2)
            with Streams(star, rate) as streams:
                wanted = rules(star, streams)
                daemon = Smcroute(star, Path(directory), wanted)
                try:
                    streams.start()
                    streams.wait_flowing()
                    away = []
                    for _ in range(times):
                        time.sleep(BETWEEN)
                        began = time.monotonic()
                        daemon.process.send_signal(number)
                        if number == signal.SIGTERM:
                            daemon.process.wait(60)
                            daemon = Smcroute(star, Path(directory), wanted)
                        wait_until(partial(answers, star, daemon), 60)
                        away.append(time.monotonic() - began)
                    time.sleep(BETWEEN)
                    yield Outcome(name, away, streams.finish(2))
                finally:
                    daemon.close()


def answers(star: Star, daemon: Smcroute) -> bool:
    """Whether smcrouted answers at its control socket."""
    command: list[Any] = ["smcroutectl", "-u", daemon.socket, "show"]
    with star.router.entered():
        return not subprocess.run(command, capture_output=True, check=False, timeout=60).returncode


# --- all of it -------------------------------------------------------------------------------------------------------


def main() -> int:
    """Measure, and judge."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else TIMES
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else RATE
    if reason := become_able():
        print(reason)  # noqa: T201
        return 2
    print(f"{rate:g} packets/s, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")  # noqa: T201
    bad = 0
    for outcome in measure_mcastd(times, rate):
        print(outcome, flush=True)  # noqa: T201
        found = outcome.verdict
        if found.lost:
            print(f"    {found.lost} {found.missing}; dropped by the host's input queues: {found.dropped_by_the_host}")  # noqa: T201
        if found.dropped_here:
            print(f"    the counters were too slow for {found.dropped_here} packets: that proves nothing")  # noqa: T201
        bad += found.lost_in_all + found.duplicates + found.astray + found.dropped_here
    if shutil.which("smcrouted"):
        for outcome in measure_smcroute(times, rate):
            print(outcome, flush=True)  # noqa: T201
    else:
        print("SMCRoute is not installed (Debian package smcroute): it is left out")  # noqa: T201
    print(f"mcastd lost nothing: {'NO' if bad else 'yes'}")  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
