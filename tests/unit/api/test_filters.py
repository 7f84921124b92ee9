"""mcastd.api.filters: who is told what of an object that changed, also where it comes to match, or nobody knows any more."""

from collections.abc import Callable

import pytest

from mcast.v1 import types_pb2 as t
from mcastd.api.filters import FlowFilter, InterfaceFilter, JoinFilter, RouteFilter, Tell
from mcastd.model.address import exact_key, pack_address
from mcastd.model.errors import McastdError, Reason
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.route import Route
from tests.fakerouter import route, sg

PUT, DELETE, NOTHING = Tell.PUT, Tell.DELETE, Tell.NOTHING

KEY = sg(1)
RED, BLUE, GONE = route(KEY, "eth0", cookie="red"), route(KEY, "eth0", cookie="blue"), None


def told(chosen: RouteFilter, *routes: Route | None) -> list[Tell]:
    """What is told as a route comes to be these, one after the other."""
    return [chosen.verdict(KEY, one) for one in routes]


# --- routes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resumed", [False, True])
def test_without_a_selector_all_is_told(resumed: bool) -> None:
    assert told(RouteFilter(t.Selector(), resumed=resumed), RED, BLUE, GONE, GONE) == [PUT, PUT, DELETE, DELETE]


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(
    "selector, verdicts",
    [
        (t.Selector(group="239.1.0.0/16"), [PUT, PUT, DELETE, DELETE]),
        (t.Selector(source="10.0.0.1", group="239.1.0.1", table=0), [PUT, PUT, DELETE, DELETE]),
        (t.Selector(group="239.2.0.0/16"), [NOTHING] * 4),
        (t.Selector(table=5), [NOTHING] * 4),
    ],
)
def test_the_key_decides_once_and_for_all(selector: t.Selector, verdicts: list[Tell], resumed: bool) -> None:
    chosen = RouteFilter(selector, resumed=resumed)
    assert told(chosen, RED, BLUE, GONE, GONE) == verdicts
    assert not chosen._told._keys, "nothing has to be kept"


def test_a_route_may_come_to_match_and_cease_to() -> None:
    chosen = RouteFilter(t.Selector(cookie="red"), resumed=False)
    verdicts = told(chosen, BLUE, RED, RED, BLUE, BLUE, RED, GONE, GONE, BLUE, GONE)
    assert verdicts == [NOTHING, PUT, PUT, DELETE, NOTHING, PUT, DELETE, NOTHING, NOTHING, NOTHING]


def test_after_a_resume_the_follower_may_have_any() -> None:
    chosen = RouteFilter(t.Selector(cookie="red"), resumed=True)
    verdicts = told(chosen, BLUE, BLUE, RED, BLUE, GONE, RED, GONE, BLUE, GONE)
    assert verdicts == [DELETE, NOTHING, PUT, DELETE, NOTHING, PUT, DELETE, DELETE, NOTHING]


def test_what_has_gone_is_not_remembered() -> None:
    """A follower that stays for months while routes come and go that are none of its business."""
    for resumed in (False, True):
        chosen = RouteFilter(t.Selector(owner="bob"), resumed=resumed)
        for number in range(1000):
            chosen.verdict(sg(number), route(sg(number), "eth0"))
            chosen.verdict(sg(number), None)
        assert not chosen._told._keys


@pytest.mark.parametrize("resumed", [False, True])
def test_what_the_key_excludes_is_never_told(resumed: bool) -> None:
    chosen = RouteFilter(t.Selector(group="239.2.0.0/16", cookie="red"), resumed=resumed)
    assert told(chosen, RED, BLUE, GONE) == [NOTHING] * 3


@pytest.mark.parametrize(
    "make", [lambda s: RouteFilter(s, resumed=False), InterfaceFilter, FlowFilter, lambda s: JoinFilter(s, resumed=False)]
)
@pytest.mark.parametrize(
    "selector, field, reason",
    [
        (t.Selector(interface="a/b"), "selector.interface", Reason.INVALID_INTERFACE),
        (t.Selector(group="none"), "selector.group", Reason.INVALID_GROUP),
        (t.Selector(source="10.0.0.0/99"), "selector.source", Reason.INVALID_SOURCE),
    ],
)
def test_errors_name_the_field(make: Callable[[t.Selector], object], selector: t.Selector, field: str, reason: Reason) -> None:
    if make is InterfaceFilter and not selector.interface:
        return  # It is about nothing else: the others of a watch refuse it.
    with pytest.raises(McastdError) as caught:
        make(selector)
    assert (caught.value.reason, caught.value.problem.metadata["field"]) == (reason, field)


# --- interfaces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted, names", [("", ["eth0", "eth1", "lo"]), ("eth1", ["eth1"]), ("eth*", ["eth0", "eth1"]), ("e", []), ("?o", ["lo"])]
)
def test_interfaces_by_name_or_glob(wanted: str, names: list[str]) -> None:
    chosen = InterfaceFilter(t.Selector(interface=wanted, group="239.1.1.1", owner="alice"))
    assert [name for name in ("eth0", "eth1", "lo") if chosen.matches(name)] == names


# --- traffic ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "selector, matches",
    [
        (t.Selector(), True),
        (t.Selector(owner="alice", cookie="red", states=[t.ROUTE_STATE_FAILED]), True),
        (t.Selector(interface="eth0"), True),
        (t.Selector(interface="eth1"), False),
        (t.Selector(interface="e*", group="239.0.0.0/8", source="10.0.0.1", table=0), True),
        (t.Selector(group="239.2.0.0/16"), False),
        (t.Selector(group="ff00::/8"), False),
        (t.Selector(source="10.0.0.2"), False),
        (t.Selector(table=5), False),
    ],
)
def test_traffic_by_its_flow_and_interface(selector: t.Selector, matches: bool) -> None:
    key = exact_key(0, pack_address("239.1.0.1"), pack_address("10.0.0.1"))
    assert FlowFilter(selector).matches(key, "eth0") is matches


# --- joins -----------------------------------------------------------------------------------------------------------


def test_joins() -> None:
    key = JoinKey("alice", "eth*", pack_address("239.1.1.1"), 32, b"", 0)
    red, blue = JoinRecord(key, "red"), JoinRecord(key, "blue")
    everything = JoinFilter(t.Selector(table=7), resumed=False)
    assert [everything.verdict(key, one, []) for one in (red, None)] == [PUT, DELETE]
    by_cookie = JoinFilter(t.Selector(cookie="red"), resumed=False)
    assert [by_cookie.verdict(key, one, []) for one in (blue, red, blue, red, None)] == [NOTHING, PUT, DELETE, PUT, DELETE]
    held = JoinFilter(t.Selector(interface="eth1"), resumed=False)
    assert [held.verdict(key, red, names) for names in (["eth0"], ["eth0", "eth1"], [])] == [NOTHING, PUT, DELETE]
    resumed = JoinFilter(t.Selector(owner="bob"), resumed=True)
    assert [resumed.verdict(key, one, []) for one in (red, red, None, None)] == [DELETE, NOTHING, NOTHING, DELETE]
