"""EventService: a snapshot, then changes, for ever; resumable, and never silently lossy.

A watcher is told of objects as they are when it is told. What it has yet to be told are keys: see core/feed.py. Every message
has a token, which covers what was told up to it.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import islice

import grpc

from mcast.v1 import services_pb2 as sv
from mcastd.api import watch_request
from mcastd.api.events import Events, framed, source_message, together
from mcastd.api.filters import FlowFilter
from mcastd.api.interfaces import InterfaceView
from mcastd.api.ports import Caller, Context, DaemonPort
from mcastd.api.samples import Sampler
from mcastd.api.telling import Teller
from mcastd.api.tokens import Position, everything, read_token, write_token
from mcastd.api.watchers import Hub, Resync
from mcastd.core.feed import Kind, Lane
from mcastd.model.effect import BATCH
from mcastd.model.errors import McastdError, Reason

EVENTS_MAX = 500
"""Events that are read and serialized before others have their turn: some 2 ms."""

BULK = 64
"""Routes that wait from which on they are told in bulk."""

SEND_SECONDS = 0.0002
SEND_BYTE_SECONDS = 1.5e-9
"""What a message costs beside the making of its events, and each of its bytes: here, in gRPC and in the kernel, as measured."""

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
        self.turn = False
        self._daemon = daemon
        self._feed = daemon.engine.feed
        self._hub = hub
        self._events = events
        self._context = context
        self._peer = f"{context.peer()} {caller.owner}"
        self._changes_only = request.changes_only
        self._kinds = watch_request.kinds(request)
        self._token = request.resume_token
        resumed = read_token(request.resume_token, daemon.info.instance_id) if request.resume_token else None
        self._resumed = resumed if resumed is not None and self._fits(resumed) else None
        if self._token and self._resumed is None:
            hub.resyncs[Resync.UNKNOWN if resumed is None else Resync.TOO_OLD] += 1
        self._heartbeat = watch_request.heartbeat(request)
        self._sampler = Sampler(daemon, request) if sv.KIND_COUNTERS in self._kinds else None
        self._teller = Teller(daemon, events, request, resumed=self._resumed is not None)
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
        await self._send(synced=True)
        while not self._hub.ending:
            if not await self._tell_quick() and not await self._tell_bulk():
                await self._sample()
                await self._wait()
        await self._send()
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
        await self._send(reset=True, skipped=unknown)
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
                began = time.thread_time()
                part = keys[at : at + EVENTS_MAX]
                bodies = self._teller.snapshot(kind, part, self._lanes[kind].position)
                self._snapshot_left -= len(part)
                self._spent(began, bodies)
                await self._send_all(bodies, token=False)

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
            bodies += self._teller.upcalls(notes)
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
        if lane is None or not lane.pending or not (self.turn or not self._hub.pacer.delay()):
            return False
        began = time.thread_time()
        bodies: list[bytes] = []
        worked = self._take(Kind.ROUTE, bodies)
        self._spent(began, bodies)
        if bodies:
            await self._send_all(bodies)
        await asyncio.sleep(0)
        return worked

    def _take(self, kind: Kind, bodies: list[bytes]) -> bool:
        """Take what is next of a kind; whether there was anything (if only to be left out)."""
        part = self._lanes[kind].take(EVENTS_MAX)
        if part is None:
            return False
        told = self._teller.part(kind, part)
        self._coalesced += told.coalesced
        bodies += told.bodies
        return True

    # --- counters ----------------------------------------------------------------------------------------------------

    async def _sample(self) -> None:
        if self._sampler is None or not self._sampler.due():
            return
        for part in await self._sampler.sample():
            if part:
                began = time.thread_time()
                bodies = [framed(self._events.counters(*one), 0) for one in part]
                self._spent(began, bodies)
                await self._send_all(bodies)
            await self._pause()

    # --- sending -----------------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Wait for a change, the next sample, or until it is time for a sign of life."""
        kinds: list[Kind | None] = [kind for kind in self._lanes if kind is not Kind.ROUTE]
        if self._upcalls is not None:
            kinds.append(None)
        times = [self._sent_at + self._heartbeat]
        self.woken.clear()
        if Kind.ROUTE in self._lanes and self._lanes[Kind.ROUTE].pending:
            self._hub.pacer.wait(self)
        else:
            self.turn = False  # It came late: all was told without it.
            kinds += [kind for kind in self._lanes if kind is Kind.ROUTE]
        if self._sampler is not None:
            times.append(self._sampler.next_at)
        self._hub.await_any(self, kinds)
        if self._hub.ending or self.turn or self._anything(kinds):
            await asyncio.sleep(0)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(times) - time.monotonic())):
                    await self.woken.wait()
        self._hub.stir(self)
        if time.monotonic() >= self._sent_at + self._heartbeat:
            await self._send()

    def _anything(self, kinds: list[Kind | None]) -> bool:
        """Whether something has come since it was looked."""
        if self._daemon.upcalls_lost() != self._lost or (self._upcalls is not None and self._upcalls < self._feed.upcalls_end):
            return True
        return any(self._lanes[kind].pending for kind in kinds if kind is not None)

    async def _pause(self) -> None:
        """Let others run, and writes first."""
        await asyncio.sleep(0)
        while self._hub.pacer.delay() and not (self.turn or self._hub.ending):
            self.woken.clear()
            self._hub.pacer.wait(self)
            await self.woken.wait()

    def _spent(self, began: float, bodies: list[bytes]) -> None:
        """It has had its turn: these events have been made since, and are about to be sent."""
        self.turn = False
        size = sum(map(len, bodies))
        self._hub.pacer.spent(time.thread_time() - began + SEND_SECONDS + size * SEND_BYTE_SECONDS)

    async def _send_all(self, bodies: list[bytes], *, skipped: int = 0, token: bool = True) -> None:
        """Send events in as many messages as they need; the token goes with the last."""
        *parts, last = list(together(bodies)) or [b""]
        for part in parts:
            await self._send(part, token=False)
        await self._send(last, skipped=skipped, token=token)

    async def _send(
        self, events: bytes = b"", *, reset: bool = False, synced: bool = False, skipped: int = 0, token: bool = True
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
                await self._context.write(events + rest.SerializeToString())
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
