"""mcastd.core.engine and vifs: 32 numbers and no more, quarantine, pinned interfaces, refusals, and tables opened on demand."""

import errno

import pytest

from mcastd.core.vifs import VifState, VifTable
from mcastd.model.address import Family
from mcastd.model.effect import SetVifMap
from mcastd.model.errors import Problem, Reason
from mcastd.model.interface import VIFS_MAX
from mcastd.model.route import Forwarding, Route, RouteState
from mcastd.model.write import DeleteRoutes, PutRoutes, SetInterface, WriteOptions
from tests.fakerouter import Router, route, sg

ALICE = WriteOptions("alice")
S = RouteState

both_families = pytest.mark.parametrize("family", Family)


def put(router: Router, *routes: Route) -> None:
    router.write(PutRoutes(ALICE, list(routes)))
    router.settle()


def delete(router: Router, *keys: bytes) -> None:
    router.write(DeleteRoutes(ALICE, list(keys)))
    router.settle()


def why(router: Router, key: bytes) -> tuple[RouteState, Reason | None]:
    one = router.get(key)
    problem = one.problem or one.fate.problem
    return one.state, problem.reason if problem is not None else None


def full(family: Family, spare: int = 2) -> Router:
    """A router with all 32 numbers of a family in use, by one route of 2 and one of 30 interfaces, and some interfaces more."""
    router = Router(*(f"eth{n}" for n in range(VIFS_MAX + spare)))
    put(router, route(sg(1, family), "eth0", "eth1"), route(sg(2, family), "eth2", *(f"eth{n}" for n in range(3, VIFS_MAX))))
    assert len(router.vifs(family)) == VIFS_MAX
    router.lines.clear()
    return router


# --- 32 --------------------------------------------------------------------------------------------------------------


@both_families
def test_the_33rd_interface_troubles_its_route_alone(family: Family) -> None:
    router = full(family)
    put(
        router,
        route(sg(3, family), "eth32", "eth1"),
        route(sg(4, family), "eth0", "eth1", "eth33"),
        route(sg(5, family), "eth3", "eth4"),
    )
    assert why(router, sg(3, family)) == (S.PENDING, Reason.VIF_TABLE_FULL)
    assert router.get(sg(3, family)).fate.missing == ("eth32",)
    assert why(router, sg(4, family)) == (S.PARTIAL, Reason.VIF_TABLE_FULL)
    problem = router.get(sg(4, family)).fate.problem
    assert problem is not None
    assert problem.metadata == {"interface": "eth33", "used": "32", "max": "32"}
    assert (router.sends(sg(4, family)), router.get(sg(4, family)).fate.missing) == (["eth1"], ("eth33",))
    for number in (1, 2, 5):
        assert why(router, sg(number, family)) == (S.PROGRAMMED, None)
    other = Family.IPV6 if family is Family.IPV4 else Family.IPV4
    put(router, route(sg(3, other), "eth32", "eth1"))
    assert why(router, sg(3, other)) == (S.PROGRAMMED, None), "the other family has numbers of its own"
    assert not router.engine.troubled, "there is nothing to try again"


@both_families
def test_it_heals_when_routes_are_deleted(family: Family) -> None:
    router = full(family)
    put(router, route(sg(3, family), "eth32", "eth33"))
    assert why(router, sg(3, family)) == (S.PENDING, Reason.VIF_TABLE_FULL)
    delete(router, sg(1, family))
    assert why(router, sg(3, family)) == (S.PROGRAMMED, None)
    assert router.sends(sg(3, family)) == ["eth33"]
    assert len(router.vifs(family)) == VIFS_MAX


def test_who_waited_first_is_served_first() -> None:
    router = full(Family.IPV4, spare=4)
    put(router, route(sg(3), "eth34", "eth0"), route(sg(4), "eth35", "eth0"))
    put(router, route(sg(5), "eth33", "eth0"))
    put(router, route(sg(1), "eth0"))
    assert [router.get(sg(n)).state for n in (3, 4, 5)] == [S.PROGRAMMED, S.PENDING, S.PENDING]


