"""mcastd.core.engine: what reaches the kernel, and what is said of it; as transcripts of a router in memory."""

import errno

import pytest

from mcastd.core.plan import Work
from mcastd.core.prepare import prepare
from mcastd.model.address import Family
from mcastd.model.effect import AddVif, DeleteMfc, DelVif, ProgramMfc, SetVifMap
from mcastd.model.errors import Reason
from mcastd.model.route import Route, RouteState
from mcastd.model.write import DeleteRoutes, PutRoutes, ReplaceRoutes, WriteOptions
from tests.fakerouter import NOW, Router, drain, route, sg

ALICE = WriteOptions("alice")
S = RouteState

both_families = pytest.mark.parametrize("family", Family)


def put(router: Router, *routes: Route) -> None:
    router.write(PutRoutes(ALICE, list(routes)))


def delete(router: Router, *keys: bytes) -> None:
    router.write(DeleteRoutes(ALICE, list(keys)))


def state(router: Router, key: bytes) -> tuple[RouteState, Reason | None]:
    one = router.get(key)
    problem = one.problem or one.fate.problem
    return one.state, problem.reason if problem is not None else None


# --- programming -----------------------------------------------------------------------------------------------------


def test_the_first_routes() -> None:
    router = Router("eth0", "eth1", "eth2")
    put(router, route(sg(1), "eth0", "eth1", "eth2/5"), route(sg(1, Family.IPV6), "eth2", "eth1"))
    assert router.get(sg(1)).state is S.PENDING
    assert router.transcript() == [
        "v4 map 0=eth0 1=eth1 2=eth2",
        "v4 vif 0 = eth0",
        "v4 vif 1 = eth1",
        "v4 vif 2 = eth2",
        "v6 map 0=eth2 1=eth1",
        "v6 vif 0 = eth2",
        "v6 vif 1 = eth1",
        "v4 (10.0.0.1, 239.1.0.1) 0 > 1 2/5",
        "v6 (2001:db8::1, ff3e::1) 0 > 1",
    ]
    one = router.get(sg(1))
    assert (one.state, one.installed_at) == (S.PROGRAMMED, NOW)
    assert (one.fate.installed_oifs, one.fate.missing) == (("eth1", "eth2"), ())
    assert router.kernel.forward(sg(1), 1, ttl=64) == [2, 3]
    assert router.kernel.forward(sg(1), 1, ttl=5) == [2]


@both_families
def test_changes_are_made_in_place_so_that_counters_survive(family: Family) -> None:
    router, key = Router("eth0", "eth1", "eth2"), sg(1, family)
    put(router, route(key, "eth0", "eth1"))
    router.settle()
    router.kernel.forward(key, 1)
    entry = router.kernel.entry(key)
    put(router, route(key, "eth0", "eth2"))
    router.settle()
    assert router.kernel.entry(key) is entry
    assert entry is not None
    assert entry.packets == 1
    assert router.sends(key) == ["eth2"]


def test_an_entry_that_is_yet_to_be_changed_is_not_called_programmed() -> None:
    router = Router("eth0", "eth1", "eth2")
    put(router, route(sg(1), "eth0", "eth1"))
    router.settle()
    put(router, route(sg(1), "eth0", "eth2"))
    assert state(router, sg(1)) == (S.PARTIAL, None)
    router.settle()
    assert state(router, sg(1)) == (S.PROGRAMMED, None)


@both_families
def test_a_route_without_oifs_is_an_entry_without_oifs(family: Family) -> None:
    router, key = Router("eth0", "eth1"), sg(1, family)
    put(router, route(key, "eth0"))
    router.settle()
    assert state(router, key) == (S.PROGRAMMED, None)
    assert router.sends(key) == []


def test_a_vif_goes_with_its_last_route_and_its_number_comes_back() -> None:
    router = Router("eth0", "eth1", "eth2")
    put(router, route(sg(1), "eth0", "eth1"), route(sg(2), "eth0", "eth2"))
    router.transcript()
    delete(router, sg(1))
    assert router.transcript() == ["v4 (10.0.0.1, 239.1.0.1) deleted", "v4 vif 1 deleted", "v4 map 0=eth0 2=eth2"]
    put(router, route(sg(3), "eth0", "eth1"))
    assert router.transcript()[0] == "v4 map 0=eth0 1=eth1 2=eth2"


