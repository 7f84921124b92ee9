"""mcastd.core.engine: interfaces that come, go, flap and are renamed; globs, thresholds, and what is said of routes."""

import pytest

from mcastd.core.engine import SHAPES_AT_ONCE
from mcastd.core.vifs import VifState
from mcastd.model.address import Family
from mcastd.model.effect import AddVif, ProgramMfc
from mcastd.model.errors import Reason
from mcastd.model.event import LinkChanged
from mcastd.model.interface import Link
from mcastd.model.route import Route, RouteState
from mcastd.model.write import DeleteRoutes, PutRoutes, SetInterface, WriteOptions
from tests.fakerouter import Router, route, sg

ALICE = WriteOptions("alice")
S = RouteState

both_families = pytest.mark.parametrize("family", Family)


def put(router: Router, *routes: Route) -> None:
    router.write(PutRoutes(ALICE, list(routes)))
    router.settle()


def seen(router: Router, key: bytes) -> tuple[RouteState, list[str] | None, tuple[str, ...], Reason | None]:
    """State, where the kernel sends to, what is missing and why."""
    fate = router.get(key).fate
    return router.get(key).state, router.sends(key), fate.missing, fate.problem.reason if fate.problem is not None else None


# --- come and go -----------------------------------------------------------------------------------------------------


@both_families
def test_a_route_without_its_iif_is_pending_and_heals(family: Family) -> None:
    router, key = Router("eth1"), sg(1, family)
    put(router, route(key, "eth0", "eth1"))
    assert seen(router, key) == (S.PENDING, None, ("eth0",), Reason.NO_SUCH_INTERFACE)
    assert router.vifs(family) == {}, "nothing is taken for it"
    router.link("eth0")
    router.settle()
    assert seen(router, key) == (S.PROGRAMMED, ["eth1"], (), None)


@both_families
def test_a_route_without_an_oif_is_partial_and_heals(family: Family) -> None:
    router, key = Router("eth0", "eth1"), sg(1, family)
    put(router, route(key, "eth0", "eth1", "eth2"))
    assert seen(router, key) == (S.PARTIAL, ["eth1"], ("eth2",), Reason.NO_SUCH_INTERFACE)
    router.link("eth2")
    router.settle()
    assert seen(router, key) == (S.PROGRAMMED, ["eth1", "eth2"], (), None)


@both_families
def test_a_name_that_looks_like_a_pattern_of_smcroute_is_told(family: Family) -> None:
    router, key = Router("eth0"), sg(1, family)
    put(router, route(key, "eth0", "vlan+"))
    problem = router.get(key).fate.problem
    assert problem is not None
    assert problem.message == "interface vlan+ does not exist (yet): if a pattern is meant, write vlan*"


@both_families
def test_an_oif_that_goes_takes_its_bit_along_before_its_number_is_used_again(family: Family) -> None:
    router, key = Router("eth0", "eth1", "eth2"), sg(1, family)
    put(router, route(key, "eth0", "eth1"))
    router.lines.clear()
    router.unlink("eth1")
    router.write(PutRoutes(ALICE, [route(sg(2, family), "eth0", "eth2")]))
    router.settle()
    lines = [line.removeprefix(f"v{family} ") for line in router.lines]
    rewritten, reused = next(n for n, line in enumerate(lines) if line.endswith("0 >")), lines.index("vif 2 = eth2")
    assert reused < rewritten, "another number serves meanwhile"
    assert lines[-2:] == ["vif 1 deleted: errno 99", "map 0=eth0 2=eth2"]
    assert seen(router, key) == (S.PARTIAL, [], ("eth1",), Reason.NO_SUCH_INTERFACE)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("told", [True, False])
@both_families
def test_an_interface_made_again_under_its_name(family: Family, same: bool, told: bool) -> None:
    """Also under its old ifindex, as after a visit to another namespace; and when both events come at once."""
    router, key = Router("eth0", "eth1"), sg(1, family)
    put(router, route(key, "eth0", "eth1"))
    ifindex = router.unlink("eth1")
    if told:
        router.settle()
        assert router.get(key).state is S.PARTIAL
    router.link("eth1", ifindex if same else 0)
    router.settle()
    assert seen(router, key) == (S.PROGRAMMED, ["eth1"], (), None)
    assert sorted(router.vifs(family).values()) == ["eth0", "eth1"]


