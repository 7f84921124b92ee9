"""Owns following what changes in threads: a watch over all its streams, and the view that one fills in a thread of its own."""

import threading
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from mcast.client.aiowatch import FIRST_SECONDS
from mcast.client.cache import Cache
from mcast.client.errors import ConfigurationError, DeadlineExceeded, McastError, Unavailable
from mcast.client.events import Delete, Disconnected, Event, Put, Reader, Synced
from mcast.client.ids import JoinId, RouteId, SourceId
from mcast.client.links import concerns_link
from mcast.client.synclinks import SyncLinks
from mcast.client.target import Backoff
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t

K = TypeVar("K")
V = TypeVar("V")


class SyncWatch:
    """Events, for ever: iterate once. It reconnects by itself; what it raises no retry heals. Made by `SyncClient.watch`."""

    def __init__(self, links: SyncLinks, request: sv.WatchRequest, backoff: Backoff, *, wait: bool) -> None:
        self._links = links
        self._reader = Reader(request)
        self._backoff = backoff
        self._wait = wait
        self._events = self._follow()
        self._call: Any = None
        self._closed = threading.Event()

    @property
    def resume_token(self) -> str:
        """A token that covers all events that were handed out, for another watch of the same kinds."""
        return self._reader.token

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def close(self) -> None:
        """Hang up, from whatever thread: the iteration ends."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _follow(self) -> Generator[Event, None, None]:
        pauses = self._backoff.pauses()
        while not self._closed.is_set():
            error: McastError = Unavailable(grpc.StatusCode.UNAVAILABLE, "the daemon has ended the stream", reason="ENDED")
            try:
                with self._links.use(None if self._wait else FIRST_SECONDS, wait=self._wait, until=self._closed) as link:
                    self._call = call = link.stubs.events.Watch(self._reader.request())
                    if self._closed.is_set():
                        self._call.cancel()
                    try:
                        for message in call:
                            self._links.answered(link)
                            self._wait = True
                            for event in self._reader.read(message):
                                if isinstance(event, Synced):
                                    pauses = self._backoff.pauses()
                                yield event
                    finally:
                        self._call.cancel()
            except McastError as exc:
                if self._closed.is_set():
                    return
                if not exc.retryable or not self._wait:
                    raise
                error = exc
            yield Disconnected(error)
            if not concerns_link(error):
                self._closed.wait(max(next(pauses), error.retry_after or 0.0))


class SyncView:
    """What the daemon has, kept up to date by a thread; use it as a context. Made by `SyncClient.view`."""

    def __init__(self, watch: SyncWatch, on_event: Callable[[Put | Delete], None] | None) -> None:
        self.error: McastError | ConfigurationError | None = None
        """What has ended it; what is read stays as it was."""
        self._watch = watch
        self._on_event = on_event
        self._cache = Cache()
        self._changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="mcast view", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._watch.close()
        self._thread.join()

    @property
    def routes(self) -> dict[RouteId, t.Route]:
        """Routes; each of these is a copy, of what was so at one time."""
        return self._copy(lambda: self._cache.now.routes)

    @property
    def interfaces(self) -> dict[str, t.Interface]:
        """Interfaces, by name."""
        return self._copy(lambda: self._cache.now.interfaces)

    @property
    def joins(self) -> dict[JoinId, t.Join]:
        """Joins."""
        return self._copy(lambda: self._cache.now.joins)

    @property
    def sources(self) -> dict[SourceId, t.Source]:
        """Traffic that no route forwards as it should."""
        return self._copy(lambda: self._cache.now.sources)

    @property
    def counters(self) -> dict[RouteId, t.Counters]:
        """Counters, as they were sampled last."""
        return self._copy(lambda: self._cache.now.counters)

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

    def ready(self, timeout: float | None = None) -> None:
        """Wait until nothing is missing; what has ended the view is raised, DeadlineExceeded after `timeout` seconds."""
        self._until(lambda: self._cache.synced, timeout)

    def changed(self, since: int, timeout: float | None = None) -> int:
        """Wait until something has changed since this `version`; the version now."""
        self._until(lambda: self._cache.version > since, timeout)
        return self._cache.version

    def _copy(self, get: Callable[[], dict[K, V]]) -> dict[K, V]:
        with self._changed:
            return dict(get())

    def _until(self, condition: Callable[[], bool], timeout: float | None) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: condition() or self._over, timeout):
                raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, f"not within {timeout:g} s")
            if not condition():
                raise self.error or McastError(grpc.StatusCode.FAILED_PRECONDITION, "the view is closed")

    def _run(self) -> None:
        try:
            for event in self._watch:
                with self._changed:
                    changes = list(self._cache.apply(event))
                    self._changed.notify_all()
                if self._on_event is not None:
                    for change in changes:
                        self._on_event(change)
        except (McastError, ConfigurationError) as exc:
            self.error = exc
        finally:
            with self._changed:
                self._cache.end()
                self._over = True
                self._changed.notify_all()
