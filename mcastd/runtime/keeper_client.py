"""The server's end of the channel to the keeper, on the event loop.

`receive_hello` comes before there is a loop: it says which user to become. Then a KeeperClient takes the channel over.
"""

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from mcastd.keeper.channel import (
    CHANNEL_FD,
    Channel,
    ChannelError,
    Frame,
    Losses,
    Message,
    UpcallRecord,
    VifEntries,
    close_all,
    encode,
    take_error,
    take_family,
    take_int,
    take_losses,
    take_vif_entries,
    unpack_records,
    vif_map_values,
)
from mcastd.keeper.templates import bodies, learned_bodies, take_told
from mcastd.kernel import rawsock
from mcastd.kernel.joins import HeldSocket
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.rule import Rule
from mcastd.model.settings import SEATS_MAX, TABLE_MAX, Settings
from mcastd.model.template import TemplateChange

TableFamily = tuple[int, Family]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Hello:
    """What the keeper gives a new server; the receiver owns the sockets."""

    settings: Settings
    started_at: float
    """When the keeper started, seconds since the epoch."""
    started_monotonic: float
    """The same by the monotonic clock, which keeper and server share."""
    starts: int
    """How often this keeper has started a server, this one included: 1 = the tables are new."""
    kept: bool = False
    """Whether what forwards outlives the keeper: a service manager has copies of its descriptors."""
    sockets: dict[TableFamily, socket.socket] = field(default_factory=dict)
    """Multicast routing sockets, initialised and non-blocking."""
    vif_maps: dict[TableFamily, VifEntries] = field(default_factory=dict)
    """As the last server left them."""
    stored: list[HeldSocket] = field(default_factory=list)
    """What the last server had the keeper hold."""


@dataclass(slots=True)
class Callbacks:
    """What the server wants to hear; each is called on the event loop and must not block."""

    upcalls: Callable[[list[UpcallRecord]], None]
    losses: Callable[[Losses], None]
    shutdown: Callable[[bool], None]
    """The keeper wants an orderly end; True = what forwards goes on."""
    end: Callable[[], None]
    """The keeper is gone, or talks nonsense: nothing keeps the sockets any more but this process."""
    reload: Callable[[], None] = lambda: None
    """The keeper was asked to have the configuration read again."""
    hand_over: Callable[[int], None] = lambda _seat: None
    """The keeper wants everything left to the server in this seat."""
    ping: Callable[[int], None] | None = None
    """The keeper wants to know whether the server lives: `pong` the number when that is sure. None = it is said at once."""


