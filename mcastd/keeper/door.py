"""The door: a Unix socket at which servers come by themselves, where another container runs them (`mcastd keeper`).

Who comes is asked of the kernel (SO_PEERCRED, unix(7)): only the server's user is let in. There is no signal to such a server and
no exit status: the end of its channel is its end. It may keep its copies of the sockets for as long as calls under way have time
to end; the lock of the state is what keeps its successor from working beside it.
"""

import contextlib
import logging
import os
import selectors
import signal
import socket
import stat
import struct
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mcastd.keeper.channel import Channel
from mcastd.keeper.failure import EX_CONFIG, CannotRun
from mcastd.keeper.places import Lock
from mcastd.keeper.process import Server
from mcastd.model.settings import Settings

BACKLOG = 8

REFUSAL_SECONDS = 1.0
"""Between two log lines about those who are not let in."""

_UCRED = struct.Struct("=iII")  # struct ucred, linux/socket.h

_log = logging.getLogger(__name__)


class DoorAddress(NamedTuple):
    """Where the door is, and who can reach it."""

    path: str
    mode: int = 0o600
    """Permission bits of the socket, which belongs to the server's user."""
    gid: int | None = None
    """Its group; None = the server's own."""


class ConnectedServer(Server):
    """A server that has come by itself."""

    def kill(self, number: signal.Signals) -> None:
        """Hang up where a child would be killed; it is told of nothing before that."""
        if number is signal.SIGKILL and self.channel is not None:
            with contextlib.suppress(OSError):  # it has hung up itself
                self.channel.hang_up()

    def wait(self) -> int:
        """There is none to take."""
        return 0


class Door:
    """The socket, its lock, and who may come."""

    def __init__(self, address: DoorAddress, settings: Settings, handed: Sequence[int] = ()) -> None:
        """Make it; CannotRun if it can't be, or somebody else has it. `handed`: what `descriptors` of an earlier image were."""
        self._path, self._uid = address.path, settings.uid
        self._selector: selectors.BaseSelector | None = None
        self._refused, self._told_at = 0, float("-inf")
        remedy = "choose another socket with --channel"
        if handed:
            self._sock = socket.socket(fileno=handed[0])
            self._sock.setblocking(False)
            self._lock = Lock(f"{self._path}.lock", remedy, handed[1])
            return
        os.umask(0o022)
        make_directory(os.path.dirname(self._path))
        self._lock = Lock(f"{self._path}.lock", remedy)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            self._bind(address, settings, remedy)
        except BaseException:
            self.leave()
            raise

    def _bind(self, address: DoorAddress, settings: Settings, remedy: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(self._path).st_mode):
                raise CannotRun(EX_CONFIG, f"{self._path} is no socket: remove it, or {remedy}")
            os.unlink(self._path)  # left behind: the lock is ours
        before = os.umask(0o777)
        try:
            self._sock.bind(self._path)
        except OSError as exc:
            raise CannotRun(EX_CONFIG, f"the socket {self._path} can't be made: {exc.strerror}; {remedy}") from exc
        finally:
            os.umask(before)
        try:
            if (settings.uid, settings.gid) != (os.geteuid(), os.getegid()) or address.gid is not None:
                os.chown(self._path, settings.uid, settings.gid if address.gid is None else address.gid)
        except PermissionError as exc:
            if not address.mode & stat.S_IWOTH:
                text = f"the socket {self._path} can't be given to {settings.user}: {exc.strerror}; give the keeper CAP_CHOWN, "
                text += "or write mode=0666 where only the server's container reaches it: its user is checked in any case"
                raise CannotRun(EX_CONFIG, text) from exc
            _log.info("the socket stays the keeper's own, since it is open to all", extra={"path": self._path})
        os.chmod(self._path, address.mode)
        self._sock.listen(BACKLOG)

    def open(self, selector: selectors.BaseSelector, take: Callable[[Server], str | None]) -> None:
        """Let servers in from now on, each to be taken; or `take` says why not."""
        self._selector = selector
        selector.register(self._sock, selectors.EVENT_READ, lambda: self._let_in(take))
        _log.info("waiting for a server", extra={"path": self._path, "uid": self._uid})

    def descriptors(self) -> list[int]:
        """Socket and lock, for the next image of this process."""
        return [self._sock.fileno(), self._lock.fileno()]

    def keep(self) -> None:
        """The keeper starts; nothing that was made is taken back any more."""

    def close(self) -> None:
        """Let nobody in any more."""
        if self._selector is not None:
            self._selector.unregister(self._sock)
            self._selector = None

    def leave(self) -> None:
        """Remove socket and lock."""
        self.close()
        self._sock.close()
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.lstat(self._path).st_mode):
                os.unlink(self._path)
        self._lock.release()

    def _let_in(self, take: Callable[[Server], str | None]) -> None:
        """One at a time: the kernel's sockets have their turn in between."""
        try:
            sock, _ = self._sock.accept()
        except OSError as exc:  # it has left already, or there are too many files
            _log.debug("nobody is at the door any more", extra={"error": exc.strerror})
            return
        sock.setblocking(False)
        pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid != self._uid:
            self._refuse(sock, pid, uid, gid, f"only uid {self._uid} is let in (--user)")
            return
        why_not = take(ConnectedServer(Channel(sock), pid, time.monotonic()))
        if why_not is not None:
            self._refuse(sock, pid, uid, gid, why_not)

    def _refuse(self, sock: socket.socket, pid: int, uid: int, gid: int, why: str) -> None:
        sock.close()
        self._refused += 1
        now = time.monotonic()
        if now - self._told_at >= REFUSAL_SECONDS:
            who = {"pid": pid, "uid": uid, "gid": gid}
            _log.warning("somebody is not let in", extra={**who, "why": why, "refused": self._refused, "path": self._path})
            self._told_at, self._refused = now, 0


def make_directory(path: str) -> None:
    """Make a directory that somebody else may have made; CannotRun if it can't be."""
    try:
        os.makedirs(path, 0o755, exist_ok=True)
    except OSError as exc:
        raise CannotRun(EX_CONFIG, f"the directory {path} can't be made: {exc.strerror}; make it, or choose another") from exc
