"""Owns following what changes in threads: a watch over all its streams, and the view that one fills in a thread of its own."""

import contextlib
import sys
import threading
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from mcast.client.errors import ConfigurationError, DeadlineExceeded, McastError, misused, stream_ended
from mcast.client.events import Delete, Disconnected, Event, Put
from mcast.client.ids import JoinId, RouteId, SourceId
from mcast.client.synclinks import SyncLinks
from mcast.client.target import Backoff
from mcast.client.watch import ViewState, WatchState
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t

K = TypeVar("K")
V = TypeVar("V")


class SyncWatch(WatchState):
    """Events, for ever: iterate once. It reconnects by itself; what it raises no retry heals. Made by `SyncClient.watch`."""

    def __init__(self, links: SyncLinks, request: sv.WatchRequest, backoff: Backoff, *, wait: bool) -> None:
        super().__init__(request, backoff, wait=wait)
        self._links = links
        self._events = self._follow()
        self._call: Any = None
        self._closed = threading.Event()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if self._closed.is_set():
            self.close()
        return next(self._events)

    def close(self) -> None:
        """Hang up, from whatever thread: the iteration ends, with what is left of the last message untold."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()
        with contextlib.suppress(ValueError):  # Another thread waits for the next event: it hears of the end by the call's.
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _follow(self) -> Generator[Event, None, None]:
        while not self._closed.is_set():
            error: McastError = stream_ended()
            try:
                with self._links.use(self._patience, wait=self._waits, until=self._closed) as link:
                    self._call = call = link.stubs.events.Watch(self._reader.request())
                    if self._closed.is_set():
                        self._call.cancel()
                    try:
                        for message in call:
                            self._links.answered(link)
                            yield from self._heard(message)
                    finally:
                        self._call.cancel()
            except McastError as exc:
                if self._closed.is_set():
                    return
                self._broken(exc)
                error = exc
            yield Disconnected(error)
            self._closed.wait(self._pause_after(error))


class SyncView(ViewState):
    """What the daemon has, kept up to date by a thread; use it as a context. Made by `SyncClient.view`."""

    _form = "with client.view(...) as view"

    def __init__(self, watch: SyncWatch, on_event: Callable[[Put | Delete], None] | None) -> None:
        super().__init__()
        self._watch = watch
        self._on_event = on_event
        self._changed = threading.Condition()
        self._over = False
        self._failure: BaseException | None = None
        """What a callback has raised."""
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
            if self._thread.ident is None:
                raise misused("view", self._form)
            if not self._changed.wait_for(lambda: condition() or self._over, timeout):
                raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, f"not within {timeout:g} s")
            if not condition():
                raise self._end() from self._failure

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
                self._failure = sys.exception()
                self._cache.end()
                self._over = True
                self._changed.notify_all()