def test_creations_come_before_deletions() -> None:
    router = Router("eth0", "eth1")
    put(router, route(sg(1), "eth0", "eth1"), route(sg(2), "eth0", "eth1"))
    router.transcript()
    new = {sg(n): route(sg(n), "eth0") for n in (2, 3)}
    router.write(ReplaceRoutes(ALICE, new))
    assert router.transcript() == [
        "v4 (10.0.0.1, 239.1.0.2) 0 >",
        "v4 (10.0.0.1, 239.1.0.3) 0 >",
        "v4 (10.0.0.1, 239.1.0.1) deleted",
        "v4 vif 1 deleted",
        "v4 map 0=eth0",
    ]


def test_an_update_keeps_vifs_that_both_use() -> None:
    router = Router("eth0", "eth1", "eth2")
    put(router, route(sg(1), "eth0", "eth1"))
    router.transcript()
    put(router, route(sg(1), "eth0", "eth1", "eth2"))
    assert router.transcript() == ["v4 map 0=eth0 1=eth1 2=eth2", "v4 vif 2 = eth2", "v4 (10.0.0.1, 239.1.0.1) 0 > 1 2"]


def test_what_is_wanted_last_counts() -> None:
    """Writes that overtake the plan cost nothing: it looks at what is wanted when it gets there."""
    router = Router("eth0", "eth1", "eth2")
    put(router, route(sg(1), "eth0", "eth1"))
    put(router, route(sg(1), "eth0", "eth2"))
    put(router, route(sg(2), "eth0", "eth2"))
    delete(router, sg(2))
    lines = router.transcript()
    assert [line for line in lines if "239" in line] == ["v4 (10.0.0.1, 239.1.0.1) 0 > 2"]
    assert router.vifs() == {0: "eth0", 2: "eth2"}


# --- a single write among many ---------------------------------------------------------------------------------------


def test_works_take_turns() -> None:
    """A single put is done after at most one batch of a bulk write that came before it."""
    router = Router("eth0", "eth1")
    bulk = [route(sg(n), "eth0", "eth1") for n in range(5000)]
    outcome = router.write(PutRoutes(ALICE, bulk))[0]
    assert outcome.created == 5000
    router.until(ProgramMfc)
    put(router, route(sg(60_000), "eth0", "eth1"))
    batches = 0
    while router.kernel.entry(sg(60_000)) is None:
        router.until(ProgramMfc)
        router.tick()
        batches += 1
    assert batches == 2


def test_a_work_is_finished_when_its_last_effect_was_answered() -> None:
    router = Router("eth0")
    router.settle()
    router.engine.finished()
    draft = router.engine.draft()
    drain(prepare(draft, PutRoutes(ALICE, [route(sg(n), "eth0") for n in range(1500)]), 10_000))
    work = drain(router.engine.commit(draft.intents[0]))
    for _ in range(2):
        assert router.engine.finished() == []
        router.until(ProgramMfc)
        router.tick()
    assert router.engine.finished() == [], "done, but not answered"
    assert state(router, sg(1400)) == (S.PENDING, None)
    router.tick()
    assert router.engine.finished() == [work]
    assert router.engine.finished() == []
    assert work.finished
    assert state(router, sg(1400)) == (S.PROGRAMMED, None)


def test_a_work_with_nothing_to_do_is_finished_too() -> None:
    router = Router("eth0")
    put(router, route(sg(1), "eth0"))
    router.settle()
    router.engine.finished()
    work = Work((sg(1), sg(2), sg(1, table=77)))
    router.engine.enqueue(work)
    assert router.settle() == 0
    assert router.engine.finished() == [work]


def test_commits_yield_between_slices() -> None:
    router = Router("eth0")
    put(router, *(route(sg(n), "eth0") for n in range(2500)))
    draft = router.engine.draft()
    new = {sg(n): route(sg(n), "eth0") for n in range(2000, 4001)}
    drain(prepare(draft, ReplaceRoutes(ALICE, new), 10_000))
    assert sum(1 for _ in router.engine.commit(draft.intents[0])) == 2 + 2, "1,501 new ones, 2,000 that go"


# --- what the kernel refuses -----------------------------------------------------------------------------------------


