"""ListRoutes: snapshots, sizes, counters, and what is in the kernel and wanted by nobody."""

import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.protobuf.duration_pb2 import Duration

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.kernel import mfc_dump
from mcastd.kernel.mroute import Mroute
from mcastd.model.address import Family, exact_key, pack_address
from tests.api.bench import MESSAGE_MAX, SOURCES, Bench, good, group, key_of, stream
from tests.netns.routed import forwarding
from tests.testbed.daemon import route, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("api-listing")]


def test_an_empty_list_is_one_chunk(bench: Bench) -> None:
    (chunk,) = bench.view.chunks()
    assert (chunk.total, list(chunk.routes), chunk.revision) == (0, [], bench.view.status().revision)


def test_chunks_are_of_one_revision_and_the_first_has_the_total(bench: Bench) -> None:
    bench.admin.put(*[good(n) for n in range(1, 2502)])
    chunks = bench.view.chunks()
    assert [len(chunk.routes) for chunk in chunks] == [1000, 1000, 501]
    assert [chunk.total for chunk in chunks] == [2501, 0, 0]
    assert {chunk.revision for chunk in chunks} == {bench.view.status().revision}


@pytest.mark.parametrize("limit,sizes", [(1, [1]), (1000, [1000]), (1001, [1000, 1]), (2000, [1000, 1000]), (9999, [1000, 1000])])
def test_a_limit_ends_the_list_but_not_the_total(bench: Bench, limit: int, sizes: list[int]) -> None:
    bench.admin.put(*[good(n) for n in range(1, 2001)])
    chunks = bench.view.chunks(limit=limit)
    assert ([len(chunk.routes) for chunk in chunks], chunks[0].total) == (sizes, 2000)
    chunks = bench.view.chunks(limit=limit, selector=t.Selector(group="239.1.0.0/24"))
    assert (sum(len(chunk.routes) for chunk in chunks), chunks[0].total) == (min(limit, 255), 255)


def test_the_order_is_stable(bench: Bench) -> None:
    bench.admin.put(*[good(n) for n in (5, 3, 9, 1, 7)])
    first = [one.group for one in bench.view.listed()]
    bench.admin.put(good(3, 4, "down2"), good(9))
    assert [one.group for one in bench.view.listed()] == first
    bench.admin.delete(key_of(good(9)))
    bench.admin.put(good(4))
    assert [one.group for one in bench.view.listed()] == [g for g in first if g != group(9)] + [group(4)]


def test_lists_see_whole_sets_alone(bench: Bench) -> None:
    """Three sets of 2,500 routes replace each other, from two writers at once; a torn one would hold routes of two."""
    sets = [[good(n + 2500 * which, cookie=str(which)) for n in range(1, 2501)] for which in range(3)]
    requests = [list(stream(one)) for one in sets]
    bench.admin.replace(sets[0])
    stop = threading.Event()
    seen: list[Counter[str]] = []
    revisions: list[int] = []

    def write(which: int) -> None:
        while not stop.is_set():
            for one in (which, 2):
                bench.admin.routes.ReplaceRoutes(iter(requests[one]), timeout=60)

    def read() -> None:
        last = 0
        while not stop.is_set():
            chunks = bench.view.chunks()
            assert len({chunk.revision for chunk in chunks}) == 1
            assert chunks[0].total == sum(len(chunk.routes) for chunk in chunks)
            assert chunks[0].revision >= last
            last = chunks[0].revision
            revisions.append(last)
            seen.append(Counter(one.cookie for chunk in chunks for one in chunk.routes))

    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(write, 0), pool.submit(write, 1), pool.submit(read), pool.submit(read)]
        wait_until(lambda: len(set(revisions)) >= 12 or any(one.done() for one in work), 60)
        stop.set()
        for one in work:
            one.result(60)
    assert set(map(tuple, map(dict.items, seen))) <= {(("0", 2500),), (("1", 2500),), (("2", 2500),)}


