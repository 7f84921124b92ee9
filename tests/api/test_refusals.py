"""Bad requests: each is refused whole, in words that name field, value and remedy, and changes nothing."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from tests.api.bench import DOMAIN, Bench, good, key_of, refusal, refused, stream

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("api-refusals")]

INVALID = grpc.StatusCode.INVALID_ARGUMENT
LONG = "x" * 100_000
FULL_WIDTH = "\uff12\uff13\uff19.1.1.1"
"""239.1.1.1 in digits that int() takes and no resolver does."""


def bad(**fields: Any) -> t.Route:
    """A good route with some fields changed."""
    one = good(999)
    for name, value in fields.items():
        if name == "oifs":
            del one.oifs[:]
            one.oifs.extend(
                t.Oif(interface=oif) if isinstance(oif, str) else t.Oif(interface=oif[0], ttl_threshold=oif[1]) for oif in value
            )
        else:
            setattr(one, name, value)
    return one


def with_timeout(seconds: int, nanos: int = 0, **fields: Any) -> t.Route:
    """A route with an idle timeout, which only templates have."""
    one = bad(**fields)
    one.idle_timeout.CopyFrom(Duration(seconds=seconds, nanos=nanos))
    return one


UNKNOWN_STATES: list[Any] = [1, 99, 0]

V6 = {"group": "ff3e::1", "source": "fd00::1"}
TREE: dict[str, Any] = {"source": "", "wildcard": t.WILDCARD_SHARED_TREE}

# What is wrong: (route, code, reason, field, the value as metadata has it or None, words of the message)
ROUTES: dict[str, tuple[t.Route, grpc.StatusCode, str, str, str | None, str]] = {
    "group empty": (bad(group=""), INVALID, "INVALID_GROUP", "group", "", "is empty"),
    "group no address": (bad(group="239.1.1"), INVALID, "INVALID_GROUP", "group", "239.1.1", "no IPv4 or IPv6 address"),
    "group of five octets": (bad(group="239.1.1.1.1"), INVALID, "INVALID_GROUP", "group", "239.1.1.1.1", "no IPv4"),
    "group with leading zero": (bad(group="239.01.1.1"), INVALID, "INVALID_GROUP", "group", "239.01.1.1", "no IPv4"),
    "group octet too large": (bad(group="239.1.1.256"), INVALID, "INVALID_GROUP", "group", "239.1.1.256", "no IPv4"),
    "group with blank": (bad(group=" 239.1.1.1"), INVALID, "INVALID_GROUP", "group", " 239.1.1.1", "no IPv4"),
    "group with NUL": (bad(group="239.1.1.1\0"), INVALID, "INVALID_GROUP", "group", "239.1.1.1\0", "no IPv4"),
    "group in other digits": (bad(group=FULL_WIDTH), INVALID, "INVALID_GROUP", "group", FULL_WIDTH, "no IPv4"),
    "group with scope": (bad(group="ff3e::1%up", source="fd00::1"), INVALID, "INVALID_GROUP", "group", "ff3e::1%up", "no IPv4"),
    "group a host name": (bad(group="example.org"), INVALID, "INVALID_GROUP", "group", "example.org", "no IPv4"),
    "group very long": (bad(group=LONG), INVALID, "INVALID_GROUP", "group", "x" * 80 + "...", "no IPv4"),
    "group unicast": (bad(group="10.1.1.1"), INVALID, "INVALID_GROUP", "group", "10.1.1.1", "no multicast address"),
    "group reserved": (bad(group="240.0.0.1"), INVALID, "INVALID_GROUP", "group", "240.0.0.1", "no multicast address"),
    "group unicast v6": (bad(group="fd00::2", source="fd00::1"), INVALID, "INVALID_GROUP", "group", "fd00::2", "no multicast"),
    "group link-local": (bad(group="224.0.0.251"), INVALID, "LINK_LOCAL_GROUP", "group", "224.0.0.251", "no router forwards"),
    "group ff02": (bad(group="ff02::fb", source="fd00::1"), INVALID, "LINK_LOCAL_GROUP", "group", "ff02::fb", "no router"),
    "group ff01": (bad(group="ff01::1", source="fd00::1"), INVALID, "LINK_LOCAL_GROUP", "group", "ff01::1", "no router"),
    "group ff32": (bad(group="ff32::1", source="fd00::1"), INVALID, "LINK_LOCAL_GROUP", "group", "ff32::1", "no router"),
    "group prefix too short": (bad(group="224.0.0.0/3"), INVALID, "INVALID_GROUP", "group", "224.0.0.0/3", "no multicast"),
    "group prefix too short v6": (
        bad(group="fe00::/7", source=""),
        INVALID,
        "INVALID_GROUP",
        "group",
        "fe00::/7",
        "no multicast",
    ),
    "group of length 0": (bad(group="0.0.0.0/0"), INVALID, "INVALID_GROUP", "group", "0.0.0.0/0", "no multicast"),
    "group prefix unicast": (bad(group="10.0.0.0/8"), INVALID, "INVALID_GROUP", "group", "10.0.0.0/8", "no multicast"),
    "group prefix link-local": (bad(group="224.0.0.0/24"), INVALID, "LINK_LOCAL_GROUP", "group", "224.0.0.0/24", "no router"),
    "group prefix in it": (bad(group="224.0.0.128/25"), INVALID, "LINK_LOCAL_GROUP", "group", "224.0.0.128/25", "no router"),
    "group prefix ff02": (bad(group="ff02::/16", source=""), INVALID, "LINK_LOCAL_GROUP", "group", "ff02::/16", "no router"),
    "any source, link-local": (bad(group="224.0.0.5", source=""), INVALID, "LINK_LOCAL_GROUP", "group", None, "no router"),
    "group prefix with host bits": (bad(group="239.1.2.3/16"), INVALID, "INVALID_GROUP", "group", None, "write 239.1.0.0/16"),
    "group prefix with host bits v6": (
        bad(group="ff3e::1/64", source=""),
        INVALID,
        "INVALID_GROUP",
        "group",
        None,
        "write ff3e::/",
    ),
    "group prefix too long": (bad(group="239.1.0.0/33"), INVALID, "INVALID_GROUP", "group", "239.1.0.0/33", "from 0 to 32"),
    "group prefix empty": (bad(group="239.1.0.0/"), INVALID, "INVALID_GROUP", "group", "239.1.0.0/", "from 0 to 32"),
    "group prefix negative": (bad(group="239.1.0.0/-1"), INVALID, "INVALID_GROUP", "group", "239.1.0.0/-1", "from 0 to 32"),
    "group prefix a mask": (bad(group="239.1.0.0/255.255.0.0"), INVALID, "INVALID_GROUP", "group", None, "from 0 to 32"),
    "group prefix of digits": (bad(group="239.1.0.0/" + "0" * 5000), INVALID, "INVALID_GROUP", "group", None, "from 0 to 32"),
    "source prefix too long": (bad(source="10.0.0.0/33"), INVALID, "INVALID_SOURCE", "source", "10.0.0.0/33", "from 0 to 32"),
    "source with host bits": (bad(source="10.0.0.1/8"), INVALID, "INVALID_SOURCE", "source", "10.0.0.1/8", "write 10.0.0.0/8"),
    "source host bits v6": (bad(**V6 | {"source": "fd00::1/64"}), INVALID, "INVALID_SOURCE", "source", None, "write fd00::/64"),
    "prefix, source multicast": (
        bad(group="239.0.0.0/8", source="239.9.9.9"),
        INVALID,
        "INVALID_SOURCE",
        "source",
        None,
        "multi",
    ),
    "family mix of prefixes": (
        bad(group="239.0.0.0/8", source="fd00::/64"),
        INVALID,
        "FAMILY_MISMATCH",
        "source",
        None,
        "another",
    ),
    "source no address": (bad(source="10.0.0.x"), INVALID, "INVALID_SOURCE", "source", "10.0.0.x", "address of the sender"),
    "source multicast": (bad(source="239.9.9.9"), INVALID, "INVALID_SOURCE", "source", "239.9.9.9", "multicast"),
    "source multicast v6": (bad(group="ff3e::1", source="ff3e::2"), INVALID, "INVALID_SOURCE", "source", "ff3e::2", "multicast"),
    "source unspecified": (bad(source="0.0.0.0"), INVALID, "INVALID_SOURCE", "source", "0.0.0.0", "no address that"),
    "source unspecified v6": (bad(group="ff3e::1", source="::"), INVALID, "INVALID_SOURCE", "source", "::", "no address that"),
    "source loopback": (bad(source="127.0.0.1"), INVALID, "INVALID_SOURCE", "source", "127.0.0.1", "no address that"),
    "source loopback v6": (bad(group="ff3e::1", source="::1"), INVALID, "INVALID_SOURCE", "source", "::1", "no address that"),
    "source broadcast": (bad(source="255.255.255.255"), INVALID, "INVALID_SOURCE", "source", "255.255.255.255", "no address"),
    "family mix": (bad(source="fd00::1"), INVALID, "FAMILY_MISMATCH", "source", "fd00::1", "of another family"),
    "family mix v6": (bad(group="ff3e::1"), INVALID, "FAMILY_MISMATCH", "source", "10.0.0.1", "of another family"),
    "iif missing": (bad(iif=""), INVALID, "INVALID_INTERFACE", "iif", "", "is empty"),
    "iif a glob": (bad(iif="up*"), INVALID, "INVALID_INTERFACE", "iif", "up*", "a pattern"),
    "iif of 16 bytes": (bad(iif="i" * 16), INVALID, "INVALID_INTERFACE", "iif", "i" * 16, "longer than 15 bytes"),
    "iif of 16 bytes, 8 characters": (bad(iif="ä" * 8), INVALID, "INVALID_INTERFACE", "iif", "ä" * 8, "longer than 15 bytes"),
    "iif with slash": (bad(iif="a/b"), INVALID, "INVALID_INTERFACE", "iif", "a/b", "characters"),
    "iif with colon": (bad(iif="up:1"), INVALID, "INVALID_INTERFACE", "iif", "up:1", "characters"),
    "iif with blank": (bad(iif="u p"), INVALID, "INVALID_INTERFACE", "iif", "u p", "characters"),
    "iif with NUL": (bad(iif="up\0"), INVALID, "INVALID_INTERFACE", "iif", "up\0", "characters"),
    "iif with control": (bad(iif="up\x1b"), INVALID, "INVALID_INTERFACE", "iif", "up\x1b", "characters"),
    "iif a dot": (bad(iif="."), INVALID, "INVALID_INTERFACE", "iif", ".", "characters"),
    "oif empty": (bad(oifs=["down1", ""]), INVALID, "INVALID_INTERFACE", "oifs[1].interface", "", "is empty"),
    "oif too long": (bad(oifs=["d" * 16]), INVALID, "INVALID_INTERFACE", "oifs[0].interface", "d" * 16, "15 bytes"),
    "oif with NUL": (bad(oifs=["d\0"]), INVALID, "INVALID_INTERFACE", "oifs[0].interface", "d\0", "characters"),
    "glob with NUL": (bad(oifs=["d*\0"]), INVALID, "INVALID_INTERFACE", "oifs[0].interface", "d*\0", "characters"),
    "glob with slash": (bad(oifs=["d/*"]), INVALID, "INVALID_INTERFACE", "oifs[0].interface", "d/*", "characters"),
    "glob too long": (bad(oifs=["d*" * 33]), INVALID, "INVALID_INTERFACE", "oifs[0].interface", "d*" * 33, "64 characters"),
    "exclusion of nothing": (bad(oifs=["!"]), INVALID, "INVALID_INTERFACE", "oifs[0].interface", "!", "excludes nothing"),
    "named and excluded": (bad(oifs=["down1", "!down1"]), INVALID, "INVALID_INTERFACE", "oifs[1].interface", "!down1", "both"),
    "excluded and named": (bad(oifs=["!d*", "d*"]), INVALID, "INVALID_INTERFACE", "oifs[1].interface", "d*", "both"),
    "oif twice": (
        bad(oifs=[("down1", 1), ("down1", 2)]),
        INVALID,
        "INVALID_INTERFACE",
        "oifs[1].interface",
        "down1",
        "thresholds 1 and 2",
    ),
    "65 oifs": (bad(oifs=[f"d{n}" for n in range(65)]), INVALID, "TOO_MANY_ITEMS", "oifs", None, "65 items, more than the 64"),
    "TTL 255": (bad(oifs=[("down1", 255)]), INVALID, "INVALID_TTL", "oifs[0].ttl_threshold", "255", "1 to 254"),
    "TTL 2^32-1": (bad(oifs=[("down1", 2**32 - 1)]), INVALID, "INVALID_TTL", "oifs[0].ttl_threshold", "4294967295", "1 to 254"),
    "TTL with IPv6": (bad(**V6, oifs=["down2", ("down1", 1)]), INVALID, "INVALID_TTL", "oifs[1].ttl_threshold", "1", "IPv6 has"),
    "TTL of an exclusion": (bad(oifs=[("!down1", 3)]), INVALID, "INVALID_TTL", "oifs[0].ttl_threshold", "3", "exclusion"),
    "cookie too long": (bad(cookie="c" * 65), INVALID, "INVALID_VALUE", "cookie", "c" * 65, "longer than 64 bytes"),
    "cookie of 66 bytes": (bad(cookie="ä" * 33), INVALID, "INVALID_VALUE", "cookie", "ä" * 33, "longer than 64 bytes"),
    "unknown wildcard": (bad(wildcard=99), INVALID, "INVALID_VALUE", "wildcard", "99", "WILDCARD_SHARED_TREE"),
    "negative enum": (bad(wildcard=-1), INVALID, "INVALID_VALUE", "wildcard", "-1", "is unknown"),
    "table too big": (bad(table=1_000_000_000), INVALID, "INVALID_VALUE", "table", "1000000000", "to 999999999"),
    "table of 32 bits": (bad(table=2**32 - 1), INVALID, "INVALID_VALUE", "table", "4294967295", "to 999999999"),
    "default table of IPv6": (bad(table=254), INVALID, "INVALID_VALUE", "table", "254", "default table of IPv6"),
    "default table of IPv4": (bad(**V6, table=253), INVALID, "INVALID_VALUE", "table", "253", "default table of IPv4"),
    "idle timeout": (with_timeout(60), INVALID, "INVALID_VALUE", "idle_timeout", "60s", "for templates"),
    "negative idle timeout": (with_timeout(-1, -5), INVALID, "INVALID_VALUE", "idle_timeout", "-1s", "for templates"),
    "huge idle timeout": (with_timeout(2**63 - 1), INVALID, "INVALID_VALUE", "idle_timeout", None, "for templates"),
    "iif of a template with slash": (bad(source="", iif="a/b"), INVALID, "INVALID_INTERFACE", "iif", "a/b", "characters"),
    "oif of a template": (bad(source="", oifs=[""]), INVALID, "INVALID_INTERFACE", "oifs[0].interface", "", "is empty"),
    "TTL of an IPv6 template": (
        bad(group="ff3e::/64", source="", oifs=[("down1", 3)]),
        INVALID,
        "INVALID_TTL",
        "oifs[0].ttl_threshold",
        "3",
        "IPv6 has",
    ),
    "cookie of a template": (bad(source="", cookie="c" * 65), INVALID, "INVALID_VALUE", "cookie", None, "longer than 64 bytes"),
    "wildcard of a template": (bad(source="", wildcard=99), INVALID, "INVALID_VALUE", "wildcard", "99", "WILDCARD_SHARED_TREE"),
    "table of a template": (bad(source="", table=254), INVALID, "INVALID_VALUE", "table", "254", "default table of IPv6"),
    "join of a template from any": (bad(source="", iif="", join=True), INVALID, "INVALID_INTERFACE", "iif", "", "to join on"),
    "join of too many": (
        bad(group="239.0.0.0/8", source="", join=True),
        INVALID,
        "INVALID_VALUE",
        "group",
        "239.0.0.0/8",
        "more than 4096",
    ),
    "idle timeout too short": (with_timeout(0, 900_000_000, source=""), INVALID, "INVALID_VALUE", "idle_timeout", "0.9s", "1s"),
    "idle timeout too long": (with_timeout(86_401, source=""), INVALID, "INVALID_VALUE", "idle_timeout", "86401s", "to 86400s"),
    "idle timeout negative": (with_timeout(-1, source=""), INVALID, "INVALID_VALUE", "idle_timeout", "-1s", "from 0s up"),
    "shared tree of a source": (bad(**TREE | {"source": "10.0.0.0/8"}), INVALID, "INVALID_VALUE", "wildcard", None, "no source"),
    "shared tree of a prefix": (bad(**TREE | {"group": "239.0.0.0/8"}), INVALID, "INVALID_VALUE", "wildcard", None, "one group"),
    "shared tree from any": (bad(**TREE | {"iif": ""}), INVALID, "INVALID_INTERFACE", "iif", "", "one iif by name"),
    "shared tree from a glob": (bad(**TREE | {"iif": "u*"}), INVALID, "INVALID_INTERFACE", "iif", "u*", "one iif by name"),
    "idle timeout of a shared tree": (
        with_timeout(60, **TREE),
        INVALID,
        "INVALID_VALUE",
        "idle_timeout",
        "60s",
        "learns nothing",
    ),
}


@pytest.mark.parametrize("how", ["put", "replace"])
@pytest.mark.parametrize("case", ROUTES)
def test_a_bad_route_refuses_the_whole_request(bench: Bench, case: str, how: str) -> None:
    wrong, code, reason, field, value, words = ROUTES[case]
    bench.admin.put(good(1))
    before = bench.snapshot()
    routes = [good(n) for n in range(1, 8)] + [wrong]
    if how == "put":
        found = refused(lambda: bench.admin.put(*routes))
    else:
        found = refused(lambda: bench.admin.routes.ReplaceRoutes(stream(routes, chunk=3), timeout=10))
    where = f"routes[7].{field}"
    assert (found.code, found.reason, found.domain) == (code, reason, DOMAIN)
    assert found.metadata["field"] == where
    assert list(found.fields) == [where]
    assert words in found.message
    assert where in found.message
    assert found.fields[where] == found.message
    if value is not None:
        assert found.metadata["value"] == value
    assert len(found.message) < 400
    assert bench.snapshot() == before


@pytest.mark.parametrize("all_or_nothing", [False, True])
def test_nothing_is_half_applied_where_the_last_of_10000_is_bad(bench: Bench, all_or_nothing: bool) -> None:
    routes = [good(n, cookie="half") for n in range(1, 10_000)] + [bad(iif="up*")]
    bench.admin.put(good(1))
    before = bench.snapshot()
    found = refused(lambda: bench.admin.put(*routes, all_or_nothing=all_or_nothing))
    assert (found.reason, found.metadata["field"]) == ("INVALID_INTERFACE", "routes[9999].iif")
    assert bench.snapshot() == before
    found = refused(lambda: bench.admin.replace(routes))
    assert (found.reason, found.metadata["field"]) == ("INVALID_INTERFACE", "routes[9999].iif")
    assert bench.snapshot() == before


# What is wrong with a key: (key, code, reason, field)
KEYS: dict[str, tuple[t.RouteKey, grpc.StatusCode, str, str]] = {
    "nothing": (t.RouteKey(), INVALID, "INVALID_GROUP", "group"),
    "group no address": (t.RouteKey(group="a", source="10.0.0.1"), INVALID, "INVALID_GROUP", "group"),
    "group unicast": (t.RouteKey(group="10.0.0.2", source="10.0.0.1"), INVALID, "INVALID_GROUP", "group"),
    "group prefix too short": (t.RouteKey(group="224.0.0.0/3"), INVALID, "INVALID_GROUP", "group"),
    "group prefix with host bits": (t.RouteKey(group="239.1.0.0/8"), INVALID, "INVALID_GROUP", "group"),
    "source with host bits": (t.RouteKey(group="239.1.1.1", source="10.0.0.1/8"), INVALID, "INVALID_SOURCE", "source"),
    "iif of a template": (t.RouteKey(group="239.1.1.1", iif="a/b"), INVALID, "INVALID_INTERFACE", "iif"),
    "ambiguous": (t.RouteKey(group="239.77.0.0/16"), INVALID, "AMBIGUOUS", "iif"),
    "source no address": (t.RouteKey(group="239.1.1.1", source="::x"), INVALID, "INVALID_SOURCE", "source"),
    "family mix": (t.RouteKey(group="239.1.1.1", source="::1"), INVALID, "FAMILY_MISMATCH", "source"),
    "table too big": (t.RouteKey(group="239.1.1.1", source="10.0.0.1", table=10**9), INVALID, "INVALID_VALUE", "table"),
}


@pytest.mark.parametrize("how", ["patch", "delete"])
@pytest.mark.parametrize("case", KEYS)
def test_a_bad_key_refuses_the_whole_request(bench: Bench, case: str, how: str) -> None:
    wrong, code, reason, field = KEYS[case]
    twins = [t.Route(group="239.77.0.0/16", iif=iif) for iif in ("up", "down1")]
    bench.admin.put(good(1), good(2), *twins)
    before = bench.snapshot()
    keys = [key_of(good(1)), key_of(good(2)), wrong]
    if how == "patch":
        patches = [t.RoutePatch(key=key, add_oifs=[t.Oif(interface="down2")]) for key in keys]
        found, where = refused(lambda: bench.admin.patch(*patches)), f"patches[2].key.{field}"
    else:
        found, where = refused(lambda: bench.admin.delete(*keys)), f"keys[2].{field}"
    assert (found.code, found.reason, found.domain) == (code, reason, DOMAIN)
    assert found.metadata["field"] == where
    assert list(found.fields) == [where]
    assert bench.snapshot() == before


@pytest.mark.parametrize(
    "patch,reason,field",
    [
        (t.RoutePatch(add_oifs=[t.Oif(interface="")]), "INVALID_INTERFACE", "add_oifs[0].interface"),
        (t.RoutePatch(add_oifs=[t.Oif(interface="d", ttl_threshold=255)]), "INVALID_TTL", "add_oifs[0].ttl_threshold"),
        (t.RoutePatch(add_oifs=[t.Oif(interface=f"d{n}") for n in range(65)]), "TOO_MANY_ITEMS", "add_oifs"),
        (t.RoutePatch(remove_oifs=["down1", "a b"]), "INVALID_INTERFACE", "remove_oifs[1]"),
        (t.RoutePatch(remove_oifs=["d*\0"]), "INVALID_INTERFACE", "remove_oifs[0]"),
        (t.RoutePatch(add_oifs=[t.Oif(interface="d")], remove_oifs=["d"]), "INVALID_INTERFACE", "remove_oifs"),
    ],
)
def test_a_bad_patch_is_refused(bench: Bench, patch: t.RoutePatch, reason: str, field: str) -> None:
    bench.admin.put(good(1))
    before = bench.snapshot()
    patch.key.CopyFrom(key_of(good(1)))
    found = refused(lambda: bench.admin.patch(patch))
    assert (found.code, found.reason, found.metadata["field"]) == (INVALID, reason, f"patches[0].{field}")
    assert bench.snapshot() == before


@pytest.mark.parametrize("what", ["routes", "patches", "keys"])
def test_10001_items_are_too_many(bench: Bench, what: str) -> None:
    key = key_of(good(1))
    calls: dict[str, Callable[[], object]] = {
        "routes": lambda: bench.admin.put(*[good(1)] * 10_001),
        "patches": lambda: bench.admin.patch(*[t.RoutePatch(key=key)] * 10_001),
        "keys": lambda: bench.admin.delete(*[key] * 10_001),
    }
    bench.admin.put(good(2))
    before = bench.snapshot()
    found = refused(calls[what])
    assert (found.code, found.reason) == (INVALID, "TOO_MANY_ITEMS")
    assert found.metadata == {"field": what, "items": "10001", "max": "10000"}
    assert list(found.fields) == [what]
    assert "10000" in found.message
    assert bench.snapshot() == before


def test_10000_items_are_not_too_many(bench: Bench) -> None:
    routes = [good(n) for n in range(1, 10_001)]
    assert bench.admin.put(*routes).created == 10_000
    patches = [t.RoutePatch(key=key_of(one), add_oifs=[t.Oif(interface="down2")]) for one in routes]
    assert bench.admin.patch(*patches).updated == 10_000
    assert bench.admin.delete(*map(key_of, routes)).deleted == 10_000


@pytest.mark.parametrize(
    "request_,field,words",
    [
        (rs.DeleteRoutesRequest(), "keys", "exactly one"),
        (rs.DeleteRoutesRequest(selector=t.Selector()), "selector", "say all = true"),
        (rs.DeleteRoutesRequest(keys=[key_of(good(1))], selector=t.Selector(cookie="a")), "keys", "exactly one"),
        (rs.DeleteRoutesRequest(keys=[key_of(good(1))], all=True), "keys", "exactly one"),
        (rs.DeleteRoutesRequest(selector=t.Selector(cookie="a"), all=True), "keys", "exactly one"),
        (rs.DeleteRoutesRequest(selector=t.Selector(), all=True), "keys", "exactly one"),
        (rs.DeleteRoutesRequest(keys=[key_of(good(1))], selector=t.Selector(cookie="a"), all=True), "keys", "exactly one"),
    ],
)
def test_a_deletion_says_exactly_one_thing(bench: Bench, request_: rs.DeleteRoutesRequest, field: str, words: str) -> None:
    bench.admin.put(good(1))
    before = bench.snapshot()
    found = refused(lambda: bench.admin.routes.DeleteRoutes(request_, timeout=10))
    assert (found.code, found.reason, found.metadata["field"]) == (INVALID, "INVALID_VALUE", field)
    assert words in found.message
    assert bench.snapshot() == before


@pytest.mark.parametrize(
    "selector,reason,field",
    [
        (t.Selector(group="x"), "INVALID_GROUP", "group"),
        (t.Selector(group="239.0.0.0/33"), "INVALID_GROUP", "group"),
        (t.Selector(group="239.0.0.0/" + "9" * 5000), "INVALID_GROUP", "group"),
        (t.Selector(source="10.0.0.0/"), "INVALID_SOURCE", "source"),
        (t.Selector(source="fd00::/129"), "INVALID_SOURCE", "source"),
        (t.Selector(interface="a/b"), "INVALID_INTERFACE", "interface"),
        (t.Selector(interface="eth0\0"), "INVALID_INTERFACE", "interface"),
        (t.Selector(states=UNKNOWN_STATES[:2]), "INVALID_VALUE", "states"),
        (t.Selector(states=UNKNOWN_STATES[2:]), "INVALID_VALUE", "states"),
        (t.Selector(table=10**9), "INVALID_VALUE", "table"),
    ],
)
def test_a_bad_selector_is_refused(bench: Bench, selector: t.Selector, reason: str, field: str) -> None:
    bench.admin.put(good(1))
    before = bench.snapshot()
    for call in (lambda: bench.admin.listed(selector=selector), lambda: bench.admin.delete(selector=selector)):
        found = refused(call)
        assert (found.code, found.reason, found.metadata["field"]) == (INVALID, reason, f"selector.{field}")
    assert bench.snapshot() == before


@pytest.mark.parametrize("seconds,nanos", [(-1, 0), (0, -1), (2**63 - 1, 0), (-(2**63), 0), (1, 2**31 - 1), (1, -1)])
def test_a_max_age_is_a_duration_from_zero_up(bench: Bench, seconds: int, nanos: int) -> None:
    found = refused(lambda: bench.view.listed(counters=True, max_age=Duration(seconds=seconds, nanos=nanos)))
    assert (found.code, found.reason, found.metadata["field"]) == (INVALID, "INVALID_VALUE", "max_age")


HEADER = rs.ReplaceRoutesRequest(header=rs.ReplaceRoutesRequest.Header())
CHUNK = rs.ReplaceRoutesRequest(chunk=rs.ReplaceRoutesRequest.Chunk(routes=[good(7)]))


@pytest.mark.parametrize(
    "messages,value",
    [
        ([], "nothing"),
        ([CHUNK], "chunk"),
        ([CHUNK, HEADER], "chunk"),
        ([rs.ReplaceRoutesRequest()], "nothing"),
        ([HEADER, HEADER], "header"),
        ([HEADER, CHUNK, HEADER], "header"),
        ([HEADER, rs.ReplaceRoutesRequest(), CHUNK], "nothing"),
    ],
    ids=["empty stream", "no header", "chunk before header", "empty message", "two headers", "header last", "empty in between"],
)
def test_a_replacement_is_one_header_then_chunks(bench: Bench, messages: list[rs.ReplaceRoutesRequest], value: str) -> None:
    bench.admin.put(good(1))
    before = bench.snapshot()
    found = refused(lambda: bench.admin.routes.ReplaceRoutes(iter(messages), timeout=10))
    assert (found.code, found.reason, found.metadata) == (INVALID, "INVALID_VALUE", {"field": "part", "value": value})
    assert "header" in found.message
    assert bench.snapshot() == before


def test_an_empty_set_needs_allow_empty(bench: Bench) -> None:
    bench.admin.put(good(1))
    before = bench.snapshot()
    found = refused(lambda: bench.admin.replace([]))
    assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EMPTY_SET")
    assert found.metadata == {"owner": "local"}
    assert "allow_empty" in found.message
    assert bench.snapshot() == before
    assert bench.admin.replace([], allow_empty=True).deleted == 1
    assert bench.admin.listed() == []


def test_a_set_holds_each_route_once(bench: Bench) -> None:
    before = bench.snapshot()
    found = refused(lambda: bench.admin.replace([*[good(n) for n in range(1, 1500)], good(3, 4, "down2")]))
    assert (found.code, found.reason) == (INVALID, "DUPLICATE_ROUTE")
    assert found.metadata == {"field": "routes[1499]", "group": "239.1.0.3", "source": "10.0.0.1", "table": "0"}
    assert bench.snapshot() == before


@pytest.mark.parametrize("owner", ["UPPER", "with blank", "a/b", "o" * 64, "ö", "new\nline", "nul\0", LONG])
def test_an_owner_has_a_plain_name(bench: Bench, owner: str) -> None:
    before = bench.snapshot()
    found = refused(lambda: bench.admin.put(good(1), owner=owner))
    assert (found.code, found.reason, found.metadata["field"]) == (INVALID, "INVALID_VALUE", "options.owner")
    assert bench.snapshot() == before


@pytest.mark.parametrize("owner", ["kernel", "config"])
def test_reserved_owners_write_nothing(bench: Bench, owner: str) -> None:
    before = bench.snapshot()
    calls: list[Callable[[], object]] = [
        lambda: bench.admin.put(good(1), owner=owner),
        lambda: bench.admin.patch(t.RoutePatch(key=key_of(good(1))), owner=owner),
        lambda: bench.admin.replace([good(1)], options=rs.WriteOptions(owner=owner)),
    ]
    if owner == "config":  # What was found in the kernel may be deleted.
        calls.append(lambda: bench.admin.delete(all=True, options=rs.WriteOptions(owner=owner)))
    for call in calls:
        found = refused(call)
        assert (found.code, found.reason, found.metadata["field"]) == (INVALID, "INVALID_VALUE", "options.owner")
        assert "reserved" in found.message
    assert bench.snapshot() == before


def test_who_deletes_what_was_found_deletes_nothing_else(bench: Bench) -> None:
    bench.admin.put(good(1))
    assert bench.admin.delete(all=True, options=rs.WriteOptions(owner="kernel")).deleted == 0
    found = bench.admin.delete(key_of(good(1)), options=rs.WriteOptions(owner="kernel"))
    assert [change.error.reason for change in found.changes] == ["OWNED_BY_OTHER"]
    assert refused(lambda: bench.write.delete(all=True, options=rs.WriteOptions(owner="kernel"))).reason == "NOT_ALLOWED"


@pytest.mark.parametrize("rpc", ["PutRoutes", "PatchRoutes", "DeleteRoutes", "ReplaceRoutes", "ListRoutes"])
def test_what_is_no_message_is_refused_in_words(bench: Bench, rpc: str) -> None:
    channel, path, garbage = bench.admin.channel, f"/mcast.v1.RouteService/{rpc}", b"\xff\xff\xff"
    raw = {"request_serializer": bytes, "response_deserializer": bytes}
    call: Callable[[], object]
    if rpc == "ReplaceRoutes":
        call = lambda: channel.stream_unary(path, **raw)(iter([HEADER.SerializeToString(), garbage]), timeout=10)  # noqa: E731
    elif rpc == "ListRoutes":
        call = lambda: list(channel.unary_stream(path, **raw)(garbage, timeout=10))  # noqa: E731
    else:
        call = lambda: channel.unary_unary(path, **raw)(garbage, timeout=10)  # noqa: E731
    found = refused(call)
    assert (found.code, found.reason) == (INVALID, "INVALID_VALUE")
    assert f"mcast.v1.{rpc}Request" in found.message


def test_no_text_is_invalid_utf8(bench: Bench) -> None:
    path = "/mcast.v1.RouteService/PutRoutes"
    call = bench.admin.channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\x0a\x04\x0a\x02\xff\xfe", timeout=10)  # routes { group: two bytes that are no UTF-8 }
    assert refusal(caught.value).reason == "INVALID_VALUE"
