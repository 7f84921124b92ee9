"""What tests of the keeper stand on: a keeper with a fake server in a namespace, and the test's end of that server."""

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.testbed import Namespace

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("keeper_program.py")
PATIENCE = 20.0
"""Seconds after which a condition that should come has not: far more than it ever takes."""

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MCASTD_")} | {"PYTHONPATH": str(ROOT)}


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that any user may enter (pytest's own are root's alone)."""
    path = Path(tempfile.mkdtemp(prefix="mcastd-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until it holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.01)


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status by name."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


class ServerEnd:
    """The test's end of one fake server."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self._socket = sock
        self._file = sock.makefile("r", encoding="utf-8")
        self.heard: list[tuple[str, Any]] = []
        self.hello: dict[str, Any] = self.wait_for("hello")
        self.pid: int = self.hello["pid"]

    def ask(self, *command: Any) -> Any:
        """Have it do something and return what came of it; ("refused", ...) where the keeper refused."""
        self._socket.sendall(json.dumps(command).encode() + b"\n")
        while True:
            what, value = self._hear()
            if what == "answer":
                return value
            if what == "refused":
                return (what, *value)
            self.heard.append((what, value))

    def tell(self, *command: Any) -> None:
        """Have it do something that has no answer."""
        self._socket.sendall(json.dumps(command).encode() + b"\n")

    def wait_for(self, kind: str) -> Any:
        """What it says next of this kind; everything else is put aside."""
        for n, (what, value) in enumerate(self.heard):
            if what == kind:
                del self.heard[n]
                return value
        while True:
            what, value = self._hear()
            if what == kind:
                return value
            self.heard.append((what, value))

    def upcalls(self, count: int) -> list[list[Any]]:
        """The next upcalls, at least so many."""
        found: list[list[Any]] = []
        while len(found) < count:
            found += self.wait_for("upcalls")
        return found

    def upcalls_heard(self) -> list[list[Any]]:
        """The upcalls that came so far, without waiting."""
        found = [record for what, value in self.heard if what == "upcalls" for record in value]
        self.heard = [(what, value) for what, value in self.heard if what != "upcalls"]
        return found

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def _hear(self) -> tuple[str, Any]:
        line = self._file.readline()
        assert line, "the fake server is gone"
        what, value = json.loads(line)
        return what, value


class KeeperBench:
    """A keeper in a namespace."""

    def __init__(
        self,
        namespace: Namespace,
        directory: Path,
        *arguments: str,
        prefix: Sequence[str] = (),
        python: str = sys.executable,
        environment: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start it; `prefix` is a command that runs another."""
        self.directory = directory
        self.socket = directory / "run" / "mcastd.sock"
        self.state = directory / "state"
        self.log = directory / "log"
        self._servers: list[ServerEnd] = []
        self._listener = socket.socket(socket.AF_UNIX)
        path = directory / "fake"
        path.unlink(missing_ok=True)
        self._listener.bind(str(path))
        path.chmod(0o777)
        self._listener.listen()
        self._listener.settimeout(PATIENCE)
        with self.log.open("ab") as log:
            self.started_at = time.monotonic()
            self.process = namespace.popen(
                [*prefix, python, str(PROGRAM), str(path), *serve(directory, *arguments)],
                stderr=log,
                env=ENVIRONMENT | (environment or {}),
                pass_fds=pass_fds,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the keeper."""
        return self.process.pid

    def server(self) -> ServerEnd:
        """The next server that it starts; the last one it started may be dead by now."""
        readable, _, _ = select.select([self._listener], [], [], PATIENCE)
        assert readable, f"no server came; the log:\n{self.log.read_text()}"
        end = ServerEnd(self._listener.accept()[0])
        self._servers.append(end)
        return end

    def server_waits(self) -> bool:
        """Whether a server has come that `server` was not called for."""
        return bool(select.select([self._listener], [], [], 0)[0])

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(PATIENCE)

    def logged(self, text: str) -> bool:
        """Whether a log line holds the text."""
        return text in self.log.read_text()

    def close(self) -> None:
        """End it; its log is shown with a failed test."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for server in self._servers:
            server.close()
        self._listener.close()
        sys.stderr.write(self.log.read_text())


def serve(directory: Path, *arguments: str) -> list[str]:
    """Arguments of mcastd for sockets and state in a directory."""
    places = ["--listen", f"unix:{directory}/run/mcastd.sock"] if "--listen" not in arguments else []
    if "--state-dir" not in arguments:
        places += ["--state-dir", str(directory / "state")]
    return ["serve", *places, *arguments]


def run_to_end(
    namespace: Namespace,
    *arguments: str,
    prefix: Sequence[str] = (),
    python: str = sys.executable,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run mcastd where it is expected to refuse."""
    with namespace.entered():
        return subprocess.run(
            [*prefix, python, str(PROGRAM), "/nonexistent", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            env=ENVIRONMENT | (environment or {}),
        )
