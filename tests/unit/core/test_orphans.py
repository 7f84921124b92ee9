"""mcastd.core.orphans: when the state is lost, what kernel and keeper hold goes on as it is, and has names again."""

from collections.abc import Iterable

import pytest

from mcastd.core.orphans import FoundTable, orphaned_joins, orphaned_routes, orphans_left
from mcastd.model.address import Family, exact_key, pack_address, split_key
from mcastd.model.join import JoinKey, JoinRecord, Membership
from mcastd.model.limits import Limits
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.record import Intent, OwnerRecord
from mcastd.model.route import Route, RouteState, Template
from mcastd.model.write import DeleteRoutes, PutJoins, PutRoutes, WriteOptions
from tests.fakerouter import Disk, Router, paths, route, sg, template

ALICE = WriteOptions("alice")
OPERATOR = WriteOptions(KERNEL_OWNER)
NO_STOPS = Limits(stop_unrouted=False)
GROUPS = {Family.IPV4: "239.1.0.0/16", Family.IPV6: "ff3e::/16"}
TREE_GROUPS = {Family.IPV4: "239.9.9.9", Family.IPV6: "ff3e::9:9"}

both_families = pytest.mark.parametrize("family", Family)


def lose(router: Router, known: Iterable[Route] = ()) -> list[Route]:
    """Start a server that finds nothing stored but these, as mcastd.runtime.orphans does; the orphans."""
    router.disk = Disk()
    names = {link.ifindex: link.name for link in router.kernel.links.values()}
    router.disk.commit(Intent(puts=list(known)))
    found = [
        one
        for where, vifs in router.keeper.maps.items()
        for one in orphaned_routes(
            FoundTable(
                *where,
                vifs,
                router.keeper.fastpaths[where].tell(0, 1000),
                router.kernel.dump(where),
                stops=router.limits.stops(where[0]),
            ),
            names,
            router.disk.routes,
            7,
        )
    ]
    router.disk.commit(Intent(puts=found, owners=[OwnerRecord(KERNEL_OWNER, revision=7)]))
    router.boot()
    return found


def lose_unnoticed(router: Router) -> list[Route]:
    """Lose the state, and see that the kernel is left alone; the orphans."""
    router.settle()
    before = router.kernel.mfc_changes, router.kernel.vif_changes
    found = lose(router)
    router.settle()
    assert (router.kernel.mfc_changes, router.kernel.vif_changes) == before
    return found


def flow(router: Router, key: bytes, name: str) -> list[str]:
    """Names of the interfaces that a flow leaves by, once the first packet has called."""
    router.packet(key, name)
    router.settle()
    return router.packet(key, name)


def by_key(routes: Iterable[Route]) -> dict[bytes, tuple[str, list[str]]]:
    return {one.key: (one.paths.iif, [f"{name}/{ttl}" if ttl > 1 else name for name, ttl in one.paths.oifs]) for one in routes}


@both_families
def test_exact_routes_are_kept_by_name(family: Family) -> None:
    router = Router("eth0", "eth1", "eth2", "eth3", limits=NO_STOPS)
    one, two, three = (sg(n, family) for n in (1, 2, 3))
    router.write(
        PutRoutes(ALICE, [route(one, "eth0", "eth*"), route(two, "eth3", "eth3", "eth1"), route(three, "eth1", cookie="drop")])
    )
    found = lose_unnoticed(router)
    assert by_key(found) == {
        one: ("eth0", ["eth1", "eth2", "eth3"]),
        two: ("eth3", ["eth1", "eth3"]),
        three: ("eth1", []),
    }
    assert {(kept.owner, kept.state) for kept in router.engine.desired.routes.values()} == {(KERNEL_OWNER, RouteState.PROGRAMMED)}
    assert orphans_left(router.engine.desired) == (3, 0)

    # They are stored, so the next server changes nothing either; and they follow their interfaces.
    router.boot()
    router.settle()
    router.unlink("eth1")
    router.settle()
    assert router.get(one).state is RouteState.PARTIAL
    router.link("eth1")
    router.settle()
    assert flow(router, one, "eth0") == ["eth1", "eth2", "eth3"]