def test_a_set_of_routes_is_exchanged_for_one_on_other_interfaces() -> None:
    """Each of them needs numbers that the other set frees."""
    router = Router(*(f"eth{n}" for n in range(64)))
    put(router, *(route(sg(n), f"eth{2 * n}", f"eth{2 * n + 1}") for n in range(16)))
    router.write(DeleteRoutes(ALICE), PutRoutes(ALICE, [route(sg(n), f"eth{2 * n}", f"eth{2 * n + 1}") for n in range(16, 32)]))
    router.settle()
    assert {router.get(sg(n)).state for n in range(16, 32)} == {S.PROGRAMMED}
    assert sorted(router.vifs().values()) == sorted(f"eth{n}" for n in range(32, 64))


def test_a_flap_in_a_full_table_heals() -> None:
    router = full(Family.IPV4)
    for _ in range(5):
        router.unlink("eth1")
        router.link("eth1")
        router.settle()
        assert why(router, sg(1)) == (S.PROGRAMMED, None)
        assert len(router.vifs()) == VIFS_MAX


def test_a_glob_takes_what_there_is() -> None:
    router = full(Family.IPV4, spare=8)
    put(router, route(sg(3), "eth0", "eth*"))
    assert why(router, sg(3)) == (S.PARTIAL, Reason.VIF_TABLE_FULL)
    assert len(router.get(sg(3)).fate.missing) == 8
    assert len(router.sends(sg(3)) or ()) == VIFS_MAX - 1


def test_a_route_whose_iif_gets_no_vif_takes_none_for_its_oifs() -> None:
    """Else its oifs' numbers would be made, given up, and made again as it is fed with them, for ever."""
    router = Router(*(f"eth{n}" for n in range(40)))
    router.kernel.refuse("add_vif", errno.ENOMEM, times=1000, fits=lambda ifindex: ifindex == 1)
    put(router, route(sg(1), "eth0", "eth*"))
    assert why(router, sg(1)) == (S.FAILED, Reason.KERNEL_ERROR)
    assert router.vifs() == {}
    router.kernel.refusals.clear()
    router.engine.retry()
    router.settle()
    assert why(router, sg(1)) == (S.PARTIAL, Reason.VIF_TABLE_FULL)


# --- quarantine ------------------------------------------------------------------------------------------------------


@both_families
def test_a_number_is_not_used_again_while_an_entry_has_its_bit(family: Family) -> None:
    """At each move of the executor, nothing of the old route leaves by the new interface."""
    router = full(family)
    put(router, route(sg(3, family), "eth2", "eth32"))
    ifindex = router.kernel.named("eth1").ifindex
    leaks: list[int] = []

    def watch() -> None:
        leaks.extend(out for out in router.kernel.forward(sg(1, family), 1) if out != ifindex)

    router.watch = watch
    router.unlink("eth1")
    router.settle()
    assert leaks == []
    assert router.vifs(family)[1] == "eth32", "the same number serves now"
    assert (why(router, sg(3, family)), router.sends(sg(1, family))) == ((S.PROGRAMMED, None), [])


def test_a_freed_number_waits_for_the_keeper() -> None:
    router = full(Family.IPV4)
    router.write(DeleteRoutes(ALICE, [sg(1)]))
    router.until(SetVifMap)
    put_while_draining = route(sg(3), "eth32", "eth33")
    router.write(PutRoutes(ALICE, [put_while_draining]))
    assert why(router, sg(3)) == (S.PENDING, Reason.VIF_TABLE_FULL)
    router.settle()
    assert why(router, sg(3)) == (S.PROGRAMMED, None)


def test_a_map_that_still_has_the_number_frees_nothing() -> None:
    vifs = VifTable(0, Family.IPV4)
    assert vifs.acquire(7, "eth0") == 0
    assert vifs.added(0, 0) is False
    vifs.release(7, 0)
    assert vifs.to_delete() == [0]
    vifs.deleted(0)
    assert vifs.map_acknowledged(frozenset({0})) is False
    assert vifs.acquire(7, "eth0") == 1
    assert vifs.map_acknowledged(frozenset({1})) is True
    assert vifs.acquire(8, "eth1") == 0


