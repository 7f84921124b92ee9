"""The service manager's store of descriptors: sd_notify(3) with FDSTORE=1, and what a start finds of it (LISTEN_FDS).

What is in the store lives on when this process ends, and comes back to the next one. systemd's manual names it
FileDescriptorStoreMax=; beyond that number it drops what it is sent without telling us, so we count.
Nothing here blocks: what the manager does not take now is sent later.
"""

import errno
import logging
import os
import re
import socket
import time
from array import array
from collections import deque
from collections.abc import Iterable, Mapping, MutableMapping
from typing import NamedTuple, Protocol

from mcastd.keeper.activation import FIRST_FD

CAPACITY_VARIABLES = ("FDSTORE", "MCASTD_FD_STORE")
"""How many descriptors the store takes: systemd sets the first since version 254, a unit for older ones the second."""

SPARE = 64
"""Room (or a quarter of the store, if that is less) that is left for routing tables: they matter more than a join."""

BURST = 64
"""Messages sent in a row before the kernel's sockets have their turn."""

RETRY = 0.02
"""Seconds after which a manager that is behind is tried again."""

_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_LATER = {errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS}
"""Its queue is full, or too many descriptors are on their way (SCM_RIGHTS, unix(7))."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")

_log = logging.getLogger(__name__)


class Named(NamedTuple):
    """A descriptor that this process was started with."""

    name: str
    fd: int


class Shelf(Protocol):
    """Where the keeper's parts put copies of their descriptors, so that they outlive the process."""

    def add(self, name: str, fd: int, *, spare: bool = False) -> None:
        """Keep a copy under a name, which is free; `spare` = it may be left out where room is scarce."""

    def remove(self, name: str) -> None:
        """Let go of what is kept under a name, if anything is."""


class NoShelf:
    """Where nothing outlives the process."""

    def add(self, name: str, fd: int, *, spare: bool = False) -> None:
        """Do nothing."""

    def remove(self, name: str) -> None:
        """Do nothing."""


class _Wanted(NamedTuple):
    name: str
    fd: int | None
    """A descriptor to be sent, which is the queue's own; None = remove what has the name."""


