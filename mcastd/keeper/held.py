"""Descriptors that are held for the server: join sockets, whose memberships last as long as somebody has them.

Nothing is known of them here but a name, a note for the next server, and that each is a UDP socket. Name and descriptor are what
a service manager's store of descriptors takes (sd_notify(3), FDNAME: no colon, no control character).
"""

import logging
import re
import resource
import socket
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mcastd.keeper.channel import ChannelError, Message, discard, encode
from mcastd.keeper.fdstore import NoShelf, Shelf
from mcastd.model.errors import McastdError, Reason

HELD_MAX = 4096
"""Descriptors held at once; where fewer files may be open, a quarter of those."""

NOTE_MAX = 16_384
"""Characters of one note, all ASCII: with its name it fits into a message."""

NOTES_MAX = 4 << 20
"""Characters of all notes together: the keeper stays small."""

_NAME = re.compile(r"[a-z0-9-]{1,64}")

_log = logging.getLogger(__name__)


class _One(NamedTuple):
    sock: socket.socket
    note: str


class HeldRequest(NamedTuple):
    """Body of STORE_FD."""

    name: str
    note: str


class Held:
    """What is held, in the order of its coming."""

    def __init__(self, most: int | None = None) -> None:
        """Hold nothing yet; `most` None = HELD_MAX, or as the limit on open files allows."""
        self._most = most
        self._held: dict[str, _One] = {}
        self._characters = 0
        self._shelf: Shelf = NoShelf()

    def put_on(self, shelf: Shelf) -> None:
        """Have copies of all, and of what is to come, outlive the process."""
        self._shelf = shelf
        for name, one in self._held.items():
            shelf.add(name, one.sock.fileno(), spare=True)

    def descriptors(self) -> list[tuple[str, int]]:
        """All by name."""
        return [(name, one.sock.fileno()) for name, one in self._held.items()]

    def names(self) -> list[str]:
        """Names of all."""
        return list(self._held)

    def note(self, name: str) -> str | None:
        """The note of what is held under a name."""
        one = self._held.get(name)
        return one.note if one is not None else None

    def __len__(self) -> int:
        """How many."""
        return len(self._held)

    def store(self, request: HeldRequest, fds: tuple[int, ...]) -> None:
        """Hold a descriptor, which is ours or closed from now on; without one, replace the note of what is held.

        McastdError TOO_MANY_ITEMS, NOT_FOUND or INVALID_VALUE.
        """
        try:
            old = self._held.get(request.name)
            self._check(request, old, len(fds))
            sock = old.sock if old is not None else _udp_socket(fds[0])
        except McastdError:
            discard(fds)
            raise
        self._characters += len(request.note) - (len(old.note) if old is not None else 0)
        self._held[request.name] = _One(sock, request.note)
        self._shelf.add(request.name, sock.fileno(), spare=True)

    def drop(self, name: str) -> None:
        """Close what is held under a name, if anything is."""
        one = self._held.pop(name, None)
        if one is not None:
            self._characters -= len(one.note)
            self._shelf.remove(name)
            one.sock.close()

    def messages(self) -> Iterator[tuple[bytes, int]]:
        """A STORED message for each, with its descriptor, which stays ours. Made when it is asked for: they may be thousands."""
        for name, one in list(self._held.items()):
            yield encode(Message.STORED, body={"name": name, "note": one.note}), one.sock.fileno()

    def close_all(self) -> None:
        """Let go of everything: what nobody else holds is left by the kernel."""
        for name in list(self._held):
            self.drop(name)

    def _check(self, request: HeldRequest, old: _One | None, fds: int) -> None:
        name = request.name
        if old is None and fds == 0:
            raise McastdError(Reason.NOT_FOUND, f"nothing is held as {name!r} of which this could be the note", name=name)
        if old is not None and fds:
            raise McastdError(Reason.INVALID_VALUE, f"something is held as {name!r} already: drop it first", name=name)
        if fds > 1:
            raise McastdError(Reason.INVALID_VALUE, f"{fds} descriptors can't be held as {name!r}: send one", name=name)
        most = self._limit()
        if old is None and len(self._held) >= most:
            raise McastdError(Reason.TOO_MANY_ITEMS, f"{most} descriptors are held, which is the limit", limit=most)
        if self._characters + len(request.note) - (len(old.note) if old is not None else 0) > NOTES_MAX:
            raise McastdError(Reason.TOO_MANY_ITEMS, f"the notes would be longer than {NOTES_MAX} characters", limit=NOTES_MAX)

    def _limit(self) -> int:
        """Each may be open twice for a while, on its way to a new server, beside everything else."""
        if self._most is None:
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            self._most = HELD_MAX if soft == resource.RLIM_INFINITY else min(HELD_MAX, soft // 4)
        return self._most


def take_request(values: Mapping[str, Any]) -> HeldRequest:
    """Name and note of a STORE_FD; ChannelError if they can't be one."""
    note = values.get("note")
    if not isinstance(note, str) or len(note) > NOTE_MAX or not note.isascii():
        raise ChannelError(f"a note has at most {NOTE_MAX} ASCII characters")
    return HeldRequest(take_name(values), note)


def take_name(values: Mapping[str, Any]) -> str:
    """Name of what is held or to be held; ChannelError if it can't be one."""
    name = values.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ChannelError(f"{name!r} is not a name for a descriptor")
    return name


def _udp_socket(fd: int) -> socket.socket:
    """Wrap a descriptor; McastdError INVALID_VALUE if it is anything but a UDP socket."""
    try:
        sock = socket.socket(fileno=fd)  # asks the kernel for family and type
    except OSError as exc:
        raise McastdError(Reason.INVALID_VALUE, f"what is no socket can't be held: {exc.strerror}") from exc
    if sock.type != socket.SOCK_DGRAM or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        text = f"only UDP sockets can be held, not family {sock.family}, type {sock.type}"
        sock.detach()
        raise McastdError(Reason.INVALID_VALUE, text)
    return sock
