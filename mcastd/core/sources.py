"""Sources: traffic that the kernel reported and that no route forwards as it should.

State, not edges: a source is here from its first upcall until a route covers it or it has been quiet for a while. A stop filter
keeps the kernel from calling again, so its counters tell whether its source still sends.
"""

from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum

from mcastd.core.feed import Feed
from mcastd.core.learning import tree_of
from mcastd.core.tables import KernelTable
from mcastd.core.templates import TemplateShape
from mcastd.model.address import exact_prefix, split_key
from mcastd.model.event import Answer, UpcallKind
from mcastd.model.route import Route

SOURCES_MAX = 16_384
"""Sources that are kept; spoofed ones must not fill the memory."""

QUIET_SECONDS = 60.0
"""Without an upcall, or a packet at its stop filter: then a source goes."""

PRESSED_QUIET_SECONDS = 15.0
"""The same for a source that has called only once, where others were refused of late: the kernel calls again after 10 s."""

_AT_ONCE = 1000

SourceKey = tuple[bytes, str]
"""Key of the (S,G), and the interface where its packets come in."""


class Cause(IntEnum):
    """Why the kernel called, by the contract's numbers (mcast.v1.Source.Cause)."""

    NO_ROUTE = 1
    WRONG_INTERFACE = 2


class Source:
    """One (S,G) on one interface."""

    __slots__ = ("active_at", "cause", "first_seen", "last_seen", "upcalls")

    def __init__(self, cause: Cause, now: float) -> None:
        """Seen for the first time; `now` in seconds since the epoch."""
        self.cause = cause
        self.first_seen = self.last_seen = now
        """First and last upcall."""
        self.active_at = now
        """Last upcall, or packet at its stop filter."""
        self.upcalls = 0


