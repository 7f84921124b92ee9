"""mcastd.core.adopt: a server that starts where another one ended changes the difference alone."""

import pytest

from mcastd.core.adopt import BEFORE_US
from mcastd.model.address import Family
from mcastd.model.effect import AddVif, DelVif, ProgramMfc, SetVifMap
from mcastd.model.errors import Reason
from mcastd.model.route import RouteState
from mcastd.model.write import DeleteRoutes, PutRoutes, SetInterface, WriteOptions
from tests.fakerouter import Router, route, sg

ALICE = WriteOptions("alice")
S = RouteState

both_families = pytest.mark.parametrize("family", Family)


def running(family: Family = Family.IPV4) -> Router:
    """A router whose kernel holds four routes."""
    router = Router("eth0", "eth1", "eth2", "eth3")
    routes = [
        route(sg(1, family), "eth0", "eth1"),
        route(sg(2, family), "eth0", "eth1", "eth2"),
        route(sg(3, family), "eth1", "eth1", "eth*"),
        route(sg(4, family), "eth0"),
    ]
    router.write(PutRoutes(ALICE, routes))
    router.settle()
    router.lines.clear()
    return router


def states(router: Router) -> set[RouteState]:
    return {one.state for one in router.engine.desired.routes.values()}


@both_families
def test_nothing_to_change_is_no_effect_at_all(family: Family) -> None:
    router = running(family)
    router.write(SetInterface(ALICE, "eth2", ttl_threshold=5, pinned=True))
    router.settle()
    router.lines.clear()
    before = router.kernel.mfc_changes, router.kernel.vif_changes, router.engine.revision
    for _ in range(3):
        router.boot()
        assert router.transcript() == []
    assert before[:2] == (router.kernel.mfc_changes, router.kernel.vif_changes)
    assert router.engine.revision > before[2]
    assert states(router) == {S.PROGRAMMED}
    assert {one.installed_at for one in router.engine.desired.routes.values()} == {BEFORE_US}


@both_families
def test_what_was_acknowledged_but_not_in_the_kernel_is_put_there(family: Family) -> None:
    router = running(family)
    router.write(PutRoutes(ALICE, [route(sg(5, family), "eth0", "eth2"), route(sg(1, family), "eth0", "eth2")]))
    router.write(DeleteRoutes(ALICE, [sg(2, family)]))
    router.boot()
    router.settle()
    assert (router.sends(sg(1, family)), router.sends(sg(5, family))) == (["eth2"], ["eth2"])
    assert router.kernel.entry(sg(2, family)) is None
    mfc = [line for line in router.lines if "(" in line]
    assert len(mfc) == 3, "sg(3) and sg(4) are not touched"
    assert mfc[-1].endswith("deleted")


@pytest.mark.parametrize("effect", [SetVifMap, AddVif, ProgramMfc, DelVif])
@pytest.mark.parametrize("done", [True, False])
@both_families
def test_a_crash_between_effects(family: Family, done: bool, effect: type[SetVifMap | AddVif | ProgramMfc | DelVif]) -> None:
    """Before an effect, or after it and before its result is known: here a VIF comes, two go, entries come, change and go."""
    router = running(family)
    router.link("eth4")
    router.tell()
    router.write(
        PutRoutes(ALICE, [route(sg(3, family), "eth0", "eth3"), route(sg(8, family), "eth4")]),
        DeleteRoutes(ALICE, [sg(1, family), sg(2, family)]),
    )
    router.until(effect)
    if done:
        router.tick()
    router.boot()
    router.settle()
    assert states(router) == {S.PROGRAMMED}
    assert router.sends(sg(3, family)) == ["eth3"]
    assert router.kernel.entry(sg(1, family)) is None
    used = {name for one in router.engine.desired.routes.values() for name in (one.paths.iif, *one.fate.installed_oifs)}
    assert set(router.vifs(family).values()) == used
    assert router.settle() == 0


@both_families
def test_an_interface_that_went_meanwhile_makes_every_entry_suspect(family: Family) -> None:
    """The dump does not tell bits of VIFs that do not exist: each entry is written before the number is used again."""
    router = running(family)
    router.unlink("eth3")
    router.link("eth4")
    router.boot()
    router.write(PutRoutes(ALICE, [route(sg(9, family), "eth4")]))
    leaks: list[int] = []
    router.watch = lambda: leaks.extend(set(router.kernel.forward(sg(3, family), 2)) - {1, 2, 3, 5})
    router.settle()
    assert leaks == []
    assert sum("(" in line for line in router.lines) == 5
    assert router.get(sg(3, family)).fate.installed_oifs == ("eth0", "eth1", "eth2", "eth4")
    assert router.settle() == 0


def test_an_interface_made_again_meanwhile_under_its_old_ifindex() -> None:
    router = running()
    router.link("eth1", router.unlink("eth1"))
    router.boot()
    router.settle()
    assert states(router) == {S.PROGRAMMED}
    assert (router.sends(sg(1)), router.sends(sg(2))) == (["eth1"], ["eth1", "eth2"])


