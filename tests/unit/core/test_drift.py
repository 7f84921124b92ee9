"""mcastd.core.drift: what others do to our entries is put right, and what we do ourselves is never taken for that."""

from collections.abc import Callable

import pytest

from mcastd.model.address import Family
from mcastd.model.effect import DeleteMfc, ProgramMfc
from mcastd.model.route import Route, RouteState
from mcastd.model.write import DeleteRoutes, PutRoutes, WriteOptions
from tests.fakenotices import Ear, collect
from tests.fakerouter import Router, route, sg, template
from tests.netns.routed import forwarding

ALICE = WriteOptions("alice")
NAMES = "eth0", "eth1", "eth2"
NOTHING: tuple[list[bytes], list[bytes]] = ([], [])

both_families = pytest.mark.parametrize("family", Family)


def started(*routes: Route) -> tuple[Router, Ear]:
    """A router whose routes are in the kernel; all that follows is heard."""
    router = Router(*NAMES)
    router.write(PutRoutes(ALICE, list(routes)))
    router.transcript()
    return router, Ear(router)


@both_families
def test_a_removed_entry_comes_back(family: Family) -> None:
    key = sg(1, family)
    router, ear = started(route(key, "eth0", "eth1"), route(sg(2, family), "eth0", "eth1"))
    router.kernel.del_mfc(key)
    assert ear.settle() == ([key], [])
    assert router.get(key).state is RouteState.PENDING
    assert ear.drift.under_repair() == (1, 0)
    assert len(router.transcript()) == 1
    assert router.sends(key) == ["eth1"]
    assert ear.drift.under_repair() == (0, 0)
    assert ear.settle() == NOTHING


@both_families
def test_an_overwritten_entry_is_put_right_once(family: Family) -> None:
    key = sg(1, family)
    router, ear = started(route(key, "eth0", "eth1", "eth2"))
    for packed in (forwarding(family, 0, 1), forwarding(family, 1, 0), forwarding(family, 0)):
        router.kernel.add_mfc(key, packed, static=True)
        assert ear.settle() == ([], [key])
        assert len(router.transcript()) == 1
        assert router.sends(key) == ["eth1", "eth2"]
        assert ear.settle() == NOTHING, "the entry stays STATIC: our own writing of it was told of"
    router.kernel.add_mfc(key, forwarding(family, 0, 1, 2), static=True)
    assert ear.settle() == NOTHING, "overwritten by the same"
    router.write(PutRoutes(ALICE, [route(key, "eth0", "eth1")]))
    router.settle()
    assert ear.settle() == NOTHING, "a change of ours that was told of"


def test_what_we_delete_is_not_missing() -> None:
    router, ear = started(route(sg(1), "eth0", "eth1"))
    router.write(DeleteRoutes(ALICE, [sg(1)]))
    router.settle()
    assert ear.settle() == NOTHING
    assert router.kernel.entry(sg(1)) is None


def test_what_is_being_deleted_is_not_missing() -> None:
    router, ear = started(route(sg(1), "eth0", "eth1"))
    router.write(DeleteRoutes(ALICE, [sg(1)]))
    router.until(DeleteMfc)
    assert router.tick()
    assert router.unanswered
    assert router.kernel.entry(sg(1)) is None
    assert ear.settle() == NOTHING
    assert not ear.drift.pending
    router.settle()
    assert ear.settle() == NOTHING


def test_what_we_deleted_and_made_again_is_not_missing() -> None:
    router, ear = started(route(sg(1), "eth0", "eth1"))
    router.write(DeleteRoutes(ALICE, [sg(1)]))
    router.settle()
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth1")]))
    router.settle()
    assert ear.settle() == NOTHING


def test_what_is_removed_while_we_write_it_comes_back() -> None:
    router, ear = started(route(sg(1), "eth0", "eth1"))
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth2")]))
    router.until(ProgramMfc)
    router.tick()
    router.kernel.del_mfc(sg(1))
    assert ear.settle() == NOTHING, "the answer is on its way"
    router.settle()
    assert ear.settle() == ([sg(1)], [])
    router.settle()
    assert router.sends(sg(1)) == ["eth2"]


def test_what_was_put_back_by_others_is_left() -> None:
    router, ear = started(route(sg(1), "eth0", "eth1"))
    router.kernel.del_mfc(sg(1))
    router.kernel.add_mfc(sg(1), forwarding(Family.IPV4, 0, 1))
    assert ear.settle() == NOTHING