@pytest.mark.parametrize("name", ["eth0", "eth1"])
def test_a_hundred_flaps_leak_no_vif(name: str) -> None:
    router = Router("eth0", "eth1", "eth2")
    put(router, route(sg(1), "eth0", "eth1", "eth*"), route(sg(2), "eth1", "eth0"))
    for flap in range(100):
        ifindex = router.unlink(name)
        if flap % 3 == 0:
            router.settle()
        router.link(name, ifindex if flap % 2 else 0)
        if flap % 5:
            router.settle()
    router.settle()
    assert seen(router, sg(1)) == (S.PROGRAMMED, ["eth1", "eth2"], (), None)
    assert sorted(router.vifs().values()) == ["eth0", "eth1", "eth2"]
    assert router.engine.tables[0, Family.IPV4].vifs.used == 3


def test_an_interface_that_went_and_came_unheard() -> None:
    """Events were lost, and the links are as before: only the VIFs tell."""
    router = Router("eth0", "eth1")
    put(router, route(sg(1), "eth0", "eth1"))
    router.link("eth1", router.unlink("eth1"))
    router.resync()
    router.settle()
    assert seen(router, sg(1)) == (S.PROGRAMMED, ["eth1"], (), None)


def test_a_link_made_again_while_its_vif_is_added_leaves_no_vif_behind() -> None:
    """The call, meant for the interface that went, meets its successor: the number must not stay in the kernel."""
    router = Router("eth0", "eth1", "eth2")
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth1")]))
    router.until(AddVif)
    router.link("eth0", router.unlink("eth0"))
    router.settle()
    assert seen(router, sg(1)) == (S.PROGRAMMED, ["eth1"], (), None)
    assert sorted(router.vifs().values()) == ["eth0", "eth1"]
    put(router, route(sg(2), "eth2"))
    assert router.get(sg(2)).state is S.PROGRAMMED, "the number is free for another interface"


def test_a_refusal_about_an_interface_that_went_is_not_held_against_its_successor() -> None:
    router = Router("eth0", "eth1")
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth1")]))
    router.until(AddVif)
    ifindex = router.unlink("eth0")
    router.tick()
    router.link("eth0", ifindex)
    router.settle()
    assert seen(router, sg(1)) == (S.PROGRAMMED, ["eth1"], (), None)
    assert not router.engine.troubled


def test_an_interface_that_goes_while_its_entry_is_written() -> None:
    router = Router("eth0", "eth1", "eth2")
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth1", "eth2")]))
    router.until(ProgramMfc)
    router.unlink("eth1")
    router.settle()
    assert seen(router, sg(1)) == (S.PARTIAL, ["eth2"], ("eth1",), Reason.NO_SUCH_INTERFACE)
    assert router.vifs() == {0: "eth0", 2: "eth2"}


def test_events_that_change_nothing_cost_nothing() -> None:
    router = Router("eth0", "eth1")
    put(router, route(sg(1), "eth0", "eth1"))
    revision = router.engine.revision
    router.lines.clear()
    router.link("eth0", 1)
    router.resync()
    router.link("other")
    assert router.settle() == 0
    assert router.engine.revision == revision


# --- up, down, multicast ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eth0", "eth1"])
@both_families
def test_an_interface_that_is_down_keeps_its_place(family: Family, name: str) -> None:
    router, key = Router("eth0", "eth1"), sg(1, family)
    put(router, route(key, "eth0", "eth1"))
    router.lines.clear()
    router.link(name, router.kernel.named(name).ifindex, up=False)
    router.settle()
    assert seen(router, key) == (S.PARTIAL, ["eth1"], (name,), Reason.INTERFACE_DOWN)
    router.link(name, router.kernel.named(name).ifindex)
    router.settle()
    assert seen(router, key) == (S.PROGRAMMED, ["eth1"], (), None)
    assert router.lines == []


