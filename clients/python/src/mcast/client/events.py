"""Owns what `watch` hands out: the messages of Watch as events, and the token that goes with them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from mcast.client.errors import McastError
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t

Object = t.Route | t.Interface | t.Join | t.Source | t.Upcall | sv.CounterSample


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget everything: a snapshot follows."""


@dataclass(frozen=True, slots=True)
class Synced:
    """What was told is complete; what follows is told as it happens."""


@dataclass(frozen=True, slots=True)
class Put:
    """An object is new or has changed; it is complete."""

    object: Object
    time: datetime
    coalesced: int = 0
    """Changes that were merged into this one."""


@dataclass(frozen=True, slots=True)
class Delete:
    """An object is gone; only its key fields are set."""

    object: Object
    time: datetime


@dataclass(frozen=True, slots=True)
class UpcallsLost:
    """The kernel has dropped so many upcalls: sources may be missing until their next packets."""

    count: int


@dataclass(frozen=True, slots=True)
class UpcallsSkipped:
    """So many upcalls were not told, since this reader was too slow or away (at least: 1 after a restart)."""

    count: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The stream has broken; it begins again by itself, and tells what has changed meanwhile."""

    error: McastError


Event = Reset | Synced | Put | Delete | UpcallsLost | UpcallsSkipped | Disconnected


class Reader:
    """Reads the messages of one watch, over all its streams."""

    def __init__(self, request: sv.WatchRequest) -> None:
        self._request = request
        self.token = request.resume_token
        """Covers all events that were handed out."""

    def request(self) -> sv.WatchRequest:
        """Return what to ask for now."""
        request = sv.WatchRequest()
        request.CopyFrom(self._request)
        request.resume_token = self.token
        return request

    def read(self, message: sv.WatchResponse) -> Iterator[Event]:
        """Yield what a message says; once all was taken, the token covers it."""
        if message.kernel_upcalls_lost:
            yield UpcallsLost(message.kernel_upcalls_lost)
        if message.upcalls_skipped:
            yield UpcallsSkipped(message.upcalls_skipped)
        if message.reset:
            self.token = ""  # Until the next one nothing is covered.
            yield Reset()
        for event in message.events:
            if (read := _event(event)) is not None:
                yield read
        self.token = message.resume_token or self.token
        if message.synced:
            yield Synced()


def _event(event: sv.Event) -> Put | Delete | None:
    """Read one event; None for a kind of object that this version does not know."""
    found = _object(event)
    if found is None:
        return None
    time = datetime.fromtimestamp(event.time.seconds + event.time.nanos / 1e9, UTC)
    if event.type == sv.Event.TYPE_DELETE:
        return Delete(found, time)
    return Put(found, time, event.coalesced)


def _object(event: sv.Event) -> Object | None:
    kind = event.WhichOneof("object")
    found: Object | None = getattr(event, kind) if kind is not None else None
    return found
