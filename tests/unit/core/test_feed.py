"""mcastd.core.feed: everyone who follows is told of every change, in rounds, however slow; and what is kept is bounded."""

import random
from collections.abc import Hashable

import pytest

from mcastd.core import feed as feed_module
from mcastd.core.feed import RING_MAX, Feed, Kind, Lane, Log, UpcallNote
from mcastd.model.event import UpcallKind
from mcastd.model.join import JoinKey


def take_all(lane: Lane) -> dict[Hashable, int]:
    """All that a lane has to tell: how many changes, by key."""
    out: dict[Hashable, int] = {}
    while part := lane.take(2):
        for key, count in part.changes:
            out[key] = out.get(key, 0) + count
    return out


def next_of(lane: Lane, count: int) -> list[tuple[Hashable, int]]:
    """The next keys that a lane has to tell, with how many changes."""
    part = lane.take(count)
    return [] if part is None else list(part.changes)


def note(number: int) -> UpcallNote:
    """An upcall that differs from others."""
    return UpcallNote(float(number), UpcallKind.NOCACHE, b"key", "eth0", b"")


# --- logs and lanes --------------------------------------------------------------------------------------------------


def test_changes_are_merged_and_told_in_order() -> None:
    log = Log()
    lane = Lane(log, log.end)
    log.extend("abacab")
    assert lane.pending == 6
    assert next_of(lane, 10) == [("a", 3), ("b", 2), ("c", 1)]
    assert (lane.pending, next_of(lane, 10)) == (0, [])


def test_what_changes_during_a_round_comes_after_it() -> None:
    log = Log()
    lane = Lane(log, log.end)
    log.extend("abc")
    assert next_of(lane, 2) == [("a", 1), ("b", 1)]
    log.extend("ad")
    assert lane.pending == 3
    assert next_of(lane, 5) == [("c", 1)], "the rest of the round alone"
    assert next_of(lane, 5) == [("a", 1), ("d", 1)]


def test_only_whole_rounds_are_safe() -> None:
    log = Log()
    log.extend("xyz")
    lane = Lane(log, 1)
    assert lane.safe == 1
    assert next_of(lane, 1) == [("y", 1)]
    log.extend("q")
    assert lane.safe == 1, "who resumes here must be told of z"
    assert next_of(lane, 1) == [("z", 1)]
    assert (lane.safe, log.end) == (3, 4)
    assert next_of(lane, 1) == [("q", 1)]
    assert lane.safe == log.end


def test_a_lane_begins_where_it_is_told() -> None:
    log = Log()
    log.extend("abc")
    assert take_all(Lane(log, 0)) == {"a": 1, "b": 1, "c": 1}
    assert take_all(Lane(log, 2)) == {"c": 1}
    assert take_all(Lane(log, log.end)) == {}


def test_a_log_is_cut_and_nobody_loses_anything() -> None:
    log = Log(4)
    slow, fast, ahead = Lane(log, 0), Lane(log, 0), Lane(log, 0)
    log.extend("ab")
    assert take_all(fast) == {"a": 1, "b": 1}
    assert next_of(ahead, 1) == [("a", 1)]
    log.extend("cdefgha")
    assert (log.tail, log.end, len(log.since(log.tail))) == (5, 9, 4)
    assert slow.position == log.tail, "what was before is kept for it"
    assert slow.safe < log.tail, "a token of this moment is too old"
    assert slow.pending == 9
    assert take_all(slow) == {**dict.fromkeys("bcdefgh", 1), "a": 2}
    assert take_all(fast) == dict.fromkeys("cdefgha", 1)
    assert next_of(ahead, 9) == [("b", 1)]
    assert take_all(ahead) == dict.fromkeys("cdefgha", 1)
    assert slow.safe == fast.safe == ahead.safe == log.end


def test_what_a_lagging_lane_keeps_is_bounded_by_the_keys() -> None:
    log = Log(10)
    lane = Lane(log, 0)
    for _ in range(100):
        log.extend(range(7))
    assert lane.pending <= 7 + 20
    assert log.end - log.tail <= 20
    told = take_all(lane)
    assert told == dict.fromkeys(range(7), 100)


def test_a_lane_that_has_left_is_not_kept() -> None:
    log = Log(2)
    lane, other = Lane(log, 0), Lane(log, 0)
    lane.leave()
    lane.leave()
    log.extend("abcdefgh")
    assert log.lanes == {other}
    assert lane.position == 0


def test_those_at_one_position_share_their_rounds() -> None:
    log = Log()
    one, other, behind = Lane(log, 0), Lane(log, 0), Lane(log, 0)
    log.extend("abc")
    first = one.take(1)
    log.extend("d")
    again, rest = other.take(1), other.take(9)
    assert first is not None
    assert again is not None
    assert rest is not None
    assert (again.round, again.at, again.changes) == (first.round, 0, (("a", 1),))
    assert (rest.round, rest.at, rest.changes) == (first.round, 1, (("b", 1), ("c", 1))), "d comes in the next round"
    assert next_of(one, 9) == [("b", 1), ("c", 1)]
    del first, again, rest
    fresh = behind.take(9)
    assert fresh is not None
    assert dict(fresh.changes) == dict.fromkeys("abcd", 1), "nobody is in the old round any more"
    numbers = {part.round.number for part in (one.take(9), other.take(9), fresh) if part is not None}
    assert len(numbers) == 3 - 1