@both_families
def test_a_refused_entry_is_failed_and_tried_again(family: Family) -> None:
    router, key = Router("eth0", "eth1"), sg(1, family)
    router.kernel.refuse("add_mfc", errno.ENOBUFS, fits=lambda subject: subject == key)
    put(router, route(key, "eth0", "eth1"), route(sg(2, family), "eth0", "eth1"))
    router.settle()
    one = router.get(key)
    assert state(router, key) == (S.FAILED, Reason.KERNEL_ERROR)
    assert one.problem is not None
    assert one.problem.metadata == {"errno": str(errno.ENOBUFS), "call": "MRT_ADD_MFC"}
    assert state(router, sg(2, family)) == (S.PROGRAMMED, None)
    assert router.engine.troubled
    before = one.revision
    router.engine.retry()
    router.settle()
    assert state(router, key) == (S.PROGRAMMED, None)
    assert one.revision > before
    assert not router.engine.troubled


def test_a_refused_entry_is_tried_again_when_any_interface_changes() -> None:
    router = Router("eth0", "eth1", "eth2")
    put(router, route(sg(9), "eth2"))
    router.kernel.refuse("add_mfc", errno.ENOBUFS, fits=lambda subject: subject == sg(1))
    put(router, route(sg(1), "eth0", "eth1"))
    router.settle()
    router.unlink("eth2")
    router.settle()
    assert state(router, sg(1)) == (S.PROGRAMMED, None)


def test_a_refused_change_leaves_the_entry_as_it_was_and_its_vif_in_quarantine() -> None:
    router = Router("eth0", "eth1", "eth2", "eth3")
    put(router, route(sg(1), "eth0", "eth1"))
    router.settle()
    router.kernel.refuse("add_mfc", errno.ENOBUFS, fits=lambda subject: subject == sg(1))
    put(router, route(sg(1), "eth0", "eth2"), route(sg(2), "eth0", "eth3"))
    router.settle()
    assert state(router, sg(1)) == (S.FAILED, Reason.KERNEL_ERROR)
    assert router.sends(sg(1)) == ["eth1"]
    assert router.vifs() == {0: "eth0", 1: "eth1", 2: "eth2", 3: "eth3"}
    router.engine.retry()
    router.settle()
    assert router.sends(sg(1)) == ["eth2"]
    assert router.vifs() == {0: "eth0", 2: "eth2", 3: "eth3"}


def test_a_refused_deletion_is_tried_again() -> None:
    router = Router("eth0")
    put(router, route(sg(1), "eth0"))
    router.settle()
    router.kernel.refuse("del_mfc", errno.ENOBUFS)
    delete(router, sg(1))
    router.settle()
    assert router.kernel.entry(sg(1)) is not None
    assert router.engine.troubled
    router.engine.retry()
    router.settle()
    assert router.kernel.entry(sg(1)) is None
    assert not router.engine.troubled


@pytest.mark.parametrize("end", ["deleted", "replaced", "changed back", "its iif goes"])
def test_a_refusal_is_forgotten_when_it_is_about_nothing_any_more(end: str) -> None:
    router = Router("eth0", "eth1")
    put(router, route(sg(1), "eth0"))
    router.settle()
    if end in {"deleted", "its iif goes"}:
        delete(router, sg(1))
        router.settle()
    router.kernel.refuse("add_mfc", errno.ENOBUFS)
    put(router, route(sg(1), "eth0", "eth1"))
    router.settle()
    assert state(router, sg(1)) == (S.FAILED, Reason.KERNEL_ERROR)
    match end:
        case "deleted":
            delete(router, sg(1))
        case "replaced":
            put(router, route(sg(1), "eth0", "eth1", cookie="red"))
        case "changed back":
            put(router, route(sg(1), "eth0"))
        case _:
            router.unlink("eth0")
    router.settle()
    assert not router.engine.failed
    assert not router.engine.troubled
    if end == "its iif goes":
        assert state(router, sg(1)) == (S.PENDING, Reason.NO_SUCH_INTERFACE)


def test_an_entry_that_is_gone_already_is_deleted() -> None:
    router = Router("eth0")
    put(router, route(sg(1), "eth0"))
    router.settle()
    router.kernel.del_mfc(sg(1))
    delete(router, sg(1))
    router.settle()
    assert not router.engine.troubled
    assert router.vifs() == {}


# --- upcalls about entries that ought to be there --------------------------------------------------------------------


