"""Owns following what changes with grpc.aio: a watch over all its streams, and the view that is filled by one."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from types import TracebackType
from typing import Self

from mcast.client.aiolinks import AioLinks
from mcast.client.errors import ConfigurationError, McastError, misused, stream_ended
from mcast.client.events import Delete, Disconnected, Event, Put
from mcast.client.ids import JoinId, RouteId, SourceId
from mcast.client.target import Backoff
from mcast.client.watch import ViewState, WatchState
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t


class Watch(WatchState):
    """Events, for ever: iterate once. It reconnects by itself; what it raises is healed by no retry. Made by `Client.watch`."""

    def __init__(self, links: AioLinks, request: sv.WatchRequest, backoff: Backoff, *, wait: bool) -> None:
        super().__init__(request, backoff, wait=wait)
        self._links = links
        self._events = self._follow()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            return await anext(self._events)
        except asyncio.CancelledError:
            # Somebody waits no longer, as with asyncio.timeout. That is no end: who asks again goes on from the token.
            self._events = self._follow()
            raise

    async def aclose(self) -> None:
        """Hang up; leaving the loop does the same, when Python gets to it."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def _follow(self) -> AsyncGenerator[Event, None]:
        while True:
            error: McastError = stream_ended()
            try:
                async with self._links.use(self._patience, wait=self._waits) as link:
                    call = link.stubs.events.Watch(self._reader.request())
                    try:
                        async for message in call:
                            self._links.answered(link)
                            for event in self._heard(message):
                                yield event
                    finally:
                        call.cancel()
            except McastError as exc:
                self._broken(exc)
                error = exc
            yield Disconnected(error)
            await asyncio.sleep(self._pause_after(error))


class View(ViewState):
    """What the daemon has, kept up to date; use it as an asynchronous context. Made by `Client.view`."""

    _form = "async with client.view(...) as view"

    def __init__(self, watch: Watch, on_event: Callable[[Put | Delete], None] | None) -> None:
        super().__init__()
        self._watch = watch
        self._on_event = on_event
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

    async def ready(self) -> None:
        """Wait until nothing is missing; what has ended the view is raised."""
        await self._until(lambda: self._cache.synced)

    async def changed(self, since: int) -> int:
        """Wait until something has changed since this `version`; the version now."""
        await self._until(lambda: self._cache.version > since)
        return self._cache.version

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._task is None:
                raise misused("view", self._form)
            if self._task.done():
                raise self._end() from (None if self._task.cancelled() else self._task.exception())
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
