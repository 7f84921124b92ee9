"""Asks the daemon for flows: once for a table, or again and again in a thread that says when it knows more."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from google.protobuf.descriptor import MethodDescriptor

from mcastd.cli.ctl.contract import Contract, message_class
from mcastd.cli.ctl.failure import CallError
from mcastd.cli.ctl.shape import enum_words
from mcastd.cli.ctl.top.flows import FlowBook
from mcastd.cli.ctl.top.view import Picture
from mcastd.cli.ctl.transport import Connection

ROUTES = "mcast.v1.RouteService.ListRoutes"
STATUS = "mcast.v1.DaemonService.GetStatus"

PASSING = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
"""Statuses after which it is worth asking again: a daemon that restarts, hangs, or has too much to do."""

_LEAST_PAUSE = 0.05
"""Seconds between two questions, however long the last took to answer."""

_NEWEST = 1_000_000_000
"""Nanoseconds: a sample may be this old, since the daemon reads the kernel once a second at most."""


class Methods(NamedTuple):
    """What is called."""

    routes: MethodDescriptor
    status: MethodDescriptor

    @classmethod
    def of(cls, contract: Contract) -> "Methods":
        """The methods of a contract that has them."""
        found = {method.full_name: method for service in contract.services() for method in service.methods}
        return cls(found[ROUTES], found[STATUS])


class Source:
    """Flows of one daemon."""

    def __init__(self, connection: Connection, methods: Methods, selector: Any, interval: float) -> None:
        """Ask for the routes that a Selector matches (None = all), every `interval` seconds."""
        self._connection = connection
        self._methods = methods
        self._book = FlowBook(stall_seconds=max(5.0, 2 * interval))
        request: Any = message_class(methods.routes.input_type)(counters=True, learned=True)
        request.max_age.FromNanoseconds(int(min(_NEWEST, interval * _NEWEST) / 2))
        if selector is not None:
            request.selector.CopyFrom(selector)
        self._request = request
        route: Any = methods.routes.output_type.fields_by_name["routes"].message_type
        fields = route.fields_by_name["status"].message_type.fields_by_name
        self._states, self._origins = enum_words(fields["state"].enum_type), enum_words(fields["origin"].enum_type)

    def ask(self) -> Picture:
        """The flows now; CallError if the daemon does not answer."""
        asked: Any = message_class(self._methods.status.input_type)()
        status = next(iter(self._connection.call(self._methods.status, [asked])))
        answers: Any = self._connection.call(self._methods.routes, [self._request])
        routes = (route for answer in answers for route in answer.routes)
        flows = self._book.update(routes, self._states, self._origins)
        return Picture(self._connection.target.address, flows, status, time=time.time())


class Poller:
    """Asks in a thread of its own, and keeps the last answer."""

    def __init__(self, source: Source, first: Picture, interval: float, told: Callable[[], None]) -> None:
        """`first` is what is known already; `told` is called, in the thread, whenever there is news."""
        self._source = source
        self._interval = interval
        self._told = told
        self._picture = first
        self._refused: CallError | None = None
        self._ended = threading.Event()
        self._telling = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="poll", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Ask no more, and tell nothing from now on."""
        with self._telling:
            self._ended.set()

    def alive(self) -> bool:
        """Whether it may still be asking."""
        return self._thread.is_alive()

    def picture(self) -> Picture:
        """The last that is known; CallError if the daemon refuses."""
        if self._refused is not None:
            raise self._refused
        return self._picture

    def _run(self) -> None:
        pause = self._interval
        while self._refused is None and not self._ended.wait(pause):
            began = time.monotonic()
            try:
                self._picture = self._source.ask()
            except CallError as exc:
                self._fail(exc, began)
            with self._telling:
                if not self._ended.is_set():
                    self._told()
            pause = max(_LEAST_PAUSE, self._interval - (time.monotonic() - began))

    def _fail(self, exc: CallError, now: float) -> None:
        """Keep what is known and say that it is old; what asking again cannot change ends it."""
        if exc.status not in PASSING:
            self._refused = exc
            return
        since = self._picture.since if self._picture.trouble else now
        self._picture = replace(self._picture, trouble=exc.line().removeprefix("mcastctl: "), since=since)
