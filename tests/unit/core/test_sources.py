"""mcastd.core.sources: traffic that no route forwards as it should, from its first upcall until it is covered or quiet."""

import pytest

from mcastd.core import sources as sources_module
from mcastd.core.feed import Feed, Kind
from mcastd.core.sources import PRESSED_QUIET_SECONDS, QUIET_SECONDS, SOURCES_MAX, Cause, SourceKey, Sources
from mcastd.model.address import Family
from mcastd.model.event import Answer, UpcallKind
from mcastd.model.limits import Limits
from mcastd.model.write import DeleteRoutes, PutRoutes, SetInterface, WriteOptions
from tests.fakerouter import Router, route, sg, template

ALICE = WriteOptions("alice")
NAMES = "eth0", "eth1", "eth2"

both_families = pytest.mark.parametrize("family", Family)

GROUPS = {Family.IPV4: "239.1.0.0/16", Family.IPV6: "ff3e::/32"}
GROUP_1 = {Family.IPV4: "239.1.0.1", Family.IPV6: "ff3e::1"}


def started(limits: Limits | None = None) -> Router:
    """A router that has a VIF of each interface."""
    router = Router(*NAMES, limits=limits)
    for name in NAMES:
        router.write(SetInterface(ALICE, name, True, None, 0))
    router.settle()
    return router


def known(router: Router) -> dict[SourceKey, Cause]:
    """The sources, and why the kernel called."""
    return {key: one.cause for key, one in router.engine.sources.all.items()}


def arrive(router: Router, key: bytes, name: str = "eth0") -> None:
    """A packet comes in, and all comes to rest."""
    router.packet(key, name)
    router.settle()


def marks(router: Router) -> list[object]:
    """What the feed was told of sources since the last look."""
    log = router.engine.feed.logs[Kind.SOURCE]
    told = log.since(log.tail)
    log._keys.clear()
    log.tail += len(told)
    return list(told)


# --- a source comes --------------------------------------------------------------------------------------------------


@both_families
def test_a_new_source_is_known_until_a_route_covers_it(family: Family) -> None:
    router, key = started(), sg(1, family)
    arrive(router, key)
    assert known(router) == {(key, "eth0"): Cause.NO_ROUTE}
    one = router.engine.sources.all[key, "eth0"]
    assert one.upcalls == 1
    assert one.first_seen == one.last_seen == one.active_at == router.kernel.clock
    assert marks(router) == [(key, "eth0")]
    router.write(PutRoutes(ALICE, [route(key, "eth0", "eth1")]))
    router.settle()
    assert known(router) == {}
    assert marks(router) == [(key, "eth0")]


@both_families
def test_each_upcall_is_counted_and_told(family: Family) -> None:
    router, key = started(Limits(stop_unrouted=False)), sg(1, family)
    arrive(router, key)
    first = router.kernel.clock
    router.kernel.expire()
    router.kernel.clock += 10
    arrive(router, key)
    one = router.engine.sources.all[key, "eth0"]
    assert (one.upcalls, one.first_seen, one.last_seen) == (2, first, router.kernel.clock)
    assert marks(router) == [(key, "eth0")] * 2


@both_families
def test_each_interface_is_a_source_of_its_own(family: Family) -> None:
    router, key = started(Limits(stop_unrouted=False)), sg(1, family)
    arrive(router, key, "eth0")
    router.kernel.expire()
    arrive(router, key, "eth1")
    assert known(router) == {(key, "eth0"): Cause.NO_ROUTE, (key, "eth1"): Cause.NO_ROUTE}
    router.write(PutRoutes(ALICE, [route(key, "eth2", "eth1")]))
    router.settle()
    assert known(router) == {}, "they have a route, though the wrong one: the kernel will say so"


@both_families
def test_what_comes_in_elsewhere_is_wrong(family: Family) -> None:
    router, key = started(), sg(1, family)
    router.write(PutRoutes(ALICE, [route(key, "eth1", "eth2")]))
    router.settle()
    arrive(router, key)
    assert known(router) == {(key, "eth0"): Cause.WRONG_INTERFACE}
    router.write(PutRoutes(ALICE, [route(key, "eth0", "eth2")]))
    router.settle()
    assert known(router) == {}


