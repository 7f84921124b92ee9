"""The channel between keeper and server: the closed list of messages, their layout, and one end of the socket pair.

A SOCK_SEQPACKET pair keeps message borders, so a message is one header, one body and any descriptors. Bodies are JSON
objects, but for the records of upcalls, which are packed: there may be many thousands of them in a second.
"""

import contextlib
import json
import os
import socket
import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.interface import IFNAMSIZ, VIFS_MAX

NO_TEMPLATE = bytes(8)
"""Name of no template."""

CHANNEL_FD = 3
"""Descriptor at which a server finds its end."""

MESSAGE_MAX = 65_536
"""Bytes of one message; far under the default SO_SNDBUF, so that one always fits."""

FDS_MAX = 2
"""Descriptors in one message: a table's two families."""

RECORDS_MAX = 256
"""Upcall records in one message."""

_ROOM = socket.CMSG_SPACE(253 * array("i").itemsize)
"""For all the descriptors that one message can have (SCM_MAX_FD, include/net/scm.h): the kernel closes those that find none."""

_QUEUE_MAX = 600
"""More than the messages that may wait at one end: net.unix.max_dgram_qlen is 512, and SO_SNDBUF has no room for more."""

PROTOCOL = 1
"""Of what the messages mean; it goes up with every change. Keeper and server of different ones can't work together."""

EX_PROTOCOL = os.EX_PROTOCOL
"""76: exit code of a server that finds a keeper of another protocol."""

EX_HANDED_OVER = 10
"""Exit code of a server that has come by itself (`mcastd server`), when another has taken over."""

_VERSION = 1
_HEADER = struct.Struct("!BBHI")
_RECORD = struct.Struct("!IBBH16s16sdB8s")
RECORD_SIZE = _RECORD.size

_NAME_MAX = 4 * (IFNAMSIZ - 1)
"""Bytes of an interface name as the daemon writes it: what is no UTF-8 becomes \\xff, four for one (kernel/links.py)."""

VifEntries = tuple[tuple[int, int, str], ...]
"""VIF number, ifindex, name."""


class Message(IntEnum):
    """All that is ever said on the channel."""

    HELLO = 1
    """Keeper: settings and how many SOCKET messages follow; what a server has waited for since PREPARE."""
    SOCKET = 2
    """Keeper: table, family, VIF map, and the multicast routing socket itself."""
    UPCALLS = 3
    """Keeper: up to RECORDS_MAX packed records."""
    LOSSES = 4
    """Keeper: how many upcalls of a table and family were lost since the last such message, and where."""
    REPLY = 5
    """Keeper: the request with the same number is done, or why not."""
    SHUTDOWN = 6
    """Keeper: end in order. Server: it is ending because a client asked, and the keeper shall end too."""
    READY = 7
    """Server: it serves."""
    VIF_MAP = 8
    """Server: the VIF map of a table and family, whole. Replied when the upcalls queued until then are sent."""
    OPEN_TABLE = 9
    """Server: open the sockets of a table; the reply carries them, one or two: their families tell them apart."""
    CLOSE_TABLE = 10
    """Server: close the sockets of a table; its kernel entries go with the last copy."""
    TEMPLATES = 11
    """Server: changes of the templates of a table and family, or a part of a whole new set of them (keeper/templates.py).
    Replied when the upcalls answered by what was there before are sent."""
    LEARNED = 12
    """Server: by how many the learned entries of templates differ from what the keeper counts."""
    STORE_FD = 13
    """Server: hold the descriptor under this name, with this note (text), until it is dropped; again = another note alone."""
    DROP_FD = 14
    """Server: close what is held under this name."""
    STORED = 15
    """Keeper: one held descriptor with its name and note; after the SOCKETs of HELLO, which says how many there are."""
    OPEN_CONTROL = 16
    """Server: open a control socket of this kind and family; the reply carries it."""
    RULE = 17
    """Server: add or delete a policy rule (iif to table) of a family."""
    RUN_ACTION = 18
    """Server: run the action script with this reason and environment, after those that wait."""
    RELOAD = 19
    """Keeper: it was asked (SIGHUP) to have the configuration read again; the number of a request tells one from the next."""
    PREPARE = 20
    """Keeper: its protocol, the settings, the server's seat; the first message to each server, which is to prepare itself."""
    PREPARED = 21
    """Server: it waits for HELLO; its protocol, the tables it wants, and whether it takes over or only stands by."""
    TELL_TEMPLATES = 30
    """Server: tell some of the templates in force of a table and family, from a place on (keeper/templates.py)."""
    HAND_OVER = 22
    """Keeper: end in order and leave everything to the server in this seat; the end of the channel says that it is done."""
    PING = 26
    """Keeper: answer with the same number when event loop, executor and the kernel's socket have all had a turn."""
    PONG = 27
    """Server: they have."""
    NOTIFY = 28
    """Server: how it does, in words for the service manager; whether it reads its configuration; the last RELOAD that is done."""


