"""mcastd.core.wishes: the checks of the API and of the configuration file are the same, word for word."""

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from mcast.v1 import types_pb2 as t
from mcastd.api.convert import RouteReader
from mcastd.core.wishes import Wish, check_interface, join_key_of, route_of
from mcastd.model.address import pack_address
from mcastd.model.errors import McastdError, Reason
from mcastd.model.join import JoinKey
from mcastd.model.route import Route

GROUPS = ["239.1.1.1", "239.0.0.0/8", "239.1.1.1/8", "224.0.0.1", "ff3e::1", "ff00::/8", "10.0.0.1", "", "x", "239.1.1.0/24"]
SOURCES = ["10.0.0.1", "10.0.0.0/8", "", "fd00::1", "0.0.0.0/0", "127.0.0.1", "255.255.255.255", "x", "239.1.1.1"]
NAMES = ["eth0", "eth*", "", "!eth1", "!", "x" * 16, "a b", "*" * 65]
OIFS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([0, 1, 254, 255])), max_size=3)

WISHES = st.builds(
    Wish,
    group=st.sampled_from(GROUPS),
    source=st.sampled_from(SOURCES),
    iif=st.sampled_from(NAMES),
    oifs=OIFS,
    cookie=st.sampled_from(["", "c", "x" * 65]),
    monitored=st.booleans(),
    table=st.sampled_from([0, 7, 253, 254, 10**9]),
    idle_timeout=st.sampled_from([None, None, 90.0, 0.5, 86_401.0]),
    shared_tree=st.booleans(),
    join=st.booleans(),
)


def message_of(wish: Wish) -> t.Route:
    """The same wish as a client says it."""
    return t.Route(
        group=wish.group,
        source=wish.source,
        iif=wish.iif,
        oifs=[t.Oif(interface=name, ttl_threshold=ttl) for name, ttl in wish.oifs],
        cookie=wish.cookie,
        monitored=wish.monitored,
        table=wish.table,
        idle_timeout=None
        if wish.idle_timeout is None
        else Duration(nanos=500_000_000, seconds=0)
        if wish.idle_timeout == 0.5
        else Duration(seconds=int(wish.idle_timeout)),
        wildcard=t.WILDCARD_SHARED_TREE if wish.shared_tree else t.WILDCARD_UNSPECIFIED,
        join=wish.join,
    )


def told(route: Route | McastdError) -> tuple[object, ...]:
    """What has come of a wish."""
    if isinstance(route, McastdError):
        return route.reason, str(route), dict(route.problem.metadata)
    return type(route), route.key, route.paths, route.owner, route.cookie, route.monitored, route.join


@given(WISHES)
def test_both_ways_in_come_to_the_same(wish: Wish) -> None:
    results: list[Route | McastdError] = []
    for from_message in (False, True):
        try:
            results.append(RouteReader().read([message_of(wish)], "o")[0] if from_message else route_of(wish, "o", "routes[0]"))
        except McastdError as exc:
            results.append(exc)
    assert told(results[0]) == told(results[1])


def test_the_key_of_a_join() -> None:
    assert join_key_of("o", "eth*", "239.1.1.0/24", "", "join[0]") == JoinKey("o", "eth*", pack_address("239.1.1.0"), 24, b"", 0)
    key = join_key_of("o", "eth0", "ff3e::1", "fd00::/126", "join[0]")
    assert (key.source, key.source_length, key.size) == (pack_address("fd00::"), 126, 4)


@pytest.mark.parametrize(
    "interface,group,source,field",
    [
        ("", "239.1.1.1", "", "interface"),
        ("eth0", "10.1.1.1", "", "group"),
        ("eth0", "224.0.0.5", "", "group"),
        ("eth0", "239.0.0.0/16", "", "group"),
        ("eth0", "239.1.1.0/24", "10.0.0.0/24", "group"),
        ("eth0", "239.1.1.1", "fd00::1", "source"),
        ("eth0", "239.1.1.1", "10.0.0.1/8", "source"),
    ],
)
def test_joins_that_can_not_be(interface: str, group: str, source: str, field: str) -> None:
    with pytest.raises(McastdError) as caught:
        join_key_of("o", interface, group, source, "join[0]")
    assert caught.value.problem.metadata["field"] == f"join[0].{field}"


@pytest.mark.parametrize("name,words", [("eth*", "name one interface"), ("", "is empty"), ("a/b", "no interface name has")])
def test_one_interface(name: str, words: str) -> None:
    with pytest.raises(McastdError, match=words) as caught:
        check_interface(name, "interface")
    assert caught.value.reason is Reason.INVALID_INTERFACE
