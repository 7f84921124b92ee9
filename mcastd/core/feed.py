"""The feed: what has changed, in order, for all who follow it.

There is one log for each kind of object, shared by all followers, and it holds keys, not objects: who follows reads an object
as it is when it tells of it, so changes that came meanwhile are merged. A follower is a position in each log it cares for: an
idle one costs nothing, and a change costs the same however many follow. Keys are merged in rounds, once for all who are at one
position. A log is cut where it has grown long; what those have not seen who are still behind is then kept beside it, each key
once: what is held is bounded by the number of objects, not by their changes.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable
from enum import IntEnum
from itertools import count
from typing import NamedTuple
from weakref import WeakValueDictionary

from mcastd.model.event import UpcallKind
from mcastd.model.join import JoinKey

LOG_MAX = 262_144
"""Changes of one kind that a returning follower may be behind: 2 MB of references."""

_CUTS = 8
"""A log is cut by this part of its length: to merge 32,768 keys takes some 3 ms, in which nothing else is done."""

_numbers = count()

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


class Round:
    """Keys that have changed, each once, with how many changes it stands for; shared by all who began where it begins."""

    __slots__ = ("__weakref__", "changes", "end", "number")

    def __init__(self, changes: Counter[Hashable], end: int) -> None:
        """All that has changed up to this position of the log."""
        self.changes = tuple(changes.items())
        self.end = end
        self.number = next(_numbers)
        """No other round of any log has it."""


class Part(NamedTuple):
    """What is next of a round."""

    round: Round
    at: int
    """How many keys of the round come before."""
    changes: tuple[tuple[Hashable, int], ...]
    """Keys, each with how many changes it stands for."""


class Backlog:
    """What was cut from a log before some lanes, which share it, had seen it; it begins where they are, and grows."""

    __slots__ = ("_rounds", "changes", "end")

    def __init__(self, end: int) -> None:
        """Nothing is cut yet; the log has all from this position on."""
        self.changes: Counter[Hashable] = Counter()
        self.end = end
        self._rounds: WeakValueDictionary[int, Round] = WeakValueDictionary()

    def round(self, log: "Log") -> Round:
        """The next round of whoever has this: one that others are in, unless more has been cut since, or all there is now."""
        found = self._rounds.get(self.end)
        if found is None:
            changes = self.changes.copy()
            changes.update(log.since(self.end))
            found = self._rounds[self.end] = Round(changes, log.end)
        return found


class Log:
    """Keys of objects of one kind that have changed, the newest last; a key may be there several times."""

    __slots__ = ("_keys", "_max", "_rounds", "lanes", "tail")

    def __init__(self, length_max: int = LOG_MAX) -> None:
        """Nothing has changed yet."""
        self._keys: list[Hashable] = []
        self._max = length_max
        self._rounds: WeakValueDictionary[int, Round] = WeakValueDictionary()
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
        if len(self._keys) > self._max + self._max // _CUTS:
            self._cut(self.end - self._max)

    def since(self, position: int) -> list[Hashable]:
        """What has changed since a position that is not before the tail."""
        return self._keys[position - self.tail :]

    def round(self, position: int) -> Round:
        """The round that begins at a position: one that others are in, or all there is now."""
        found = self._rounds.get(position)
        if found is None:
            found = self._rounds[position] = Round(Counter(self.since(position)), self.end)
        return found

    def _cut(self, tail: int) -> None:
        """Drop what is before this position; lanes that are behind keep it, those at one position together."""
        begun: dict[int, Backlog] = {}
        for lane in self.lanes:
            if lane.position >= tail:
                continue
            backlog = lane.backlog or begun.get(lane.position)
            if backlog is None:
                backlog = begun[lane.position] = Backlog(lane.position)
            if backlog.end < tail:
                backlog.changes.update(self._keys[backlog.end - self.tail : tail - self.tail])
                backlog.end = tail
            lane.backlog, lane.position = backlog, tail
        del self._keys[: tail - self.tail]
        self.tail = tail


class Lane:
    """What one follower has yet to be told of one kind.

    It is told in rounds: all that has changed when a round begins, each key once, before anything that changes later.
    """

    __slots__ = ("_at", "_log", "_round", "backlog", "position", "safe")

    def __init__(self, log: Log, position: int) -> None:
        """Follow a log from a position that it still has."""
        self._log = log
        self._round: Round | None = None
        self._at = 0
        self.backlog: Backlog | None = None
        """What comes before the position in the next round."""
        self.position = position
        """From here on it needs the log."""
        self.safe = position
        """Everything before this has been told."""
        log.lanes.add(self)

    def leave(self) -> None:
        """Follow no more."""
        self._log.lanes.discard(self)

    @property
    def pending(self) -> int:
        """Keys that are waiting to be told, at most: in the log some may be there twice."""
        waiting = self._log.end - self.position
        if self.backlog is not None:
            waiting += len(self.backlog.changes)
        return waiting if self._round is None else waiting + len(self._round.changes) - self._at

    def take(self, count: int) -> Part | None:
        """The next keys of the round, a new round where the last is over; None = nothing has changed."""
        if self._round is None and not self._begin():
            return None
        now, at = self._round, self._at
        assert now is not None  # noqa: S101 - It has begun.
        part = Part(now, at, now.changes[at : at + count])
        self._at += len(part.changes)
        if self._at == len(now.changes):
            self._round, self.safe = None, now.end
        return part

    def _begin(self) -> bool:
        """Begin a round; whether there is anything to tell."""
        if self.backlog is not None:
            self._round, self.backlog = self.backlog.round(self._log), None
        elif self.position < self._log.end:
            self._round = self._log.round(self.position)
        else:
            return False
        self._at, self.position = 0, self._round.end
        return True


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
