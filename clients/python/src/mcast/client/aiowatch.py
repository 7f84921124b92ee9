"""Owns following what changes with grpc.aio: a watch over all its streams, and the view that is filled by one."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from types import TracebackType
from typing import Self

import grpc

from mcast.client.aiolinks import AioLinks
from mcast.client.cache import Cache
from mcast.client.errors import ConfigurationError, McastError, Unavailable
from mcast.client.events import Delete, Disconnected, Event, Put, Reader, Synced
from mcast.client.ids import JoinId, RouteId, SourceId
from mcast.client.links import concerns_link
from mcast.client.target import Backoff
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t

FIRST_SECONDS = 10.0
"""For the first connection, where it is not waited for."""


class Watch:
    """Events, for ever: iterate once. It reconnects by itself; what it raises is healed by no retry. Made by `Client.watch`."""

    def __init__(self, links: AioLinks, request: sv.WatchRequest, backoff: Backoff, *, wait: bool) -> None:
        self._links = links
        self._reader = Reader(request)
        self._backoff = backoff
        self._wait = wait
        self._events = self._follow()

    @property
    def resume_token(self) -> str:
        """A token that covers all events that were handed out, for another watch of the same kinds."""
        return self._reader.token

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def aclose(self) -> None:
        """Hang up; leaving the loop does the same, when Python gets to it."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def _follow(self) -> AsyncGenerator[Event, None]:
        pauses = self._backoff.pauses()
        while True:
            error: McastError = Unavailable(grpc.StatusCode.UNAVAILABLE, "the daemon has ended the stream", reason="ENDED")
            try:
                async with self._links.use(None if self._wait else FIRST_SECONDS, wait=self._wait) as link:
                    call = link.stubs.events.Watch(self._reader.request())
                    try:
                        async for message in call:
                            self._links.answered(link)
                            self._wait = True
                            for event in self._reader.read(message):
                                if isinstance(event, Synced):
                                    pauses = self._backoff.pauses()
                                yield event
                    finally:
                        call.cancel()
            except McastError as exc:
                if not exc.retryable or not self._wait:
                    raise
                error = exc
            yield Disconnected(error)
            if not concerns_link(error):
                await asyncio.sleep(max(next(pauses), error.retry_after or 0.0))


class View:
    """What the daemon has, kept up to date; use it as an asynchronous context. Made by `Client.view`."""

    def __init__(self, watch: Watch, on_event: Callable[[Put | Delete], None] | None) -> None:
        self.error: McastError | ConfigurationError | None = None
        """What has ended it; what is read stays as it was."""
        self._watch = watch
        self._on_event = on_event
        self._cache = Cache()
        self._waiters: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if kind is None and not self._task.cancelled() and (failure := self._task.exception()) is not None:
                raise failure

    @property
    def routes(self) -> Mapping[RouteId, t.Route]:
        """Routes."""
        return self._cache.now.routes

    @property
    def interfaces(self) -> Mapping[str, t.Interface]:
        """Interfaces, by name."""
        return self._cache.now.interfaces

    @property
    def joins(self) -> Mapping[JoinId, t.Join]:
        """Joins."""
        return self._cache.now.joins

    @property
    def sources(self) -> Mapping[SourceId, t.Source]:
        """Traffic that no route forwards as it should."""
        return self._cache.now.sources

    @property
    def counters(self) -> Mapping[RouteId, t.Counters]:
        """Counters, as they were sampled last."""
        return self._cache.now.counters

    @property
    def connected(self) -> bool:
        """Whether the stream stands."""
        return self._cache.connected

    @property
    def synced(self) -> bool:
        """Whether nothing is missing; while it is False what is read is the last that was known."""
        return self._cache.synced

    @property
    def version(self) -> int:
        """Grows with each change."""
        return self._cache.version

    async def ready(self) -> None:
        """Wait until nothing is missing; what has ended the view is raised."""
        await self._until(lambda: self._cache.synced)

    async def changed(self, since: int) -> int:
        """Wait until something has changed since this `version`; the version now."""
        await self._until(lambda: self._cache.version > since)
        return self._cache.version

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._task is not None and self._task.done():
                raise self.error or McastError(grpc.StatusCode.FAILED_PRECONDITION, "the view is closed")
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _run(self) -> None:
        try:
            async with contextlib.aclosing(self._watch):
                async for event in self._watch:
                    self._apply(event)
        except (McastError, ConfigurationError) as exc:
            self.error = exc
        finally:
            self._cache.end()
            asyncio.get_running_loop().call_soon(self._tell)  # once the task is done

    def _apply(self, event: Event) -> None:
        for change in self._cache.apply(event):
            if self._on_event is not None:
                self._on_event(change)
        self._tell()
