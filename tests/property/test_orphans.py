"""Losing the state is not seen on the wire: a router that has lost it forwards like its twin that has not."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mcastd.core.learning import DAMPING_MAX
from mcastd.model.address import Family
from mcastd.model.route import Route
from mcastd.model.write import PutRoutes, WriteOptions
from tests.fakerouter import Router, paths, route, sg, template
from tests.unit.core.test_orphans import flow, lose_unnoticed

LINKS = ("eth0", "eth1", "vlan1", "vlan2")
OIFS = st.lists(st.sampled_from([*LINKS, "eth*", "vlan*", "*", "!vlan1"]), max_size=3, unique=True)
IIFS = st.sampled_from(["", "eth*", "vlan*", *LINKS])
PREFIXES = {Family.IPV4: ["239.1.0.0/24", "239.1.0.4/30", "239.1.0.1"], Family.IPV6: ["ff3e::/120", "ff3e::4/126", "ff3e::1"]}
EXACT = 0x200
"""Groups of exact routes from here on: one that does just what a template would make is taken for that."""
TREES = {Family.IPV4: "239.1.0.7", Family.IPV6: "ff3e::7"}
NUMBERS = st.sets(st.integers(1, 6))
GROUPS = st.integers(1, 8) | st.integers(EXACT + 1, EXACT + 6)
PACKETS = st.lists(st.tuples(GROUPS, st.sampled_from(LINKS)), max_size=8)


@st.composite
def wishes(draw: st.DrawFn, family: Family) -> list[Route]:
    """Routes, templates and at most one shared tree, as a controller could ask for."""
    out: list[Route] = [route(sg(EXACT + n, family), draw(st.sampled_from(LINKS)), *draw(OIFS)) for n in draw(NUMBERS)]
    prefixes = draw(st.lists(st.sampled_from(PREFIXES[family]), max_size=3))
    out += [template(prefix, "", draw(IIFS), *draw(OIFS)) for prefix in prefixes]
    if draw(st.booleans()):
        out.append(template(TREES[family], "", "eth0", *draw(OIFS), shared_tree=True))
    return out


@given(st.data(), st.sampled_from(Family), PACKETS, PACKETS)
@settings(max_examples=150, deadline=None)
def test_a_router_that_loses_its_state_forwards_like_one_that_does_not(
    data: st.DataObject, family: Family, before: list[tuple[int, str]], after: list[tuple[int, str]]
) -> None:
    wanted = data.draw(wishes(family))
    twins = []
    for _ in range(2):
        router = Router(*LINKS)
        router.write(PutRoutes(WriteOptions("alice"), [_fresh(one) for one in wanted]))
        router.settle()
        for number, name in before:
            flow(router, sg(number, family), name)
        twins.append(router)
    whole, lost = twins
    lose_unnoticed(lost)
    whole.boot()
    whole.settle()
    for number, name in (*before, *after):
        for router in twins:  # How often an entry has moved of late is forgotten with the state: that is over then.
            router.kernel.clock += 2 * DAMPING_MAX
        assert flow(lost, sg(number, family), name) == flow(whole, sg(number, family), name), (number, name)


def _fresh(one: Route) -> Route:
    made = one.copy()
    made.paths = paths(one.paths.iif, *(name for name, _ in one.paths.oifs))
    return made
