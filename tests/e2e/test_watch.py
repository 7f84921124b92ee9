"""Watch against a real daemon: snapshot, changes, resume, sources, upcalls, counters, and the end."""

from typing import Any

import grpc
import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.model.address import address_text, pack_address
from tests.e2e.router import PROGRAMMED, Router, bulk
from tests.e2e.view import Watching, listed, sources
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel

ROUTE, INTERFACE, SOURCE, COUNTERS, UPCALL = (
    sv.KIND_ROUTE,
    sv.KIND_INTERFACE,
    sv.KIND_SOURCE,
    sv.KIND_COUNTERS,
    sv.KIND_UPCALL,
)


def canonical(address: str) -> str:
    """An address as the daemon writes it."""
    return address_text(pack_address(address))


def pin(router: Router, *names: str) -> None:
    """Have VIFs of these interfaces, so that the kernel calls for what comes in there."""
    for name in names:
        router.daemon.interfaces.SetInterface(sv.SetInterfaceRequest(interface=name, pinned=True), timeout=10)
    wait_until(lambda: set(names) <= set(router.vifs()))


def test_snapshot_then_changes(router: Router) -> None:
    router.put(*bulk(router.family, 700, router.source, "down1"))
    with Watching(router.daemon, kinds=[ROUTE, INTERFACE]) as watching:
        watching.until(lambda view: view.synced)
        assert watching.view.resets == 1
        assert watching.view.of("route") == listed(router.daemon)
        assert {"up", "down1", "down2", "lo"} <= {key[0] for key in watching.view.of("interface")}

        one = router.route(1, "down1", "down2")
        router.put(one)
        watching.until(lambda view: len(view.of("route")) == 701)
        (added,) = [route for route in watching.view.of("route").values() if route.group == canonical(one.group)]
        assert added.status.state == PROGRAMMED
        assert set(added.status.installed_oifs) == {"down1", "down2"}

        router.namespace.ip("link set dev down2 down")
        watching.until(lambda view: any(r.status.state == t.ROUTE_STATE_PARTIAL for r in view.of("route").values()))
        router.daemon.replace([one], allow_empty=True)
        watching.until(lambda view: len(view.of("route")) == 1)
        watching.until(lambda view: view.of("route") == listed(router.daemon))
        watching.until(lambda view: view.of("interface")[("down1",)].routes == 1)


def test_source_appears_stays_and_goes_when_it_is_covered(router: Router) -> None:
    pin(router, "up")
    with Watching(router.daemon, kinds=[SOURCE, UPCALL]) as watching:
        watching.until(lambda view: view.synced)
        sender = router.sender()
        sender.send()
        watching.until(lambda view: len(view.of("source")) == 1)
        ((key, seen),) = watching.view.of("source").items()
        assert key == ("0", canonical(sender.group), router.source, "up")
        assert (seen.cause, seen.upcalls) == (t.Source.CAUSE_NO_ROUTE, 1)
        assert sources(router.daemon) == watching.view.of("source")
        watching.until(lambda view: [u.group for u in view.upcalls] == [canonical(sender.group)])

        router.put(router.route(sender, "down1"))
        watching.until(lambda view: not view.of("source"))
        assert sources(router.daemon) == {}
        router.check_leaves(sender, "down1")


def test_wrong_interface_is_a_source(router: Router) -> None:
    pin(router, "up")
    router.put(router.route(1, "down1", iif="down2"))
    with Watching(router.daemon, kinds=[SOURCE]) as watching:
        router.sender(1).send()
        watching.until(lambda view: len(view.of("source")) == 1)
        (seen,) = watching.view.of("source").values()
        assert (seen.cause, seen.interface) == (t.Source.CAUSE_WRONG_INTERFACE, "up")
        router.put(router.route(1, "down1"))
        watching.until(lambda view: not view.of("source"))


def test_resume_brings_what_was_missed_and_nothing_else(router: Router) -> None:
    router.put(*bulk(router.family, 50, router.source, "down1"))
    with Watching(router.daemon, kinds=[ROUTE]) as watching:
        watching.until(lambda view: view.synced)
        view = watching.view
    router.put(router.route(1, "down1"))
    router.daemon.delete(*[t.RouteKey(group=r.group, source=r.source) for r in bulk(router.family, 10, router.source, "down1")])
    before, view.synced = view.events, False
    with Watching(router.daemon, view, kinds=[ROUTE], resume_token=view.token) as watching:
        watching.until(lambda view: len(view.of("route")) == 41)
        watching.until(lambda view: view.synced)
    assert (view.resets, view.events - before) == (1, 11)
    assert view.of("route") == listed(router.daemon)


@pytest.mark.parametrize("token", ["nonsense", "AAAA", "x" * 5000, "é", "QUJD" * 14])
def test_a_token_that_means_nothing_is_answered_by_a_snapshot(router: Router, token: str) -> None:
    router.put(router.route(1, "down1"))
    with Watching(router.daemon, kinds=[ROUTE, UPCALL], resume_token=token) as watching:
        watching.until(lambda view: view.synced)
        assert watching.view.resets == 1
        assert watching.view.skipped >= 1
        assert watching.view.of("route") == listed(router.daemon)


