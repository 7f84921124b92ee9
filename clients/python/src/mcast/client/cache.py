"""Owns what a view knows: the objects as the events leave them. It waits for nothing; aiowatch.py and syncwatch.py fill it."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mcast.client.events import Delete, Disconnected, Event, Object, Put, Reset, Synced
from mcast.client.ids import JoinId, RouteId, SourceId, join_id, route_id, source_id
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t


@dataclass(slots=True)
class Objects:
    """One state of everything that is watched."""

    routes: dict[RouteId, t.Route] = field(default_factory=dict)
    interfaces: dict[str, t.Interface] = field(default_factory=dict)
    joins: dict[JoinId, t.Join] = field(default_factory=dict)
    sources: dict[SourceId, t.Source] = field(default_factory=dict)
    counters: dict[RouteId, t.Counters] = field(default_factory=dict)

    def all(self) -> tuple[dict[Any, Any], ...]:
        """Return the kinds."""
        return self.routes, self.interfaces, self.joins, self.sources, self.counters


class Cache:
    """The objects, and how far they can be trusted."""

    def __init__(self) -> None:
        self.now = Objects()
        """What is read: the last whole state, and the changes since."""
        self.synced = False
        """Nothing is missing: a whole state was told, and the stream stands."""
        self.whole = False
        """A whole state was told once."""
        self.connected = False
        self.version = 0
        """Grows with each change of anything here."""
        self._next: Objects | None = None
        """A snapshot that is coming in."""

    def apply(self, event: Event) -> Iterator[Put | Delete]:
        """Take an event; yield what changes in `now` (when a snapshot is whole: what is gone, then what is there)."""
        match event:
            case Put() | Delete():
                self.connected = True
                if isinstance(event.object, t.Upcall):  # told, not kept: a snapshot that is coming in is none of its business
                    yield event
                elif self._next is not None:
                    _store(self._next, event)
                elif _store(self.now, event):
                    self.version += 1
                    yield event
            case Reset():
                self.connected, self.synced = True, False
                self._next = Objects()
                self.version += 1
            case Synced():
                self.connected = self.synced = self.whole = True
                self.version += 1
                yield from self._swap()
            case Disconnected():
                self.end()
            case _:
                pass

    def end(self) -> None:
        """Nothing comes any more."""
        self.connected = self.synced = False
        self.version += 1

    def _swap(self) -> Iterator[Put | Delete]:
        if self._next is None:
            return
        before, self.now, self._next = self.now, self._next, None
        time = datetime.now(UTC)
        for old, new in zip(before.all(), self.now.all(), strict=True):
            if old is before.counters:
                continue
            for key in old.keys() - new.keys():
                yield Delete(old[key], time)
            for key, one in new.items():
                if old.get(key) != one:
                    yield Put(one, time)


def _store(objects: Objects, event: Put | Delete) -> bool:
    """Store or remove an object; whether that changes anything."""
    place = _place(objects, event.object)
    if place is None:
        return True  # An upcall: told, not kept.
    kind, key, one = place
    if isinstance(event, Delete):
        return kind.pop(key, None) is not None
    kind[key] = one
    return True


def _place(objects: Objects, one: Object) -> tuple[dict[Any, Any], Hashable, object] | None:
    match one:
        case t.Route():
            return objects.routes, route_id(one), one
        case t.Source():
            return objects.sources, source_id(one), one
        case sv.CounterSample():
            return objects.counters, route_id(one.key), one.counters
        case t.Interface():
            return objects.interfaces, one.name, one
        case t.Join():
            return objects.joins, join_id(one), one
    return None