@both_families
def test_an_interface_without_multicast_is_not_used(family: Family) -> None:
    router, key = Router("eth0", "eth1", "eth2"), sg(1, family)
    put(router, route(key, "eth0", "eth1", "eth*"))
    router.link("eth1", 2, multicast=False)
    router.settle()
    assert seen(router, key) == (S.PARTIAL, ["eth2"], ("eth1",), Reason.NOT_MULTICAST_CAPABLE)
    router.link("eth0", 1, multicast=False)
    router.settle()
    assert seen(router, key)[:2] == (S.PENDING, None)
    assert router.vifs(family) == {}


# --- renames ---------------------------------------------------------------------------------------------------------


@both_families
def test_renamed_away_and_into_place(family: Family) -> None:
    router, key = Router("eth0", "eth1"), sg(1, family)
    put(router, route(key, "eth0", "eth1"))
    router.link("wan", 1)
    router.settle()
    assert seen(router, key) == (S.PENDING, None, ("eth0",), Reason.NO_SUCH_INTERFACE)
    assert router.vifs(family) == {}
    router.link("eth0", 1)
    router.settle()
    assert seen(router, key) == (S.PROGRAMMED, ["eth1"], (), None)


def test_names_that_are_swapped() -> None:
    router = Router("eth0", "eth1", "eth2")
    put(router, route(sg(1), "eth0", "eth1"), route(sg(2), "eth0", "eth2"))
    for ifindex, name in ((2, "swap"), (3, "eth1"), (2, "eth2")):
        router.link(name, ifindex)
    router.settle()
    assert (router.kernel.forward(sg(1), 1), router.kernel.forward(sg(2), 1)) == ([3], [2])
    assert router.keeper.maps[0, Family.IPV4] == ((0, 1, "eth0"), (1, 2, "eth2"), (2, 3, "eth1"))


def test_names_that_were_swapped_unheard() -> None:
    router = Router("eth0", "eth1", "eth2")
    put(router, route(sg(1), "eth0", "eth1"), route(sg(2), "eth0", "eth2"))
    for ifindex, name in ((2, "swap"), (3, "eth1"), (2, "eth2")):
        router.link(name, ifindex)
    router.resync()
    router.settle()
    assert (router.kernel.forward(sg(1), 1), router.kernel.forward(sg(2), 1)) == ([3], [2])


def test_a_name_taken_by_another_interface() -> None:
    router = Router("eth0", "eth1", "eth2")
    put(router, route(sg(1), "eth0", "eth1"))
    router.unlink("eth1")
    router.link("eth1", 3)
    router.settle()
    assert router.kernel.forward(sg(1), 1) == [3]
    assert seen(router, sg(1)) == (S.PROGRAMMED, ["eth1"], (), None)


def test_a_rename_that_matters_to_no_route_reaches_the_keepers_map_alone() -> None:
    router = Router("eth0", "eth1")
    put(router, route(sg(1), "eth0", "eth*"))
    router.lines.clear()
    router.link("eth7", 2)
    router.settle()
    assert router.lines == ["v4 map 0=eth0 1=eth7"]
    assert router.get(sg(1)).fate.installed_oifs == ("eth7",)


# --- globs -----------------------------------------------------------------------------------------------------------


@both_families
def test_a_glob_follows_the_interfaces(family: Family) -> None:
    router, key = Router("eth0", "vlan1", "vlan2", "lan1"), sg(1, family)
    put(router, route(key, "eth0", "vlan*", "!vlan2"))
    assert seen(router, key) == (S.PROGRAMMED, ["vlan1"], (), None)
    router.link("vlan3")
    router.link("vlan9", router.kernel.named("lan1").ifindex)
    router.link("down", router.kernel.named("vlan1").ifindex)
    router.settle()
    assert seen(router, key) == (S.PROGRAMMED, ["vlan3", "vlan9"], (), None)


def test_a_glob_that_matches_nothing_lacks_nothing() -> None:
    router = Router("eth0")
    put(router, route(sg(1), "eth0", "vlan*"))
    assert seen(router, sg(1)) == (S.PROGRAMMED, [], (), None)


