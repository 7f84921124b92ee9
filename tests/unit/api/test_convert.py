"""mcastd.api.convert: messages to values. What is refused over gRPC is in tests/api/test_refusals.py."""

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from mcast.v1 import types_pb2 as t
from mcastd.api import convert
from mcastd.api.convert import RouteReader, patches, route_keys
from mcastd.api.fields import check_name, check_oifs, invalid, read_duration, read_table, read_table_of_both
from mcastd.model.address import Family, exact_key, pack_address
from mcastd.model.errors import McastdError, Reason
from mcastd.model.route import Oif, Paths
from mcastd.model.template import TemplateKey, parts_of


def message(**fields: object) -> t.Route:
    """A sound route message."""
    values: dict[str, object] = {"group": "239.1.1.1", "source": "10.0.0.1", "iif": "eth0", **fields}
    return t.Route(**values)  # type: ignore[arg-type]


def nothing(_key: TemplateKey) -> list[bytes]:
    """There are no templates."""
    return []


def test_a_route_is_read() -> None:
    oifs = [t.Oif(interface="eth2", ttl_threshold=5), t.Oif(interface="eth1")]
    (route,) = RouteReader().read([message(oifs=oifs, cookie="c", monitored=True, table=7)], "alice")
    assert route.key == exact_key(7, pack_address("239.1.1.1"), pack_address("10.0.0.1"))
    assert route.paths == Paths("eth0", (Oif("eth1", 0), Oif("eth2", 5)))
    assert (route.owner, route.cookie, route.monitored) == ("alice", "c", True)


def test_routes_that_are_alike_share_their_paths() -> None:
    reader = RouteReader()
    first = reader.read([message(group=f"239.1.1.{n}") for n in range(3)], "alice")
    second = reader.read([message(source="10.0.0.9", cookie="x")], "bob")
    assert len({id(route.paths) for route in first + second}) == 1


def test_what_differs_is_told_apart() -> None:
    reader = RouteReader()
    variants = [
        message(),
        message(iif="eth1"),
        message(oifs=[t.Oif(interface="eth1")]),
        message(oifs=[t.Oif(interface="eth1", ttl_threshold=2)]),
        message(monitored=True),
        message(table=5),
        message(group="ff3e::1", source="fd00::1"),
    ]
    routes = reader.read(variants, "alice")
    again = RouteReader().read([message(group="239.1.1.2")], "alice")
    assert len({(r.key[:4], len(r.key), r.paths, r.monitored) for r in routes}) == len(variants)
    assert again[0].paths == routes[0].paths


def test_a_remembered_ipv4_route_does_not_excuse_an_ipv6_one() -> None:
    reader = RouteReader()
    oifs = [t.Oif(interface="eth1", ttl_threshold=3)]
    reader.read([message(oifs=oifs)], "alice")
    with pytest.raises(McastdError) as caught:
        reader.read([message(group="ff3e::1", source="fd00::1", oifs=oifs)], "alice")
    assert caught.value.reason is Reason.INVALID_TTL


SOME_ADDRESSES = [
    *("239.1.1.1", "239.1.1.2", "224.0.0.5", "224.0.1.5", "10.0.0.1", "10.0.0.2", "0.0.0.0", "127.0.0.1", "255.255.1.1"),
    *("ff3e::1", "ff02::1", "ff3e::2", "2001:db8::1", "::1", "fe80::1", "", "239.0.0.0/8", "*", "x", "239.1.1.1\x12\x0810.0.0.1"),
]
MESSAGES = st.builds(
    lambda group, source, oifs, cookie, monitored, join: t.Route(
        group=group,
        source=source,
        iif="eth0",
        oifs=[t.Oif(interface=n) for n in oifs],
        cookie=cookie,
        monitored=monitored,
        join=join,
    ),
    st.sampled_from(SOME_ADDRESSES),
    st.sampled_from(SOME_ADDRESSES),
    st.lists(st.sampled_from(["eth1", "eth2", "eth?", "eth1/x"]), max_size=2),
    st.sampled_from(["", "", "c", "d", "\n"]),
    st.booleans(),
    st.booleans(),
)


def read_one(reader: RouteReader, one: t.Route) -> tuple[object, ...]:
    copy = t.Route()
    copy.CopyFrom(one)
    try:
        (route,) = reader.read([copy], "alice")
    except McastdError as exc:
        return exc.reason, str(exc)
    return type(route), route.key, route.paths, route.owner, route.cookie, route.monitored, route.join, route.session


@given(st.lists(MESSAGES, max_size=12))
def test_what_was_read_before_changes_nothing(messages: list[t.Route]) -> None:
    """A reader that remembers, in one go or one by one, against one that has seen nothing."""
    reader = RouteReader()
    alone = [read_one(RouteReader(), one) for one in messages]
    assert [read_one(reader, one) for one in messages] == alone
    assert [read_one(reader, one) for one in messages] == alone
    sound = [one for one, found in zip(messages, alone, strict=True) if not isinstance(found[0], Reason)]
    routes = reader.read(sound, "alice")
    assert [(route.key, route.paths, route.cookie) for route in routes] == [
        (found[1], found[2], found[4]) for found in alone if not isinstance(found[0], Reason)
    ]


