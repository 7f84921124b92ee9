"""Watch with many who follow, with some who do not read, and with more upcalls than are kept: nothing is lost unsaid."""

import logging
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.core.feed import RING_MAX
from mcastd.model.address import Family
from tests.e2e import templates
from tests.e2e.crowd import Crowd, Holding
from tests.e2e.router import Router, bulk, group
from tests.e2e.templates import Spray
from tests.e2e.view import Watching, listed, sources
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300), pytest.mark.xdist_group("watch-scale")]

ROUTE, INTERFACE, SOURCE, UPCALL = sv.KIND_ROUTE, sv.KIND_INTERFACE, sv.KIND_SOURCE, sv.KIND_UPCALL

WATCHERS = 200
MEDIAN = 0.05
"""Seconds within which half of them are to be told; a busy machine is allowed SLACK times as much."""

SLACK = 4

WRITING = 10 if os.environ.get("MCASTD_TEST_FULL") == "1" else 4
"""Seconds of single writes, twenty a second."""

SOURCE_MEDIAN = 0.001
"""Seconds from a packet to who is told of its source."""

IDLE = 1000
IDLE_MEMORY = 64 << 10
"""KiB by which the server may grow."""

_log = logging.getLogger(__name__)


@pytest.fixture
def ipv4_router(testbed: Testbed) -> Iterator[Router]:
    """A router for what is the same in both families."""
    with Router(testbed, Family.IPV4) as made:
        yield made


@pytest.fixture
def measured(testbed: Testbed, family: Family) -> Iterator[Router]:
    """A router with metrics."""
    with Router(testbed, family, arguments=templates.METRICS) as made:
        yield made


def resident(pid: int) -> int:
    """KiB of memory that a process has."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def no_subscribers(router: Router) -> None:
    """Wait until nobody watches."""
    wait_until(lambda: not router.daemon.status().subscribers, 20)


def test_two_hundred_watchers_and_one_that_does_not_read(ipv4_router: Router) -> None:
    router, daemon = ipv4_router, ipv4_router.daemon
    family, server = router.family, router.daemon.server_pid()
    router.put(*bulk(family, 1500, router.source, "down1"))
    probes = templates.prefix(family, 0, 8)
    with Holding(daemon, kinds=[ROUTE]) as stalled, Crowd(daemon, WATCHERS, 20, [ROUTE], probes) as crowd:
        stalled.until(lambda view: view.synced)
        stalled.hold()
        before = resident(server)
        for cookie in "abcd":
            router.put(*bulk(family, 1500, router.source, "down1", cookie=cookie))
        wait_until(lambda: any(one.HasField("blocked") for one in daemon.status().subscribers), 20)
        crowd.latencies()
        count = 0
        until = time.monotonic() + WRITING
        while time.monotonic() < until:
            router.put(router.route(1 + count % 200, "down1", cookie=f"{time.monotonic():.6f}"))
            count += 1
            time.sleep(0.05)
        seen: list[float] = []

        def told() -> int:
            seen.extend(crowd.latencies())
            return len(seen)

        wait_until(lambda: told() >= count * WATCHERS, 20, lambda: f"{len(seen)} of {count * WATCHERS}")
        (waiting,) = [one for one in daemon.status().subscribers if one.HasField("blocked")]
        assert 0 < waiting.pending <= 1500 * 4 + count
        grown = resident(server) - before
        median, late = statistics.median(seen), statistics.quantiles(seen, n=100)[98]
        _log.info(
            "%d events to %d watchers: median %.1f ms, 99%% %.1f ms from the call of the write; one stalled; the server +%d KiB",
            *(count, WATCHERS, 1000 * median, 1000 * late, grown),
        )
        assert len(seen) == count * WATCHERS, "each sees each"
        assert median < SLACK * MEDIAN
        assert grown < 32 << 10
        wait_until(lambda: len(daemon.status().subscribers) == WATCHERS, 40)
        stalled.release()
        assert stalled.ended() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "30 s" in stalled.details()
        view = stalled.view
    view.synced = False
    with Watching(daemon, view, kinds=[ROUTE], resume_token=view.token) as again:
        again.until(lambda view: view.synced, 20)
        assert view.resets == 1
        assert view.of("route") == listed(daemon)
    no_subscribers(router)


@pytest.mark.parametrize("connections", [1, IDLE])
def test_a_thousand_idle_watchers(ipv4_router: Router, connections: int) -> None:
    router, server = ipv4_router, ipv4_router.daemon.server_pid()
    router.put(*bulk(router.family, 100, router.source, "down1"))
    with Watching(router.daemon, kinds=[ROUTE]) as one:
        one.until(lambda view: view.synced)
    no_subscribers(router)
    before = resident(server)
    with Crowd(router.daemon, IDLE, connections, [ROUTE, INTERFACE, SOURCE]):
        assert len(router.daemon.status().subscribers) == IDLE
        grown = resident(server) - before
        router.put(router.route(1, "down1"))
    _log.info("%d idle watchers on %d connections: the server +%d KiB", IDLE, connections, grown)
    no_subscribers(router)
    assert grown < IDLE_MEMORY


def test_a_new_source_is_told_at_once(router: Router) -> None:
    """From the call that sends the packet to the client's own thread."""
    templates.pin(router.daemon, "up")
    wait_until(lambda: "up" in router.vifs())
    took: list[float] = []
    with Watching(router.daemon, kinds=[SOURCE]) as watching:
        watching.until(lambda view: view.synced)
        for number in range(1, 201):
            sender = router.sender(number)
            key = ("source", "0", templates.canonical(sender.group), router.source, "up")
            began = time.monotonic()
            sender.send()
            watching.until(lambda _, key=key: key in watching.arrived)  # type: ignore[misc] # A lambda's default has no type.
            took.append(watching.arrived[key] - began)
    median, late = statistics.median(took), statistics.quantiles(took, n=100)[98]
    _log.info("%s: packet to subscriber: median %.2f ms, 99%% %.2f ms", router.family.name, 1000 * median, 1000 * late)
    assert median < SLACK * SOURCE_MEDIAN