def test_a_number_named_by_entries_is_not_deleted() -> None:
    vifs = VifTable(0, Family.IPV4)
    vifs.acquire(7, "eth0")
    vifs.added(0, 0)
    forwarding = vifs.intern(b"any", 0b1)
    vifs.entry_added(forwarding)
    vifs.entry_added(forwarding)
    vifs.release(7, 0)
    vifs.entry_removed(forwarding)
    assert vifs.to_delete() == []
    vifs.entry_removed(forwarding)
    assert vifs.to_delete() == [0]
    assert vifs.forwardings == {}


def test_equal_forwardings_are_one_object() -> None:
    vifs = VifTable(0, Family.IPV4)
    one = vifs.intern(b"one", 0b11)
    assert vifs.intern(b"one", 0b11) is one
    assert vifs.intern(b"two", 0b11) is not one
    assert isinstance(one, Forwarding)


def test_a_free_number_cannot_be_asked_about() -> None:
    with pytest.raises(AssertionError, match="VIF 3 of table 0 IPV4 is free"):
        VifTable(0, Family.IPV4).deleted(3)


def test_states_of_a_number() -> None:
    vifs = VifTable(0, Family.IPV4)
    vifs.acquire(7, "eth0")

    def state() -> VifState | None:
        slot = vifs.slots[0]
        return slot.state if slot is not None else None

    assert (state(), vifs.to_add(), vifs.used, vifs.in_kernel()) == (VifState.ADDING, [0], 1, [])
    vifs.added(0, 0)
    assert (state(), vifs.in_kernel()) == (VifState.ACTIVE, [0])
    vifs.release(7, 0)
    assert state() is VifState.RETIRING
    assert vifs.acquire(7, "eth0") == 0
    assert state() is VifState.ACTIVE
    vifs.link_gone(7)
    assert (state(), vifs.by_ifindex, vifs.in_kernel()) == (VifState.DEAD, {}, [])
    vifs.release(7, 0)
    assert state() is VifState.DEAD, "who still held it gives it back without harm"
    vifs.deleted(0)
    assert (state(), vifs.map_entries()) == (VifState.DRAINING, ())
    vifs.map_acknowledged(frozenset())
    assert state() is None


# --- refusals --------------------------------------------------------------------------------------------------------


@both_families
def test_a_refused_vif_fails_the_routes_that_come_in_there_and_is_tried_again(family: Family) -> None:
    router = Router("eth0", "eth1", "eth2")
    router.kernel.refuse("add_vif", errno.ENOMEM, fits=lambda ifindex: ifindex == 2)
    put(router, route(sg(1, family), "eth1", "eth2"), route(sg(2, family), "eth0", "eth1", "eth2"))
    assert why(router, sg(1, family)) == (S.FAILED, Reason.KERNEL_ERROR)
    assert why(router, sg(2, family)) == (S.PARTIAL, Reason.KERNEL_ERROR)
    assert router.sends(sg(2, family)) == ["eth2"]
    problem = router.get(sg(1, family)).fate.problem
    assert problem is not None
    assert problem.metadata == {"interface": "eth1", "errno": str(errno.ENOMEM), "call": "MRT_ADD_VIF"}
    assert router.engine.troubled
    router.engine.retry()
    router.settle()
    assert {why(router, sg(n, family)) for n in (1, 2)} == {(S.PROGRAMMED, None)}
    assert not router.engine.troubled


def test_a_refused_vif_is_tried_again_when_its_link_changes() -> None:
    router = Router("eth0", "eth1")
    router.kernel.refuse("add_vif", errno.ENOMEM, fits=lambda ifindex: ifindex == 2)
    put(router, route(sg(1), "eth0", "eth1"))
    router.link("eth1", 2, up=False)
    router.settle()
    assert why(router, sg(1)) == (S.PARTIAL, Reason.INTERFACE_DOWN)
    assert router.sends(sg(1)) == ["eth1"]


def test_a_number_that_the_kernel_has_against_expectation_is_cleared() -> None:
    router = Router("eth0", "eth1")
    router.kernel.add_vif((0, Family.IPV4), 0, 2)
    put(router, route(sg(1), "eth0"))
    assert why(router, sg(1)) == (S.FAILED, Reason.KERNEL_ERROR)
    router.engine.retry()
    router.settle()
    assert why(router, sg(1)) == (S.PROGRAMMED, None)
    assert router.vifs() == {0: "eth0"}