def test_thresholds_are_kept() -> None:
    router = Router("eth0", "eth1", "eth2")
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth1/5", "eth2")]))
    assert by_key(lose_unnoticed(router)) == {sg(1): ("eth0", ["eth1/5", "eth2"])}


@both_families
def test_templates_go_on_and_keep_their_entries(family: Family) -> None:
    router = Router("eth0", "eth1", "eth2")
    wanted = template(GROUPS[family], "", "", "eth*")
    router.write(PutRoutes(ALICE, [wanted]))
    router.settle()
    assert flow(router, sg(1, family), "eth1") == ["eth0", "eth2"]
    router.hear()
    (kept,) = lose_unnoticed(router)
    assert kept.key == wanted.key
    assert flow(router, sg(1, family), "eth1") == ["eth0", "eth2"]
    assert flow(router, sg(2, family), "eth0") == ["eth1", "eth2"]
    router.hear()
    assert sg(1, family) in router.engine.tables[0, family].learned


@both_families
def test_a_template_sends_where_it_sent_before(family: Family) -> None:
    """Names that were said outright stay ones, and so does what a glob left out: the interface where packets come in."""
    router = Router("eth0", "eth1", "vlan1", "vlan2")
    router.write(
        PutRoutes(
            ALICE,
            [
                template(GROUPS[family], "", "eth0", "eth*"),
                template(GROUPS[family], "", "vlan*", "vlan*", "eth1"),
                template(TREE_GROUPS[family], "", "eth1", "eth1", "vlan1"),
            ],
        )
    )
    lose_unnoticed(router)
    own = exact_key(0, pack_address(TREE_GROUPS[family]), split_key(sg(1, family))[2])
    assert flow(router, sg(1, family), "eth0") == ["eth1"]
    assert flow(router, sg(2, family), "vlan1") == ["eth1", "vlan2"]
    assert flow(router, sg(3, family), "vlan2") == ["eth1", "vlan1"]
    assert flow(router, own, "eth1") == ["eth1", "vlan1"]


@both_families
def test_an_exact_route_under_a_template_is_told_from_its_entries(family: Family) -> None:
    """What does something else than the template would, as a route that drops, stays as it is."""
    router = Router("eth0", "eth1", "eth2")
    drop, other = sg(1, family), sg(2, family)
    router.write(
        PutRoutes(ALICE, [template(GROUPS[family], "", "eth0", "eth1"), route(drop, "eth0"), route(other, "eth0", "eth2")])
    )
    router.settle()
    router.packet(sg(3, family), "eth0")
    router.hear()
    exact = {one.key: one for one in lose_unnoticed(router) if not isinstance(one, Template)}
    assert by_key(exact.values()) == {drop: ("eth0", []), other: ("eth0", ["eth2"])}
    assert (flow(router, drop, "eth0"), flow(router, other, "eth0")) == ([], ["eth2"])


@both_families
def test_shared_trees_and_their_branches_are_kept(family: Family) -> None:
    router = Router("eth0", "eth1", "eth2")
    group = pack_address(TREE_GROUPS[family])
    source = split_key(sg(1, family))[2]
    router.write(PutRoutes(ALICE, [template(TREE_GROUPS[family], "", "eth0", "eth1", "eth2", shared_tree=True)]))
    router.settle()
    key = exact_key(0, group, source)
    router.packet(key, "eth1")
    router.settle()
    assert flow(router, key, "eth1") == ["eth0", "eth2"]
    (tree,) = lose_unnoticed(router)
    assert isinstance(tree, Template)
    assert (tree.shared_tree, by_key([tree])[tree.key]) == (True, ("eth0", ["eth1", "eth2"]))
    assert flow(router, key, "eth1") == ["eth0", "eth2"]
    assert flow(router, exact_key(0, group, split_key(sg(1, family))[2][:-1] + b"\x09"), "eth0") == ["eth1", "eth2"]