class ChannelError(Exception):
    """The other end sent something that is not in the list; the channel is of no use any more."""


class Frame(NamedTuple):
    """One message as received; whoever takes it owns its descriptors."""

    message: Message
    request: int
    """Number that a reply repeats; 0 = no reply wanted."""
    body: bytes
    fds: tuple[int, ...]

    def values(self) -> dict[str, Any]:
        """The JSON body."""
        return parse_body(self.body)


class UpcallRecord(NamedTuple):
    """One upcall of the kernel: a packet without an entry, or on the wrong interface."""

    table: int
    family: Family
    kind: int
    """im_msgtype of struct igmpmsg: 1 NOCACHE, 2 WRONGVIF (linux/mroute.h)."""
    vif: int
    group: bytes
    source: bytes
    time: float
    """When the keeper read it, seconds since the epoch."""
    answer: int = 0
    """What the keeper did about it (model.event.Answer)."""
    template: bytes = NO_TEMPLATE
    """Name of the template that it found."""


class Losses(NamedTuple):
    """Upcalls of one table and family that nobody will hear of."""

    table: int
    family: Family
    kernel: int
    """Dropped by the kernel because the socket's buffer was full (SO_RXQ_OVFL)."""
    keeper: int
    """Dropped by the keeper because no server took them in time."""


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; ChannelError if it is none."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise ChannelError(f"the body is not JSON: {exc}") from exc
    if not isinstance(values, dict):
        raise ChannelError("the body is not a JSON object")
    return values


def encode(message: Message, request: int = 0, body: Mapping[str, object] | bytes = b"{}") -> bytes:
    """One message without its descriptors; ValueError if it is too long."""
    packed = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    if len(packed) > MESSAGE_MAX - _HEADER.size:
        raise ValueError(f"a {message.name} message of {len(packed)} bytes is longer than {MESSAGE_MAX}")
    return _HEADER.pack(_VERSION, message, 0, request) + packed


def decode(data: bytes, fds: tuple[int, ...] = ()) -> Frame:
    """One message; ChannelError if it is none of ours."""
    if len(data) < _HEADER.size:
        raise ChannelError(f"a message of {len(data)} bytes has no header")
    version, number, reserved, request = _HEADER.unpack_from(data)
    if version != _VERSION or reserved:
        raise ChannelError(f"the header is of version {version}, not {_VERSION}: keeper and server are of different versions")
    try:
        message = Message(number)
    except ValueError as exc:
        raise ChannelError(f"there is no message {number}") from exc
    return Frame(message, request, data[_HEADER.size :], fds)


def pack_record(record: UpcallRecord) -> bytes:
    """RECORD_SIZE bytes."""
    return _RECORD.pack(*record)


def unpack_records(body: bytes) -> list[UpcallRecord]:
    """The records of an UPCALLS message."""
    if len(body) % RECORD_SIZE:
        raise ChannelError(f"{len(body)} bytes are not a whole number of upcall records")
    records = []
    for table, version, kind, vif, group, source, time, answer, template in _RECORD.iter_unpack(body):
        if version == Family.IPV4:
            records.append(UpcallRecord(table, Family.IPV4, kind, vif, group[:4], source[:4], time, answer, template))
        elif version == Family.IPV6:
            records.append(UpcallRecord(table, Family.IPV6, kind, vif, group, source, time, answer, template))
        else:
            raise ChannelError(f"an upcall record is of family {version}")
    return records


def take_int(values: Mapping[str, Any], name: str, low: int, high: int) -> int:
    """An integer of a body within its bounds; ChannelError otherwise."""
    value = values.get(name)
    if type(value) is not int or not low <= value <= high:
        raise ChannelError(f"{name} is {value!r}, not a number from {low} to {high}")
    return value


def take_family(values: Mapping[str, Any]) -> Family:
    """The family of a body; ChannelError if it names none."""
    value = values.get("family")
    for family in Family:
        if type(value) is int and value == family:
            return family
    raise ChannelError(f"{value!r} is not a family")


def vif_map_values(table: int, family: Family, entries: VifEntries) -> dict[str, object]:
    """Body of a VIF_MAP or SOCKET message."""
    return {"table": table, "family": int(family), "entries": entries}


