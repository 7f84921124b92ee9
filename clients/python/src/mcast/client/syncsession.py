"""Owns a controller's session in threads: its streams, one after the other, and who waits for them.

The protocol is program.py's.
"""

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from mcast.client.errors import ConfigurationError, DeadlineExceeded, McastError, stream_ended
from mcast.client.ids import route_id
from mcast.client.program import Request, Response
from mcast.client.requests import Keys, Patches, Routes
from mcast.client.results import OpResult, SyncResult
from mcast.client.session import BUFFERED, OPEN_SECONDS, SLICE, SessionState, Settings, closed
from mcast.client.synclinks import SyncLinks
from mcast.client.wanted import encode
from mcast.v1 import types_pb2 as t

T = TypeVar("T")


class SyncSession(SessionState):
    """Programs routes for one owner, from any number of threads; use it as a context. Made by `SyncClient.program`."""

    _form = "with client.program(...) as session"

    def __init__(self, links: SyncLinks, settings: Settings) -> None:
        super().__init__(settings)
        self._links = links
        self._changed = threading.Condition()
        """Of all that is here; never held while gRPC is called."""
        self._call: Any = None
        self._gone = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mcast session", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._entered = True
        try:
            self._until(lambda: self.connected, None)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        failure = None
        try:
            if kind is None:
                self._close()
                failure = self.error
        finally:
            self._end()
        if failure is not None:
            raise failure

    # --- operations --------------------------------------------------------------------------------------------------

    def put(self, routes: Routes) -> int:
        """Create or replace routes; the id of the last operation. Waits only while too many are not acknowledged."""
        return self._add([routes] if isinstance(routes, t.Route) else routes, self._program.put)

    def patch(self, patches: Patches) -> int:
        """Add and remove outgoing interfaces; likewise."""
        return self._add([patches] if isinstance(patches, t.RoutePatch) else patches, self._program.patch)

    def delete(self, keys: Keys) -> int:
        """Delete routes; likewise. One that is not there is deleted well."""
        return self._add([keys] if isinstance(keys, t.RouteKey) else keys, self._program.delete)

    def flush(self, timeout: float | None = None) -> list[OpResult]:
        """Wait until all operations so far are acknowledged; those since the last flush that are not PROGRAMMED."""
        target = self._program.last_id
        self._until(lambda: self._program.acked >= target, timeout)
        with self._changed:
            found = list(self._exceptions)
            self._exceptions.clear()
        return found

    def sync(self, routes: Iterable[t.Route], max_deletions: int = 0, timeout: float | None = None) -> SyncResult:
        """Make the routes of the owner's sessions exactly these; what is there already is not touched.

        TooManyDeletions where more would go than `max_deletions` (0 = no limit): nothing has gone then.
        """
        wanted = {route_id(route): encode(route) for route in routes}
        with self._changed:
            self._check()
            sync = self._program.sync(wanted, max_deletions)
            self._changed.notify_all()
        self._until(lambda: sync.result is not None, timeout)
        return sync.outcome()

    def ended(self, timeout: float | None = None) -> McastError | ConfigurationError | None:
        """Wait for what ends the session for good: Superseded, StaleEpoch, NotAllowed; None after `timeout` seconds."""
        with self._changed:
            if self.error is None:
                self._check()
            self._changed.wait_for(lambda: self.error is not None, timeout)
            return self.error

    def _add(self, many: Iterable[T], add: Callable[[T], int]) -> int:
        last, rest = 0, iter(many)
        while part := list(itertools.islice(rest, SLICE)):
            with self._changed:
                if self._program.pending >= BUFFERED:
                    self._changed.wait_for(lambda: self._program.pending < BUFFERED or self.error is not None)
                self._check()
                try:
                    for one in part:
                        last = add(one)
                finally:
                    self._changed.notify_all()  # also for what stands before one that is no route
        return last

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _until(self, condition: Callable[[], bool], timeout: float | None) -> None:
        with self._changed:
            if not condition():
                self._check()
            if not self._changed.wait_for(lambda: condition() or self.error is not None, timeout):
                raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, f"not within {timeout:g} s")
            if not condition():
                self._check()

    def _close(self) -> None:
        """End in order: all acknowledged, this half closed, the daemon's end awaited."""
        ends = time.monotonic() + self._settings.close_timeout
        target = self._program.last_id
        try:
            self._until(lambda: self._program.acked >= target, self._settings.close_timeout)
        except DeadlineExceeded:
            raise self._late() from None
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self.connected:
            self._thread.join(max(0.0, ends - time.monotonic()))

    def _end(self) -> None:
        self._closing = True
        self._gone.set()
        if self._call is not None:
            self._call.cancel()
        self._thread.join()
        with self._changed:
            self.error = self.error or closed()
            self._changed.notify_all()

    # --- streams -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        over: McastError | ConfigurationError | None = None
        try:
            while not self._closing:
                error = self._one_stream()
                if error is None or self._closing:
                    return
                pause = self._pause_after(error)
                if pause is None:
                    over = error
                    return
                self._gone.wait(pause)
        except ConfigurationError as exc:
            over = exc
        finally:
            with self._changed:
                self.connected = False
                if not self._closing:  # also where a callback has raised: nobody shall wait for ever
                    self.error = self.error or over or closed(sys.exception())
                self._changed.notify_all()

    def _one_stream(self) -> McastError | None:
        """Carry out one stream; why it has ended, None where we have ended it."""
        stream = object()
        wait = self._waits()
        patience: threading.Timer | None = None
        try:
            with self._links.use(None if wait else OPEN_SECONDS, wait=wait, until=self._gone) as link:
                self._stream = stream
                self._call = call = link.stubs.routes.ProgramRoutes(self._requests(stream))
                patience = threading.Timer(OPEN_SECONDS, call.cancel)
                patience.daemon = True
                patience.start()
                try:
                    if self._gone.is_set():
                        self._call.cancel()
                    for answer in call:
                        if answer.HasField("opened"):
                            patience.cancel()
                            self._links.answered(link)
                        self._take(answer)
                finally:
                    patience.cancel()
                    self._call.cancel()
        except McastError as exc:
            return exc
        finally:
            with self._changed:
                self._stream = None
                self.connected = False
                self._changed.notify_all()
        return None if self._closing else stream_ended()

    def _take(self, answer: Response) -> None:
        with self._changed:
            if answer.HasField("opened"):
                self._stands(answer.opened)
                found = []
            else:
                found = self._heard(answer)
            self._changed.notify_all()
        self._report(found)
        self._judge(answer)

    def _requests(self, stream: object) -> Iterator[Request]:
        """Yield what is to be said on one stream; a thread of gRPC's asks for more when there is room."""
        yield Request(open=self._settings.open)
        while (request := self._next(stream)) is not None:
            yield request

    def _next(self, stream: object) -> Request | None:
        """Wait for the next message of a stream; None = it is over."""
        with self._changed:
            while self._stream is stream:
                request = self._program.next() if self.connected else None
                if request is not None or self._closing:
                    return request
                self._changed.wait()
        return None
