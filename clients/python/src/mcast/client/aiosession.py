"""Owns a controller's session with grpc.aio: its streams, one after the other, and who waits for them.

The protocol is program.py's.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Self, TypeVar

import grpc

from mcast.client.aiolinks import AioLinks
from mcast.client.errors import ConfigurationError, DeadlineExceeded, McastError, Unavailable
from mcast.client.ids import RouteId, route_id
from mcast.client.links import concerns_link
from mcast.client.program import Program, Request, Response
from mcast.client.requests import Keys, Patches, Routes
from mcast.client.results import OpResult, SyncResult
from mcast.client.session import BUFFERED, EXCEPTIONS_KEPT, OPEN_SECONDS, SLICE, Settings, closed
from mcast.client.wanted import encode
from mcast.v1 import types_pb2 as t

T = TypeVar("T")

log = logging.getLogger("mcast.client")


class Session:
    """Programs routes for one owner; use it as an asynchronous context. Made by `Client.program`."""

    def __init__(self, links: AioLinks, settings: Settings) -> None:
        self.error: McastError | ConfigurationError | None = None
        """What has ended it for good."""
        self.opened: Response.Opened = Response.Opened()
        """What the daemon said when the stream that stands, or stood last, was opened."""
        self.connected = False
        self._links = links
        self._settings = settings
        self._program = Program(keep=settings.keep)
        self._stream: object = None
        self._wake = asyncio.Event()
        self._closing = False
        self._waiters: list[asyncio.Future[None]] = []
        self._exceptions: deque[OpResult] = deque(maxlen=EXCEPTIONS_KEPT)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
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

    @property
    def replay_error(self) -> McastError | None:
        """Why the replay after the last reconnect has deleted nothing, as TooManyDeletions; None = it was carried out."""
        return self._program.replay_error

    @property
    def pending(self) -> int:
        """Operations that are not acknowledged."""
        return self._program.pending

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
            await self._told()
        return self.error

    async def _add(self, many: Iterable[T], add: Callable[[T], int]) -> int:
        last, rest = 0, iter(many)
        while part := list(itertools.islice(rest, SLICE)):
            if self._program.pending >= BUFFERED:
                await self._until(lambda: self._program.pending < BUFFERED)
            self._check()
            for one in part:
                last = add(one)
            self._wake.set()
            if len(part) == SLICE:
                await asyncio.sleep(0)
        return last

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

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
            text = f"{self._program.pending} operations are not acknowledged after {self._settings.close_timeout:g} s"
            raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, text) from None

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
        pauses = self._settings.backoff.pauses()
        try:
            while not self._closing:
                error = await self._one_stream()
                if error is None or self._closing:
                    return
                if not (error.retryable and self._wait()):
                    self.error = error
                    return
                log.info("owner %s: the session has broken: %s", self._settings.open.owner or "(own)", error)
                if not concerns_link(error):
                    await asyncio.sleep(max(next(pauses), error.retry_after or 0.0))
        except ConfigurationError as exc:
            self.error = exc
        finally:
            self.connected = False
            if not self._closing:  # also where a callback has raised: nobody shall wait for ever
                self.error = self.error or closed()
            self._tell()

    def _wait(self) -> bool:
        """Whether a connection is waited for: always, once one has stood."""
        return self._settings.wait or self.opened.instance_id != ""

    async def _one_stream(self) -> McastError | None:
        """Carry out one stream; why it has ended, None where we have ended it."""
        stream = self._stream = object()
        wait = self._wait()
        try:
            async with self._links.use(None if wait else OPEN_SECONDS, wait=wait) as link:
                standing = asyncio.Event()
                call = link.stubs.routes.ProgramRoutes(self._requests(stream, standing))
                try:
                    async with asyncio.timeout(OPEN_SECONDS):
                        first = await call.read()
                    if not isinstance(first, Response):
                        return Unavailable(grpc.StatusCode.UNAVAILABLE, "the daemon has ended the stream", reason="NO_ANSWER")
                    self._links.answered(link)
                    self._stand(first.opened, standing)
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
            self._tell()
        return None if self._closing else Unavailable(grpc.StatusCode.UNAVAILABLE, "the daemon has ended the stream")

    def _stand(self, opened: Response.Opened, standing: asyncio.Event) -> None:
        self.opened = opened
        self._program.begin()
        self.connected = True
        standing.set()
        self._tell()

    def _take(self, answer: Response) -> None:
        for found in self._program.take(answer):
            if self._settings.on_exception is not None:
                self._settings.on_exception(found)
            else:
                self._exceptions.append(found)
        error = self._program.replay_error
        if error is not None and answer.HasField("synced"):
            log.warning("owner %s: the replay has deleted nothing: %s", self.opened.owner, error)
            if error.retryable:
                raise error  # The stream begins anew, and the replay with it.
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