def test_unknown_fields_do_not_fill_the_memory() -> None:
    """A megabyte of a field from a later version is taken, as the contract says, but not remembered."""
    reader = RouteReader()
    fat = message()
    fat.MergeFromString(b"\xf2\x7f\xc0\x84\x3d" + bytes(1_000_000))
    (route,) = reader.read([fat], "alice")
    assert route.paths == Paths("eth0", ())
    assert not any(reader._known.values())
    assert not any(reader._tails.values())
    assert not reader._rests


def test_a_long_memory_is_forgotten_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "_COMMON_CACHED", 10)
    reader = RouteReader()
    for n in range(25):
        reader.read([message(iif=f"eth{n}")], "alice")
    assert len(reader._known[Family.IPV4]) <= 10


def test_a_memory_of_sources_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "_RESTS_CACHED", 10)
    reader = RouteReader()
    routes = reader.read([message(source=f"10.0.0.{n}") for n in range(1, 36)], "alice")
    assert [route.key[-1] for route in routes] == list(range(1, 36))
    assert 0 < len(reader._rests) <= 10


def test_errors_count_from_the_request_s_first_route() -> None:
    with pytest.raises(McastdError, match=r"^routes\[1002\]\.iif '' is empty") as caught:
        RouteReader().read([message(), message(), message(iif="")], "alice", 1000)
    assert caught.value.problem.metadata == {"field": "routes[1002].iif", "value": ""}


def test_a_long_value_is_cut() -> None:
    error = invalid(Reason.INVALID_VALUE, "f", "x" * 1_000_000, "is too long")
    assert error.problem.message == f"f '{'x' * 80}...' is too long"
    assert len(error.problem.metadata["value"]) == 83


@pytest.mark.parametrize(
    "table,family,expected",
    [
        (0, Family.IPV4, 0),
        (253, Family.IPV4, 0),
        (254, Family.IPV6, 0),
        (1, Family.IPV4, 1),
        (999_999_999, Family.IPV6, 999_999_999),
    ],
)
def test_tables(table: int, family: Family, expected: int) -> None:
    assert read_table(table, family, "where") == expected


@pytest.mark.parametrize("table,family", [(254, Family.IPV4), (253, Family.IPV6), (10**9, Family.IPV4)])
def test_tables_that_are_none(table: int, family: Family) -> None:
    with pytest.raises(McastdError, match=r"^where\.table"):
        read_table(table, family, "where")


@pytest.mark.parametrize("table", [0, 253, 254])
def test_both_families_default_table(table: int) -> None:
    assert read_table_of_both(table, "table") == 0


@pytest.mark.parametrize("seconds,nanos,expected", [(0, 0, 0.0), (1, 500_000_000, 1.5), (315_576_000_000, 0, 315_576_000_000.0)])
def test_durations(seconds: int, nanos: int, expected: float) -> None:
    assert read_duration(Duration(seconds=seconds, nanos=nanos), "f") == expected


@pytest.mark.parametrize("seconds,nanos", [(-1, 0), (0, -1), (1, -1), (0, 10**9), (315_576_000_001, 0), (-(2**63), 0)])
def test_durations_that_are_none(seconds: int, nanos: int) -> None:
    with pytest.raises(McastdError, match="give a duration from 0s up"):
        read_duration(Duration(seconds=seconds, nanos=nanos), "f")


@pytest.mark.parametrize("name", ["eth0", "a", "ä", "x" * 15, "eth0.100", "br-lan", "wg_1", "%d", "!eth0"])
def test_names(name: str) -> None:
    check_name(name, "f", glob=False)


@pytest.mark.parametrize("name", ["*", "eth*", "e?h[0-9]", "[!a]", "x" * 63 + "*"])
def test_globs(name: str) -> None:
    check_name(name, "f", glob=True)
    with pytest.raises(McastdError, match="is a pattern"):
        check_name(name, "f", glob=False)


def test_oifs_are_sorted_and_said_once() -> None:
    given = [("b", 0), ("a", 3), ("b", 0), ("!c", 0), ("d*", 9)]
    assert check_oifs(given, Family.IPV4, "f") == (Oif("!c", 0), Oif("a", 3), Oif("b", 0), Oif("d*", 9))


def test_keys_and_patches_are_read() -> None:
    key = t.RouteKey(group="FF3E::1", source="fd00::1", iif="ignored", table=254)
    expected = exact_key(0, pack_address("ff3e::1"), pack_address("fd00::1"))
    assert route_keys([key], nothing) == [expected]
    one = t.RoutePatch(key=key, add_oifs=[t.Oif(interface="b"), t.Oif(interface="a")], remove_oifs=["c", "!d"])
    (patch,) = patches([one], nothing)
    assert (patch.key, patch.add, patch.remove) == (expected, (Oif("a"), Oif("b")), frozenset({"c", "!d"}))


ADDRESSES = st.ip_addresses()


@given(st.text(max_size=40) | ADDRESSES.map(str), st.text(max_size=40) | ADDRESSES.map(str), st.text(max_size=20))
def test_any_text_is_read_or_refused(group: str, source: str, name: str) -> None:
    one = t.Route(group=group, source=source, iif=name, oifs=[t.Oif(interface=name)])
    try:
        (route,) = RouteReader().read([one], "alice")
    except McastdError as exc:
        field = exc.problem.metadata["field"]
    else:
        field = "routes[0].nothing" if parts_of(route.key).pack() == route.key or len(route.key) in {12, 36} else ""
    assert field.startswith("routes[0].")
