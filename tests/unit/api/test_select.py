"""mcastd.api.select: selectors as tests of routes. What they select of a daemon is in tests/api/test_routes.py."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.v1 import types_pb2 as t
from mcastd.api.select import is_empty, join_matcher, matcher
from mcastd.model.address import Family, exact_key, pack_address
from mcastd.model.errors import McastdError, Reason
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.route import Fate, Route, RouteState
from tests.fakerouter import route
from tests.netns.routed import key_of


def test_an_empty_selector_is_no_test() -> None:
    assert is_empty(t.Selector())
    assert matcher(t.Selector()) is None


@pytest.mark.parametrize(
    "selector",
    [
        t.Selector(table=0),
        t.Selector(owner="a"),
        t.Selector(states=[t.ROUTE_STATE_PROGRAMMED]),
        t.Selector(group="::/0"),
        t.Selector(interface="*"),
    ],
)
def test_what_says_anything_is_not_empty(selector: t.Selector) -> None:
    assert not is_empty(selector)
    assert matcher(selector) is not None


def holds(selector: t.Selector, one: Route) -> bool:
    """Whether a selector selects a route."""
    test = matcher(selector)
    assert test is not None
    return test(one)


def test_every_field_counts() -> None:
    one = route(key_of(Family.IPV4, 1), "up", "d*", owner="alice", cookie="c")
    one.fate = Fate()
    one.fate.installed_oifs = ("d7",)
    fields = {"owner": "alice", "cookie": "c", "group": "239.1.0.0/16", "source": "10.0.0.1", "interface": "d7", "table": 0}
    assert holds(t.Selector(**fields, states=[t.ROUTE_STATE_PENDING]), one)  # type: ignore[arg-type]
    wrong = {"owner": "bob", "cookie": "d", "group": "239.2.0.0/16", "source": "10.0.0.2", "interface": "d8", "table": 1}
    for name, value in wrong.items():
        assert not holds(t.Selector(**{**fields, name: value}, states=[t.ROUTE_STATE_PENDING]), one), name  # type: ignore[arg-type]
    assert not holds(t.Selector(**fields, states=[t.ROUTE_STATE_PROGRAMMED]), one)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name,found", [("up", True), ("d*", True), ("u?", True), ("d7", True), ("d8", False), ("x*", False), ("*", True)]
)
def test_interfaces_are_names_and_globs(name: str, found: bool) -> None:
    one = route(key_of(Family.IPV4, 1), "up", "d*")
    one.fate = Fate()
    one.fate.installed_oifs = ("d7",)
    assert holds(t.Selector(interface=name), one) is found


def test_states_are_those_of_now() -> None:
    one = route(key_of(Family.IPV4, 1), "up")
    test = matcher(t.Selector(states=[t.ROUTE_STATE_PROGRAMMED, t.ROUTE_STATE_FAILED]))
    assert test is not None
    assert not test(one)
    one.fate = Fate()
    one.fate.state = RouteState.PROGRAMMED
    assert test(one)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.integers(0, 128), st.data())
def test_prefixes_hold_what_ipaddress_says(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int, data: st.DataObject
) -> None:
    length = min(length, address.max_prefixlen)
    network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    near = st.ip_addresses(network=str(network)) | st.ip_addresses(v=4) | st.ip_addresses(v=6)
    source = data.draw(near)
    group = "239.1.1.1" if source.version == 4 else "ff3e::1"
    one = route(exact_key(0, pack_address(group), pack_address(str(source))), "up")
    assert holds(t.Selector(source=f"{address}/{length}"), one) is (source in network)


@pytest.mark.parametrize(
    "text", ["x", "1.2.3.4/33", "::/129", "1.2.3.4/", "/8", "1.2.3.4/-1", "1.2.3.4/1.0", "1.2.3.4/" + "9" * 9999]
)
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(McastdError) as caught:
        matcher(t.Selector(source=text))
    assert caught.value.reason is Reason.INVALID_SOURCE
    assert caught.value.problem.metadata["field"] == "selector.source"


def test_an_unknown_state_is_refused_with_those_there_are() -> None:
    unknown: list[Any] = [77]
    with pytest.raises(McastdError, match="programmed, partial, pending, template, failed"):
        matcher(t.Selector(states=unknown))


JOIN = JoinRecord(JoinKey("alice", "vlan*", pack_address("239.1.0.0"), 24, pack_address("10.0.0.0"), 30), "c")
ANY = JoinRecord(JoinKey("bob", "eth0", pack_address("ff3e::1"), 128, b"", 0))


@pytest.mark.parametrize(
    "selector,join,any_source",
    [
        (t.Selector(owner="alice"), True, False),
        (t.Selector(cookie="c"), True, False),
        (t.Selector(group="239.0.0.0/8"), True, False),
        (t.Selector(group="239.1.0.0/24"), True, False),
        (t.Selector(group="239.1.0.0/25"), False, False),
        (t.Selector(group="ff3e::/16"), False, True),
        (t.Selector(group="::/0"), False, True),
        (t.Selector(source="10.0.0.0/8"), True, False),
        (t.Selector(source="10.0.0.1"), False, False),
        (t.Selector(source="::/0"), False, True),
        (t.Selector(source="::/1"), False, False),
        (t.Selector(interface="vlan7"), True, False),
        (t.Selector(interface="vlan?"), True, False),
        (t.Selector(interface="eth0"), False, True),
        (t.Selector(interface="*"), True, True),
        (t.Selector(owner="alice", group="239.2.0.0/16"), False, False),
    ],
)
def test_joins_are_selected(selector: t.Selector, join: bool, any_source: bool) -> None:
    test = join_matcher(selector)
    assert test is not None
    assert test(JOIN, ["vlan7"]) is join
    assert test(ANY, []) is any_source


def test_every_join_matches_a_selector_that_says_nothing_of_joins() -> None:
    assert join_matcher(t.Selector()) is None
    assert join_matcher(t.Selector(states=[t.ROUTE_STATE_FAILED])) is None


@pytest.mark.parametrize("selector", [t.Selector(group="x"), t.Selector(source="10.0.0.0/33"), t.Selector(interface="a/b")])
def test_bad_selectors_of_joins_are_refused(selector: t.Selector) -> None:
    with pytest.raises(McastdError) as error:
        join_matcher(selector)
    assert error.value.problem.metadata["field"].startswith("selector.")