def test_no_answer_is_larger_than_a_client_takes(bench: Bench) -> None:
    """1,000 routes of 64 long globs each come to 9 MB."""
    globs = [f"{n:02}{'*?' * 31}" for n in range(64)]
    bench.admin.put(*[good(n, 4, *globs, cookie="c" * 64) for n in range(1, 401)], return_changes=True)
    for at in (401, 801):
        bench.admin.put(*[good(n, 4, *globs, cookie="c" * 64) for n in range(at, at + 400)])
    chunks = bench.view.chunks()
    assert [one.group for chunk in chunks for one in chunk.routes] == [group(n) for n in range(1, 1201)]
    assert max(chunk.ByteSize() for chunk in chunks) < MESSAGE_MAX
    assert [chunk.total for chunk in chunks][:2] == [1200, 0]


def test_changes_that_no_client_could_take_are_counted_in_a_trailer(bench: Bench) -> None:
    """100,000 routes that all wait for their interface: the exceptions alone would come to 40 MB."""
    routes = [route(f"239.{1 + (n >> 16)}.{n >> 8 & 255}.{n & 255}", "10.0.0.1", "absent0", "down1") for n in range(100_000)]
    answer, call = bench.admin.routes.ReplaceRoutes.with_call(stream(routes), timeout=120)
    result = answer.result
    assert (result.created, result.failed) == (100_000, 0)
    trailer = dict(call.trailing_metadata())
    assert len(result.changes) + int(trailer["mcastd-changes-omitted"]) == 100_000
    assert len(result.changes) > 1000
    assert answer.ByteSize() < MESSAGE_MAX
    assert [change.id for change in result.changes] == list(range(len(result.changes)))
    assert {change.after.status.state for change in result.changes} == {t.ROUTE_STATE_PENDING}


def test_the_trailer_comes_only_where_something_is_left_out(bench: Bench) -> None:
    _, call = bench.admin.routes.PutRoutes.with_call(rs.PutRoutesRequest(routes=[good(1)]), timeout=10)
    assert "mcastd-changes-omitted" not in dict(call.trailing_metadata())


# --- counters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
def test_counters_count(bench: Bench, family: int) -> None:
    source = bench.star.source
    group_ = f"239.77.0.{family}" if family == 4 else "ff3e::77"
    bench.admin.put(route(group_, source.address(family), "up", "down1"))
    (without,) = bench.view.listed()
    assert not without.status.HasField("counters")
    zero = Duration()
    (before,) = bench.view.listed(counters=True, max_age=zero)
    assert before.status.counters.packets == 0
    assert not before.status.counters.HasField("last_used")
    receiver = bench.star.receivers[0].receiver(group_)
    sender = source.sender(group_)
    sender.send(20)
    receiver.wait(sender)
    (after,) = bench.view.listed(counters=True, max_age=zero)
    counters = after.status.counters
    assert counters.packets == 20
    assert counters.bytes >= 20 * 64
    assert counters.wrong_if == 0
    assert abs(counters.sample_time.ToSeconds() - time.time()) < 5
    assert abs(counters.last_used.ToSeconds() - time.time()) < 5
    assert counters.packet_rate > 0
    assert counters.byte_rate > counters.packet_rate
    receiver.close()
    sender.close()


def test_counters_come_from_the_cache_while_it_is_fresh_enough(bench: Bench) -> None:
    bench.admin.put(good(1))

    def sample(seconds: float | None) -> int:
        age = {} if seconds is None else {"max_age": Duration(nanos=int(seconds % 1 * 1e9), seconds=int(seconds))}
        (one,) = bench.view.listed(counters=True, **age)
        return int(one.status.counters.sample_time.ToNanoseconds())

    first = sample(0)
    assert sample(3600) == first
    assert sample(None) in {first, sample(3600)}
    assert sample(0) > first
    newest = sample(3600)
    assert newest > first
    wait_until(lambda: sample(0.2) > newest)


