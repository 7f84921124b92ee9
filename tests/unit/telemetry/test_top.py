"""mcastd.telemetry.top: who is exported, and that series do not churn."""

import random
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from mcastd.telemetry.top import LEAD, STAY_SECONDS, Ranked, TopFlows


def key(n: int) -> bytes:
    return n.to_bytes(4, "big")


def choose(top: TopFlows, rates: Mapping[int, float], now: float = 0.0, gone: frozenset[int] = frozenset()) -> set[int]:
    leaders = top.leaders([], ((rate, key(n)) for n, rate in rates.items() if rate))
    chosen = top.choose(leaders, lambda k: int.from_bytes(k, "big") not in gone, now)
    assert len(set(chosen)) == len(chosen) <= top.reach
    return {int.from_bytes(k, "big") for k in chosen}


def test_the_fastest_enter() -> None:
    assert choose(TopFlows(4), {n: n for n in range(20)}) == {16, 17, 18, 19}


def test_one_that_falls_behind_stays_until_rank_one_and_a_half() -> None:
    top = TopFlows(4)
    choose(top, {n: 100 - n for n in range(10)})
    assert choose(top, {0: 50, 1: 99, 2: 98, 3: 97, 4: 96, 5: 95, 6: 1}, 1.0) == {0, 1, 2, 3, 4}  # 0 has rank 6 of 6
    assert choose(top, {0: 50, 1: 99, 2: 98, 3: 97, 4: 96, 5: 95, 6: 94}, 2.0) == {1, 2, 3, 4}
    assert choose(top, {0: 95.5, 1: 99, 2: 98, 3: 97, 4: 96, 5: 95}, 3.0) == {1, 2, 3, 4}  # back at rank 5: not yet in


def test_one_between_leaves_after_a_while() -> None:
    top = TopFlows(2)
    choose(top, {1: 9, 2: 8})
    rates = {1: 5, 2: 8, 3: 9}
    assert choose(top, rates, STAY_SECONDS) == {1, 2, 3}
    assert choose(top, rates, STAY_SECONDS + 1) == {2, 3}


def test_one_that_falls_silent_is_still_told_of_for_a_while_unless_others_need_its_place() -> None:
    top = TopFlows(2)
    choose(top, {1: 9, 2: 8})
    assert choose(top, {2: 8}, 10.0) == {1, 2}
    assert choose(top, {2: 8, 3: 7, 4: 6}, 20.0) == {2, 3}  # reach is 3, all of which have a rate
    assert choose(top, {2: 8}, 30.0, gone=frozenset({3})) == {2}


def test_none_is_none() -> None:
    assert choose(TopFlows(0), {1: 5}) == set()


@given(st.lists(st.dictionaries(st.integers(0, 30), st.integers(0, 5), max_size=25), max_size=12), st.integers(1, 8))
def test_never_more_than_reach_and_always_the_first(rounds: list[dict[int, float]], size: int) -> None:
    top = TopFlows(size)
    for at, rates in enumerate(rounds):
        chosen = choose(top, rates, float(at))
        busy = sorted((rate for rate in rates.values() if rate), reverse=True)
        limit = busy[size - 1] if len(busy) >= size else 0
        assert {n for n, rate in rates.items() if rate > limit * LEAD} <= chosen


def test_leaders_of_slices_are_those_of_all() -> None:
    top = TopFlows(3)
    leaders: list[Ranked] = []
    for at in range(0, 100, 10):
        leaders = top.leaders(leaders, [(float(n * 7 % 100), key(n)) for n in range(at, at + 10)])
    assert leaders == sorted(((float(n * 7 % 100), key(n)) for n in range(100)), reverse=True)[: top.reach]


def test_flows_that_are_alike_do_not_take_turns() -> None:
    """1,000 flows of the same rate, counted over a few seconds, differ by chance alone: hardly any is replaced."""
    top, chance = TopFlows(100), random.Random(7)
    before, replaced = set[int](), 0
    for at in range(60):
        chosen = choose(top, {n: 100 + chance.uniform(-8, 8) for n in range(1000)}, 15.0 * at)
        replaced += len(chosen - before) if at else 0
        before = chosen
    assert replaced <= 60
    assert choose(top, dict.fromkeys(range(999), 100) | {999: 130}, 900.0) - before == {999}


def test_idle_flows_stay_when_there_is_one_more_than_fits() -> None:
    top = TopFlows(4)
    top.choose_all([key(n) for n in range(4)], 0.0)
    assert choose(top, {7: 5}, 1.0) == {0, 1, 2, 3, 7}
