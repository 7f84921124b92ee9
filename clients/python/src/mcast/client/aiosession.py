"""Owns a controller's session with grpc.aio: its streams, one after the other, and who waits for them.

The protocol is program.py's.
"""

import asyncio
import itertools
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Self, TypeVar

import grpc

from mcast.client.aiolinks import AioLinks
from mcast.client.errors import ConfigurationError, DeadlineExceeded, McastError, stream_ended
from mcast.client.ids import RouteId, route_id
from mcast.client.program import Request, Response
from mcast.client.requests import Keys, Patches, Routes
from mcast.client.results import OpResult, SyncResult
from mcast.client.session import BUFFERED, OPEN_SECONDS, SLICE, SessionState, Settings, closed
from mcast.client.wanted import encode
from mcast.v1 import types_pb2 as t

T = TypeVar("T")


class Session(SessionState):
    """Programs routes for one owner; use it as an asynchronous context. Made by `Client.program`."""

    _form = "async with client.program(...) as session"

    def __init__(self, links: AioLinks, settings: Settings) -> None:
        super().__init__(settings)
        self._links = links
        self._wake = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._entered = True
        self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            await self._until(lambda: self.connected)
        except BaseException:
            await self._cancel()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        failure = None
        try:
            if kind is None:
                await self._close()
                failure = self.error
        finally:
            await self._cancel()
        if failure is not None:
            raise failure

    # --- operations --------------------------------------------------------------------------------------------------

    async def put(self, routes: Routes) -> int:
        """Create or replace routes; the id of the last operation. Waits only while too many are not acknowledged."""
        return await self._add([routes] if isinstance(routes, t.Route) else routes, self._program.put)

    async def patch(self, patches: Patches) -> int:
        """Add and remove outgoing interfaces; likewise."""
        return await self._add([patches] if isinstance(patches, t.RoutePatch) else patches, self._program.patch)

    async def delete(self, keys: Keys) -> int:
        """Delete routes; likewise. One that is not there is deleted well."""
        return await self._add([keys] if isinstance(keys, t.RouteKey) else keys, self._program.delete)

    async def flush(self) -> list[OpResult]:
        """Wait until all operations so far are acknowledged; those since the last flush that are not PROGRAMMED."""
        target = self._program.last_id
        await self._until(lambda: self._program.acked >= target)
        found = list(self._exceptions)
        self._exceptions.clear()
        return found

    async def sync(self, routes: Iterable[t.Route] | AsyncIterable[t.Route], max_deletions: int = 0) -> SyncResult:
        """Make the routes of the owner's sessions exactly these; what is there already is not touched.

        TooManyDeletions where more would go than `max_deletions` (0 = no limit): nothing has gone then.
        """
        wanted: dict[RouteId, bytes] = {}
        async for part in _slices(routes):
            wanted.update((route_id(route), encode(route)) for route in part)
        self._check()
        sync = self._program.sync(wanted, max_deletions)
        self._wake.set()
        await self._until(lambda: sync.result is not None)
        return sync.outcome()

    async def ended(self) -> McastError | ConfigurationError:
        """Wait for what ends the session for good: Superseded, StaleEpoch, NotAllowed."""
        while self.error is None:
            self._check()
            await self._told()
        return self.error

    async def _add(self, many: Iterable[T], add: Callable[[T], int]) -> int:
        last, rest = 0, iter(many)
        while part := list(itertools.islice(rest, SLICE)):
            if self._program.pending >= BUFFERED:
                await self._until(lambda: self._program.pending < BUFFERED)
            self._check()
            try:
                for one in part:
                    last = add(one)
            finally:
                self._wake.set()  # also for what stands before one that is no route
            if len(part) == SLICE:
                await asyncio.sleep(0)
        return last

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._check()
            await self._told()

    async def _told(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _close(self) -> None:
        """End in order: all acknowledged, this half closed, the daemon's end awaited."""
        target = self._program.last_id
        try:
            async with asyncio.timeout(self._settings.close_timeout):
                await self._until(lambda: self._program.acked >= target)
                self._closing = True
                self._wake.set()
                if self.connected and self._task is not None:
                    await asyncio.wait([self._task])
        except TimeoutError:
            raise self._late() from None

    async def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.error = self.error or closed()
        self._tell()
        if self._task is not None and not self._task.cancelled() and (failure := self._task.exception()) is not None:
            raise failure

    # --- streams -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while not self._closing:
                error = await self._one_stream()
                if error is None or self._closing:
                    return
                pause = self._pause_after(error)
                if pause is None:
                    self.error = error
                    return
                await asyncio.sleep(pause)
        except ConfigurationError as exc:
            self.error = exc
        finally:
            self.connected = False
            if not self._closing:  # also where a callback has raised: nobody shall wait for ever
                self.error = self.error or closed(sys.exception())
            self._tell()

    async def _one_stream(self) -> McastError | None:
        """Carry out one stream; why it has ended, None where we have ended it."""
        stream = self._stream = object()
        standing = asyncio.Event()
        wait = self._waits()
        try:
            async with self._links.use(None if wait else OPEN_SECONDS, wait=wait) as link:
                call = link.stubs.routes.ProgramRoutes(self._requests(stream, standing))
                try:
                    async with asyncio.timeout(OPEN_SECONDS):
                        first = await call.read()
                    if not isinstance(first, Response):
                        return stream_ended()
                    self._links.answered(link)
                    self._stands(first.opened)
                    standing.set()
                    self._tell()
                    while isinstance(answer := await call.read(), Response):
                        self._take(answer)
                finally:
                    call.cancel()
        except McastError as exc:
            return exc
        except TimeoutError:
            return DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, f"the session was not opened within {OPEN_SECONDS:g} s")
        finally:
            self._stream = None
            self.connected = False
            standing.set()  # What gRPC asks for requests of this stream ends: it does not by itself.
            self._wake.set()
            self._tell()
        return None if self._closing else stream_ended()

    def _take(self, answer: Response) -> None:
        self._report(self._heard(answer))
        self._judge(answer)
        self._tell()

    async def _requests(self, stream: object, standing: asyncio.Event) -> AsyncIterator[Request]:
        """Yield what is to be said on one stream; gRPC asks for more when it has room."""
        yield Request(open=self._settings.open)
        await standing.wait()
        while self._stream is stream:
            self._wake.clear()
            while self._stream is stream and (request := self._program.next()) is not None:
                yield request
            if self._closing:
                return
            await self._wake.wait()


async def _slices(routes: Iterable[t.Route] | AsyncIterable[t.Route]) -> AsyncIterator[list[t.Route]]:
    """Yield routes in parts, between which others have their turn."""
    part: list[t.Route] = []
    if isinstance(routes, AsyncIterable):
        async for route in routes:
            part.append(route)
            if len(part) == SLICE:
                yield part
                part = []
    else:
        for route in routes:
            part.append(route)
            if len(part) == SLICE:
                yield part
                await asyncio.sleep(0)
                part = []
    yield part