class Sources:
    """All of them, by SourceKey."""

    def __init__(self, feed: Feed) -> None:
        """None yet; what changes is told to the feed."""
        self.all: dict[SourceKey, Source] = {}
        self._by_flow: dict[bytes, list[str]] = {}
        """The interfaces of each (S,G)."""
        self._feed = feed
        self.refused = 0
        """New sources that found no room."""
        self._refused_at = 0.0

    def note(
        self, kernel: KernelTable, key: bytes, kind: UpcallKind, vif: int, answer: Answer, route: Route | None, now: float
    ) -> None:
        """An upcall, after the engine has taken note of it; `route` is the exact route of this (S,G), if there is one."""
        slot = kernel.vifs.slots[vif] if vif < len(kernel.vifs.slots) else None
        if slot is None:
            return
        if kind is UpcallKind.NOCACHE:
            if answer in {Answer.INSTALLED, Answer.PRESENT}:
                self.covered(key, slot.name)
            elif not _will_be_served(kernel, key, vif, answer, route):
                self._seen((key, slot.name), Cause.NO_ROUTE, now)
        elif kind is UpcallKind.WRONGVIF:
            cause = _wrong(kernel, key, slot.ifindex, slot.name, route)
            if cause is not None:
                self._seen((key, slot.name), cause, now)

    def _seen(self, source_key: SourceKey, cause: Cause, now: float, upcalls: int = 1) -> None:
        source = self.all.get(source_key)
        if source is None:
            if len(self.all) >= SOURCES_MAX:
                self.refused += 1
                self._refused_at = now
                return
            source = self.all[source_key] = Source(cause, now)
            self._by_flow.setdefault(source_key[0], []).append(source_key[1])
        source.cause = cause
        source.upcalls += upcalls
        source.active_at = now
        if upcalls:
            source.last_seen = now
        self._feed.sources((source_key,))

    def stopped(self, key: bytes, interface: str, active_at: float) -> None:
        """A stop filter that the kernel holds has dropped a packet last at this time (seconds since the epoch)."""
        source = self.all.get((key, interface))
        if source is not None:
            source.active_at = max(source.active_at, active_at)
        else:
            self._seen((key, interface), Cause.NO_ROUTE, active_at, upcalls=0)

    def covered(self, key: bytes, iif: str) -> None:
        """The kernel forwards what comes in on the iif; what comes in elsewhere is wrong there, but has a route."""
        if key in self._by_flow:
            names = tuple(self._by_flow[key])
            self._drop((key, name) for name in names if name == iif or self._causes(key, name, Cause.NO_ROUTE))

    def uncovered(self, keys: Iterable[bytes]) -> None:
        """The routes of these (S,G) are gone: no interface is the wrong one any more."""
        for key in keys if self._by_flow else ():
            if key in self._by_flow:
                names = tuple(self._by_flow[key])
                self._drop((key, name) for name in names if self._causes(key, name, Cause.WRONG_INTERFACE))

    def _causes(self, key: bytes, interface: str, cause: Cause) -> bool:
        return self.all[key, interface].cause is cause

    def links_gone(self, exists: Callable[[str], bool]) -> None:
        """Forget what came in on interfaces that are no more, or are called otherwise now."""
        self._drop([one for one in self.all if not exists(one[1])])

    def templates_changed(self, kernel: KernelTable) -> Iterator[None]:
        """Forget what templates or shared trees of a table cover now; yields between slices."""
        prefix = exact_prefix(kernel.table, kernel.family)
        numbers = {slot.name: n for n, slot in enumerate(kernel.vifs.slots) if slot is not None}
        for at, source_key in enumerate(tuple(self.all), 1):
            key, interface = source_key
            vif = numbers.get(interface)
            if vif is not None and (key[:4], len(key)) == prefix and source_key in self.all and _templated(kernel, key, vif):
                self._drop((source_key,))
            if at % _AT_ONCE == 0:
                yield

    def expire(self, now: float) -> None:
        """Forget what has been quiet for too long."""
        pressed = now - self._refused_at < QUIET_SECONDS
        self._drop(
            [
                source_key
                for source_key, source in self.all.items()
                if (quiet := now - source.active_at) > QUIET_SECONDS
                or (pressed and source.upcalls == 1 and quiet > PRESSED_QUIET_SECONDS)
            ]
        )

    def _drop(self, keys: Iterable[SourceKey]) -> None:
        dropped = list(keys)
        for source_key in dropped:
            del self.all[source_key]
            key, interface = source_key
            names = self._by_flow[key]
            names.remove(interface)
            if not names:
                del self._by_flow[key]
        self._feed.sources(dropped)


def _templated(kernel: KernelTable, key: bytes, vif: int) -> bool:
    """Whether a template or shared tree is meant for packets that come in on a VIF."""
    _, group, source = split_key(key)
    if tree_of(kernel, group, vif) is not None:
        return True
    shape = kernel.index.find(group, source, vif)
    return shape is not None and shape.action is not None


def _will_be_served(kernel: KernelTable, key: bytes, vif: int, answer: Answer, route: Route | None) -> bool:
    """Whether an entry is on its way for a packet that found none."""
    if route is not None:
        return route.fate.forwarding is not None
    learned = kernel.learned.get(key)
    if learned is not None and isinstance(learned.shape, TemplateShape):
        return True
    return answer is not Answer.CAPPED and _templated(kernel, key, vif)


def _wrong(kernel: KernelTable, key: bytes, ifindex: int, interface: str, route: Route | None) -> Cause | None:
    """Why a packet on this interface is not forwarded though the (S,G) has an entry; None = by now it is, or soon will be."""
    if route is not None:
        return None if route.paths.iif == interface else Cause.WRONG_INTERFACE
    learned = kernel.learned.get(key)
    if learned is None:
        return Cause.WRONG_INTERFACE  # An entry that somebody else has made, or a shared tree where this is no branch.
    if learned.ifindex == ifindex and not learned.stop_wanted:
        return None
    return Cause.NO_ROUTE if learned.stop_wanted and learned.shape is None else Cause.WRONG_INTERFACE
