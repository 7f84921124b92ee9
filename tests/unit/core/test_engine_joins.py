"""The engine's part in joins: what commits, link events and restarts make of joins and of routes that join."""

import pytest

from mcastd.core.feed import Kind
from mcastd.core.prepare import prepare
from mcastd.model.address import Family
from mcastd.model.join import JoinKey, JoinRecord, Membership, route_join_key
from mcastd.model.limits import Limits
from mcastd.model.route import Route
from mcastd.model.write import DeleteJoins, DeleteRoutes, PutJoins, PutRoutes, WriteOptions
from tests.fakejoins import FakePool, settle
from tests.fakerouter import Router, drain, route, template
from tests.netns.routed import key_of

ALICE = WriteOptions("alice")

families = pytest.mark.parametrize("family", Family)


def joining(family: Family, iif: str = "eth0", number: int = 1) -> Route:
    one = route(key_of(family, number), iif, "eth1")
    one.join = True
    return one


def wanted(router: Router) -> set[tuple[JoinKey, str]]:
    """Joins that are wanted, and where."""
    joins = router.engine.joins
    return {(key, name) for key in joins.wishes for name in joins.interfaces_of(key)}


@families
def test_a_work_waits_for_what_its_write_joins_and_leaves(family: Family) -> None:
    router, pool = Router("eth0", "eth1"), FakePool()
    one = joining(family)

    def commit(write: PutRoutes | DeleteRoutes) -> bool:
        """Put it in force; whether one work was finished once the kernel had answered, and not before."""
        router.engine.joins.finished()
        router.write(write)
        early = router.engine.joins.finished()
        settle(router.engine.joins, pool)
        return not early and len(router.engine.joins.finished()) == 1

    assert commit(PutRoutes(ALICE, [one]))
    assert {m.ifindex for m in pool.joined} == {1}
    moved = joining(family, "eth1")
    assert commit(PutRoutes(ALICE, [moved]))
    assert {m.ifindex for m in pool.joined} == {2}
    assert commit(DeleteRoutes(ALICE, [one.key]))
    assert pool.joined == set()


def test_a_commit_tells_whether_it_joins_anything() -> None:
    router = Router("eth0", "eth1")
    for one, waits in ((joining(Family.IPV4), True), (route(key_of(Family.IPV4, 2), "eth0", "eth1"), False)):
        draft = router.engine.draft()
        outcome = drain(prepare(draft, PutRoutes(ALICE, [one]), 10))
        work = drain(router.engine.commit(outcome.intent))
        assert (work.joins is not None) is waits


@families
def test_links_and_restarts(family: Family) -> None:
    router = Router("eth0")
    group = b"\xef\1\1\1" if family is Family.IPV4 else b"\xff\x3e" + bytes(13) + b"\1"
    late = JoinKey("alice", "late", group, 8 * len(group), b"", 0)
    router.write(PutJoins(ALICE, [JoinRecord(late, "c")]), PutRoutes(ALICE, [joining(family)]))
    made = route_join_key(joining(family))
    assert wanted(router) == {(made, "eth0")}
    router.link("late")
    while router.events:
        router.engine.links(router.events.popleft())
    assert wanted(router) == {(made, "eth0"), (late, "late")}
    router.boot()
    assert wanted(router) == {(made, "eth0"), (late, "late")}
    assert router.engine.joins.record_of(late) == JoinRecord(late, "c", router.engine.desired.joins[late].revision)
    ifindex = router.engine.world.by_name["late"].ifindex
    router.engine.joins.adopt([Membership(ifindex, group, b""), Membership(99, group, b"")])
    step = router.engine.joins.pull()
    assert step is not None
    assert step.leave == [Membership(99, group, b"")]
    assert [m.ifindex for m in step.join] == [1]


def test_the_feed_is_told_of_joins_and_of_the_routes_that_make_them() -> None:
    router, pool = Router("eth0", "eth1"), FakePool()
    one, tree = joining(Family.IPV4), template("239.9.9.9", "", "eth0", "eth1", shared_tree=True)
    tree.join = True
    router.write(PutRoutes(ALICE, [one, tree]))
    logs = router.engine.feed.logs
    joins, routes = logs[Kind.JOIN].end, logs[Kind.ROUTE].end
    pool.refuses = lambda _: 1
    settle(router.engine.joins, pool)
    assert set(logs[Kind.JOIN].since(joins)) == {route_join_key(one), route_join_key(tree)}
    assert set(logs[Kind.ROUTE].since(routes)) == {one.key, tree.key}
    problem = router.engine.joins.error_of_route(one)
    assert problem is not None
    router.write(DeleteJoins(ALICE, [route_join_key(one)]))
    assert route_join_key(one) in router.engine.joins.wishes


def test_memberships_are_limited() -> None:
    router = Router("eth0", limits=Limits(memberships_max=1))
    router.write(PutRoutes(ALICE, [joining(Family.IPV4, number=1), joining(Family.IPV4, number=2)]))
    assert len(wanted(router)) == 1
