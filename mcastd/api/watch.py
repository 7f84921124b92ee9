"""EventService: a snapshot, then changes, for ever; resumable, and never silently lossy.

A watcher is told of objects as they are when it is told. What it has yet to be told are keys: see core/feed.py. Every message
has a token, which covers what was told up to it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Container
from contextlib import suppress
from itertools import islice

import grpc

from mcast.v1 import services_pb2 as sv
from mcastd.api import fields
from mcastd.api.events import Events, framed, source_message
from mcastd.api.filters import FlowFilter, InterfaceFilter, JoinFilter, RouteFilter, Tell
from mcastd.api.interfaces import InterfaceView
from mcastd.api.ports import Caller, Context, DaemonPort
from mcastd.api.samples import Sampler
from mcastd.api.tokens import Position, everything, read_token, write_token
from mcastd.api.watchers import Hub, Resync
from mcastd.core.feed import Kind, Lane
from mcastd.model.effect import BATCH
from mcastd.model.errors import McastdError, Reason
from mcastd.model.join import JoinKey

EVENTS_MAX = 500
"""Events that are read and serialized before others have their turn: some 2 ms."""

BULK = 64
"""Routes that wait from which on they are told in bulk."""

MESSAGE_BYTES = 1024 * 1024
"""A message is sent when it has come to this: a client receives 4 MiB at most, and an event has some kB at most."""

HEARTBEAT = 30.0
HEARTBEAT_MIN = 1.0
HEARTBEAT_MAX = 3600.0

KINDS_MAX = 64
"""Kinds in one request, where one may be named twice; a message has room for four million."""

_DEFAULT_KINDS = (sv.KIND_ROUTE, sv.KIND_INTERFACE, sv.KIND_SOURCE)

_QUICK = (Kind.SOURCE, Kind.INTERFACE, Kind.JOIN)
"""Kinds that are told at once: there are few of them, and somebody waits for them."""


class EventService:
    """The handlers, by the names of their RPCs."""

    def __init__(self, daemon: DaemonPort) -> None:
        """Serve this daemon's events."""
        self._daemon = daemon
        self.hub = Hub(daemon.engine.feed, daemon.busy)
        self._events = Events(daemon, InterfaceView(daemon))

    async def watch(self, request: sv.WatchRequest, context: Context, caller: Caller) -> None:
        """Tell of everything that changes."""
        watcher = Watcher(self._daemon, self.hub, self._events, request, context, caller)
        self.hub.join(watcher)
        try:
            with suppress(_GoneError):
                await watcher.run()
        finally:
            watcher.leave()
            self.hub.leave(watcher)

    async def list_sources(
        self, request: sv.ListSourcesRequest, _context: Context, _caller: Caller
    ) -> AsyncIterator[sv.ListSourcesResponse]:
        """List traffic that no route forwards as it should."""
        chosen, sources = FlowFilter(request.selector), self._daemon.engine.sources.all
        keys = iter(tuple(sources))
        while part := list(islice(keys, BATCH)):
            messages = [source_message(key, sources[key]) for key in part if key in sources and chosen.matches(*key)]
            if messages:
                yield sv.ListSourcesResponse(sources=messages)
            await asyncio.sleep(0)


class _GoneError(Exception):
    """The client has left."""