@both_families
def test_nothing_is_wrong_any_more_when_the_route_is_gone(family: Family) -> None:
    router, key = started(), sg(1, family)
    router.write(PutRoutes(ALICE, [route(key, "eth1", "eth2"), route(sg(2, family), "eth0")]))
    router.settle()
    arrive(router, key)
    router.write(DeleteRoutes(ALICE, [sg(2, family)]))
    assert known(router) == {(key, "eth0"): Cause.WRONG_INTERFACE}, "the route of another"
    router.write(DeleteRoutes(ALICE, [key]))
    assert known(router) == {}
    router.settle()
    arrive(router, key)
    assert known(router) == {(key, "eth0"): Cause.NO_ROUTE}
    router.engine.sources.uncovered([key])
    assert known(router) == {(key, "eth0"): Cause.NO_ROUTE}, "it has had no route before either"


@both_families
def test_a_late_wrong_interface_is_none(family: Family) -> None:
    """The kernel called before the route was put right."""
    router, key = started(), sg(1, family)
    router.write(PutRoutes(ALICE, [route(key, "eth1", "eth2")]))
    router.settle()
    router.packet(key, "eth0")
    router.write(PutRoutes(ALICE, [route(key, "eth0", "eth2")]))
    router.settle()
    assert known(router) == {}


@both_families
def test_a_packet_that_came_before_its_route_is_no_source(family: Family) -> None:
    router, key = started(), sg(1, family)
    router.packet(key, "eth0")
    router.write(PutRoutes(ALICE, [route(key, "eth0", "eth2")]))
    router.settle()
    assert known(router) == {}


@both_families
def test_a_route_that_waits_for_its_interface_leaves_its_source_unrouted(family: Family) -> None:
    router, key = started(), sg(1, family)
    router.write(PutRoutes(ALICE, [route(key, "none", "eth2")]))
    router.settle()
    arrive(router, key)
    assert known(router) == {(key, "eth0"): Cause.NO_ROUTE}


@both_families
def test_an_entry_of_somebody_else_is_the_wrong_one(family: Family) -> None:
    router, key = started(), sg(1, family)
    vif = next(number for number, name in router.vifs(family).items() if name == "eth0")
    router.engine.upcall(key, UpcallKind.WRONGVIF, vif, Answer.NONE, b"", 1000.0)
    assert known(router) == {(key, "eth0"): Cause.WRONG_INTERFACE}


def test_what_came_in_nowhere_or_is_no_news_is_left_out() -> None:
    router, key = started(), sg(1)
    feed = router.engine.feed
    for vif in (31, 99):
        router.engine.upcall(key, UpcallKind.NOCACHE, vif, Answer.NONE, b"", 1000.0)
    router.engine.upcall(key, UpcallKind.WHOLEPKT, 0, Answer.NONE, b"", 1000.0)
    router.engine.upcall(sg(1, table=77), UpcallKind.NOCACHE, 0, Answer.NONE, b"", 1000.0)
    assert known(router) == {}
    assert feed.upcalls_end == 0


# --- templates -------------------------------------------------------------------------------------------------------


@both_families
def test_what_a_template_takes_is_no_source(family: Family) -> None:
    router = started()
    router.write(PutRoutes(ALICE, [template(GROUPS[family], "", "eth0", "eth1")]))
    router.settle()
    arrive(router, sg(1, family))
    assert known(router) == {}
    arrive(router, sg(1, family), "eth1")
    assert known(router) == {(sg(1, family), "eth1"): Cause.WRONG_INTERFACE}
    arrive(router, sg(2, family), "eth1")
    assert known(router)[sg(2, family), "eth1"] is Cause.NO_ROUTE


@both_families
def test_a_source_goes_when_a_template_comes(family: Family) -> None:
    router = started()
    for number in (1, 2):
        arrive(router, sg(number, family))
    arrive(router, sg(1, family), "eth1")
    router.write(PutRoutes(ALICE, [template(GROUP_1[family], "", "eth0", "eth2")]))
    router.settle()
    assert (sg(1, family), "eth0") not in known(router)
    assert known(router)[sg(2, family), "eth0"] is Cause.NO_ROUTE, "another group"
    other = Family.IPV6 if family is Family.IPV4 else Family.IPV4
    before = known(router)
    router.write(PutRoutes(ALICE, [template(GROUPS[other], "", "eth0", "eth2")]))
    router.settle()
    assert known(router) == before, "the other family"