def test_server_killed_under_watch(router: Router) -> None:
    router.put(*bulk(router.family, 100, router.source, "down1"))
    sender = router.sender(3)
    with Watching(router.daemon, kinds=[ROUTE, SOURCE]) as watching:
        sender.send()
        watching.until(lambda view: view.synced and len(view.of("source")) == 1)
        view = watching.view
        pid = router.daemon.kill_server()
        assert watching.ended() is grpc.StatusCode.UNAVAILABLE
    router.wait_server_after(pid)
    with Watching(router.daemon, view, kinds=[ROUTE, SOURCE], resume_token=view.token) as watching:
        watching.until(lambda view: view.resets == 2 and view.synced)
        watching.until(lambda view: view.of("route") == listed(router.daemon) and len(view.of("route")) == 100)
        # Its stop filter is in the kernel still.
        watching.until(lambda view: len(view.of("source")) == 1)


def test_orderly_end_gives_a_last_token_and_says_why(router: Router) -> None:
    with Watching(router.daemon, kinds=[ROUTE]) as watching:
        watching.until(lambda view: view.synced)
        messages = watching.view.messages
        router.daemon.process.terminate()
        assert watching.ended() is grpc.StatusCode.UNAVAILABLE
        assert "the daemon is ending" in watching.details()
        assert watching.view.messages == messages + 1


def test_counters_that_move_are_sampled(router: Router) -> None:
    sender = router.sender()
    router.put(router.route(sender, "down1"), router.route(2, "down1"))
    with Watching(router.daemon, kinds=[COUNTERS], sample_interval={"seconds": 1}) as watching:
        sender.send(10)
        watching.until(lambda view: bool(view.samples) and view.samples[-1].counters.packets == 10)
        sender.send(5)
        watching.until(lambda view: view.samples[-1].counters.packets == 15)
        assert {sample.key.group for sample in watching.view.samples} == {canonical(sender.group)}
        assert watching.view.samples[-1].counters.packet_rate > 0


def test_selectors(router: Router) -> None:
    router.put(*bulk(router.family, 5, router.source, "down1", cookie="a"))
    router.put(*bulk(router.family, 5, router.source, "down2", first=7))
    with (
        Watching(router.daemon, kinds=[ROUTE], selector=t.Selector(cookie="a")) as by_cookie,
        Watching(router.daemon, kinds=[ROUTE, INTERFACE], selector=t.Selector(interface="down2")) as by_interface,
    ):
        by_cookie.until(lambda view: view.synced and len(view.of("route")) == 5)
        by_interface.until(lambda view: view.synced and len(view.of("route")) == 5)
        assert {key[0] for key in by_interface.view.of("interface")} == {"down2"}
        (one,) = bulk(router.family, 1, router.source, "down2", cookie="b")
        router.put(one)
        by_cookie.until(lambda view: len(view.of("route")) == 4)
        by_interface.until(lambda view: len(view.of("route")) == 6)


def test_heartbeat_and_subscribers(router: Router) -> None:
    with Watching(router.daemon, kinds=[SOURCE], heartbeat_interval={"seconds": 1}) as watching:
        watching.until(lambda view: view.synced)
        messages = watching.view.messages
        watching.until(lambda view: view.messages >= messages + 2, 5)
        (subscriber,) = router.daemon.status().subscribers
        assert subscriber.peer.startswith("unix:")
        assert subscriber.pending == 0
    wait_until(lambda: not router.daemon.status().subscribers)


def test_list_and_watch_without_a_gap(router: Router) -> None:
    router.put(*bulk(router.family, 1500, router.source, "down1"))
    answers = list(router.daemon.routes.ListRoutes(rs.ListRoutesRequest()))
    assert [bool(answer.resume_token) for answer in answers] == [False, True]
    router.put(router.route(1, "down1"))
    with Watching(router.daemon, kinds=[ROUTE], resume_token=answers[-1].resume_token) as watching:
        watching.until(lambda view: view.synced and len(view.of("route")) == 1)
        assert watching.view.resets == 0


@pytest.mark.parametrize(
    "field, request_",
    [
        ("heartbeat_interval", {"heartbeat_interval": {"nanos": 1}}),
        ("sample_interval", {"kinds": [COUNTERS], "sample_interval": {"nanos": 999_999_999}}),
        ("kinds[1]", {"kinds": [1, 77]}),
        ("selector.group", {"selector": t.Selector(group="no group")}),
        ("selector.interface", {"selector": t.Selector(interface="a/b")}),
    ],
)
def test_bad_requests_name_the_field(router: Router, field: str, request_: dict[str, Any]) -> None:
    with Watching(router.daemon, **request_) as watching:
        assert watching.ended() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in watching.details()
