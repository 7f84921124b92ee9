"""100,000 routes at once: every one in the kernel, and no call to it that is not needed. Counted by the kernel itself."""

import pytest
from google.protobuf.duration_pb2 import Duration

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e.router import PROGRAMMED, Router, bulk, key_of, keys_of

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("heavy")]

COUNT = 100_000
OWNER = {"owner": "bulk"}


def replace(router: Router, routes: list[t.Route], **options: object) -> rs.WriteResult:
    return router.daemon.replace(routes, options={**OWNER, **options})


def with_oifs(one: t.Route, *oifs: str) -> t.Route:
    changed = t.Route()
    changed.CopyFrom(one)
    del changed.oifs[:]
    changed.oifs.extend(t.Oif(interface=name) for name in oifs)
    return changed


def diff(result: rs.WriteResult) -> tuple[int, int, int, int, int]:
    return result.created, result.updated, result.deleted, result.unchanged, result.failed


def check_sample_by_iproute(router: Router, one: t.Route, *oifs: str) -> None:
    """The same by a program that shares no code with us."""
    lines = router.namespace.command("ip", "-4" if router.family is Family.IPV4 else "-6", "mroute", "show").splitlines()
    (line,) = [line for line in lines if line.startswith(f"({one.source},{one.group})")]
    fields = line.split()
    assert fields[fields.index("Iif:") + 1] == "up"
    assert sorted(fields[fields.index("Oifs:") + 1 : fields.index("State:")]) == sorted(oifs)


def test_hundred_thousand_routes(router: Router) -> None:
    routes = list(bulk(router.family, COUNT, router.source, "down1"))
    assert diff(replace(router, routes)) == (COUNT, 0, 0, 0, 0)
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": COUNT}
    kernel = router.kernel()
    assert kernel.keys() == keys_of(routes)
    assert set(kernel.values()) == {("up", ("down1",))}
    check_sample_by_iproute(router, routes[COUNT // 3], "down1")

    with router.notices() as notices:
        # The same set again.
        assert diff(replace(router, routes)) == (0, 0, 0, COUNT, 0)
        assert notices.take() == 0

        # A dry run of another set: 100 routes gone, 50 changed, 25 new.
        other = [with_oifs(one, "down2") for one in routes[100:150]] + routes[150:]
        other += bulk(router.family, 25, router.source, "down1", first=0x400000)
        assert diff(replace(router, other, validate_only=True)) == (25, 50, 100, COUNT - 150, 0)
        assert notices.take() == 0
        assert router.kernel() == kernel
        assert keys_of(router.daemon.list_routes()) == kernel.keys()

        # One route's oifs change, in place: its counters stay, and nothing else is touched.
        sender = router.star.source.sender(routes[7].group)
        router.check_leaves(sender, "down1", count=30)
        one_other = [*routes[:7], with_oifs(routes[7], "down2"), *routes[8:]]
        assert diff(replace(router, one_other)) == (0, 1, 0, COUNT - 1, 0)
        assert notices.take() == 1
        router.check_leaves(sender, "down2", count=12)
        assert router.dump().by_key[key_of(routes[7])].packets == 42
        (listed,) = router.daemon.list_routes(selector=t.Selector(group=routes[7].group), counters=True, max_age=Duration())
        assert (listed.status.state, listed.status.counters.packets) == (PROGRAMMED, 42)

        # The other set in earnest.
        assert diff(replace(router, other)) == (25, 50, 100, COUNT - 150, 0)
        assert notices.take() == 175