class Watcher:
    """One call of Watch."""

    def __init__(
        self, daemon: DaemonPort, hub: Hub, events: Events, request: sv.WatchRequest, context: Context, caller: Caller
    ) -> None:
        """Check the request; McastdError if it can't be."""
        self.woken = asyncio.Event()
        self._daemon = daemon
        self._feed = daemon.engine.feed
        self._hub = hub
        self._events = events
        self._context = context
        self._peer = f"{context.peer()} {caller.owner}"
        self._changes_only = request.changes_only
        self._kinds = _kinds(request)
        self._token = request.resume_token
        resumed = read_token(request.resume_token, daemon.info.instance_id) if request.resume_token else None
        self._resumed = resumed if resumed is not None and self._fits(resumed) else None
        if self._token and self._resumed is None:
            hub.resyncs[Resync.UNKNOWN if resumed is None else Resync.TOO_OLD] += 1
        self._heartbeat = _heartbeat(request)
        self._sampler = Sampler(daemon, request) if sv.KIND_COUNTERS in self._kinds else None
        self._routes = RouteFilter(request.selector, resumed=self._resumed is not None)
        self._joins = JoinFilter(request.selector, resumed=self._resumed is not None)
        self._interfaces = InterfaceFilter(request.selector)
        self._flows = FlowFilter(request.selector)
        self._tellers: dict[Kind, Callable[[object, int], bytes | None]] = {
            Kind.ROUTE: self._tell_route,
            Kind.INTERFACE: self._tell_interface,
            Kind.JOIN: self._tell_join,
            Kind.SOURCE: self._tell_source,
        }
        begin = self._resumed or everything(self._feed)
        self._lanes = {kind: Lane(self._feed.logs[kind], begin.logs[kind]) for kind in Kind if int(kind) in self._kinds}
        self._upcalls = self._first_upcall(begin) if sv.KIND_UPCALL in self._kinds else None
        self._lost = daemon.upcalls_lost()
        self._coalesced = 0
        self._snapshot_left = 0
        self._sent_at = self._blocked_at = time.monotonic()
        self._blocked = False

    def leave(self) -> None:
        """Follow no more."""
        for lane in self._lanes.values():
            lane.leave()

    def subscriber(self) -> sv.Subscriber:
        """What GetStatus tells of it."""
        pending = self._snapshot_left + sum(lane.pending for lane in self._lanes.values())
        if self._upcalls is not None:
            pending += self._feed.upcalls_end - self._upcalls
        message = sv.Subscriber(peer=self._peer, pending=pending, coalesced=self._coalesced)
        if self._blocked:
            message.blocked.FromNanoseconds(int((time.monotonic() - self._blocked_at) * 1e9))
        return message

    async def run(self) -> None:
        """Tell all, until the client leaves or is too slow, or the server ends."""
        if self._resumed is None and (self._token or not self._changes_only):
            await self._snapshot()
        await self._catch_up()
        await self._send([], synced=True)
        while not self._hub.ending:
            if not await self._tell_quick() and not await self._tell_bulk():
                await self._sample()
                await self._wait()
        await self._send([])
        raise McastdError(Reason.SHUTTING_DOWN, "the daemon is ending: watch again, with the last token, when it is back")

    # --- where to begin ----------------------------------------------------------------------------------------------

    def _fits(self, position: Position) -> bool:
        """Whether a token says how far each kind was told, and the logs still have what came then."""
        for kind in Kind:
            if int(kind) in self._kinds:
                log, at = self._feed.logs[kind], position.logs.get(kind)
                if at is None or not log.tail <= at <= log.end:
                    return False
        upcalls = position.upcalls
        return sv.KIND_UPCALL not in self._kinds or (upcalls is not None and upcalls <= self._feed.upcalls_end)

    def _first_upcall(self, begin: Position) -> int:
        """A token of another incarnation covers none that this one has."""
        return 0 if self._token and self._resumed is None else begin.upcalls or 0

    async def _snapshot(self) -> None:
        """All there is; what changes meanwhile is told afterwards."""
        unknown = 1 if self._token and self._upcalls is not None else 0  # Nobody can tell how many were missed: one or more.
        await self._send([], reset=True, skipped=unknown)
        await self._daemon.steady()
        engine = self._daemon.engine
        objects: dict[Kind, tuple[object, ...]] = {
            Kind.SOURCE: tuple(engine.sources.all),
            Kind.INTERFACE: tuple({*engine.world.by_name, *(name for name, _ in engine.desired.settings)}),
            Kind.JOIN: tuple(engine.joins.wishes),
            Kind.ROUTE: tuple(engine.desired.routes),
        }
        self._snapshot_left = sum(len(keys) for kind, keys in objects.items() if kind in self._lanes)
        for kind, keys in objects.items():
            if kind not in self._lanes:
                continue
            for at in range(0, len(keys), EVENTS_MAX):
                await self._pause()
                began = time.monotonic()
                part = keys[at : at + EVENTS_MAX]
                bodies = [framed(body, 0) for key in part if (body := self._tell_if_there(kind, key)) is not None]
                self._hub.pacer.spent(time.monotonic() - began)
                self._snapshot_left -= len(part)
                await self._send_all(bodies, token=False)

    def _tell_if_there(self, kind: Kind, key: object) -> bytes | None:
        """An event for a snapshot; what has gone since its keys were taken is left out."""
        engine = self._daemon.engine
        there: dict[Kind, Container[object]] = {
            Kind.ROUTE: engine.desired.routes,
            Kind.SOURCE: engine.sources.all,
            Kind.JOIN: engine.joins.wishes,
        }
        if kind in there and key not in there[kind]:
            return None
        return self._tellers[kind](key, self._lanes[kind].position)

    async def _catch_up(self) -> None:
        """Tell what has changed up to now."""
        ends = {kind: self._feed.logs[kind].end for kind in self._lanes}
        while any(self._lanes[kind].safe < end for kind, end in ends.items()):
            if not await self._tell_quick() and not await self._tell_bulk():
                await self._pause()

    # --- what has changed --------------------------------------------------------------------------------------------

    async def _tell_quick(self) -> bool:
        """Tell of upcalls, and of the kinds of which there are few; whether there was anything."""
        bodies: list[bytes] = []
        skipped = 0
        if self._upcalls is not None:
            notes, skipped = self._feed.upcalls_since(self._upcalls, EVENTS_MAX)
            self._upcalls += skipped + len(notes)
            bodies += [framed(self._events.upcall(note), 0) for note in notes if self._flows.matches(note.key, note.interface)]
        worked = bool(bodies or skipped)
        for kind in _QUICK:
            if kind in self._lanes:
                worked = self._take(kind, bodies) or worked
        if Kind.ROUTE in self._lanes and self._lanes[Kind.ROUTE].pending < BULK:
            worked = self._take(Kind.ROUTE, bodies) or worked
        if bodies or skipped or self._daemon.upcalls_lost() != self._lost:
            await self._send_all(bodies, skipped=skipped)
        elif worked:
            await asyncio.sleep(0)
        return worked

    async def _tell_bulk(self) -> bool:
        """Tell of many routes, as far as writes leave time for it; whether there was anything to tell now."""
        lane = self._lanes.get(Kind.ROUTE)
        if lane is None or not lane.pending or self._hub.pacer.delay():
            return False
        began = time.monotonic()
        bodies: list[bytes] = []
        worked = self._take(Kind.ROUTE, bodies)
        self._hub.pacer.spent(time.monotonic() - began)
        if bodies:
            await self._send_all(bodies)
        await asyncio.sleep(0)
        return worked

    def _take(self, kind: Kind, bodies: list[bytes]) -> bool:
        """Take what is next of a kind; whether there was anything (if only to be left out)."""
        lane, tell = self._lanes[kind], self._tellers[kind]
        part = lane.take(EVENTS_MAX)
        for key, changes in part:
            body = tell(key, lane.position)
            if body is not None:
                self._coalesced += changes - 1
                bodies.append(framed(body, changes - 1))
        return bool(part)

    def _tell_route(self, key: object, since: int) -> bytes | None:
        assert isinstance(key, bytes)  # noqa: S101 - The log of routes holds their keys.
        route = self._daemon.engine.desired.routes.get(key)
        match self._routes.verdict(key, route):
            case Tell.PUT:
                return self._events.route(key, route, since)
            case Tell.DELETE:
                return self._events.route(key, None, since) if route is None else self._events.unmatched(key)
            case Tell.NOTHING:
                return None

    def _tell_interface(self, name: object, since: int) -> bytes | None:
        assert isinstance(name, str)  # noqa: S101
        return self._events.interface(name, since) if self._interfaces.matches(name) else None

    def _tell_join(self, key: object, since: int) -> bytes | None:
        assert isinstance(key, JoinKey)  # noqa: S101
        book = self._daemon.engine.joins
        record = book.record_of(key)
        match self._joins.verdict(key, record, book.interfaces_of(key)):
            case Tell.PUT:
                return self._events.join(key, record, since)
            case Tell.DELETE:
                return self._events.join(key, None, since)
            case Tell.NOTHING:
                return None

    def _tell_source(self, key: object, since: int) -> bytes | None:
        assert isinstance(key, tuple)  # noqa: S101
        return self._events.source(key, since) if self._flows.matches(*key) else None

    # --- counters ----------------------------------------------------------------------------------------------------

    async def _sample(self) -> None:
        if self._sampler is None or not self._sampler.due():
            return
        for part in await self._sampler.sample():
            if part:
                await self._send_all([framed(self._events.counters(*one), 0) for one in part])
            await self._pause()

    # --- sending -----------------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Wait for a change, the next sample, or until it is time for a sign of life."""
        kinds: list[Kind | None] = [kind for kind in self._lanes if kind is not Kind.ROUTE]
        if self._upcalls is not None:
            kinds.append(None)
        times = [self._sent_at + self._heartbeat]
        delay = self._hub.pacer.delay()
        if Kind.ROUTE in self._lanes and self._lanes[Kind.ROUTE].pending and delay:
            times.append(time.monotonic() + delay)
        else:
            kinds += [kind for kind in self._lanes if kind is Kind.ROUTE]
        if self._sampler is not None:
            times.append(self._sampler.next_at)
        self.woken.clear()
        self._hub.await_any(self, kinds)
        if not self._hub.ending and not self._anything(kinds):
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(times) - time.monotonic())):
                    await self.woken.wait()
        self._hub.stir(self)
        if time.monotonic() >= self._sent_at + self._heartbeat:
            await self._send([])

    def _anything(self, kinds: list[Kind | None]) -> bool:
        """Whether something has come since it was looked."""
        if self._daemon.upcalls_lost() != self._lost or (self._upcalls is not None and self._upcalls < self._feed.upcalls_end):
            return True
        return any(self._lanes[kind].pending for kind in kinds if kind is not None)

    async def _pause(self) -> None:
        """Let others run, and writes first."""
        await asyncio.sleep(0)
        while delay := self._hub.pacer.delay():  # noqa: ASYNC110 - How long it takes is known, and is looked at again.
            await asyncio.sleep(delay)

    async def _send_all(self, bodies: list[bytes], *, skipped: int = 0, token: bool = True) -> None:
        """Send events in as many messages as they need; the token goes with the last."""
        part: list[bytes] = []
        size = 0
        for body in bodies:
            if size + len(body) > MESSAGE_BYTES and part:
                await self._send(part, token=False)
                part, size = [], 0
            part.append(body)
            size += len(body)
        await self._send(part, skipped=skipped, token=token)

    async def _send(
        self, bodies: list[bytes], *, reset: bool = False, synced: bool = False, skipped: int = 0, token: bool = True
    ) -> None:
        lost = self._daemon.upcalls_lost()
        rest = sv.WatchResponse(reset=reset, synced=synced, kernel_upcalls_lost=lost - self._lost, upcalls_skipped=skipped)
        self._lost = lost
        if token and not reset:
            logs = {kind: lane.safe for kind, lane in self._lanes.items()}
            rest.resume_token = write_token(self._daemon.info.instance_id, Position(logs, self._upcalls))
        self._blocked_at, self._blocked = time.monotonic(), True
        try:
            async with asyncio.timeout(self._hub.patience):
                await self._context.write(b"".join((*bodies, rest.SerializeToString())))
        except TimeoutError:
            self._hub.resyncs[Resync.SLOW_CONSUMER] += 1
            text = (
                f"a message has waited {self._hub.patience:g} s for its reader: "
                "watch again with the last token, and read faster, or watch less"
            )
            raise McastdError(Reason.SLOW_CONSUMER, text, seconds=f"{self._hub.patience:g}") from None
        except grpc.aio.BaseError as exc:
            raise _GoneError from exc
        self._blocked = False
        self._sent_at = time.monotonic()


