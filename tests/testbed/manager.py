"""A service manager as a daemon sees it: systemd's $NOTIFY_SOCKET, its store of file descriptors, and what a start gets of them.

What it does is what systemd does (src/core/service.c: service_notify_message, service_add_fd_store; FILE_DESCRIPTOR_STORE):
- FDSTORE=1 adds each descriptor under FDNAME; one that is in the store already (the same open file, kcmp(2)) is dropped,
  whatever the name; two different ones may have one name; beyond FileDescriptorStoreMax= they are dropped and a warning is
  logged, of which the daemon hears nothing;
- FDSTOREREMOVE=1 removes all of one name; without FDPOLL=0 a descriptor goes by itself once it has an error or hangs up;
- a start gets them as 3, 4, 5 and so on, the last one stored first, with LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

STORE_VARIABLE = "MCASTD_FD_STORE"
"""What the unit sets beside FileDescriptorStoreMax=: systemd says it by itself ($FDSTORE) since version 254."""

_HIGH = 3000
"""Descriptors for the next start are from here on: none is in the way of those that it gets."""

_FDS_MAX = 253  # SCM_MAX_FD, net/scm.h
_SYS_KCMP = {"x86_64": 312, "aarch64": 272}
_KCMP_FILE = 0

_libc = ctypes.CDLL(None, use_errno=True)


class Stored(NamedTuple):
    """One descriptor of the store."""

    name: str
    fd: int
    polled: bool


class Told(NamedTuple):
    """One message of the daemon."""

    at: float
    """time.monotonic()."""
    pid: int
    """Whose it was."""
    lines: tuple[str, ...]
    """READY=1, STATUS=..., and so on."""
    fds: int
    """How many descriptors came with it."""


class FakeManager:
    """The manager of one service; use it as a context. The descriptors in its store are its own, so tables live on in it."""

    def __init__(self, store_max: int = 512) -> None:
        """`store_max` is FileDescriptorStoreMax=; 0 = there is no store, which the daemon sees too."""
        self.store_max = store_max
        self.told: list[Told] = []
        """All that it was told, in order."""
        self.refused: list[str] = []
        """Names of what it had no room for."""
        self._store: list[Stored] = []
        self._made = tempfile.TemporaryDirectory(prefix="mcastd-manager-")
        Path(self._made.name).chmod(0o755)
        self.path = Path(self._made.name) / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(self.path))
        self.path.chmod(0o777)
        self._passed: list[int] = []
        self._changed = threading.Condition()
        self._paused = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closed = False
        self._thread = threading.Thread(target=self._read, name="service manager", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything, the store too."""
        if self._closed:
            return
        self._closed = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self.drop_all()
        self._let_go()
        self._socket.close()
        os.close(self._wake)
        self._made.cleanup()

    # --- starting ----------------------------------------------------------------------------------------------------

    def options(self, **more: Any) -> dict[str, Any]:
        """Arguments of McastdProcess, KeeperBench or Router for a start with the store as it is now.

        `more` are further ones; its `environment` and `prefix` are put together with the manager's. Call it for each start anew.
        """
        self._let_go()
        with self._changed:
            for one in self._store:
                self._passed.append(fcntl.fcntl(one.fd, fcntl.F_DUPFD_CLOEXEC, _HIGH))
            names = [one.name for one in self._store]
        environment = {"NOTIFY_SOCKET": str(self.path), **more.pop("environment", {})}
        if self.store_max:
            environment[STORE_VARIABLE] = str(self.store_max)
        prefix = [*more.pop("prefix", ())]
        if names:
            environment |= {"LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}
            moves = " ".join(f"{to}<&{fd}-" for to, fd in enumerate(self._passed, 3))
            prefix = ["bash", "-c", f'exec {moves}; export LISTEN_PID=$$; exec "$@"', "bash", *prefix]
        return {"prefix": prefix, "environment": environment, "pass_fds": tuple(self._passed), **more}

    def stop(self, process: subprocess.Popen[Any], number: int = signal.SIGTERM, seconds: float = 20) -> int:
        """Send a signal to the daemon and wait for its end, then kill what is left of it, as KillMode=control-group does."""
        children = _children(process.pid)
        process.send_signal(number)
        status = process.wait(seconds)
        for pidfd in children:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], seconds)
            os.close(pidfd)
        return status

    # --- the store ---------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Sorted names of what is in the store."""
        with self._changed:
            return sorted(one.name for one in self._store)

    def get(self, name: str) -> int:
        """The descriptor of a name, which stays the store's; KeyError if there is none."""
        with self._changed:
            for one in self._store:
                if one.name == name:
                    return one.fd
        raise KeyError(name)

    def put(self, name: str, fd: int) -> None:
        """Put a copy of a descriptor into the store, as if the daemon had sent it."""
        with self._changed:
            self._add(name, os.dup(fd), polled=False)
            self._changed.notify_all()

    def remove(self, name: str) -> None:
        """Lose what is stored under a name."""
        with self._changed:
            self._remove(name)
            self._changed.notify_all()

    def drop_all(self) -> None:
        """Lose all, as at a real stop: what nobody else has is closed."""
        with self._changed:
            while self._store:
                os.close(self._store.pop().fd)

    # --- what it is told ---------------------------------------------------------------------------------------------

    def states(self) -> list[str]:
        """Every line that it was told, but for those about the store."""
        with self._changed:
            return [line for one in self.told for line in one.lines if not line.startswith("FD")]

    def wait_for(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        """Wait until something about it holds; AssertionError if it never does."""
        until = time.monotonic() + seconds
        while not condition():
            with self._changed:
                self._changed.wait(0.05)
            assert time.monotonic() < until, f"never came; told: {self.states()}; stored: {self.names()}"

    def wait_state(self, line: str, seconds: float = 20) -> None:
        """Wait until it has been told this line (READY=1)."""
        self.wait_for(lambda: line in self.states(), seconds)

    def forget(self) -> None:
        """Forget what it was told so far."""
        with self._changed:
            self.told.clear()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Read nothing meanwhile: its queue fills."""
        self._paused = True
        os.eventfd_write(self._wake, 1)
        try:
            yield
        finally:
            self._paused = False
            os.eventfd_write(self._wake, 1)

    # --- its own loop ------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        while not self._closed:
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            if not self._paused:
                poll.register(self._socket, select.POLLIN)
            with self._changed:
                polled = {one.fd: one for one in self._store if one.polled}
            for fd in polled:
                poll.register(fd, 0)
            for fd, _ in poll.poll():
                if fd == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wake)
                elif fd == self._socket.fileno():
                    self._take()
                else:
                    self._lose(polled[fd])

    def _take(self) -> None:
        try:
            room = socket.CMSG_SPACE(_FDS_MAX * 4) + socket.CMSG_SPACE(12)
            data, control, _, _ = self._socket.recvmsg(1 << 16, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        fds, pid = array("i"), 0
        for level, kind, body in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(body)
            elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                pid = array("i", body)[0]
        lines = tuple(data.decode().splitlines())
        with self._changed:
            self._let_go()  # It has started.
            self.told.append(Told(time.monotonic(), pid, lines, len(fds)))
            self._obey(lines, fds)
            self._changed.notify_all()

    def _obey(self, lines: tuple[str, ...], fds: "array[int]") -> None:
        name = next((line.removeprefix("FDNAME=") for line in lines if line.startswith("FDNAME=")), "")
        if "FDSTOREREMOVE=1" in lines and name:
            self._remove(name)
        if "FDSTORE=1" not in lines:
            for fd in fds:
                os.close(fd)
            return
        for fd in fds:
            self._add(name or "stored", fd, polled="FDPOLL=0" not in lines)

    def _add(self, name: str, fd: int, *, polled: bool) -> None:
        if any(_same_file(one.fd, fd) for one in self._store):
            os.close(fd)
        elif len(self._store) >= self.store_max:
            self.refused.append(name)
            os.close(fd)
        else:
            self._store.insert(0, Stored(name, fd, polled))

    def _remove(self, name: str) -> None:
        for one in [one for one in self._store if one.name == name]:
            self._store.remove(one)
            os.close(one.fd)

    def _lose(self, one: Stored) -> None:
        with self._changed:
            if one in self._store:
                self._store.remove(one)
                os.close(one.fd)
                self._changed.notify_all()

    def _let_go(self) -> None:
        while self._passed:
            os.close(self._passed.pop())


def _same_file(a: int, b: int) -> bool:
    """Whether two descriptors are of one open file, as systemd asks (same_fd, src/basic/fd-util.c)."""
    pid = os.getpid()
    found = _libc.syscall(_SYS_KCMP[os.uname().machine], pid, pid, _KCMP_FILE, a, b)
    if found < 0:
        number = ctypes.get_errno()
        if number not in {errno.ENOSYS, errno.EPERM}:
            raise OSError(number, os.strerror(number))
        return os.path.samestat(os.fstat(a), os.fstat(b))
    return bool(found == 0)


def _children(pid: int) -> list[int]:
    """Descriptors of the processes that a process has started and not waited for."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            found.append(os.pidfd_open(int(child)))
    return found
