"""The machine's systemd, booted in namespaces on a copy-on-write view of its root, with the unit of mcastd as it is shipped."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Self

import grpc
import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import route_service_pb2_grpc as rs_grpc
from mcast.v1 import types_pb2 as t
from tests.testbed import Namespace
from tests.testbed.daemon import wait_until
from tests.testbed.rights import is_root

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"

SYSTEMD = Path("/lib/systemd/systemd")

START_SECONDS = 60.0

_DROP_IN = """[Service]
Environment=PYTHONPATH=/opt/mcastd:/opt/mcastd/clients/python/src:/opt/site
StandardError=append:/var/log/mcastd.log
"""
_TARGET = "[Unit]\nWants=mcastd.service\n"


def require_systemd() -> None:
    """Skip where systemd is not, or can't be booted."""
    if not SYSTEMD.exists() or shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed (apt-get install systemd; it does not become this machine's init by that)")
    if not is_root():
        pytest.skip("needs root outside of user namespaces: systemd has several users")
    if _cgroup() is None:
        pytest.skip("no writable cgroup2 file system is mounted")


class Booted:
    """A machine of its own, but for its network, which is a namespace of the test's; use it as a context."""

    def __init__(self, namespace: Namespace, service: str = "") -> None:
        """Boot it and wait until mcastd serves; `service` is more of the unit's [Service], as a drop-in has it."""
        mount = _cgroup()
        assert mount is not None
        self._stack = contextlib.ExitStack()
        try:
            self._boot(namespace, service, mount)
        except BaseException:
            self.close()
            raise

    def _boot(self, namespace: Namespace, service: str, mount: Path) -> None:
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mcastd-boot-")))
        units = directory / "units"
        shutil.copytree(
            UNITS, units, ignore=lambda _, names: [name for name in names if not name.endswith((".service", ".socket"))]
        )
        (units / "mcastd.service.d").mkdir()
        (units / "mcastd.service.d" / "test.conf").write_text(_DROP_IN + service)
        (units / "trial.target").write_text(_TARGET)
        (directory / "machine").mkdir()
        group = mount / f"mcastd-test-{os.getpid()}-{time.monotonic_ns()}"
        group.mkdir()
        self._stack.callback(_remove, group)
        spaces = ["unshare", "--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc", "--kill-child"]
        places = [str(directory / "machine"), str(ROOT), _python(), sysconfig.get_path("purelib"), str(units)]
        enter = f'echo $$ >"{group}/cgroup.procs"; exec "$@"'
        self._process = namespace.popen(
            ["sh", "-c", enter, "sh", *spaces, "sh", str(Path(__file__).with_name("boot.sh")), *places],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        self._stack.callback(self._end)
        self.pid = 0
        wait_until(self._is_booted, START_SECONDS, lambda: f"systemd does not come up: {self._output()}")
        self.channel = grpc.insecure_channel(f"unix:/proc/{self.pid}/root/run/mcastd/mcastd.sock")
        self._stack.callback(self.channel.close)
        self.routes = rs_grpc.RouteServiceStub(self.channel)
        self.wait_active()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Switch it off; nothing of it stays."""
        self._stack.close()

    # --- systemd -----------------------------------------------------------------------------------------------------

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        inside = ["nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-C", "-i", "-u", "-r", "-w/"]
        path = "PYTHONPATH=/opt/mcastd:/opt/mcastd/clients/python/src:/opt/site"
        done = subprocess.run([*inside, "env", path, *command], capture_output=True, text=True, timeout=100, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}{self.log()}"
        return done

    def show(self, name: str) -> str:
        """A property of the service."""
        return self.run("systemctl", "show", "--value", "-p", name, "mcastd").stdout.strip()

    def wait_active(self) -> None:
        """Wait until the service is up."""
        wait_until(lambda: self.show("ActiveState") == "active", START_SECONDS, lambda: f"it does not come up: {self.log()}")

    def wait_restarted(self, times: int) -> None:
        """Wait until systemd has restarted it so often by itself, and it is up."""
        wait_until(lambda: int(self.show("NRestarts")) >= times, START_SECONDS, self.log)
        self.wait_active()

    # --- the daemon --------------------------------------------------------------------------------------------------

    def file(self, path: str) -> Path:
        """A file of it, as this machine sees it."""
        return Path(f"/proc/{self.pid}/root{path}")

    def log(self) -> str:
        """What the daemon has logged."""
        path = self.file("/var/log/mcastd.log")
        return path.read_text() if path.exists() else ""

    def keeper(self) -> int:
        """Pid of the keeper, as this machine sees it; 0 = there is none."""
        return next((pid for pid, command in self._processes() if "mcastd.cli" in command), 0)

    def server(self) -> int:
        """Pid of the server; 0 = there is none."""
        return next((pid for pid, command in self._processes() if "mcastd.runtime.server" in command), 0)

    def put(self, *routes: t.Route) -> None:
        """PutRoutes, when there is a server: one that was being replaced may have taken the call with it."""

        def done() -> bool:
            try:
                result = self.routes.PutRoutes(rs.PutRoutesRequest(routes=routes), timeout=30, wait_for_ready=True).result
            except grpc.RpcError as exc:
                if exc.code() is grpc.StatusCode.UNAVAILABLE:
                    return False
                raise
            assert result.failed == 0, result
            return True

        wait_until(done, 30, self.log)

    def _processes(self) -> list[tuple[int, str]]:
        found = []
        namespace = Path(f"/proc/{self.pid}/ns/pid").readlink()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "ns/pid").readlink() == namespace:
                    found.append((int(path.name), (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()))
        return sorted(found)

    # --- booting -----------------------------------------------------------------------------------------------------

    def _is_booted(self) -> bool:
        assert self._process.poll() is None, f"it has ended: {self._output()}"
        if not self.pid:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            for child in children:
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                        self.pid = int(child)
        if not self.pid:
            return False
        done = self.run("systemctl", "show", "--value", "-p", "LoadState", "mcastd", check=False)
        return done.returncode == 0 and done.stdout.strip() == "loaded"

    def _output(self) -> str:
        if self._process.poll() is None:
            self._process.kill()
        output: bytes = self._process.communicate(timeout=10)[0]
        return output.decode(errors="replace")

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.communicate(timeout=30)


def _python() -> str:
    """The prefix of a Python of the tests' version: the machine's own where it is one, else theirs."""
    asked = ["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    return "/usr" if found == [str(number) for number in sys.version_info[:2]] else sys.base_prefix


def _cgroup() -> Path | None:
    """The group of the tests in a cgroup2 file system that can be written."""
    mounts = re.findall(r"^\S+ \S+ \S+ (\S+) (\S+) (\S+) .*- cgroup2 ", Path("/proc/self/mountinfo").read_text(), re.MULTILINE)
    own = re.search(r"^0::(\S+)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    for _, point, options in mounts:
        path = Path(point) / (own.group(1).lstrip("/") if own else "")
        if "rw" in options.split(",") and os.access(path, os.W_OK):
            return path
    return None


def _remove(group: Path) -> None:
    """Remove a group and all below it, once their processes are gone."""
    below = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)

    def gone() -> bool:
        for path in [*below, group]:
            with contextlib.suppress(OSError):
                path.rmdir()
        return not group.exists()

    wait_until(gone, 20)