def _kinds(request: sv.WatchRequest) -> frozenset[int]:
    known = [number for number in sv.Kind.values() if number]
    if len(request.kinds) > KINDS_MAX:
        text = f"{len(request.kinds)} kinds are too many: there are {len(known)}"
        raise McastdError(Reason.TOO_MANY_ITEMS, text, field="kinds", items=len(request.kinds), max=KINDS_MAX)
    for at, kind in enumerate(request.kinds):
        if kind not in known:
            names = ", ".join(sv.Kind.Name(number) for number in known)
            raise fields.invalid(Reason.INVALID_VALUE, f"kinds[{at}]", kind, f"is no kind that this version knows ({names})")
    return frozenset(request.kinds or _DEFAULT_KINDS)


def _heartbeat(request: sv.WatchRequest) -> float:
    if not request.HasField("heartbeat_interval"):
        return HEARTBEAT
    seconds = fields.read_duration(request.heartbeat_interval, "heartbeat_interval")
    if not HEARTBEAT_MIN <= seconds <= HEARTBEAT_MAX:
        value = fields.seconds_text(request.heartbeat_interval)
        raise fields.invalid(
            Reason.INVALID_VALUE, "heartbeat_interval", value, f"give {HEARTBEAT_MIN:g}s to {HEARTBEAT_MAX:g}s, or leave it unset"
        )
    return seconds
