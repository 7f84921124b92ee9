"""mcastd.api.watchers: who is woken by what, and how much of the time what can wait may take."""

import asyncio
import time

import pytest

from mcast.v1 import services_pb2 as sv
from mcastd.api.watchers import AT_ONCE, HEAD, LINGER, LOOK, LOOK_MIN, SHARE, WAIT_MAX, Hub, Pacer
from mcastd.core.feed import Feed, Kind


class Somebody:
    """Who watches."""

    def __init__(self, pending: int = 0) -> None:
        self.woken = asyncio.Event()
        self.turn = False
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


class Clock:
    """The clocks of the machine and of the loop's thread, and whether writes are under way."""

    def __init__(self) -> None:
        self.now, self.used = 1000.0, 10.0
        self.writing = True

    def work(self, seconds: float) -> None:
        """The loop works for so long."""
        self.now += seconds
        self.used += seconds

    def idle(self, seconds: float) -> None:
        """The loop waits for so long."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of this test alone."""
    made = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    monkeypatch.setattr(time, "thread_time", lambda: made.used)
    return made


def pacer_of(clock: Clock) -> Pacer:
    """A pacer that goes by this clock."""
    return Pacer(lambda: clock.writing)


def wait_out(pacer: Pacer, clock: Clock) -> float:
    """Let the loop do other things until more may be told; how long that was."""
    began = clock.now
    while delay := pacer.delay():
        assert delay <= LOOK, "the writes may be over before it is its turn"
        clock.work(delay)
    return clock.now - began


def test_without_writes_nobody_waits(clock: Clock) -> None:
    clock.writing = False
    pacer = pacer_of(clock)
    pacer.spent(60.0)
    assert pacer.delay() == 0
    clock.writing = True
    assert wait_out(pacer, clock) == pytest.approx(HEAD, abs=LOOK_MIN), "what was told then does not count now"


def test_during_writes_telling_takes_its_share_of_the_time(clock: Clock) -> None:
    pacer = pacer_of(clock)
    assert wait_out(pacer, clock) == pytest.approx(HEAD, abs=LOOK_MIN)
    began, told = clock.used, 0.0
    for _ in range(100):
        pacer.spent(0.002)
        clock.work(0.002)
        told += 0.002
        wait_out(pacer, clock)
    assert told / (clock.used - began) == pytest.approx(SHARE, rel=0.1)
    pacer.spent(1.0)
    assert pacer.delay() == LOOK
    clock.writing = False
    clock.idle(LINGER + 0.01)
    assert pacer.delay() == 0, "the write is done"


def test_the_share_is_of_the_loop_s_time_but_nobody_waits_for_ever(clock: Clock) -> None:
    pacer = pacer_of(clock)
    wait_out(pacer, clock)
    pacer.spent(0.01)
    pause = 0.01 * (1 / SHARE - 1)
    clock.idle(pause + 0.001)
    assert pacer.delay() > 0, "others had the processor"
    clock.idle(pause * (WAIT_MAX - 1))
    assert pacer.delay() == 0


def test_the_next_write_is_expected_for_as_long_as_the_last_one_took(clock: Clock) -> None:
    pacer = pacer_of(clock)
    assert pacer.delay() > 0
    clock.work(0.06)
    assert pacer.delay() > 0
    clock.writing = False
    clock.idle(0.05)
    assert pacer.delay() > 0
    clock.idle(0.02)
    assert pacer.delay() == 0
    clock.writing = True
    assert pacer.delay() > 0
    clock.work(10.0)
    pacer.spent(10.0)
    clock.writing = False
    clock.idle(LINGER - 0.01)
    assert pacer.delay() > 0
    clock.idle(0.02)
    assert pacer.delay() == 0


async def test_who_waits_is_not_put_off_by_every_new_write(clock: Clock) -> None:
    pacer, somebody = pacer_of(clock), Somebody()
    wait_out(pacer, clock)
    pacer.spent(0.001)
    pacer.wait(somebody)
    told = False
    for _ in range(100):
        clock.writing = False
        pacer.delay()
        clock.writing = True
        told = told or not pacer.delay()
        clock.work(0.005)
    assert told
    pacer.forget(somebody)


async def test_all_who_wait_have_their_turn_together() -> None:
    writing = [True]
    pacer = Pacer(lambda: writing[0])
    many, gone = [Somebody() for _ in range(AT_ONCE + 2)], Somebody()
    for one in (gone, *many):
        pacer.wait(one)
    pacer.forget(gone)
    await asyncio.sleep(2 * LOOK)
    assert awake(*many) == [False] * len(many)
    writing[0] = False
    async with asyncio.timeout(5):
        await many[0].woken.wait()
        assert [one.turn for one in many] == [True] * AT_ONCE + [False] * 2, "others than watchers come in between"
        await many[-1].woken.wait()
    assert all(one.turn for one in many)
    assert not gone.turn
    pacer.wait(gone)
    pacer.forget(gone)
    await asyncio.sleep(0.01)
    assert not gone.turn