@both_families
def test_stop_filters_stay_what_they_are_only_where_the_policy_makes_some(family: Family) -> None:
    for limits, orphans in ((Limits(), 0), (NO_STOPS, 1)):
        router = Router("eth0", "eth1", "eth2")
        router.write(PutRoutes(ALICE, [route(sg(9, family), "eth0", "eth1")]))
        router.settle()
        router.packet(sg(1, family), "eth0")
        router.settle()
        router.limits = limits
        assert len(lose(router)) == 1 + orphans
        router.settle()
        assert router.kernel.entry(sg(1, family)) is not None


def test_what_is_known_already_is_no_orphan() -> None:
    """A server that was killed after it had stored them finds the same, and stores nothing twice."""
    router = Router("eth0", "eth1")
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth1"), template(GROUPS[Family.IPV4], "", "eth0", "eth1")]))
    router.settle()
    assert len(lose(router, known=lose(router))) == 0


def test_an_owner_takes_over_in_place() -> None:
    router = Router("eth0", "eth1", "eth2")
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth1"), route(sg(2), "eth0", "eth1")]))
    lose_unnoticed(router)
    before = router.kernel.mfc_changes
    (outcome,) = router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth1")]))
    router.settle()
    assert (outcome.updated, outcome.refused, router.kernel.mfc_changes) == (1, 0, before)
    assert router.get(sg(1)).owner == "alice"
    assert router.engine.desired.owners[KERNEL_OWNER].revision == outcome.revision
    assert orphans_left(router.engine.desired) == (1, 0)

    (outcome,) = router.write(DeleteRoutes(WriteOptions("bob")))
    assert outcome.deleted == 0
    (outcome,) = router.write(DeleteRoutes(OPERATOR))
    router.settle()
    assert outcome.deleted == 1
    assert router.kernel.entry(sg(2)) is None
    assert orphans_left(router.engine.desired) == (0, 0)


@both_families
def test_a_shared_tree_makes_way_for_what_an_owner_puts(family: Family) -> None:
    router = Router("eth0", "eth1", "eth2")
    router.write(PutRoutes(ALICE, [template(TREE_GROUPS[family], "", "eth0", "eth1", shared_tree=True)]))
    lose_unnoticed(router)
    other = template(TREE_GROUPS[family], "", "eth2", "eth1", shared_tree=True)
    (outcome,) = router.write(PutRoutes(ALICE, [other]))
    router.settle()
    assert (outcome.created, outcome.deleted, outcome.refused) == (1, 1, 0)
    assert list(router.engine.desired.routes) == [other.key]
    key = exact_key(0, pack_address(TREE_GROUPS[family]), split_key(sg(1, family))[2])
    assert flow(router, key, "eth2") == ["eth1"]


def test_joins_are_handed_over_to_who_asks_for_the_same() -> None:
    router = Router("eth0", "eth1")
    group, other = pack_address("239.1.1.1"), pack_address("ff3e::1")
    members = [Membership(1, group, b""), Membership(2, other, pack_address("2001:db8::1")), Membership(99, group, b"")]
    found = orphaned_joins(members, {1: "eth0", 2: "eth1"}, 7)
    assert [str(record.key) for record in found] == ["(*, 239.1.1.1) on eth0", "(2001:db8::1, ff3e::1) on eth1"]
    router.disk.commit(Intent(join_puts=found, owners=[OwnerRecord(KERNEL_OWNER, revision=7)]))
    router.boot()
    assert orphans_left(router.engine.desired) == (0, 2)

    router.write(PutJoins(ALICE, [JoinRecord(JoinKey("alice", "eth0", group, 32, b"", 0))]))
    assert orphans_left(router.engine.desired) == (0, 1)
    joined = Route(exact_key(0, other, pack_address("2001:db8::1")), paths("eth1", "eth0"), "alice", join=True)
    router.write(PutRoutes(ALICE, [joined]))
    assert orphans_left(router.engine.desired) == (0, 0)
    assert {(one.ifindex, one.group) for one in router.engine.joins.wanted} == {(1, group), (2, other)}
    router.boot()
    assert {key.owner for key in router.engine.desired.joins} == {"alice"}