@both_families
def test_a_template_without_a_way_in_covers_nothing(family: Family) -> None:
    router = started()
    arrive(router, sg(1, family))
    router.write(PutRoutes(ALICE, [template(GROUPS[family], "", "none", "eth2")]))
    router.settle()
    assert known(router) == {(sg(1, family), "eth0"): Cause.NO_ROUTE}


@both_families
@pytest.mark.parametrize("stops", [True, False])
def test_a_source_goes_when_a_shared_tree_comes(family: Family, stops: bool) -> None:
    router = started(Limits(stop_unrouted=stops))
    arrive(router, sg(1, family), "eth2")
    router.kernel.expire()
    arrive(router, sg(2, family))
    arrive(router, sg(1, family))
    router.write(PutRoutes(ALICE, [template(GROUP_1[family], "", "eth1", "eth2", shared_tree=True)]))
    router.settle()
    assert (sg(1, family), "eth2") not in known(router)
    assert (sg(2, family), "eth0") in known(router), "another group"


@both_families
def test_a_source_without_a_stop_filter_goes_when_a_template_comes(family: Family) -> None:
    """Nothing is in the kernel that the template would take over: the next packet would call."""
    router = started(Limits(stop_unrouted=False))
    arrive(router, sg(1, family))
    assert router.kernel.entry(sg(1, family)) is None
    router.write(PutRoutes(ALICE, [template(GROUPS[family], "", "eth0", "eth1")]))
    assert known(router) == {}


@both_families
def test_a_late_upcall_of_what_a_template_has_taken_is_none(family: Family) -> None:
    router, key = started(), sg(1, family)
    router.write(PutRoutes(ALICE, [template(GROUPS[family], "", "", "eth2")]))
    router.settle()
    arrive(router, key)
    vif = next(number for number, name in router.vifs(family).items() if name == "eth1")
    router.engine.upcall(key, UpcallKind.NOCACHE, vif, Answer.REFUSED, b"", router.now())
    assert known(router) == {}


@both_families
def test_a_flow_that_moves_with_its_template_is_no_source(family: Family) -> None:
    router, key = started(), sg(1, family)
    router.write(PutRoutes(ALICE, [template(GROUPS[family], "", "", "eth2")]))
    router.settle()
    arrive(router, key)
    arrive(router, key, "eth1")
    assert known(router) == {}
    assert router.packet(key, "eth1") == ["eth2"]
    arrive(router, key, "eth0")
    assert known(router) == {(key, "eth0"): Cause.WRONG_INTERFACE}, "it flaps, and is damped"


@both_families
def test_what_a_shared_tree_has_no_branch_for_is_wrong(family: Family) -> None:
    router = started()
    router.write(PutRoutes(ALICE, [template(GROUP_1[family], "", "eth1", shared_tree=True)]))
    router.settle()
    arrive(router, sg(1, family))
    assert known(router) == {(sg(1, family), "eth0"): Cause.NO_ROUTE}


@both_families
def test_a_capped_template_leaves_sources(family: Family) -> None:
    router = started(Limits(learned_max=1))
    router.write(PutRoutes(ALICE, [template(GROUPS[family], "", "eth0", "eth1")]))
    router.settle()
    arrive(router, sg(1, family))
    arrive(router, sg(2, family))
    assert known(router) == {(sg(2, family), "eth0"): Cause.NO_ROUTE}


def test_many_sources_are_looked_at_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_module, "_AT_ONCE", 2)
    router = started()
    for number in range(5):
        arrive(router, sg(number))
    kernel = router.engine.tables[0, Family.IPV4]
    router.write(PutRoutes(ALICE, [template("239.2.0.0/16", "", "eth0", "eth1")]))
    assert len(list(router.engine.sources.templates_changed(kernel))) == 2
    router.settle()
    assert len(known(router)) == 5
    slices = router.engine.sources.templates_changed(kernel)
    next(slices)
    router.engine.sources.covered(sg(3), "eth0")
    assert not list(slices)[2:]  # what goes between slices is no trouble
    assert len(known(router)) == 4


# --- a source goes ---------------------------------------------------------------------------------------------------


