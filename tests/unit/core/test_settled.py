"""mcastd.core.settled: whoever is not told to look closer needs no closer look."""

import pytest

from mcastd.core.settled import unsettled
from mcastd.model.address import Family
from mcastd.model.errors import Problem, Reason
from mcastd.model.route import RouteState
from mcastd.model.write import PutRoutes, WriteOptions
from tests.fakerouter import Router, route, sg

ALICE = WriteOptions("alice")


@pytest.mark.parametrize("family", Family)
def test_what_the_kernel_has_is_settled(family: Family) -> None:
    router = Router("eth0", "eth1", "eth2")
    wanted = [route(sg(n, family), "eth0", f"eth{1 + n % 2}") for n in range(6)]
    router.write(PutRoutes(ALICE, wanted))
    routes = [router.engine.desired.routes[one.key] for one in wanted]
    assert unsettled(routes) == [0, 1, 2, 3, 4, 5], "the kernel has yet to answer"
    router.settle()
    assert unsettled(routes) == []
    assert {one.state for one in routes} == {RouteState.PROGRAMMED}


def test_what_may_be_otherwise_is_told() -> None:
    router = Router("eth0", "eth1")
    plain, partial, pending = route(sg(1), "eth0"), route(sg(2), "eth0", "absent"), route(sg(3), "absent")
    refused, joins, doubted = route(sg(4), "eth0"), route(sg(5), "eth0"), route(sg(6), "eth0")
    joins.join = True
    router.write(PutRoutes(ALICE, [plain, partial, pending, refused, joins, doubted]))
    router.settle()
    refused.problem = Problem(Reason.KERNEL_ERROR, "refused", {})
    router.engine.tables[0, Family.IPV4].doubt(doubted.key)
    assert unsettled([plain, partial, None, plain, pending, refused, joins, plain, doubted]) == [1, 2, 4, 5, 6, 8]
    assert plain.state is RouteState.PROGRAMMED
    assert [one.state for one in (partial, pending, refused)] == [RouteState.PARTIAL, RouteState.PENDING, RouteState.FAILED]


def test_a_route_that_is_not_in_force_is_told() -> None:
    assert unsettled([route(sg(1), "eth0")]) == [0]
