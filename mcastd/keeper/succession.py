"""Servers beside the one that serves: those that have come to take over, and those that have let go and are about to end.

    the newcomer                      the keeper                    the one that serves
    imports, drops its privileges  <- PREPARE                       serves
    PREPARED                       ->    HAND_OVER               -> finishes what is under way, lets go
    adopts and serves              <- HELLO, sockets                the end of its channel

Until HAND_OVER is sent a newcomer has nothing and may fail in whatever way: it is ended, and nothing has changed. Owns the
newcomers' channels until they serve; whose turn it is the keeper decides.
"""

import logging
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mcastd.keeper.channel import PROTOCOL, ChannelError, Frame, Message, discard, encode, take_int
from mcastd.keeper.ending import Ending
from mcastd.keeper.process import Server
from mcastd.model.settings import SEATS_MAX, TABLE_MAX, TABLES_MAX, Settings

PREPARE_SECONDS = 30.0
"""In which a newcomer must be prepared: its imports take one, or several where the machine is busy."""

NEWCOMERS_MAX = SEATS_MAX - 1
"""Of which all but one stand by."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Newcomer:
    """A server that does not serve yet."""

    server: Server
    due_at: float
    """Until when it must be prepared."""
    prepared: bool = False
    stand_by: bool = False
    """Whether it only waits for the end of the one that serves."""
    tables: tuple[int, ...] = ()
    """Tables that it wants to find open."""


class Succession:
    """Who comes, and who goes."""

    def __init__(self, selector: selectors.BaseSelector, settings: Settings, on_prepared: Callable[[], None]) -> None:
        """Nobody; `on_prepared` is called when a newcomer is prepared."""
        self._selector = selector
        self._settings = settings
        self._on_prepared = on_prepared
        self._newcomers: list[Newcomer] = []
        self._leaving: list[Server] = []

    def __bool__(self) -> bool:
        """Whether there is anybody."""
        return bool(self._newcomers or self._leaving)

    @property
    def newcomers(self) -> int:
        """How many have come to serve and do not yet."""
        return len(self._newcomers)

    @property
    def successor(self) -> Server | None:
        """The first that is prepared to take over, and not only to stand by."""
        return next((one.server for one in self._newcomers if one.prepared and not one.stand_by), None)

    def servers(self) -> Iterator[Server]:
        """All of them."""
        yield from [one.server for one in self._newcomers]
        yield from list(self._leaving)

    def prepare(self, server: Server, serving: Server | None, now: float) -> None:
        """Have a server that has just come prepare itself, beside one that serves; it is ended if it can't be told."""
        newcomer = Newcomer(server, now + PREPARE_SECONDS)
        taken = {one.seat for one in (serving, *self.servers()) if one is not None}
        server.seat = min(set(range(1, SEATS_MAX + 1)) - taken, default=SEATS_MAX)
        self._newcomers.append(newcomer)
        try:
            told = server.channel is not None and server.channel.send(prepare_message(self._settings, server.seat))
        except (BrokenPipeError, ConnectionResetError):
            told = False
        if not told or server.channel is None:
            self._refuse(newcomer, "it does not listen")
            return
        self._selector.register(server.channel, selectors.EVENT_READ, lambda: self._on_channel(newcomer))

    def take(self) -> Newcomer | None:
        """Let one go that is prepared, to serve; None if none is."""
        prepared = [one for one in self._newcomers if one.prepared]
        if not prepared:
            return None
        newcomer = min(prepared, key=lambda one: one.stand_by)
        self._newcomers.remove(newcomer)
        if newcomer.server.channel is not None:
            self._selector.unregister(newcomer.server.channel)
        return newcomer

    def leave(self, server: Server) -> None:
        """Wait for the end of one that has let go of everything."""
        self._leaving.append(server)

    def ended(self, server: Server, details: Mapping[str, object]) -> None:
        """Forget one that has ended, or never took its chance."""
        if server in self._leaving:
            self._leaving.remove(server)
            _log.info("the old server has ended", extra=dict(details))
        for newcomer in [one for one in self._newcomers if one.server is server]:
            self._hang_up(newcomer)
            self._newcomers.remove(newcomer)
            _log.error("the new server is not used: it has ended before it was prepared to serve", extra=dict(details))

    def end_newcomers(self) -> None:
        """Nobody shall come any more."""
        for newcomer in list(self._newcomers):
            self._end(newcomer)

    def dismiss(self) -> None:
        """Hang up on those that only stand by; they come again."""
        for newcomer in [one for one in self._newcomers if one.prepared and one.stand_by]:
            self._end(newcomer)

    def next_at(self) -> float | None:
        """When the patience with one of them ends."""
        times = [one.due_at for one in self._newcomers if not one.prepared and one.server.channel is not None]
        times += [at for at in (server.next_step_at() for server in self.servers()) if at is not None]
        return min(times, default=None)

    def keep_times(self, now: float) -> None:
        """End those that are not prepared in time."""
        for newcomer in list(self._newcomers):
            if not newcomer.prepared and newcomer.server.channel is not None and newcomer.due_at <= now:
                self._refuse(newcomer, f"it was not prepared within {PREPARE_SECONDS:g} s")

    def _on_channel(self, newcomer: Newcomer) -> None:
        channel = newcomer.server.channel
        if channel is None:
            return
        try:
            frame = channel.receive()
            if frame is not None:
                self._take_prepared(newcomer, frame)
        except BlockingIOError:
            return
        except ConnectionResetError:
            frame = None
        except ChannelError as exc:
            self._refuse(newcomer, str(exc))
            return
        if frame is None:
            self._hang_up(newcomer)
            newcomer.server.ending = Ending(time.monotonic())
            if newcomer.server.pidfd is None:
                self._newcomers.remove(newcomer)
                _log.warning("a server has left before it served", extra={"pid": newcomer.server.pid})

    def _take_prepared(self, newcomer: Newcomer, frame: Frame) -> None:
        discard(frame.fds)
        if frame.message is not Message.PREPARED or newcomer.prepared:
            raise ChannelError(f"it said {frame.message.name} where it has to wait")
        newcomer.tables, newcomer.stand_by = take_prepared(frame.values())
        newcomer.prepared = True
        took = round(time.monotonic() - newcomer.server.started_at, 3)
        words = {"pid": newcomer.server.pid, "stand_by": newcomer.stand_by, "seconds": took}
        _log.info("the new server is prepared", extra=words)
        self._on_prepared()

    def _refuse(self, newcomer: Newcomer, why: str) -> None:
        _log.error("the new server is not used: it is ended", extra={"pid": newcomer.server.pid, "why": why})
        self._end(newcomer)

    def _end(self, newcomer: Newcomer) -> None:
        """It holds nothing that it could put in order."""
        newcomer.server.kill(signal.SIGKILL)
        self._hang_up(newcomer)
        if newcomer.server.pidfd is None:
            self._newcomers.remove(newcomer)

    def _hang_up(self, newcomer: Newcomer) -> None:
        newcomer.prepared = False
        server = newcomer.server
        if server.channel is not None:
            if server.channel.fileno() in self._selector.get_map():
                self._selector.unregister(server.channel)
            server.close_channel()


def prepare_message(settings: Settings, seat: int, *, again: bool = False) -> bytes:
    """A PREPARE; `again`: the server follows one that is gone, so that nobody serves until it does."""
    return encode(Message.PREPARE, body={"protocol": PROTOCOL, "settings": settings.to_json(), "seat": seat, "again": again})


def take_prepared(values: Mapping[str, Any]) -> tuple[tuple[int, ...], bool]:
    """Tables and "stand by" of a PREPARED; ChannelError if it can't be one of this protocol."""
    protocol = take_int(values, "protocol", 0, 2**31)
    if protocol != PROTOCOL:
        raise ChannelError(f"it speaks protocol {protocol}, and this keeper {PROTOCOL}")
    tables = values.get("tables")
    if not isinstance(tables, list) or len(tables) > TABLES_MAX:
        raise ChannelError(f"{tables!r} is not a list of at most {TABLES_MAX} tables")
    taken = tuple(take_int({"table": table}, "table", 0, TABLE_MAX) for table in tables)
    return taken, values.get("stand_by") is True