class FdStore:
    """What this service has in the manager's store, by name."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Use the store that the environment tells of; without one nothing is ever sent."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        self.capacity = _capacity(environ) if self._address else 0
        self._stored: set[str] = set()
        self._left_out: dict[str, tuple[int, bool]] = {}
        """What there was no room for; the descriptors are their owners'."""
        self._queue: deque[_Wanted] = deque()
        self._socket: socket.socket | None = None
        self._retry_at: float | None = None
        self._told_full = self._told_gone = False
        self._frozen = False

    @property
    def active(self) -> bool:
        """Whether there is a store."""
        return self.capacity > 0

    @property
    def stored(self) -> set[str]:
        """Names of what is in the store, by all that is known here."""
        return set(self._stored)

    @property
    def sent(self) -> set[str]:
        """Of these, what does not wait to be sent."""
        return self._stored - {one.name for one in self._queue}

    @property
    def removals(self) -> list[str]:
        """Names of which the manager has yet to hear that what it has under them goes."""
        return [one.name for one in self._queue if one.fd is None]

    def found(self, names: Iterable[str]) -> None:
        """These are in the store already."""
        self._stored.update(names)

    def add(self, name: str, fd: int, *, spare: bool = False) -> None:
        """Store a copy under a name; what is stored already is not sent again."""
        if not self.active or self._frozen or name in self._stored:
            return
        if len(self._stored) >= self.capacity - (min(SPARE, self.capacity // 4) if spare else 0):
            self._left_out[name] = (fd, spare)
            self._say_full(name)
            return
        self._stored.add(name)
        self._queue.append(_Wanted(name, os.dup(fd)))
        self.flush()

    def remove(self, name: str) -> None:
        """Remove a name, if it is stored."""
        if self._frozen or self._left_out.pop(name, None) is not None or name not in self._stored:
            return
        self._stored.discard(name)
        self._remove(name)
        self._let_in()

    def give_up(self, name: str) -> None:
        """Remove what the store has under a name that is none of ours."""
        if self.active and _NAME.fullmatch(name):
            self._remove(name)

    def freeze(self) -> None:
        """What is stored stays, whatever is closed from now on: this process ends, the next one goes on."""
        self._frozen = True

    def empty(self) -> None:
        """Remove all: this is a real end."""
        for name in list(self._stored):
            self.remove(name)

    def next_at(self) -> float | None:
        """When `flush` is to be called again."""
        return self._retry_at

    def flush(self) -> bool:
        """Send what the manager takes now; whether that was all."""
        self._retry_at = None
        for _ in range(BURST):
            if not self._queue:
                return True
            wanted = self._queue[0]
            try:
                self._send(wanted)
            except OSError as exc:
                if exc.errno not in _LATER:
                    self._say_gone(exc)
                self._retry_at = time.monotonic() + (RETRY if exc.errno in _LATER else 1.0)
                return False
            self._told_gone = False
            self._queue.popleft()
            if wanted.fd is not None:
                os.close(wanted.fd)
        if self._queue:
            self._retry_at = time.monotonic()
        return not self._queue

    def finish(self, seconds: float) -> bool:
        """Wait until all is sent, at most so long: for the end, when no upcall waits any more. Whether it was."""
        until = time.monotonic() + seconds
        while not self.flush():
            if time.monotonic() >= until:
                _log.error("the service manager does not take what is to be stored", extra={"waiting": len(self._queue)})
                return False
            time.sleep(RETRY)
        return True

    def close(self) -> None:
        """Forget what waits; the store itself is the manager's."""
        while self._queue:
            fd = self._queue.popleft().fd
            if fd is not None:
                os.close(fd)
        self._hang_up()

    def _remove(self, name: str) -> None:
        waiting = [one for one in self._queue if one.name == name]
        for wanted in waiting:
            if wanted.fd is not None:  # The manager does not have it; what had the name before is removed by what waits before.
                self._queue.remove(wanted)
                os.close(wanted.fd)
        if not waiting:
            self._queue.append(_Wanted(name, None))
            self.flush()

    def _let_in(self) -> None:
        """Store what was left out, now that there is room."""
        waiting, self._left_out = self._left_out, {}
        for name, (fd, spare) in waiting.items():
            self.add(name, fd, spare=spare)

    def _send(self, wanted: _Wanted) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            address = self._address
            try:
                self._socket.connect("\0" + address[1:] if address.startswith("@") else address)
            except OSError:
                self._hang_up()
                raise
        kind = "FDSTOREREMOVE=1" if wanted.fd is None else "FDSTORE=1\nFDPOLL=0"
        control = [] if wanted.fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [wanted.fd]))]
        try:
            self._socket.sendmsg([f"{kind}\nFDNAME={wanted.name}".encode()], control, socket.MSG_NOSIGNAL)
        except OSError as exc:
            if exc.errno not in _LATER:
                self._hang_up()  # A manager that was started again has another socket.
            raise

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say_full(self, name: str) -> None:
        if self._told_full:
            return
        self._told_full = True
        _log.error(
            "the service manager's store of descriptors is too small: what is left out ends with this process, "
            "a routing table with all of its routes; raise FileDescriptorStoreMax= in the unit",
            extra={"capacity": self.capacity, "left_out": name},
        )

    def _say_gone(self, exc: OSError) -> None:
        if not self._told_gone:
            self._told_gone = True
            _log.error(
                "the service manager can't be given descriptors", extra={"error": exc.strerror, "waiting": len(self._queue)}
            )


def _capacity(environ: Mapping[str, str]) -> int:
    for variable in CAPACITY_VARIABLES:
        text = environ.get(variable, "")
        if text.isascii() and text.isdigit():
            return int(text)
        if text:
            _log.warning("the size of the store of descriptors is not a number", extra={"variable": variable, "value": text})
    return 0


def take_named(environ: MutableMapping[str, str]) -> list[Named]:
    """What the manager has given this process, by name (sd_listen_fds_with_names(3)); the environment is rid of it."""
    count, names = environ.get("LISTEN_FDS", ""), environ.get("LISTEN_FDNAMES", "").split(":")
    ours = environ.get("LISTEN_PID") == str(os.getpid()) and count.isdecimal()
    for variable in _VARIABLES:
        environ.pop(variable, None)
    if not ours:
        return []
    taken = []
    for at in range(int(count)):
        name = names[at] if at < len(names) else ""
        if _is_open(FIRST_FD + at):
            taken.append(Named(name, FIRST_FD + at))
    return taken


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
