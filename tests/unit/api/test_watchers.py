"""mcastd.api.watchers: who is woken by what, and how much of the time what can wait may take."""

import asyncio
import time

import pytest

from mcast.v1 import services_pb2 as sv
from mcastd.api.watchers import ASK_AGAIN, SHARE, Hub, Pacer
from mcastd.core.feed import Feed, Kind


class Somebody:
    """Who watches."""

    def __init__(self, pending: int = 0) -> None:
        self.woken = asyncio.Event()
        self.pending = pending

    def subscriber(self) -> sv.Subscriber:
        """What it has to be told."""
        return sv.Subscriber(pending=self.pending)


def hub_of(feed: Feed) -> Hub:
    """A hub, no writes."""
    return Hub(feed, lambda: False)


def awake(*watchers: Somebody) -> list[bool]:
    """Who was woken since the last look."""
    out = [one.woken.is_set() for one in watchers]
    for one in watchers:
        one.woken.clear()
    return out


def test_each_is_woken_by_what_he_waits_for() -> None:
    feed = Feed()
    hub, routes, sources, upcalls = hub_of(feed), Somebody(), Somebody(), Somebody()
    for one in (routes, sources, upcalls):
        hub.join(one)
    hub.await_any(routes, [Kind.ROUTE, Kind.INTERFACE])
    hub.await_any(sources, [Kind.SOURCE])
    hub.await_any(upcalls, [None])
    feed.routes([b"key"])
    assert awake(routes, sources, upcalls) == [True, False, False]
    feed.routes([b"key"])
    assert awake(routes, sources, upcalls) == [False, False, False], "once, until it waits again"
    feed.interfaces(["eth0"])
    assert awake(routes, sources, upcalls) == [True, False, False], "harmless: it looks, and finds it"
    feed.upcalls_noted()
    assert awake(routes, sources, upcalls) == [False, False, True]
    hub.await_any(upcalls, [None])
    feed.upcalls_lost()
    assert awake(routes, sources, upcalls) == [False, True, True]


def test_who_waits_no_more_or_has_left_is_let_alone() -> None:
    feed = Feed()
    hub, one, other = hub_of(feed), Somebody(), Somebody()
    for watcher in (one, other):
        hub.join(watcher)
        hub.await_any(watcher, [*Kind, None])
    hub.stir(one)
    hub.leave(other)
    feed.routes([b"key"])
    feed.upcalls_noted()
    assert awake(one, other) == [False, False]
    assert len(hub) == 1
    assert not any(hub._idle.values())


def test_the_end_wakes_all() -> None:
    hub, idle, at_work = hub_of(Feed()), Somebody(), Somebody()
    for watcher in (idle, at_work):
        hub.join(watcher)
    hub.await_any(idle, [Kind.ROUTE])
    assert [hub.ending] == [False]
    hub.end()
    assert hub.ending
    assert awake(idle, at_work) == [True, True]


def test_who_watches() -> None:
    hub = hub_of(Feed())
    for pending in (1, 2):
        hub.join(Somebody(pending))
    assert [one.pending for one in hub.subscribers()] == [1, 2]
    assert len(hub) == 2


# --- pace ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, in a list of one."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_without_writes_nobody_waits(clock: list[float]) -> None:
    pacer = Pacer(lambda: False)
    pacer.spent(60.0)
    assert pacer.delay() == 0
    assert clock == [1000.0]


def test_during_writes_telling_takes_its_share_of_the_time(clock: list[float]) -> None:
    writing = [True]
    pacer = Pacer(lambda: writing[0])
    assert pacer.delay() == 0
    working = 0.0
    for _ in range(100):
        pacer.spent(0.002)
        working += 0.004  # Sending it as well.
        clock[0] += 0.004 + pacer.delay()
    assert working / (clock[0] - 1000.0) == pytest.approx(SHARE, rel=0.15)
    pacer.spent(1.0)
    assert pacer.delay() == ASK_AGAIN, "the writes may be over before it is its turn"
    writing[0] = False
    assert pacer.delay() == 0, "the write is done"


def test_what_was_not_used_is_not_saved_up(clock: list[float]) -> None:
    pacer = Pacer(lambda: True)
    clock[0] += 1000
    pacer.spent(0.01)
    whole = 2 * 0.01 * (1 / SHARE - 1)
    clock[0] += whole - 0.05
    assert pacer.delay() == pytest.approx(0.05)
