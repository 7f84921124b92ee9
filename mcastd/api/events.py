"""Events: objects as the messages of Watch tell of them, serialized once for all who follow."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf.message import Message

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.api import present
from mcastd.api.interfaces import InterfaceView
from mcastd.api.ports import CounterSample, DaemonPort
from mcastd.core.feed import Kind, Part, UpcallNote
from mcastd.core.sources import Cause, Source, SourceKey
from mcastd.model.address import address_text, split_key
from mcastd.model.event import UpcallKind
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.route import Route

_CACHED_MAX = 8192
"""Serialized objects that are kept: those who follow at one pace ask for the same ones."""

CHUNKS_BYTES = 4 << 20
"""Of parts of rounds that are kept: those who follow everything take the same ones, a little after each other."""

MESSAGE_BYTES = 1024 * 1024
"""A message is sent when it has come to this: a client receives 4 MiB at most, and an event has some kB at most."""

_PRESENTED_MAX = 1024

_NUMBERS: Mapping[str, int] = {field.name: field.number for field in sv.Event.DESCRIPTOR.oneofs_by_name["object"].fields}
_COALESCED = bytes([sv.Event.DESCRIPTOR.fields_by_name["coalesced"].number << 3])
_EVENTS = bytes([sv.WatchResponse.DESCRIPTOR.fields_by_name["events"].number << 3 | 2])

_CAUSES = {UpcallKind.NOCACHE: Cause.NO_ROUTE, UpcallKind.WRONGVIF: Cause.WRONG_INTERFACE}


class _Cached(NamedTuple):
    position: int
    """Of the log's end when it was made: it says all that has changed before."""
    body: bytes


class Chunk(NamedTuple):
    """The events of a part of a round."""

    bodies: list[bytes]
    """Ready to be sent: a message's worth each."""
    coalesced: int
    """Changes that were merged into others."""
    as_of: int
    """The end of the log when it was made: it says all that has changed before."""


def framed(body: bytes, coalesced: int) -> bytes:
    """An event of WatchResponse.events, with how many changes were merged into it.

    Put together by hand (protobuf.dev/programming-guides/encoding): parsing and copying what is serialized already for each of
    hundreds of followers would take most of the time.
    """
    if coalesced:
        body = body + _COALESCED + _varint(coalesced)
    return _EVENTS + _varint(len(body)) + body


def together(bodies: Iterable[bytes]) -> Iterator[bytes]:
    """Framed events, put together to as many messages as they need."""
    part: list[bytes] = []
    size = 0
    for body in bodies:
        if size + len(body) > MESSAGE_BYTES and part:
            yield b"".join(part)
            part, size = [], 0
        part.append(body)
        size += len(body)
    if part:
        yield b"".join(part)