@both_families
def test_what_others_add_is_left_alone_until_we_want_it(family: Family) -> None:
    router, ear = started(route(sg(1, family), "eth0", "eth1"))
    theirs, kernel = sg(2, family), router.engine.tables[0, family]
    router.kernel.add_mfc(theirs, forwarding(family, 0, 2), static=True)
    assert ear.settle() == NOTHING
    assert kernel.foreign == {theirs}
    assert router.transcript() == []
    router.write(PutRoutes(ALICE, [route(theirs, "eth0", "eth1")]))
    router.settle()
    assert router.sends(theirs) == ["eth1"]
    assert kernel.foreign == set()
    assert ear.settle() == NOTHING
    router.write(DeleteRoutes(ALICE, [theirs]))
    router.settle()
    assert ear.settle() == NOTHING
    router.kernel.add_mfc(theirs, forwarding(family, 0, 2), static=True)
    ear.settle()
    router.kernel.del_mfc(theirs)
    ear.settle()
    assert kernel.foreign == set()


def test_what_others_add_where_we_have_just_deleted_is_theirs() -> None:
    router, ear = started(route(sg(1), "eth0", "eth1"), route(sg(2), "eth0", "eth1"))
    router.write(DeleteRoutes(ALICE, [sg(1)]))
    router.until(DeleteMfc)
    router.tick()
    router.kernel.add_mfc(sg(1), forwarding(Family.IPV4, 0, 2), static=True)
    ear.hear()
    router.settle()
    assert ear.settle() == NOTHING
    assert router.engine.tables[0, Family.IPV4].foreign == {sg(1)}
    assert router.kernel.entry(sg(1)) is not None


def test_entries_of_others_tables_are_nothing() -> None:
    _, ear = started(route(sg(1), "eth0", "eth1"))
    ear.queue.extend([(sg(1, table=9), (1, ())), (sg(1, table=9), None)])
    assert ear.settle() == NOTHING


def learned(router: Router) -> bytes:
    """An entry that a template has made."""
    router.write(PutRoutes(ALICE, [template("239.1.0.0/16", "", "eth0", "eth1")]))
    router.settle()
    router.packet(sg(1), "eth0")
    router.settle()
    return sg(1)


def stopped(router: Router) -> bytes:
    """A stop filter."""
    router.write(PutRoutes(ALICE, [route(sg(9), "eth0", "eth1")]))
    router.settle()
    router.packet(sg(1), "eth0")
    router.settle()
    return sg(1)


def shared(router: Router) -> bytes:
    """A shared tree's entry."""
    router.write(PutRoutes(ALICE, [template("239.1.0.1", "", "eth0", "eth1", shared_tree=True)]))
    router.settle()
    (key,) = router.engine.tables[0, Family.IPV4].trees
    return key


@pytest.mark.parametrize("make", [learned, stopped, shared])
def test_entries_that_no_exact_route_asks_for_come_back(make: Callable[[Router], bytes]) -> None:
    router = Router(*NAMES)
    key = make(router)
    before, ear = router.kernel.paths(key), Ear(router)
    assert before is not None
    router.kernel.del_mfc(key)
    assert ear.settle() == ([key], [])
    router.settle()
    assert router.kernel.paths(key) == before
    router.kernel.add_mfc(key, forwarding(Family.IPV4, 1, 0), static=True)
    assert ear.settle() == ([], [key])
    router.settle()
    assert router.kernel.paths(key) == before
    assert ear.settle() == NOTHING


def test_an_upcall_and_a_notification_of_one_removal_are_one_repair() -> None:
    router, ear = started(route(sg(1), "eth0", "eth1"))
    router.kernel.del_mfc(sg(1))
    assert ear.settle() == ([sg(1)], [])
    assert not router.engine.lost(sg(1)), "it is about to be written"
    router.settle()
    router.kernel.del_mfc(sg(1))
    assert router.engine.lost(sg(1))
    assert ear.settle() == NOTHING
    router.settle()
    assert router.sends(sg(1)) == ["eth1"]


# --- dumps -----------------------------------------------------------------------------------------------------------


@both_families
def test_a_dump_tells_what_was_not_heard(family: Family) -> None:
    keys = [sg(n, family) for n in range(1, 6)]
    router, ear = started(*(route(key, "eth0", "eth1") for key in keys))
    router.kernel.del_mfc(keys[0])
    router.kernel.add_mfc(keys[1], forwarding(family, 0, 2), static=True)
    router.kernel.add_mfc(keys[2], forwarding(family, 0, 1), static=True)
    router.kernel.add_mfc(sg(9, family), forwarding(family, 0, 2), static=True)
    ear.queue.clear()
    assert ear.compare_all() == ([keys[0]], [keys[1]])
    assert router.engine.tables[0, family].foreign == {sg(9, family)}
    assert len(router.transcript()) == 2
    assert [router.sends(key) for key in keys] == [["eth1"]] * 5
    assert ear.compare_all() == NOTHING
    router.kernel.del_mfc(sg(9, family))
    assert ear.compare_all() == NOTHING
    assert router.engine.tables[0, family].foreign == set()


