"""What one watcher is told of objects: its selector decides which, and the events are those that all share."""

from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

from mcast.v1 import services_pb2 as sv
from mcastd.api.events import Events, framed
from mcastd.api.filters import FlowFilter, InterfaceFilter, JoinFilter, RouteFilter, Tell
from mcastd.api.ports import DaemonPort
from mcastd.core.feed import Kind, Part, UpcallNote
from mcastd.model.join import JoinKey

Body = bytes | None
"""An event; None = it is told nothing."""


class Told(NamedTuple):
    """What a watcher is told of a part of a round."""

    bodies: list[bytes]
    """Framed events, some of them put together already."""
    coalesced: int
    """Changes that were merged into others."""


class Teller:
    """Makes what one watcher is told."""

    def __init__(self, daemon: DaemonPort, events: Events, request: sv.WatchRequest, *, resumed: bool) -> None:
        """Choose by the request's selector, McastdError if it can't be; `resumed` as for the filters."""
        self._engine = daemon.engine
        self._events = events
        self._routes = RouteFilter(request.selector, resumed=resumed)
        self._joins = JoinFilter(request.selector, resumed=resumed)
        self._interfaces = InterfaceFilter(request.selector)
        self._flows = FlowFilter(request.selector)
        self._by_kind: dict[Kind, Callable[[object, int], Body]] = {
            Kind.ROUTE: self._route,
            Kind.INTERFACE: self._interface,
            Kind.JOIN: self._join,
            Kind.SOURCE: self._source,
        }
        filters = (
            (Kind.ROUTE, self._routes.everything),
            (Kind.INTERFACE, self._interfaces.everything),
            (Kind.JOIN, self._joins.everything),
            (Kind.SOURCE, self._flows.everything),
        )
        self._whole = {kind for kind, everything in filters if everything}
        """Kinds of which every object is wanted."""
        self._as_of = dict.fromkeys(Kind, 0)
        """Of these kinds: position of the log that nothing it was told is later than."""

    def part(self, kind: Kind, part: Part) -> Told:
        """What has changed."""
        if kind in self._whole:
            chunk = self._events.part(kind, part, self._as_of[kind])
            self._as_of[kind] = chunk.as_of
            return Told(chunk.bodies, chunk.coalesced)
        tell, since = self._by_kind[kind], part.round.end
        bodies: list[bytes] = []
        coalesced = 0
        for key, changes in part.changes:
            body = tell(key, since)
            if body is not None:
                coalesced += changes - 1
                bodies.append(framed(body, changes - 1))
        return Told(bodies, coalesced)

    def snapshot(self, kind: Kind, keys: Iterable[object], since: int) -> list[bytes]:
        """What there is; what has gone since its keys were taken is left out."""
        there = self._there(kind)
        tell = self._by_kind[kind]
        self._as_of[kind] = self._engine.feed.logs[kind].end
        found = (tell(key, since) for key in keys if there is None or key in there)
        return [framed(body, 0) for body in found if body is not None]

    def upcalls(self, notes: Iterable[UpcallNote]) -> list[bytes]:
        """Upcalls, each as it happened."""
        return [framed(self._events.upcall(note), 0) for note in notes if self._flows.matches(note.key, note.interface)]

    def _there(self, kind: Kind) -> Container[object] | None:
        """What there is of a kind now; None = an event is right whether it is there or not."""
        match kind:
            case Kind.ROUTE:
                return self._engine.desired.routes
            case Kind.SOURCE:
                return self._engine.sources.all
            case Kind.JOIN:
                return self._engine.joins.wishes
            case Kind.INTERFACE:
                return None

    def _route(self, key: object, since: int) -> Body:
        assert isinstance(key, bytes)  # noqa: S101 - The log of routes holds their keys.
        route = self._engine.desired.routes.get(key)
        match self._routes.verdict(key, route):
            case Tell.PUT:
                return self._events.route(key, route, since)
            case Tell.DELETE:
                return self._events.route(key, None, since) if route is None else self._events.unmatched(key)
            case Tell.NOTHING:
                return None

    def _interface(self, name: object, since: int) -> Body:
        assert isinstance(name, str)  # noqa: S101
        return self._events.interface(name, since) if self._interfaces.matches(name) else None

    def _join(self, key: object, since: int) -> Body:
        assert isinstance(key, JoinKey)  # noqa: S101
        book = self._engine.joins
        record = book.record_of(key)
        match self._joins.verdict(key, record, book.interfaces_of(key)):
            case Tell.PUT:
                return self._events.join(key, record, since)
            case Tell.DELETE:
                return self._events.join(key, None, since)
            case Tell.NOTHING:
                return None

    def _source(self, key: object, since: int) -> Body:
        assert isinstance(key, tuple)  # noqa: S101
        return self._events.source(key, since) if self._flows.matches(*key) else None
