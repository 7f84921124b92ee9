"""Tables that nothing wants: closed after a while, never the default one, never one that is to stay."""

import pytest

from mcastd.core.feed import Feed
from mcastd.core.roster import Roster
from mcastd.core.unused import CLOSE_SECONDS, UnusedTables
from mcastd.model.address import Family, exact_key, pack_address
from mcastd.model.effect import CloseTable
from mcastd.model.errors import Problem, Reason
from mcastd.model.route import Oif, Paths, Route


def route(table: int) -> Route:
    return Route(exact_key(table, pack_address("239.1.1.1"), pack_address("10.0.0.1")), Paths("up", (Oif("down"),)), "me")


@pytest.fixture
def roster() -> Roster:
    made = Roster(iter(range(1, 1000)).__next__, Feed())
    for table in (0, 100, 200):
        for family in Family:
            made.kernel(table, family).opened = True
    return made


def test_an_unused_table_is_closed_after_its_time_and_is_new_then(roster: Roster) -> None:
    unused = UnusedTables(roster)
    old = roster.kernel(100, Family.IPV4)
    roster.world.refused[100, Family.IPV4, 7] = Problem(Reason.KERNEL_ERROR, "refused")
    assert not unused.look({200}, 1000.0)
    assert not unused.look({200}, 1000.0 + CLOSE_SECONDS - 1)
    assert unused.pull() is None
    assert unused.look({200}, 1000.0 + CLOSE_SECONDS)
    assert unused.pull() == CloseTable(100)
    assert unused.pull() is None
    new = roster.kernel(100, Family.IPV4)
    assert new is not old
    assert not new.opened
    assert roster.world.refused == {}
    assert roster.kernel(0, Family.IPV4).opened
    assert roster.kernel(200, Family.IPV4).opened
    assert not unused.look({200}, 5000.0)


def test_what_is_wanted_in_one_family_keeps_both(roster: Roster) -> None:
    unused = UnusedTables(roster)
    wanted = route(100)
    roster.join(wanted)
    unused.look((), 0.0)
    assert unused.look((), CLOSE_SECONDS)
    assert unused.pull() == CloseTable(200)
    assert unused.pull() is None
    roster.leave(wanted)
    assert not unused.look((), CLOSE_SECONDS + 1), "its time begins when nothing wants it any more"
    assert unused.look((), 2 * CLOSE_SECONDS + 1)


def test_a_route_that_comes_before_the_closing_prevents_it(roster: Roster) -> None:
    unused = UnusedTables(roster)
    unused.look({200}, 0.0)
    assert unused.look({200}, CLOSE_SECONDS)
    roster.join(route(100))
    assert unused.pull() is None
    assert roster.kernel(100, Family.IPV4).opened