def test_pending_routes_have_no_counters(bench: Bench) -> None:
    bench.admin.put(route(group(1), "10.0.0.1", "absent0", "down1"))
    (one,) = bench.view.listed(counters=True)
    assert not one.status.HasField("counters")


# --- what nobody asked for -------------------------------------------------------------------------------------------


def vif(bench: Bench, name: str, ipv6: bool) -> int:
    """Number of an interface's VIF in the default table."""
    answer = bench.view.interfaces.ListInterfaces(sv.ListInterfacesRequest(interface=name), timeout=5)
    return next(one.index for one in answer.interfaces[0].vifs if one.ipv6 == ipv6 and not one.table)


def add_foreign(bench: Bench, family: Family, group_: str, source: str) -> bytes:
    """Add an MFC entry from up to down1 through a socket that is not the daemon's; its key."""
    ipv6 = family is Family.IPV6
    kind, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if ipv6 else (socket.AF_INET, socket.IPPROTO_IGMP)
    key = exact_key(0, pack_address(group_), pack_address(source))
    with bench.router.socket(kind, socket.SOCK_RAW, protocol) as sock:
        action = forwarding(family, vif(bench, "up", ipv6), vif(bench, "down1", ipv6))
        assert Mroute(sock, family).program([key], [action]) is None
    return key


@pytest.mark.parametrize("family", list(Family))
def test_what_somebody_else_put_into_the_kernel_is_listed_and_left_alone(own_bench: Bench, family: Family) -> None:
    bench, zero = own_bench, Duration()
    bench.admin.put(good(1, family))
    theirs = group(9, family)
    key = add_foreign(bench, family, theirs, SOURCES[family])
    assert [one.group for one in bench.view.listed()] == [group(1, family)]
    assert [one.group for one in bench.view.listed(counters=True, max_age=zero)] == [group(1, family)]
    ours, foreign = bench.view.listed(learned=True, max_age=zero)
    assert ours.status.origin == t.ORIGIN_CONFIGURED
    assert foreign == t.Route(
        group=theirs,
        source=SOURCES[family],
        iif="up",
        oifs=[t.Oif(interface="down1", ttl_threshold=1 if family is Family.IPV4 else 0)],
        status=t.RouteStatus(state=t.ROUTE_STATE_PROGRAMMED, owner="kernel", origin=t.ORIGIN_FOREIGN, installed_oifs=["down1"]),
    )
    selections = {
        "owner": t.Selector(owner="kernel"),
        "group": t.Selector(group=theirs),
        "state": t.Selector(owner="kernel", states=[t.ROUTE_STATE_PROGRAMMED]),
        "interface": t.Selector(owner="kernel", interface="down?"),
        "table": t.Selector(owner="kernel", table=0),
    }
    for name, selector in selections.items():
        (chunk,) = bench.view.chunks(learned=True, max_age=zero, selector=selector)
        assert ([one.group for one in chunk.routes], chunk.total) == ([theirs], 1), name
    assert bench.view.listed(learned=True, max_age=zero, selector=t.Selector(owner="kernel", table=5)) == []
    assert len(bench.view.listed(learned=True, max_age=zero, limit=1)) == 1
    counted = bench.view.listed(learned=True, counters=True, max_age=zero)[1]
    assert counted.status.counters.HasField("sample_time")

    assert bench.admin.delete(t.RouteKey(group=theirs, source=SOURCES[family])).unchanged == 1
    bench.admin.replace([], allow_empty=True, options=rs.WriteOptions(take_over=True))
    bench.router.ip("link set down2 down", "link set down2 up")
    with bench.router.entered():
        assert [entry.key for entry in mfc_dump.dump(family, 0)] == [key]
    assert bench.admin.put(good(9, family)).created == 1
    for age in (Duration(seconds=3600), zero):  # from the sample of before, when it was foreign, and from one of now
        assert [one.status.origin for one in bench.view.listed(learned=True, max_age=age)] == [t.ORIGIN_CONFIGURED]