def test_what_is_cut_is_kept_once_for_those_at_one_position() -> None:
    log = Log(8)
    lanes, ahead = [Lane(log, 0) for _ in range(3)], Lane(log, 0)
    log.extend("ab")
    assert next_of(ahead, 9) == [("a", 1), ("b", 1)]
    log.extend("abcdefghij")
    log.extend("aaa")
    shared = {id(lane.backlog) for lane in lanes}
    assert (len(shared), ahead.backlog is lanes[0].backlog) == (1, False)
    first, second = lanes[0].take(3), lanes[1].take(3)
    assert first is not None
    assert second is not None
    assert second.round is first.round
    log.extend("xyzxyzxyz")
    third = lanes[2].take(99)
    assert third is not None
    assert third.round is not first.round, "more has been cut since that one began"
    assert dict(third.changes) == {**dict.fromkeys("cdefghij", 1), "a": 5, "b": 2, "x": 3, "y": 3, "z": 3}
    assert dict(first.changes) | take_all(lanes[0]) == dict(second.changes) | take_all(lanes[1])
    assert [lane.safe for lane in lanes] == [log.end] * 3
    assert take_all(ahead) == {**dict.fromkeys("bcdefghij", 1), "a": 4, "x": 3, "y": 3, "z": 3}


def test_a_log_is_cut_a_little_at_a_time() -> None:
    log = Log(800)
    cuts = []
    for _ in range(5000):
        tail = log.tail
        log.extend("a")
        cuts += [log.tail - tail] if log.tail > tail else []
    assert max(cuts) == 101
    assert log.end - log.tail <= 900


@pytest.mark.parametrize("seed", range(20))
def test_any_order_tells_every_change_once(seed: int) -> None:
    """Followers that come, take, leave and come back where they were safe are told of all changes since, and of no others."""
    chance = random.Random(seed)
    log, history = Log(8), list[int]()
    lanes = {Lane(log, 0): 0 for _ in range(3)}
    told: dict[Lane, list[int]] = {lane: [0] * 5 for lane in lanes}
    for _ in range(300):
        keys = [chance.randrange(5) for _ in range(chance.randrange(6))]
        history += keys
        log.extend(keys)
        lane = chance.choice(list(lanes))
        for key, count in next_of(lane, chance.randrange(1, 4)):
            assert isinstance(key, int)
            told[lane][key] += count
        if chance.random() < 0.1:
            lane.leave()
            begin = lane.safe if lane.safe >= log.tail else log.end
            began = lanes.pop(lane)
            assert [max(0, history[began : lane.safe].count(k) - told[lane][k]) for k in range(5)] == [0] * 5
            new = Lane(log, begin)
            lanes[new], told[new] = begin, [0] * 5
    for lane, begin in lanes.items():
        for key, count in take_all(lane).items():
            assert isinstance(key, int)
            told[lane][key] += count
        assert told[lane] == [history[begin:].count(k) for k in range(5)]
        assert lane.safe == log.end


# --- the feed --------------------------------------------------------------------------------------------------------


def test_each_kind_has_its_log_and_tells_who_follows() -> None:
    feed, woken = Feed(), list[Kind]()
    feed.changed = woken.append
    join = JoinKey("alice", "eth0", b"\xef\1\1\1", 32, b"", 0)
    feed.routes([b"r"])
    feed.interfaces({"eth0": None}.keys())
    feed.joins([join])
    feed.sources([(b"r", "eth0")])
    assert woken == [Kind.ROUTE, Kind.INTERFACE, Kind.JOIN, Kind.SOURCE]
    assert [log.since(0) for log in feed.logs.values()] == [[b"r"], ["eth0"], [join], [(b"r", "eth0")]]


def test_nothing_wakes_nobody() -> None:
    feed, woken = Feed(), list[Kind]()
    feed.changed = woken.append
    feed.routes([])
    feed.flush_touched()
    assert not woken


def test_without_followers_nothing_is_called() -> None:
    feed = Feed()
    feed.routes([b"r"])
    feed.upcall(note(0))
    feed.upcalls_noted()
    feed.upcalls_lost()
    assert feed.logs[Kind.ROUTE].end == 1


def test_touched_interfaces_are_told_once_when_they_are_flushed() -> None:
    feed = Feed()
    log = feed.logs[Kind.INTERFACE]
    feed.touch(["eth0", "eth1"])
    feed.touch(["eth0"])
    assert log.end == 0
    feed.flush_touched()
    feed.flush_touched()
    assert log.since(0) == ["eth0", "eth1"]


def test_upcalls_are_kept_in_order() -> None:
    feed, woken = Feed(), list[str]()
    feed.upcalled = lambda: woken.append("upcalled")
    feed.changed = lambda kind: woken.append(kind.name)
    for number in range(5):
        feed.upcall(note(number))
    assert not woken
    feed.upcalls_noted()
    assert feed.upcalls_since(1, 3) == ([note(1), note(2), note(3)], 0)
    assert feed.upcalls_since(5, 3) == ([], 0)
    feed.upcalls_lost()
    assert woken == ["upcalled", "SOURCE", "upcalled"], "who follows either is to know"


def test_the_ring_overrun_tells_how_many_were_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "RING_MAX", 10)
    monkeypatch.setattr(feed_module, "_RING_CUT", 4)
    feed = Feed()
    for number in range(100):
        feed.upcall(note(number))
        assert len(feed._ring) < 14
    notes, skipped = feed.upcalls_since(0, 1000)
    assert skipped + len(notes) == feed.upcalls_end == 100
    assert notes == [note(number) for number in range(skipped, 100)]
    assert 10 <= len(notes) < 14
    assert feed.upcalls_since(95, 2) == ([note(95), note(96)], 0)


def test_the_ring_is_as_large_as_the_contract_says() -> None:
    assert RING_MAX == 65_536
    feed = Feed()
    for number in range(RING_MAX):
        feed.upcall(note(number))
    assert feed.upcalls_since(0, 1) == ([note(0)], 0)