@both_families
def test_a_quiet_source_goes(family: Family) -> None:
    router, key = started(Limits(stop_unrouted=False)), sg(1, family)
    arrive(router, key)
    sources, began = router.engine.sources, router.kernel.clock
    marks(router)
    sources.expire(began + QUIET_SECONDS)
    assert known(router)
    assert marks(router) == []
    sources.expire(began + QUIET_SECONDS + 0.1)
    assert known(router) == {}
    assert marks(router) == [(key, "eth0")]


@both_families
def test_packets_at_a_stop_filter_keep_a_source(family: Family) -> None:
    router, key = started(), sg(1, family)
    arrive(router, key)
    seen = router.kernel.clock
    router.kernel.clock += 50
    arrive(router, key)  # the stop filter takes it: no upcall
    router.sweep()
    marks(router)
    router.engine.sources.expire(router.kernel.clock + 55)
    one = router.engine.sources.all[key, "eth0"]
    assert (one.upcalls, one.last_seen) == (1, seen)
    assert one.active_at == pytest.approx(seen + 50, abs=0.1)
    assert marks(router) == [], "nobody need know"
    router.sweep()
    router.engine.sources.expire(router.kernel.clock + 61)
    assert known(router) == {}


@both_families
def test_a_stop_filter_that_was_there_before_is_a_source(family: Family) -> None:
    """A new server has had no upcall of it, and will have none."""
    router, key = started(), sg(1, family)
    arrive(router, key)
    router.boot()
    router.settle()
    assert known(router) == {}
    arrive(router, key)
    router.sweep()
    assert known(router) == {(key, "eth0"): Cause.NO_ROUTE}
    assert router.engine.sources.all[key, "eth0"].upcalls == 0


@both_families
def test_links_that_go_or_are_renamed_take_their_sources_along(family: Family) -> None:
    router = started()
    for name in NAMES:
        arrive(router, sg(1 + NAMES.index(name), family), name)
    router.unlink("eth0")
    router.tell()
    assert {name for _, name in known(router)} == {"eth1", "eth2"}
    router.link("other", router.kernel.named("eth1").ifindex)
    router.tell()
    assert {name for _, name in known(router)} == {"eth2"}
    router.link("eth2", router.kernel.named("eth2").ifindex, up=False)
    router.tell()
    assert {name for _, name in known(router)} == {"eth2"}


# --- floods ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Sources:
    """Sources with room for three."""
    monkeypatch.setattr(sources_module, "SOURCES_MAX", 3)
    return Sources(Feed())


def flood(sources: Sources, numbers: range, now: float) -> None:
    """So many call once."""
    for number in numbers:
        sources._seen((sg(number), "eth0"), Cause.NO_ROUTE, now)


def test_there_is_a_limit(small: Sources) -> None:
    assert SOURCES_MAX == 16_384
    flood(small, range(5), 100.0)
    assert [key for key, _ in small.all] == [sg(0), sg(1), sg(2)]
    assert small.refused == 2
    flood(small, range(3), 101.0)
    assert small.refused == 2
    assert {one.upcalls for one in small.all.values()} == {2}


def test_where_others_are_refused_those_that_called_once_go_early(small: Sources) -> None:
    flood(small, range(3), 100.0)
    flood(small, range(1), 101.0)
    small.expire(101.0 + PRESSED_QUIET_SECONDS)
    assert len(small.all) == 3, "nobody was refused"
    flood(small, range(3, 4), 110.0)
    small.expire(100.0 + PRESSED_QUIET_SECONDS)
    assert len(small.all) == 3
    small.expire(100.1 + PRESSED_QUIET_SECONDS)
    assert [key for key, _ in small.all] == [sg(0)], "that one has called twice"
    flood(small, range(3, 4), 120.0)
    small.expire(110.0 + QUIET_SECONDS)
    assert [key for key, _ in small.all] == [sg(3)], "the pressure has gone, and so has what is quiet"


def test_one_of_several_interfaces_is_dropped_alone(small: Sources) -> None:
    for name in ("eth0", "eth1"):
        small._seen((sg(1), name), Cause.WRONG_INTERFACE, 100.0)
    small.covered(sg(1), "eth0")
    assert list(small.all) == [(sg(1), "eth1")]
    small.covered(sg(2), "eth0")
    small.uncovered([sg(2), sg(1)])
    assert not small.all
    assert not small._by_flow
    small.uncovered([sg(1)])