@both_families
def test_a_lost_entry_is_put_back(family: Family) -> None:
    router, key = Router("eth0", "eth1"), sg(1, family)
    put(router, route(key, "eth0", "eth1"))
    router.transcript()
    router.kernel.del_mfc(key)
    assert router.engine.lost(key)
    assert router.get(key).state is S.PENDING
    assert len(router.transcript()) == 1
    assert router.sends(key) == ["eth1"]
    assert router.get(key).state is S.PROGRAMMED


def test_upcalls_about_other_traffic_are_not_about_lost_entries() -> None:
    router = Router("eth0", "eth1")
    put(router, route(sg(1), "eth9", "eth1"))
    router.settle()
    assert not router.engine.lost(sg(1)), "a route that is not in the kernel"
    assert not router.engine.lost(sg(2)), "no route"
    assert not router.engine.lost(sg(2, table=77)), "no such table"


def test_an_upcall_from_before_the_entry_does_not_hide_it() -> None:
    """The route is deleted, and before the plan gets there an upcall older than its entry is read: the entry still goes."""
    router = Router("eth0", "eth1", "eth2")
    put(router, route(sg(1), "eth0", "eth1"))
    router.settle()
    delete(router, sg(1))
    assert router.engine.lost(sg(1))
    put(router, route(sg(2), "eth0", "eth2"))
    router.settle()
    assert router.kernel.entry(sg(1)) is None
    assert router.vifs() == {0: "eth0", 2: "eth2"}


# --- between an effect and its result --------------------------------------------------------------------------------


def test_a_route_deleted_while_it_is_programmed_goes() -> None:
    router = Router("eth0", "eth1")
    put(router, route(sg(1), "eth0", "eth1"))
    router.until(ProgramMfc)
    router.tick()
    delete(router, sg(1))
    router.settle()
    assert router.kernel.entry(sg(1)) is None
    assert router.vifs() == {}


def test_a_route_put_while_it_is_deleted_comes() -> None:
    router = Router("eth0", "eth1")
    put(router, route(sg(1), "eth0", "eth1"))
    router.settle()
    delete(router, sg(1))
    router.until(DeleteMfc)
    router.tick()
    put(router, route(sg(1), "eth0", "eth1"))
    router.settle()
    assert router.sends(sg(1)) == ["eth1"]
    assert state(router, sg(1)) == (S.PROGRAMMED, None)


def test_an_interface_wanted_while_its_vif_is_deleted_gets_it_anew() -> None:
    router = Router("eth0", "eth1")
    put(router, route(sg(1), "eth0", "eth1"), route(sg(2), "eth0"))
    router.settle()
    delete(router, sg(1))
    router.until(DelVif)
    put(router, route(sg(3), "eth0", "eth1"))
    router.settle()
    assert router.sends(sg(3)) == ["eth1"]
    assert state(router, sg(3)) == (S.PROGRAMMED, None)


def test_an_interface_given_up_while_its_vif_is_added_loses_it() -> None:
    router = Router("eth0")
    put(router, route(sg(1), "eth0"))
    router.until(AddVif)
    delete(router, sg(1))
    router.settle()
    assert router.vifs() == {}
    assert router.keeper.maps[0, Family.IPV4] == ()


def test_a_vif_is_in_the_keepers_map_before_the_kernel_has_it_and_leaves_it_last() -> None:
    router = Router("eth0")
    put(router, route(sg(1), "eth0"))
    router.until(AddVif)
    assert router.keeper.maps[0, Family.IPV4] == ((0, 1, "eth0"),)
    delete(router, sg(1))
    router.until(DelVif)
    router.until(SetVifMap)
    assert router.vifs() == {}
    assert router.keeper.maps[0, Family.IPV4] == ((0, 1, "eth0"),)
    router.settle()
    assert router.keeper.maps[0, Family.IPV4] == ()


def test_the_backlog_counts_what_the_kernel_has_not_answered_for() -> None:
    router = Router("eth0", "eth1")
    engine = router.engine
    assert engine.backlog() == 0
    put(router, *(route(sg(number), "eth0", "eth1") for number in range(1, 1500)))
    assert engine.backlog() == 1499
    seen = set()
    while router.tick():
        seen.add(engine.backlog())
    assert 0 < min(seen - {0}) < 1499, "what is being written counts until it is answered"
    assert engine.backlog() == 0
    engine.enqueue(Work([sg(1)]))
    assert engine.backlog() == 1
    assert router.settle() == 0, "it is there already"
    assert engine.backlog() == 0
