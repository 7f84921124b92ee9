"""The feed: what has changed, in order, for all who follow it.

There is one log for each kind of object, shared by all followers, and it holds keys, not objects: who follows reads an object
as it is when it tells of it, so changes that came meanwhile are merged. A follower is a position in each log it cares for: an
idle one costs nothing, and a change costs the same however many follow. A log is cut where it has grown long; a follower that
is still behind then keeps the keys itself, each once: what it holds is bounded by the number of objects, not by their changes.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from enum import IntEnum
from itertools import islice
from typing import NamedTuple

from mcastd.model.event import UpcallKind
from mcastd.model.join import JoinKey

LOG_MAX = 262_144
"""Changes of one kind that a returning follower may be behind: 2 MB of references."""

RING_MAX = 65_536
"""Upcalls that are kept for followers."""

_RING_CUT = 4096
"""Upcalls that are dropped at once."""


class Kind(IntEnum):
    """Kinds of objects that are followed, by the contract's numbers (mcast.v1.Kind)."""

    ROUTE = 1
    INTERFACE = 2
    JOIN = 3
    SOURCE = 4


class UpcallNote(NamedTuple):
    """One upcall, as it happened."""

    time: float
    """Seconds since the epoch."""
    kind: UpcallKind
    key: bytes
    """Of its (S,G)."""
    interface: str
    template: bytes
    """Key of the template that answered it; empty = none did."""


class Log:
    """Keys of objects of one kind that have changed, the newest last; a key may be there several times."""

    __slots__ = ("_keys", "_max", "lanes", "tail")

    def __init__(self, length_max: int = LOG_MAX) -> None:
        """Nothing has changed yet."""
        self._keys: list[Hashable] = []
        self._max = length_max
        self.tail = 0
        """Position of the oldest change that is kept; positions only grow."""
        self.lanes: set[Lane] = set()
        """Who follows."""

    @property
    def end(self) -> int:
        """Position of the next change."""
        return self.tail + len(self._keys)

    def extend(self, keys: Iterable[Hashable]) -> None:
        """These have changed."""
        self._keys.extend(keys)
        if len(self._keys) > 2 * self._max:
            cut = len(self._keys) - self._max
            for lane in self.lanes:
                if lane.position < self.tail + cut:
                    lane.absorb()
            del self._keys[:cut]
            self.tail += cut

    def since(self, position: int) -> list[Hashable]:
        """What has changed since a position that is not before the tail."""
        return self._keys[position - self.tail :]


class Lane:
    """What one follower has yet to be told of one kind.

    It is told in rounds: all that has changed when a round begins, each key once, before anything that changes later.
    """

    __slots__ = ("_ahead", "_left", "_log", "_round", "_round_end", "position", "safe")

    def __init__(self, log: Log, position: int) -> None:
        """Follow a log from a position that it still has."""
        self._log = log
        self._ahead: Counter[Hashable] = Counter()
        self._round: Iterator[tuple[Hashable, int]] = iter(())
        self._left = 0
        self._round_end = position
        self.position = position
        """Up to here changes have been taken from the log."""
        self.safe = position
        """Everything before this has been told."""
        log.lanes.add(self)

    def leave(self) -> None:
        """Follow no more."""
        self._log.lanes.discard(self)

    def absorb(self) -> None:
        """Take from the log what has changed, for the next round."""
        self._ahead.update(self._log.since(self.position))
        self.position = self._log.end

    @property
    def pending(self) -> int:
        """Keys that are waiting to be told, at most: in the log some may be there twice."""
        return self._left + len(self._ahead) + self._log.end - self.position

    def take(self, count: int) -> list[tuple[Hashable, int]]:
        """The next keys of the round, a new round where the last is over: each with how many changes it stands for."""
        if not self._left:
            if self.position == self._log.end and not self._ahead:
                return []
            self.absorb()
            self._round, self._left, self._ahead = iter(self._ahead.items()), len(self._ahead), Counter()
            self._round_end = self.position
        part = list(islice(self._round, count))
        self._left -= len(part)
        if not self._left:
            self.safe = self._round_end
        return part


class Feed:
    """The logs, and the ring of upcalls."""

    def __init__(self) -> None:
        """Nobody follows, nothing has changed."""
        self.logs = {kind: Log() for kind in Kind}
        self.upcalls_end = 0
        """Number of the next upcall."""
        self.changed: Callable[[Kind], None] = _nobody
        """Called when something has changed; must not block."""
        self.upcalled: Callable[[], None] = _nothing
        """Called when there are new upcalls."""
        self._ring: list[UpcallNote] = []
        self._touched: dict[str, None] = {}

    def _note(self, kind: Kind, keys: Collection[Hashable]) -> None:
        if keys:
            self.logs[kind].extend(keys)
            self.changed(kind)

    def routes(self, keys: Collection[bytes]) -> None:
        """Routes with these keys have been put or deleted, or their state is another."""
        self._note(Kind.ROUTE, keys)

    def interfaces(self, names: Collection[str]) -> None:
        """Interfaces of these names have come, gone or changed."""
        self._note(Kind.INTERFACE, names)

    def joins(self, keys: Collection[JoinKey]) -> None:
        """Joins have been put or deleted, or their error is another."""
        self._note(Kind.JOIN, keys)

    def sources(self, keys: "Collection[tuple[bytes, str]]") -> None:
        """Traffic has begun, gone on or ended: (key of the (S,G), interface)."""
        self._note(Kind.SOURCE, keys)

    def touch(self, names: Iterable[str]) -> None:
        """The number of routes that use these interfaces may have changed: told of at the next `flush_touched`."""
        self._touched.update(dict.fromkeys(names))

    def flush_touched(self) -> None:
        """Tell of interfaces whose numbers have changed; called a few times a second, since each route may change them."""
        names, self._touched = self._touched, {}
        self.interfaces(names)

    def upcall(self, note: UpcallNote) -> None:
        """The kernel has called; `upcalls_noted` follows."""
        self._ring.append(note)
        self.upcalls_end += 1
        if len(self._ring) >= RING_MAX + _RING_CUT:
            del self._ring[:_RING_CUT]

    def upcalls_noted(self) -> None:
        """That was all for now: tell who follows."""
        self.upcalled()

    def upcalls_lost(self) -> None:
        """Nobody will hear of some upcalls: those who follow sources or upcalls are to know."""
        self.changed(Kind.SOURCE)
        self.upcalled()

    def upcalls_since(self, number: int, count: int) -> tuple[list[UpcallNote], int]:
        """Upcalls from this number on, as many as `count`, and how many before them are not kept any more."""
        tail = self.upcalls_end - len(self._ring)
        skipped = max(0, tail - number)
        begin = max(number, tail) - tail
        return self._ring[begin : begin + count], skipped


def _nobody(_kind: Kind) -> None:
    """Nobody follows."""


def _nothing() -> None:
    """Nobody follows."""
