"""A real mcastd in a namespace: started, called over its Unix socket, killed, looked at from outside."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import route_service_pb2_grpc as rs_grpc
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from tests.testbed.namespace import Namespace

START_SECONDS = 20.0
"""How long a start may take on a busy machine; waits end as soon as it is done."""

_OPTIONS = (
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)


class McastdProcess:
    """`mcastd serve` in a namespace, with a socket and a state directory of its own; use it as a context."""

    def __init__(
        self,
        namespace: Namespace,
        directory: Path | None = None,
        *arguments: str,
        ready: bool = True,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        command: Sequence[str] = ("serve",),
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start it; with `ready` wait until it serves. `directory` holds socket and state, and outlives it.

        `prefix` is a command that executes another ("unshare -m"); the program, with `command`, is looked for in `cwd` first.
        """
        self.namespace = namespace
        self._made = tempfile.TemporaryDirectory(prefix="mcastd-test-") if directory is None else None
        self.directory = Path(self._made.name) if self._made else directory or Path()
        self.directory.chmod(0o755)
        self.socket = self.directory / "run" / "mcastd.sock"
        self.state_dir = self.directory / "state"
        self.log_path = self.directory / "log"
        self._log = self.log_path.open("ab")
        places = ["--listen", f"unix:{self.socket}", "--state-dir", str(self.state_dir)]
        program = [*prefix, sys.executable, "-m", "mcastd.cli", *command, *places, *arguments]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MCASTD_", "GRPC_"))} | {"PYTHONFAULTHANDLER": "1"}
        self.process = namespace.popen(
            program,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            env={**inherited, **(environment or {})},
            cwd=cwd,
            pass_fds=pass_fds,
            process_group=0,  # a Ctrl-C for the tests is not for it
        )
        self.channel = grpc.insecure_channel(f"unix:{self.socket}", options=_OPTIONS)
        self.routes = rs_grpc.RouteServiceStub(self.channel)
        self.interfaces = sv_grpc.InterfaceServiceStub(self.channel)
        self.daemon = sv_grpc.DaemonServiceStub(self.channel)
        self.events = sv_grpc.EventServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        if ready:
            try:
                self.wait_ready()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it in order, by force where that does not help; may be called twice."""
        self.channel.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()
        if self._made is not None:
            self._made.cleanup()

    # --- looking at it -----------------------------------------------------------------------------------------------

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until health says SERVING; AssertionError with the log when it does not."""
        wait_until(self.serving, seconds, lambda: f"mcastd does not serve; its log:\n{self.log()}")

    def serving(self) -> bool:
        """Whether health says SERVING now."""
        if self.process.poll() is not None:
            raise AssertionError(f"mcastd has ended with {self.process.returncode}; its log:\n{self.log()}")
        with contextlib.suppress(grpc.RpcError):
            answer = self.health.Check(health_pb2.HealthCheckRequest(service="mcast.v1.RouteService"), timeout=1)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
        return False

    def log(self) -> str:
        """Everything it has logged so far."""
        return self.log_path.read_text()

    def server_pid(self) -> int:
        """Pid of the server process now; 0 while there is none."""
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if b"mcastd.runtime.server" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        return 0

    def kill_server(self) -> int:
        """`kill -9` the server; its pid."""
        pid = self.server_pid()
        os.kill(pid, signal.SIGKILL)
        return pid

    # --- calling it --------------------------------------------------------------------------------------------------

    def put(self, *routes: t.Route, **options: object) -> rs.WriteResult:
        """PutRoutes; `options` are those of WriteOptions."""
        request = rs.PutRoutesRequest(routes=routes, options=rs.WriteOptions(**options))  # type: ignore[arg-type]
        return self.routes.PutRoutes(request, timeout=60).result

    def delete(self, *keys: t.RouteKey) -> rs.WriteResult:
        """DeleteRoutes by key."""
        return self.routes.DeleteRoutes(rs.DeleteRoutesRequest(keys=keys), timeout=60).result

    def replace(self, routes: Iterable[t.Route], chunk: int = 1000, timeout: float = 120, **header: object) -> rs.WriteResult:
        """ReplaceRoutes; `header` are the fields of its header."""

        def requests() -> Iterator[rs.ReplaceRoutesRequest]:
            yield rs.ReplaceRoutesRequest(header=rs.ReplaceRoutesRequest.Header(**header))  # type: ignore[arg-type]
            part: list[t.Route] = []
            for route in routes:
                part.append(route)
                if len(part) == chunk:
                    yield rs.ReplaceRoutesRequest(chunk=rs.ReplaceRoutesRequest.Chunk(routes=part))
                    part = []
            if part:
                yield rs.ReplaceRoutesRequest(chunk=rs.ReplaceRoutesRequest.Chunk(routes=part))

        return self.routes.ReplaceRoutes(requests(), timeout=timeout).result

    def list_routes(self, **request: object) -> list[t.Route]:
        """ListRoutes, all chunks together."""
        answers = self.routes.ListRoutes(rs.ListRoutesRequest(**request), timeout=60)  # type: ignore[arg-type]
        return [route for answer in answers for route in answer.routes]

    def state(self, group: str, source: str) -> t.RouteStatus:
        """Status of one exact route; KeyError if there is none."""
        for route in self.list_routes(selector=t.Selector(group=group, source=source)):
            return route.status
        raise KeyError((group, source))

    def status(self) -> sv.GetStatusResponse:
        """GetStatus."""
        return self.daemon.GetStatus(sv.GetStatusRequest(), timeout=10)


def route(group: str, source: str, iif: str, *oifs: str, **fields: object) -> t.Route:
    """An exact (S,G) route message."""
    return t.Route(group=group, source=source, iif=iif, oifs=[t.Oif(interface=o) for o in oifs], **fields)  # type: ignore[arg-type]


def wait_until(
    condition: Callable[[], bool], seconds: float = 5.0, message: Callable[[], str] = lambda: "it did not happen"
) -> float:
    """Wait for a condition, looking every few milliseconds; how long it took, in seconds. AssertionError when it never holds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"{message()} (waited {seconds} s)")
        time.sleep(0.005)
    return time.monotonic() - began