@both_families
def test_the_iif_is_left_out_of_globs_but_taken_when_named(family: Family) -> None:
    router = Router("eth0", "eth1")
    put(router, route(sg(1, family), "eth0", "eth*"), route(sg(2, family), "eth0", "eth0", "eth*"))
    assert router.sends(sg(1, family)) == ["eth1"]
    assert router.sends(sg(2, family)) == ["eth0", "eth1"]


def test_exclusion_by_glob_and_names_said_outright() -> None:
    router = Router("eth0", "eth1", "vlan10", "vlan11", "vlan20")
    put(router, route(sg(1), "eth0", "eth1", "vlan11", "vlan*", "!vlan1?"))
    assert router.sends(sg(1)) == ["eth1", "vlan11", "vlan20"], "what is named outright is meant"


def test_a_glob_takes_interfaces_that_are_down_without_a_word() -> None:
    router = Router("eth0", "vlan1")
    put(router, route(sg(1), "eth0", "vlan*"))
    router.link("vlan1", 2, up=False)
    router.settle()
    assert seen(router, sg(1)) == (S.PROGRAMMED, ["vlan1"], (), None)


# --- thresholds ------------------------------------------------------------------------------------------------------


def test_thresholds_by_oif_by_interface_and_by_glob() -> None:
    router = Router("eth0", "eth1", "vlan1", "vlan2")
    router.write(SetInterface(ALICE, "eth1", ttl_threshold=5), SetInterface(ALICE, "vlan2", ttl_threshold=7))
    put(router, route(sg(1), "eth0", "eth1", "vlan*"), route(sg(2), "eth0", "eth1/9", "vlan*/3"))
    assert router.lines[-2:] == ["v4 (10.0.0.1, 239.1.0.1) 0 > 1/5 2 3/7", "v4 (10.0.0.1, 239.1.0.2) 0 > 1/9 2/3 3/3"]


def test_a_new_default_threshold_is_written_to_entries_that_use_it() -> None:
    router = Router("eth0", "eth1")
    put(router, route(sg(1), "eth0", "eth1"), route(sg(2), "eth0", "eth1/9"), route(sg(1, Family.IPV6), "eth0", "eth1"))
    router.lines.clear()
    router.write(SetInterface(ALICE, "eth1", ttl_threshold=5))
    router.settle()
    assert router.lines == ["v4 (10.0.0.1, 239.1.0.1) 0 > 1/5"]
    router.write(SetInterface(ALICE, "eth1", ttl_threshold=1))
    router.settle()
    assert router.lines[1:] == ["v4 (10.0.0.1, 239.1.0.1) 0 > 1"]


def test_a_default_threshold_goes_with_the_name() -> None:
    router = Router("eth0", "eth1")
    router.write(SetInterface(ALICE, "eth2", ttl_threshold=5))
    put(router, route(sg(1), "eth0", "eth?"))
    router.lines.clear()
    router.link("eth2", 2)
    router.settle()
    assert router.lines == ["v4 map 0=eth0 1=eth2", "v4 (10.0.0.1, 239.1.0.1) 0 > 1/5"]


def test_vif_states_in_passing() -> None:
    """What ListInterfaces shows between a write and the kernel's answer."""
    router = Router("eth0")
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0")]))
    slots = router.engine.tables[0, Family.IPV4].vifs.slots
    assert [slot.state for slot in slots if slot is not None] == [VifState.ADDING]
    router.settle()
    assert [slot.state for slot in slots if slot is not None] == [VifState.ACTIVE]


def test_many_shapes_are_resolved_in_slices() -> None:
    """Where each route has oifs of its own, an event does not take the loop for itself; in between all else goes on."""
    router = Router("eth0", "eth1")
    count = 5 * SHAPES_AT_ONCE
    router.write(PutRoutes(ALICE, [route(sg(n), "eth0", "eth*", f"!none{n}") for n in range(count)]))
    router.settle()
    slices = router.engine.links_in_slices(LinkChanged(Link(99, "eth9", up=True, multicast=True)))
    next(slices)
    router.write(DeleteRoutes(ALICE, keys=[sg(count - 1)]))
    assert 3 <= sum(1 for _ in slices) <= 5
    assert all(one.fate.installed_oifs == ("eth1", "eth9") for one in router.engine.desired.routes.values())