class KeeperClient:
    """Asks the keeper for what only it may do, and passes on what it tells."""

    def __init__(self, sock: socket.socket, callbacks: Callbacks) -> None:
        """Take over the channel after receive_hello; needs the running loop."""
        sock.setblocking(False)
        self._channel = Channel(sock)
        self._callbacks = callbacks
        self._loop = asyncio.get_running_loop()
        self._requests: dict[int, asyncio.Future[Frame]] = {}
        self._numbers = cycle(range(1, 2**32))
        self._unsent: deque[tuple[bytes, tuple[int, ...]]] = deque()
        """Messages, each with its descriptors, which are closed when it is sent."""
        self.reloads = 0
        """Number of the last RELOAD that has come."""
        self._open = True
        self._loop.add_reader(self._channel.fileno(), self._read)

    @classmethod
    def receive_hello(cls, sock: socket.socket) -> Hello:
        """Wait for the keeper's first messages on the channel, which stays the caller's, for the constructor.

        Raises ChannelError if the other end is no keeper of this version, or ends.
        """
        sock.setblocking(True)
        channel = Channel(sock)
        frame = _expect(channel, Message.HELLO)
        values = frame.values()
        hello = Hello(
            settings=_settings(values),
            started_at=_take_number(values, "started_at"),
            started_monotonic=_take_number(values, "started_monotonic"),
            starts=take_int(values, "starts", 1, 2**63),
            kept=values.get("kept") is True,
        )
        stored = take_int(values, "stored", 0, 2**16)
        for _ in range(take_int(values, "sockets", 0, 2**16)):
            frame = _expect(channel, Message.SOCKET)
            values = frame.values()
            key = (take_int(values, "table", 0, TABLE_MAX), take_family(values))
            (hello.sockets[key],) = _adopt(frame.fds, 1)
            hello.vif_maps[key] = take_vif_entries(values)
        for _ in range(stored):
            hello.stored.append(_held_socket(_expect(channel, Message.STORED)))
        return hello

    async def set_vif_map(self, table: int, family: Family, entries: VifEntries) -> None:
        """Have the keeper remember the map; done when every upcall queued until now has come through the callback."""
        await self._ask(Message.VIF_MAP, vif_map_values(table, family, entries))

    async def open_table(self, table: int) -> dict[Family, socket.socket]:
        """Open the sockets of a table, or get copies where they are open; the caller owns them.

        Raises McastdError MROUTE_SOCKET_BUSY, NOT_ALLOWED, KERNEL_ERROR, INVALID_VALUE or TOO_MANY_ITEMS.
        """
        frame = await self._ask(Message.OPEN_TABLE, {"table": table})
        sockets = _adopt(frame.fds, len(frame.fds))
        return {rawsock.family_of_socket(sock): sock for sock in sockets}

    async def close_table(self, table: int) -> None:
        """Have the keeper close its sockets of a table; the kernel forgets the table when ours are closed too."""
        await self._ask(Message.CLOSE_TABLE, {"table": table})

    async def open_control(self, kind: str, family: Family, number: int = 0) -> socket.socket:
        """A copy of the keeper's control socket of this kind, family and number; opened if it is not yet.

        Raises McastdError NOT_ALLOWED or KERNEL_ERROR.
        """
        frame = await self._ask(Message.OPEN_CONTROL, {"kind": kind, "family": int(family), "number": number})
        (sock,) = _adopt(frame.fds, 1)
        return sock

    async def store_fd(self, name: str, note: str, fd: int | None) -> None:
        """Have the keeper hold a copy of a UDP socket under a name, with a note; without one, have it change the note.

        Raises McastdError TOO_MANY_ITEMS, NOT_FOUND or INVALID_VALUE.
        """
        await self._ask(Message.STORE_FD, {"name": name, "note": note}, fd)

    def drop_fd(self, name: str) -> None:
        """Have the keeper close what it holds under a name."""
        self._send(encode(Message.DROP_FD, body={"name": name}))

    async def change_rule(self, rule: Rule, family: Family, *, add: bool) -> None:
        """Have the keeper add or delete a policy rule; done when it is so, or was.

        Raises McastdError NOT_ALLOWED, TOO_MANY_ITEMS or KERNEL_ERROR.
        """
        values = {"table": rule.table, "iif": rule.iif, "priority": rule.priority, "family": int(family), "add": add}
        await self._ask(Message.RULE, values)

    def run_action(self, reason: str, environment: Mapping[str, str]) -> None:
        """Have the action script run, after those runs that wait."""
        self._send(encode(Message.RUN_ACTION, body={"reason": reason, "environment": environment}))

    async def set_templates(self, table: int, family: Family, changes: Iterable[TemplateChange], *, whole: bool = False) -> None:
        """Change templates, or (`whole`) replace all of them; done when what older ones answered has come by the callback."""
        for body in bodies(table, family, changes, whole=whole):
            await self._ask(Message.TEMPLATES, body)

    async def tell_templates(self, table: int, family: Family) -> list[TemplateChange]:
        """All templates by which the keeper answers upcalls of a table and family; McastdError NOT_FOUND if it is not open."""
        told: list[TemplateChange] = []
        total = 1
        while len(told) < total:
            values: dict[str, object] = {"table": table, "family": int(family), "first": len(told)}
            part, total = take_told((await self._ask(Message.TELL_TEMPLATES, values)).values())
            if not part:
                break
            told += part
        return told

    def set_learned(self, table: int, family: Family, counts: Iterable[tuple[bytes, int]]) -> None:
        """Say by how many the learned entries of templates differ from what the keeper counts."""
        for body in learned_bodies(table, family, counts):
            self._send(encode(Message.LEARNED, body=body))

    def pong(self, number: int) -> None:
        """Tell the keeper that this server lives."""
        self._send(encode(Message.PONG, number))

    def notify(self, text: str, *, reloading: bool, reloads: int) -> None:
        """Tell the keeper, for the service manager, how this server does, and whether it reads its configuration.

        `reloads` is what was in `self.reloads` when the last reading that is over began.
        """
        self._send(encode(Message.NOTIFY, body={"text": text, "reloading": reloading, "reloads": reloads}))

    def ready(self) -> None:
        """Tell the keeper, which tells the service manager, that the server serves."""
        self._send(encode(Message.READY))

    def request_shutdown(self, *, keep_forwarding: bool) -> None:
        """Tell the keeper that this server is ending and none shall follow; whether what forwards shall go on."""
        self._send(encode(Message.SHUTDOWN, body={"keep_forwarding": keep_forwarding}))

    def close(self) -> None:
        """Stop listening to the keeper; requests that wait fail with SHUTTING_DOWN."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_writer(self._channel.fileno())
        self._channel.close()
        while self._unsent:
            close_all(self._unsent.popleft()[1])
        waiting, self._requests = self._requests, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(_gone())

    async def _ask(self, message: Message, values: dict[str, object] | bytes, fd: int | None = None) -> Frame:
        if not self._open:
            raise _gone()
        number = next(self._numbers)
        future: asyncio.Future[Frame] = self._loop.create_future()
        self._requests[number] = future
        try:
            self._send(encode(message, number, values), fd)
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                close_all(future.result().fds)  # the reply came, and nobody is left to take it
            raise
        finally:
            self._requests.pop(number, None)

    def _send(self, data: bytes, fd: int | None = None) -> None:
        # A copy of the descriptor: it may have to wait, and whoever asked need not.
        self._unsent.append((data, () if fd is None else (os.dup(fd),)))
        self._write()

    def _write(self) -> None:
        """Send what the keeper takes; it reads whenever it is not at other work, so little ever waits."""
        if not self._open:
            return
        try:
            while self._unsent and self._channel.send(*self._unsent[0]):
                close_all(self._unsent.popleft()[1])
        except (BrokenPipeError, ConnectionResetError):
            self._end("the keeper is gone")
            return
        if self._unsent:
            self._loop.add_writer(self._channel.fileno(), self._write)
        else:
            self._loop.remove_writer(self._channel.fileno())

    def _read(self) -> None:
        """Take one message; the loop calls again for the next, after everybody else had their turn."""
        try:
            frame = self._channel.receive()
            if frame is not None:
                self._take(frame)
                return
        except BlockingIOError:
            return
        except ConnectionResetError:
            frame = None
        except ChannelError as exc:
            self._end(f"the keeper talks nonsense: {exc}")
            return
        self._end("the keeper is gone")

    def _take(self, frame: Frame) -> None:
        if frame.message is not Message.REPLY:
            close_all(frame.fds)
        match frame.message:
            case Message.UPCALLS:
                self._callbacks.upcalls(unpack_records(frame.body))
            case Message.LOSSES:
                self._callbacks.losses(take_losses(frame.values()))
            case Message.SHUTDOWN:
                self._callbacks.shutdown(frame.values().get("keep_forwarding") is True)
            case Message.RELOAD:
                self.reloads = frame.request
                self._callbacks.reload()
            case Message.HAND_OVER:
                self._callbacks.hand_over(take_int(frame.values(), "seat", 1, SEATS_MAX))
            case Message.PING:
                (self._callbacks.ping or self.pong)(frame.request)
            case Message.REPLY:
                self._take_reply(frame)
            case _:
                raise ChannelError(f"{frame.message.name} is not for a keeper to say now")

    def _take_reply(self, frame: Frame) -> None:
        future = self._requests.pop(frame.request, None)
        if future is None or future.done():  # whoever asked was cancelled
            close_all(frame.fds)
            return
        try:
            error = take_error(frame.values())
        except ChannelError:
            close_all(frame.fds)
            raise
        if error is None:
            future.set_result(frame)
        else:
            close_all(frame.fds)
            future.set_exception(error)

    def _end(self, why: str) -> None:
        _log.warning("the channel to the keeper is closed", extra={"why": why})
        self.close()
        self._callbacks.end()


def inherited_channel() -> socket.socket:
    """The channel as a server that was started by the keeper finds it; ChannelError if it was not."""
    try:
        return socket.socket(fileno=CHANNEL_FD)
    except OSError as exc:
        raise ChannelError(
            f"descriptor {CHANNEL_FD} is no channel ({exc.strerror}): the server is started by `mcastd serve`"
        ) from exc


def _expect(channel: Channel, message: Message) -> Frame:
    frame = channel.receive()
    if frame is None:
        raise ChannelError(f"the keeper is gone before its {message.name}")
    if frame.message is not message:
        close_all(frame.fds)
        raise ChannelError(f"the keeper sent {frame.message.name} where {message.name} is due")
    return frame


def _settings(values: dict[str, Any]) -> Settings:
    settings = values.get("settings")
    if not isinstance(settings, dict):
        raise ChannelError("HELLO has no settings")
    return Settings.from_json(settings)


def _take_number(values: dict[str, Any], name: str) -> float:
    value = values.get(name)
    if not isinstance(value, float):
        raise ChannelError(f"{name} is {value!r}, not a time")
    return value


def _adopt(fds: Sequence[int], expected: int) -> list[socket.socket]:
    if len(fds) != expected:
        close_all(fds)
        raise ChannelError(f"a message came with {len(fds)} descriptors, not {expected}")
    try:
        return [rawsock.adopt(fd) for fd in fds]
    except ValueError as exc:
        close_all(fds)
        raise ChannelError(str(exc)) from exc


def _held_socket(frame: Frame) -> HeldSocket:
    """What a STORED brings; only the keeper puts sockets there, so any is taken for what its name says."""
    values = frame.values()
    name, note = values.get("name"), values.get("note")
    if not isinstance(name, str) or not isinstance(note, str) or len(frame.fds) != 1:
        close_all(frame.fds)
        raise ChannelError(f"STORED comes with {len(frame.fds)} descriptors, name {name!r} and note {note!r}")
    return HeldSocket(name, note, socket.socket(fileno=frame.fds[0]))


def _gone() -> McastdError:
    return McastdError(Reason.SHUTTING_DOWN, "the keeper is gone: this server is ending")
