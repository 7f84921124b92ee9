"""Putting, patching and deleting routes: canonical text, round trips, idempotence, what selectors select."""

import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from tests.api.bench import Bench, good, group, intents, key_of
from tests.testbed.daemon import route, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("api-routes")]


def oifs(*names: str | tuple[str, int]) -> list[t.Oif]:
    """Oif messages."""
    return [t.Oif(interface=n) if isinstance(n, str) else t.Oif(interface=n[0], ttl_threshold=n[1]) for n in names]


def patch(one: t.Route, add: list[t.Oif] | None = None, remove: list[str] | None = None) -> t.RoutePatch:
    """A patch of a route."""
    return t.RoutePatch(key=key_of(one), add_oifs=add or [], remove_oifs=remove or [])


# --- canonical text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written,canonical",
    [
        ("239.1.1.1/32", "239.1.1.1"),
        ("239.1.1.1/032", "239.1.1.1"),
        ("FF3E::1", "ff3e::1"),
        ("ff3e:0:0:0:0:0:0:1", "ff3e::1"),
        ("ff3e:0000:0000:0000:0000:0000:0000:0001", "ff3e::1"),
        ("ff3e:0::0:1/128", "ff3e::1"),
        ("ff3e::0:0:0:1", "ff3e::1"),
        ("ff3e:0:1:0:0:0:0:1", "ff3e:0:1::1"),
        ("ff3e:1:2:3:4:5:239.1.1.1", "ff3e:1:2:3:4:5:ef01:101"),
        ("ff05:1:0:2:0:3:0:4", "ff05:1:0:2:0:3:0:4"),
    ],
)
def test_a_group_is_stored_in_canonical_text(bench: Bench, written: str, canonical: str) -> None:
    source = "FD00:0::00:1/128" if ":" in written else "10.0.0.1/32"
    assert bench.admin.put(route(written, source, "up", "down1")).created == 1
    (listed,) = bench.admin.listed()
    assert (listed.group, listed.source) == (canonical, "fd00::1" if ":" in written else "10.0.0.1")
    assert bench.admin.put(route(canonical, listed.source, "up", "down1")).unchanged == 1
    assert bench.admin.delete(t.RouteKey(group=written, source=source)).deleted == 1


@pytest.mark.parametrize("family,number", [(4, 253), (6, 254)])
def test_the_default_table_is_called_0(bench: Bench, family: int, number: int) -> None:
    bench.admin.put(good(1, family, table=number))
    (listed,) = bench.admin.listed(selector=t.Selector(table=0))
    assert listed.table == 0
    assert bench.admin.put(good(1, family)).unchanged == 1
    assert [one.group for one in bench.admin.listed(selector=t.Selector(table=number))] == [listed.group]


def test_what_is_listed_can_be_put_back(bench: Bench) -> None:
    routes = [
        good(1),
        good(2, 6, "down1", "down2"),
        good(3, 4, "down2", "down1", "down2"),
        good(4, 4, "d*", "!down2", "eth?", "[a-c]*"),
        good(5, 6, "!d*"),
        route(group(6), "10.0.0.1", "up", "up", cookie="ä \0 free text", monitored=True),
        route(group(7), "10.0.0.1", "absent0", "absent1"),
        t.Route(group=group(8), source="10.0.0.1", iif="up", oifs=oifs(("down1", 254), ("down2", 1))),
        t.Route(group=group(9), source="10.0.0.1", iif="up"),
        good(10, 4, table=77),
        t.Route(group=group(11), source="10.0.0.1", iif="up", wildcard=t.WILDCARD_SHARED_TREE),
    ]
    assert bench.admin.put(*routes).created == len(routes)
    listed = bench.admin.listed()
    before = bench.snapshot()
    assert bench.admin.put(*listed).unchanged == len(routes)
    assert bench.admin.put(*intents(listed)).unchanged == len(routes)
    assert bench.admin.replace(listed).unchanged == len(routes)
    assert bench.snapshot() == before
    assert [o.interface for o in listed[3].oifs] == ["!down2", "[a-c]*", "d*", "eth?"]
    assert (listed[5].cookie, listed[5].monitored) == ("ä \0 free text", True)


def test_what_is_output_only_is_ignored(bench: Bench) -> None:
    lying = good(1)
    lying.status.owner, lying.status.state = "kernel", t.ROUTE_STATE_FAILED
    bench.admin.put(lying)
    (listed,) = bench.admin.listed()
    assert (listed.status.owner, listed.status.state) == ("local", t.ROUTE_STATE_PROGRAMMED)


def test_a_put_is_whole(bench: Bench) -> None:
    bench.admin.put(good(1, 4, "down1", "down2", cookie="a", monitored=True))
    bench.admin.put(good(1, 4, "down2"))
    assert intents(bench.admin.listed()) == [good(1, 4, "down2")]


def test_a_route_named_twice_ends_as_the_last_says(bench: Bench) -> None:
    result = bench.admin.put(good(1), good(1, 4, "down2"), good(1, 4, "down2"))
    assert (result.created, result.updated, result.unchanged) == (1, 1, 1)
    assert intents(bench.admin.listed()) == [good(1, 4, "down2")]