def test_an_interface_that_goes_while_the_server_starts() -> None:
    router = running()
    calls = iter(range(100))

    def between() -> None:
        if next(calls) == 1:
            router.unlink("eth2")

    router.boot(between)
    router.settle()
    assert router.get(sg(2)).state is S.PARTIAL
    assert router.sends(sg(2)) == ["eth1"]


def test_a_rename_meanwhile_reaches_the_keepers_map_alone() -> None:
    router = running()
    router.link("eth9", router.kernel.named("eth3").ifindex)
    router.boot()
    router.settle()
    assert router.lines == ["v4 map 0=eth0 1=eth1 2=eth2 3=eth9"]
    assert router.get(sg(3)).fate.installed_oifs == ("eth0", "eth1", "eth2", "eth9")


def test_two_numbers_of_one_interface() -> None:
    """A VIF that was added when its link had come back under the old ifindex, and the server died before it saw either event."""
    router = Router("eth0", "eth1")
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth1")]))
    router.settle()
    where = 0, Family.IPV4
    router.keeper.set_map(where, (*router.keeper.maps[where], (2, 2, "eth1")))
    router.kernel.add_vif(where, 2, 2)
    for _ in range(2):
        router.boot()
        router.settle()
        assert router.vifs() == {0: "eth0", 1: "eth1"}
        assert router.kernel.forward(sg(1), 1) == [2]


@both_families
def test_entries_of_others_are_left_alone(family: Family) -> None:
    router = running(family)
    entry = router.kernel.entry(sg(1, family))
    assert entry is not None
    foreign, ours = sg(50, family), sg(51, family)
    packed = router.get(sg(1, family)).fate.forwarding
    assert packed is not None
    router.kernel.add_mfc(foreign, packed.packed, static=True)
    router.kernel.add_mfc(ours, packed.packed)
    router.boot()
    router.settle()
    assert router.kernel.entry(foreign) is not None
    assert router.kernel.entry(ours) is None, "left from a crash"


def test_an_entry_of_others_that_a_route_wants_becomes_ours() -> None:
    router = running()
    forwarding = router.get(sg(1)).fate.forwarding
    assert forwarding is not None
    router.kernel.add_mfc(sg(50), forwarding.packed, static=True)
    router.write(PutRoutes(ALICE, [route(sg(50), "eth0", "eth2")]))
    router.boot()
    router.settle()
    assert router.sends(sg(50)) == ["eth2"]


@both_families
def test_entries_removed_or_changed_by_others_meanwhile(family: Family) -> None:
    router = running(family)
    router.kernel.del_mfc(sg(1, family))
    forwarding = router.get(sg(4, family)).fate.forwarding
    assert forwarding is not None
    router.kernel.add_mfc(sg(2, family), forwarding.packed)
    router.boot()
    router.settle()
    assert (router.sends(sg(1, family)), router.sends(sg(2, family))) == (["eth1"], ["eth1", "eth2"])
    assert len(router.lines) == 2


def test_a_threshold_that_differs_is_seen() -> None:
    router = Router("eth0", "eth1")
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth1/5")]))
    router.settle()
    router.lines.clear()
    entry = router.kernel.entry(sg(1))
    assert entry is not None
    entry.ttls[1] = 6
    router.boot()
    router.settle()
    assert router.lines == ["v4 (10.0.0.1, 239.1.0.1) 0 > 1/5"]


def test_further_tables_are_adopted_as_well() -> None:
    router = Router("eth0", "eth1")
    router.write(PutRoutes(ALICE, [route(sg(1, table=7), "eth0", "eth1")]))
    router.settle()
    router.lines.clear()
    router.boot()
    assert router.transcript() == []
    assert router.get(sg(1, table=7)).state is S.PROGRAMMED


def test_a_table_that_the_keeper_lost_is_opened_anew() -> None:
    router = Router("eth0", "eth1")
    router.write(PutRoutes(ALICE, [route(sg(1, table=7), "eth0", "eth1")]))
    router.settle()
    for family in Family:
        del router.keeper.maps[7, family], router.kernel.tables[7, family]
    router.boot()
    router.settle()
    assert router.sends(sg(1, table=7)) == ["eth1"]


def test_a_full_table_is_adopted_full() -> None:
    router = Router(*(f"eth{n}" for n in range(34)))
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth*")]))
    router.settle()
    before = router.get(sg(1)).fate.installed_oifs
    router.lines.clear()
    router.boot()
    assert router.transcript() == [], "the same interfaces stay, whichever order they are listed in"
    assert router.get(sg(1)).fate.installed_oifs == before
    problem = router.get(sg(1)).fate.problem
    assert problem is not None
    assert problem.reason is Reason.VIF_TABLE_FULL