def test_more_upcalls_than_are_kept(measured: Router) -> None:
    """All that were not told are counted; none is told twice."""
    router, daemon, family = measured, measured.daemon, measured.family
    templates.pin(daemon, "up")
    wait_until(lambda: "up" in router.vifs())
    with Holding(daemon, kinds=[UPCALL]) as slow:
        slow.until(lambda view: view.synced)
        slow.hold()
        spray = Spray(router.star.source, family, group(family, 1))
        spray.spray(0, 1_000_000, rounds=0, rate=30_000)
        wait_until(lambda: templates.metric(router, "mcastd_upcalls_total") > 1.25 * RING_MAX, 60)
        sent = spray.stop()
        (seen,) = daemon.status().subscribers
        assert seen.pending > RING_MAX
        slow.release()
        view = slow.view

        def told() -> int:
            return len(view.upcalls) + view.skipped

        wait_until(lambda: told() == templates.metric(router, "mcastd_upcalls_total"), 30, lambda: f"{told()}")
        _log.info(
            "%s: %d packets, %d upcalls told, %d skipped, %d lost by the kernel",
            *(family.name, sent, len(view.upcalls), view.skipped, view.lost),
        )
        assert view.skipped > 0
        assert len(view.upcalls) >= RING_MAX
        assert view.resets == 1
        found = [one.source for one in view.upcalls]
        assert len(set(found)) == len(found) or sent > 1_000_000


def test_the_server_is_killed_under_many_who_watch(router: Router) -> None:
    family, daemon = router.family, router.daemon
    router.put(*bulk(family, 2000, router.source, "down1"))
    templates.pin(daemon, "up")
    wait_until(lambda: "up" in router.vifs())
    watching = [Watching(daemon, kinds=[ROUTE, INTERFACE, SOURCE]) for _ in range(10)]
    try:
        for number in range(1, 6):
            router.put(*bulk(family, 500, router.source, "down2", first=0x10000 + 100 * number, cookie=str(number)))
            router.sender(number).send()
        watching[0].until(lambda view: len(view.of("source")) >= 5)
        # They are told of before their stop filters are in the kernel, which the next server knows them by.
        wait_until(lambda: sum(not oifs for _, oifs in router.kernel().values()) == 5)
        pid = daemon.kill_server()
        for one in watching:
            assert one.ended() is grpc.StatusCode.UNAVAILABLE
    finally:
        for one in watching:
            one.close()
    router.wait_server_after(pid)
    again = [
        Watching(daemon, one.view, kinds=[ROUTE, INTERFACE, SOURCE], resume_token=one.view.token, selector=t.Selector())
        for one in watching
    ]
    try:
        router.put(*bulk(family, 500, router.source, "down1", first=0x10000 + 700, cookie="after"))
        for one in again:
            one.until(lambda view: view.synced and view.of("route") == listed(daemon), 20)
            one.until(lambda view: len(view.of("source")) == 5 and view.of("source") == sources(daemon), 20)
    finally:
        for one in again:
            one.close()


def test_a_client_that_leaves_during_a_large_snapshot_leaves_nothing(ipv4_router: Router) -> None:
    router, daemon = ipv4_router, ipv4_router.daemon
    daemon.replace(bulk(router.family, 100_000, router.source, "down1"))
    server = daemon.server_pid()
    for _ in range(2):
        with Holding(daemon, kinds=[ROUTE]) as one:
            one.until(lambda view: view.events > 1000, 20)
            one.hold()
    no_subscribers(router)
    before = resident(server)
    for _ in range(10):
        with Holding(daemon, kinds=[ROUTE]) as one:
            one.until(lambda view: view.events > 1000, 20)
            one.hold()
            (subscriber,) = daemon.status().subscribers
            assert 0 < subscriber.pending < 100_000
        no_subscribers(router)
    grown = resident(server) - before
    _log.info("ten snapshots of 100,000 routes that were broken off: the server %+d KiB", grown)
    assert grown < 8 << 10