# --- pinned interfaces -----------------------------------------------------------------------------------------------


def test_a_pinned_interface_keeps_its_vifs() -> None:
    router = Router("eth0", "eth1")
    router.write(SetInterface(ALICE, "eth1", pinned=True))
    router.settle()
    assert (router.vifs(), router.vifs(Family.IPV6)) == ({0: "eth1"}, {0: "eth1"})
    put(router, route(sg(1), "eth0", "eth1"))
    delete(router, sg(1))
    assert router.vifs() == {0: "eth1"}
    router.write(SetInterface(ALICE, "eth1", pinned=False))
    router.settle()
    assert (router.vifs(), router.vifs(Family.IPV6)) == ({}, {})


def test_a_pin_waits_for_its_interface_and_for_a_number() -> None:
    router = full(Family.IPV4)
    router.write(SetInterface(ALICE, "eth99", pinned=True))
    router.settle()
    router.link("eth99")
    router.settle()
    assert "eth99" not in router.vifs().values()
    delete(router, sg(1))
    assert "eth99" in router.vifs().values()


def test_a_pin_that_the_kernel_refused_is_tried_again() -> None:
    router = Router("eth0")
    router.kernel.refuse("add_vif", errno.ENOMEM, times=2)
    router.write(SetInterface(ALICE, "eth0", pinned=True))
    router.settle()
    assert (router.vifs(), router.engine.troubled) == ({}, True)
    router.engine.retry()
    router.settle()
    assert (router.vifs(), router.engine.troubled) == ({0: "eth0"}, False)


# --- further tables --------------------------------------------------------------------------------------------------


def test_a_table_is_opened_when_it_is_wanted() -> None:
    router = Router("eth0", "eth1")
    put(router, route(sg(1, table=7), "eth0", "eth1"), route(sg(1, Family.IPV6, 7), "eth0"))
    assert [line for line in router.lines if line.startswith("open")] == ["open 7"]
    assert router.sends(sg(1, table=7)) == ["eth1"]
    assert "v4/7 (10.0.0.1, 239.1.0.1) in table 7 0 > 1" in router.lines
    assert router.kernel.entry(sg(1)) is None
    router.write(SetInterface(ALICE, "eth1", pinned=True, table=9))
    router.settle()
    assert router.vifs(table=9) == {0: "eth1"}


def test_a_table_that_nobody_wants_any_more_is_not_opened() -> None:
    router = Router("eth0")
    router.write(PutRoutes(ALICE, [route(sg(1, table=7), "eth0")]))
    router.write(DeleteRoutes(ALICE))
    router.settle()
    assert router.lines == []


def test_a_table_that_is_refused_is_tried_again() -> None:
    router = Router("eth0", "eth1")
    busy = Problem(Reason.MROUTE_SOCKET_BUSY, "table 7 is in use")
    router.keeper.busy[7, Family.IPV4] = busy
    put(router, route(sg(1, table=7), "eth0", "eth1"), route(sg(1, Family.IPV6, 7), "eth0"), route(sg(1), "eth0"))
    assert why(router, sg(1, table=7)) == (S.FAILED, Reason.MROUTE_SOCKET_BUSY)
    assert router.get(sg(1, table=7)).fate.problem == busy
    assert why(router, sg(1, Family.IPV6, 7)) == (S.PROGRAMMED, None)
    assert why(router, sg(1)) == (S.PROGRAMMED, None)
    assert router.engine.troubled
    router.engine.retry()
    router.settle()
    assert why(router, sg(1, table=7)) == (S.FAILED, Reason.MROUTE_SOCKET_BUSY)
    router.keeper.busy.clear()
    router.engine.retry()
    router.settle()
    assert why(router, sg(1, table=7)) == (S.PROGRAMMED, None)
    assert not router.engine.troubled


def test_a_refused_table_that_nobody_wants_is_no_trouble() -> None:
    router = Router("eth0")
    router.keeper.busy[7, Family.IPV4] = Problem(Reason.MROUTE_SOCKET_BUSY, "table 7 is in use")
    put(router, route(sg(1, table=7), "eth0"))
    assert router.engine.troubled
    delete(router, sg(1, table=7))
    assert not router.engine.troubled