def test_a_status_says_what_is(bench: Bench) -> None:
    bench.admin.put(good(1, 4, "d*"), good(2, 4, "down1", "absent0"))
    whole, part = bench.admin.listed()
    assert whole.status.origin == t.ORIGIN_CONFIGURED
    assert list(whole.status.installed_oifs) == ["down1", "down2"]
    assert not whole.status.HasField("last_error")
    assert whole.status.install_time.seconds > 1_600_000_000
    assert part.status.state == t.ROUTE_STATE_PARTIAL
    assert list(part.status.missing_interfaces) == ["absent0"]
    assert list(part.status.installed_oifs) == ["down1"]
    assert (part.status.last_error.reason, part.status.last_error.code) == ("NO_SUCH_INTERFACE", 9)


# --- patches ---------------------------------------------------------------------------------------------------------


def test_a_patch_adds_and_removes(bench: Bench) -> None:
    bench.admin.put(good(1, cookie="kept", monitored=True))
    result = bench.admin.patch(patch(good(1), oifs("down2"), ["down1"]))
    assert (result.updated, result.failed) == (1, 0)
    assert intents(bench.admin.listed()) == [good(1, 4, "down2", cookie="kept", monitored=True)]


def test_a_patch_updates_an_oif_that_is_there(bench: Bench) -> None:
    bench.admin.put(good(1, 4, "down1", "down2"))
    bench.admin.patch(patch(good(1), oifs(("down2", 9))))
    assert [list(one.oifs) for one in bench.admin.listed()] == [oifs("down1", ("down2", 9))]


def test_removing_what_is_not_there_is_success(bench: Bench) -> None:
    bench.admin.put(good(1))
    before = bench.snapshot()
    result = bench.admin.patch(patch(good(1), [], ["down2", "d*"]), patch(good(1), oifs("down1")))
    assert (result.unchanged, result.updated) == (2, 0)
    assert bench.snapshot() == before


def test_a_glob_is_removed_by_what_it_was_added_with(bench: Bench) -> None:
    bench.admin.put(good(1, 4, "d*", "!down2"))
    bench.admin.patch(patch(good(1), [], ["!down2"]))
    assert [list(one.status.installed_oifs) for one in bench.admin.listed()] == [["down1", "down2"]]
    bench.admin.patch(patch(good(1), oifs("down1"), ["d*"]))
    assert [list(one.status.installed_oifs) for one in bench.admin.listed()] == [["down1"]]


def test_a_patch_of_nothing_fails_alone(bench: Bench) -> None:
    bench.admin.put(good(1))
    result = bench.admin.patch(patch(good(2), oifs("down2")), patch(good(1), oifs("down2")))
    assert (result.failed, result.updated) == (1, 1)
    (change,) = result.changes
    assert (change.id, change.error.reason, change.error.code) == (0, "NOT_FOUND", 5)
    assert group(2) in change.error.message
    assert not change.HasField("after")


def test_patches_of_one_route_build_on_each_other(bench: Bench) -> None:
    bench.admin.put(good(1))
    result = bench.admin.patch(patch(good(1), oifs("down2")), patch(good(1), oifs("absent0"), ["down1"]))
    assert result.updated == 2
    assert [list(one.oifs) for one in bench.admin.listed()] == [oifs("absent0", "down2")]


def test_a_patch_that_makes_too_many_oifs_fails_alone(bench: Bench) -> None:
    bench.admin.put(good(1, 4, *[f"d{n}" for n in range(60)]))
    before = bench.snapshot()
    result = bench.admin.patch(patch(good(1), oifs(*[f"e{n}" for n in range(5)])))
    assert (result.failed, result.changes[0].error.reason) == (1, "TOO_MANY_ITEMS")
    assert result.changes[0].error.metadata["max"] == "64"
    assert bench.snapshot() == before


def test_a_patch_that_contradicts_the_route_fails_alone(bench: Bench) -> None:
    bench.admin.put(good(1, 4, "down1", "!down2", "d*"))
    before = bench.snapshot()
    for one in (patch(good(1), oifs("!down1")), patch(good(1), oifs("down2")), patch(good(1), oifs("!d*"))):
        result = bench.admin.patch(one)
        assert (result.failed, result.changes[0].error.reason) == (1, "INVALID_INTERFACE")
    assert bench.snapshot() == before
    listed = bench.admin.listed()
    assert bench.admin.put(*listed).unchanged == 1


# --- deletions -------------------------------------------------------------------------------------------------------


def test_deleting_what_is_not_there_is_success(bench: Bench) -> None:
    bench.admin.put(good(1))
    before = bench.snapshot()
    result = bench.admin.delete(key_of(good(2)), t.RouteKey(group="224.0.0.1", source="10.0.0.1"))
    assert (result.deleted, result.unchanged, result.failed, result.revision) == (0, 2, 0, before[0])
    assert bench.snapshot() == before


def test_the_iif_of_a_key_is_ignored(bench: Bench) -> None:
    bench.admin.put(good(1))
    key = key_of(good(1))
    key.iif = "elsewhere"
    assert bench.admin.delete(key).deleted == 1