def test_what_is_written_after_the_dump_has_begun_is_not_compared_with_it() -> None:
    keys = [sg(n) for n in range(1, 5)]
    router, ear = started(*(route(key, "eth0", "eth1") for key in keys[:3]))
    router.kernel.add_mfc(keys[1], forwarding(Family.IPV4, 0, 1), static=True)  # the same, so it is nobody's drift
    kernel = router.engine.tables[0, Family.IPV4]
    ear.drift.dump_begins(kernel)
    found = ear.compare()
    router.write(PutRoutes(ALICE, [route(keys[1], "eth0", "eth2"), route(keys[3], "eth0", "eth1")]))
    router.write(DeleteRoutes(ALICE, [keys[0]]))
    router.settle()
    assert collect(found) == NOTHING
    ear.drift.dump_ends(kernel)
    assert kernel.touched is None
    assert router.settle() == 0, "there is nothing more to do"


def test_what_is_being_written_as_the_dump_begins_is_not_compared_with_it() -> None:
    router, ear = started(route(sg(1), "eth0", "eth1"), route(sg(2), "eth0", "eth1"))
    router.kernel.add_mfc(sg(1), forwarding(Family.IPV4, 0, 1), static=True)
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth2")]))
    router.write(DeleteRoutes(ALICE, [sg(2)]))
    for effect in (ProgramMfc, DeleteMfc):
        router.until(effect)
        assert router.tick()
        kernel = router.engine.tables[0, Family.IPV4]
        ear.drift.dump_begins(kernel)
        found = ear.compare()
        assert router.tick(), "the answer is heard before the dump is compared"
        assert collect(found) == NOTHING
        ear.drift.dump_ends(kernel)
        ear.drift.dump_begins(kernel)
        assert collect(ear.compare()) == NOTHING
        ear.drift.dump_ends(kernel)


def test_what_a_dump_misses_is_looked_for() -> None:
    """The kernel counts entries while it dumps: where others go meanwhile it skips some (mr_table_dump)."""
    router, ear = started(*(route(sg(n), "eth0", "eth1") for n in range(1, 4)))
    kernel = router.engine.tables[0, Family.IPV4]
    router.kernel.del_mfc(sg(3))
    ear.drift.dump_begins(kernel)
    rows, found = ear.dump((0, Family.IPV4))
    assert collect(ear.drift.compare(kernel, rows[1:], found, 4, ear.absent)) == ([sg(3)], [])


def test_unresolved_entries_of_a_dump_are_none() -> None:
    router, ear = started(route(sg(1), "eth0", "eth1"))
    kernel = router.engine.tables[0, Family.IPV4]
    router.kernel.del_mfc(sg(1))
    ear.drift.dump_begins(kernel)
    assert collect(ear.drift.compare(kernel, [(0, 0, 0, -1.0, 0, 17, 1, sg(1))], [(0, ())], 4, ear.absent)) == ([sg(1)], [])


def test_thousands_are_compared_in_slices() -> None:
    keys = [sg(n) for n in range(1, 2502)]
    router, ear = started(*(route(key, "eth0", "eth1") for key in keys))
    for key in keys[:1500]:
        router.kernel.del_mfc(key)
    for key in keys[1500:]:
        router.kernel.add_mfc(key, forwarding(Family.IPV4, 0, 2), static=True)
    ear.hear()
    assert len(list(ear.drift.settle(ear.absent))) == 3
    router.settle()
    assert {tuple(router.sends(key) or ()) for key in keys} == {("eth1",)}


# --- a restart -------------------------------------------------------------------------------------------------------


def test_what_others_had_before_we_came_is_theirs() -> None:
    router = Router(*NAMES)
    router.kernel.add_mfc(sg(1), forwarding(Family.IPV4, 0, 1), static=True)
    router.boot()
    assert router.engine.tables[0, Family.IPV4].foreign == {sg(1)}
    router.settle()
    assert router.kernel.entry(sg(1)) is not None


def test_a_tree_that_somebody_had_a_hand_in_is_ours_after_a_restart() -> None:
    router = Router(*NAMES)
    key = shared(router)
    router.kernel.add_mfc(key, forwarding(Family.IPV4, 0, 0, 1), static=True)
    router.boot()
    kernel, changes = router.engine.tables[0, Family.IPV4], router.kernel.mfc_changes
    router.settle()
    assert (key in kernel.actual, kernel.foreign) == (True, set())
    assert router.kernel.mfc_changes == changes, "it was as it should be"


def test_whose_an_entry_is() -> None:
    router, _ = started(route(sg(1), "eth0", "eth1"), route(sg(2), "eth9", "eth1"))
    engine = router.engine
    assert engine.has(sg(1))
    assert engine.has(sg(2)), "wanted, though not in the kernel"
    assert not engine.has(sg(3))
    assert not engine.has(sg(3, table=9))