class Events:
    """Makes events; one for all followers of a server."""

    def __init__(self, daemon: DaemonPort, interfaces: InterfaceView) -> None:
        """Read this daemon's objects when asked."""
        self._daemon = daemon
        self._engine = daemon.engine
        self._interfaces = interfaces
        self._cache: dict[tuple[Kind, object], _Cached] = {}
        self._chunks: dict[tuple[int, int, int], Chunk] = {}
        """By the number of the round, and where in it the part begins and ends."""
        self._chunks_bytes = 0
        self._presenter = self._new_presenter()
        self._presented = 0
        self._used: tuple[int, dict[str, int]] = (-1, {})

    def part(self, kind: Kind, part: Part, as_of: int) -> Chunk:
        """The events of a part of a round, for all who want every object of the kind.

        They are not older than `as_of`, a position of the log: who was told of that is not to be told of what was before.
        """
        where = (part.round.number, part.at, len(part.changes))
        found = self._chunks.get(where)
        if found is None or found.as_of < as_of:
            since = max(part.round.end, as_of)
            bodies = [framed(self.put(kind, key, since), changes - 1) for key, changes in part.changes]
            coalesced = sum(changes for _, changes in part.changes) - len(bodies)
            found = Chunk(list(together(bodies)), coalesced, self._engine.feed.logs[kind].end)
            self._keep_chunk(where, found)
        return found

    def put(self, kind: Kind, key: Any, since: int) -> bytes:
        """An object put, or deleted if it is not there any more, as of a position of its log or later."""
        match kind:
            case Kind.ROUTE:
                return self.route(key, self._engine.desired.routes.get(key), since)
            case Kind.INTERFACE:
                return self.interface(key, since)
            case Kind.JOIN:
                return self.join(key, self._engine.joins.record_of(key), since)
            case Kind.SOURCE:
                return self.source(key, since)

    def route(self, key: bytes, route: Route | None, since: int) -> bytes:
        """A route put, or deleted (None), as of a position of its log or later."""
        return self._cached(Kind.ROUTE, key, since) or self._keep(Kind.ROUTE, key, self._route(key, route))

    def unmatched(self, key: bytes) -> bytes:
        """A route that is there, but not among those (any more) that a follower wants."""
        return self._route(key, None)

    def interface(self, name: str, since: int) -> bytes:
        """An interface put or deleted."""
        return self._cached(Kind.INTERFACE, name, since) or self._keep(Kind.INTERFACE, name, self._interface(name))

    def source(self, key: SourceKey, since: int) -> bytes:
        """Traffic that is not forwarded as it should, put or deleted."""
        return self._cached(Kind.SOURCE, key, since) or self._keep(Kind.SOURCE, key, self._source(key))

    def join(self, key: JoinKey, record: JoinRecord | None, since: int) -> bytes:
        """A join put, or deleted (None)."""
        if record is None:  # Gone, or not among those that the follower wants: others may want it.
            return _event("join", present.join_key(key), deleted=True)
        return self._cached(Kind.JOIN, key, since) or self._keep(Kind.JOIN, key, self._join(record))

    def upcall(self, note: UpcallNote) -> bytes:
        """One upcall."""
        table, group, source = split_key(note.key)
        message = t.Upcall(
            cause=int(_CAUSES[note.kind]),  # type: ignore[arg-type] # The numbers are the contract's.
            group=address_text(group),
            source=address_text(source),
            interface=note.interface,
            table=table,
        )
        if note.template:
            message.template.CopyFrom(present.route_key(note.template))
        return _event("upcall", message, note.time)

    def counters(self, key: bytes, route: Route, sample: CounterSample) -> bytes:
        """Counters of an entry, under the key of its route (a shared tree), or its own (S,G)."""
        message = sv.CounterSample(key=present.route_key(route.key))
        present.set_counters(message.counters, key, sample)
        return _event("counters", message, sample.time)

    def _cached(self, kind: Kind, key: object, since: int) -> bytes | None:
        found = self._cache.get((kind, key))
        return found.body if found is not None and found.position >= since else None

    def _keep(self, kind: Kind, key: object, body: bytes) -> bytes:
        if len(self._cache) >= _CACHED_MAX:
            self._cache.clear()
        self._cache[kind, key] = _Cached(self._engine.feed.logs[kind].end, body)
        return body

    def _keep_chunk(self, where: tuple[int, int, int], chunk: Chunk) -> None:
        old = self._chunks.pop(where, None)
        self._chunks[where] = chunk
        self._chunks_bytes += _size(chunk) - (_size(old) if old is not None else 0)
        while self._chunks_bytes > CHUNKS_BYTES:
            self._chunks_bytes -= _size(self._chunks.pop(next(iter(self._chunks))))

    def _route(self, key: bytes, route: Route | None) -> bytes:
        if route is None:
            gone = present.route_key(key)
            return _event("route", t.Route(group=gone.group, source=gone.source, iif=gone.iif, table=gone.table), deleted=True)
        if self._presented >= _PRESENTED_MAX:
            self._presenter, self._presented = self._new_presenter(), 0
        self._presented += 1
        return _event("route", self._presenter.present(route))

    def _new_presenter(self) -> present.RoutePresenter:
        return present.RoutePresenter(None, self._engine.joins.error_of_route, self._engine.desired.stale)

    def _interface(self, name: str) -> bytes:
        if name not in self._engine.world.by_name and not any(one == name for one, _ in self._engine.desired.settings):
            return _event("interface", t.Interface(name=name), deleted=True)
        end = self._engine.feed.logs[Kind.INTERFACE].end
        if self._used[0] != end:
            self._used = (end, self._interfaces.routes_by_interface())
        return _event("interface", self._interfaces.present(name, self._used[1]))

    def _join(self, record: JoinRecord) -> bytes:
        return _event("join", present.join(record, self._engine.joins.error_of(record.key)))

    def _source(self, key: SourceKey) -> bytes:
        source = self._engine.sources.all.get(key)
        return _event("source", source_message(key, source), source.last_seen if source else 0.0, deleted=source is None)


def source_message(key: SourceKey, source: Source | None) -> t.Source:
    """A source; None = its key alone."""
    table, group, address = split_key(key[0])
    message = t.Source(group=address_text(group), source=address_text(address), interface=key[1], table=table)
    if source is not None:
        message.cause = int(source.cause)  # type: ignore[assignment] # The numbers are the contract's.
        message.first_seen.CopyFrom(present.timestamp(source.first_seen))
        message.last_seen.CopyFrom(present.timestamp(source.last_seen))
        message.upcalls = source.upcalls
    return message


def _event(field: str, message: Message, when: float = 0.0, *, deleted: bool = False) -> bytes:
    """The serialized event, but for `coalesced`; `when` in seconds since the epoch, 0 = now."""
    kind = sv.Event.TYPE_DELETE if deleted else sv.Event.TYPE_PUT
    head = sv.Event(type=kind, time=present.timestamp(when or time.time())).SerializeToString()
    body = message.SerializeToString()
    return b"".join((head, bytes([_NUMBERS[field] << 3 | 2]), _varint(len(body)), body))


def _size(chunk: Chunk) -> int:
    return sum(map(len, chunk.bodies))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