def test_the_same_key_twice_deletes_once(bench: Bench) -> None:
    bench.admin.put(good(1))
    result = bench.admin.delete(key_of(good(1)), key_of(good(1)))
    assert (result.deleted, result.unchanged) == (1, 1)


def test_all_is_all_that_is_ones_own(bench: Bench) -> None:
    bench.admin.put(good(1), owner="bob")
    bench.admin.put(good(2))
    bench.write.put(good(3))
    assert bench.write.delete(all=True).deleted == 1
    assert bench.admin.delete(all=True).deleted == 1
    assert [one.group for one in bench.admin.listed()] == [group(1)]
    assert bench.admin.delete(all=True, options=rs.WriteOptions(owner="bob")).deleted == 1


# The routes of the tests of selectors, by name.
SAMPLE = {
    "plain": route("239.1.1.1", "10.0.0.1", "up", "down1"),
    "cookie": route("239.1.1.2", "10.0.0.1", "up", "down2", cookie="red"),
    "other": route("239.2.0.1", "10.9.0.1", "up", "down1", "down2", cookie="blue"),
    "glob": route("239.2.0.2", "10.9.0.2", "up", "d*"),
    "six": route("ff3e::1:1", "fd00::1", "up", "down1"),
    "pending": route("239.3.0.1", "10.0.0.1", "absent0", "down1"),
    "partial": route("239.3.0.2", "10.0.0.1", "up", "absent1", "down2"),
    "table": route("239.1.1.1", "10.0.0.1", "up", "down1", table=55),
}

SELECTIONS = {
    "owner": (t.Selector(owner="local"), set(SAMPLE)),
    "owner unknown": (t.Selector(owner="nobody"), set()),
    "cookie": (t.Selector(cookie="red"), {"cookie"}),
    "group": (t.Selector(group="239.1.1.1"), {"plain", "table"}),
    "group with full length": (t.Selector(group="239.1.1.1/32"), {"plain", "table"}),
    "group prefix": (t.Selector(group="239.2.0.0/16"), {"other", "glob"}),
    "group prefix with host bits": (t.Selector(group="239.2.255.255/16"), {"other", "glob"}),
    "group of IPv4": (t.Selector(group="0.0.0.0/0"), set(SAMPLE) - {"six"}),
    "group of IPv6": (t.Selector(group="::/0"), {"six"}),
    "group prefix v6": (t.Selector(group="FF3E::/16"), {"six"}),
    "group prefix v6, odd length": (t.Selector(group="ff3f::/15"), {"six"}),
    "source": (t.Selector(source="10.9.0.2"), {"glob"}),
    "source prefix": (t.Selector(source="10.9.0.0/30"), {"other", "glob"}),
    "source prefix v6": (t.Selector(source="fd00::/8"), {"six"}),
    "interface in": (t.Selector(interface="absent0"), {"pending"}),
    "interface out": (t.Selector(interface="absent1"), {"partial"}),
    "interface that a glob has found": (t.Selector(interface="down2"), {"cookie", "other", "glob", "partial"}),
    "interface glob": (t.Selector(interface="absent?"), {"pending", "partial"}),
    "states": (t.Selector(states=[t.ROUTE_STATE_PENDING]), {"pending"}),
    "two states": (t.Selector(states=[t.ROUTE_STATE_PENDING, t.ROUTE_STATE_PARTIAL]), {"pending", "partial"}),
    "table": (t.Selector(table=55), {"table"}),
    "default table": (t.Selector(table=0), set(SAMPLE) - {"table"}),
    "two fields": (t.Selector(group="239.0.0.0/8", cookie="blue"), {"other"}),
    "all fields": (
        t.Selector(
            owner="local",
            cookie="blue",
            group="239.2.0.1",
            source="10.9.0.1",
            interface="up",
            states=[t.ROUTE_STATE_PROGRAMMED],
            table=0,
        ),
        {"other"},
    ),
    "fields that exclude each other": (t.Selector(group="239.1.1.1", source="fd00::/8"), set()),
}


@pytest.mark.parametrize("case", SELECTIONS)
def test_a_selector_selects_the_same_for_lists_and_deletions(bench: Bench, case: str) -> None:
    selector, names = SELECTIONS[case]
    assert bench.admin.put(*SAMPLE.values()).created == len(SAMPLE)
    wait_until(lambda: len(bench.admin.listed(selector=t.Selector(states=[t.ROUTE_STATE_PROGRAMMED]))) == len(SAMPLE) - 2)
    chosen = {key_of(SAMPLE[name]).SerializeToString() for name in names}
    assert {key_of(one).SerializeToString() for one in bench.view.listed(selector=selector)} == chosen
    assert bench.view.chunks(selector=selector)[0].total == len(names)
    dry = bench.admin.delete(selector=selector, options=rs.WriteOptions(validate_only=True))
    assert dry.deleted == len(names)
    assert bench.admin.delete(selector=selector).deleted == len(names)
    left = {key_of(one).SerializeToString() for one in bench.admin.listed()}
    assert left == {key_of(one).SerializeToString() for one in SAMPLE.values()} - chosen