def take_vif_entries(values: Mapping[str, Any]) -> VifEntries:
    """The VIF map of a body, checked; ChannelError if it can't be one."""
    entries = values.get("entries")
    if not isinstance(entries, list) or len(entries) > VIFS_MAX:
        raise ChannelError(f"a VIF map has at most {VIFS_MAX} entries")
    taken = tuple(_vif_entry(entry) for entry in entries)
    if len({vif for vif, _, _ in taken}) != len(taken):
        raise ChannelError("a VIF map names a number twice")
    return taken


def _vif_entry(entry: object) -> tuple[int, int, str]:
    match entry:
        case [int() as vif, int() as ifindex, str() as name] if (
            not isinstance(vif, bool)
            and not isinstance(ifindex, bool)
            and 0 <= vif < VIFS_MAX
            and 0 < ifindex < 2**31
            and 0 < len(name.encode("utf-8", "replace")) <= _NAME_MAX
        ):
            return vif, ifindex, name
    raise ChannelError(f"{entry!r} is not a VIF number, ifindex and name")


def losses_values(losses: Losses) -> dict[str, object]:
    """Body of a LOSSES message."""
    return {"table": losses.table, "family": int(losses.family), "kernel": losses.kernel, "keeper": losses.keeper}


def take_losses(values: Mapping[str, Any]) -> Losses:
    """The losses of a LOSSES message."""
    return Losses(
        take_int(values, "table", 0, 2**32 - 1),
        take_family(values),
        take_int(values, "kernel", 0, 2**63),
        take_int(values, "keeper", 0, 2**63),
    )


def error_values(error: McastdError) -> dict[str, object]:
    """Body of a REPLY that says why not."""
    problem = error.problem
    return {"error": {"reason": problem.reason.value, "message": problem.message, "metadata": dict(problem.metadata)}}


def take_error(values: Mapping[str, Any]) -> McastdError | None:
    """The error of a REPLY, if it has one."""
    error = values.get("error")
    if error is None:
        return None
    try:
        metadata = {str(name): str(value) for name, value in error["metadata"].items()}
        return McastdError(Reason(error["reason"]), str(error["message"]), **metadata)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise ChannelError(f"{error!r} is not an error") from exc


class Channel:
    """One end: whole messages in and out; it owns its socket."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over one end of a SOCK_SEQPACKET pair, blocking or not."""
        self._sock = sock

    def fileno(self) -> int:
        """The descriptor, for a selector."""
        return self._sock.fileno()

    def send(self, data: bytes, fds: Sequence[int] = ()) -> bool:
        """Send one encoded message; False if the other end is behind and it does not fit now.

        BrokenPipeError or ConnectionResetError when the other end is gone.
        """
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([data], control, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        return True

    def receive(self) -> Frame | None:
        """The next message, None at the end; BlockingIOError if a non-blocking channel has none now."""
        data, control, flags, _ = self._sock.recvmsg(MESSAGE_MAX, _ROOM, socket.MSG_CMSG_CLOEXEC)
        fds = _descriptors(control)
        try:
            return _whole(data, flags, fds)
        except ChannelError:
            discard(fds)
            raise

    def hang_up(self) -> None:
        """Have both ends read the end; ours stays open until it is closed. OSError if the other end is gone."""
        self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end; the other reads the end. Descriptors on their way here are discarded: it would wait for them."""
        with contextlib.suppress(OSError):  # nothing is left
            self._sock.shutdown(socket.SHUT_RD)
            for _ in range(_QUEUE_MAX):
                _, control, _, _ = self._sock.recvmsg(1, _ROOM, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
                discard(_descriptors(control))
        self._sock.close()


def _whole(data: bytes, flags: int, fds: tuple[int, ...]) -> Frame | None:
    """What recvmsg gave, if it is all of a message; no bytes at all are the end."""
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(fds) > FDS_MAX:
        raise ChannelError("a message is longer, or has more descriptors, than any in the list")
    return decode(data, fds) if data or fds else None


def _descriptors(control: Iterable[tuple[int, int, bytes]]) -> tuple[int, ...]:
    fds = array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return tuple(fds)


def discard(fds: Iterable[int]) -> None:
    """Close what somebody else has sent, and not wait for it: close() of a TCP socket may last as long as its SO_LINGER says."""
    for fd in fds:
        try:
            sock = socket.socket(fileno=fd)
        except OSError:
            close_all((fd,))  # it is no socket
            continue
        with contextlib.suppress(OSError), sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes(8))


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that nobody wants."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
