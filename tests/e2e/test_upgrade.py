"""The server upgraded under traffic, writes, watchers and memberships: nothing is lost, nothing is to be seen on the wire."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import route_service_pb2_grpc as rs_grpc
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family, pack_address
from tests.e2e.mrd import ADVERTISEMENT, TERMINATION, Neighbour
from tests.e2e.notices import MfcNotices
from tests.e2e.router import Router, bulk
from tests.e2e.stream import Streams
from tests.e2e.test_joins_restart import Member, joins
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("heavy")]

UPGRADES = 10
RATE = 2000
ROUTES = 10_000
JOINS = 1000
GAP_SECONDS = 2.0
"""More than a client waits even on a machine that is busy with other tests: 35 ms on one that is not."""

_log = logging.getLogger(__name__)


def upgrade(daemon: McastdProcess) -> None:
    """Have the server replaced, and wait until the new one serves and the old one is gone."""
    before = daemon.server_pid()
    daemon.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: daemon.server_pid() not in {0, before} and daemon.serving(), 30, daemon.log)
    wait_until(lambda: not Path(f"/proc/{before}").exists(), 20, daemon.log)


def test_ten_upgrades_change_nothing_and_lose_nothing(testbed: Testbed, directory: Path) -> None:
    star = testbed.star(2)
    with McastdProcess(star.router, directory) as daemon, Streams(star, RATE, new_rate=0) as streams:
        assert daemon.put(*streams.routes()).failed == 0
        streams.start()
        streams.wait_flowing()
        listed = daemon.list_routes()
        with MfcNotices(star.router, Family.IPV4) as of_ipv4, MfcNotices(star.router, Family.IPV6) as of_ipv6:
            for _ in range(UPGRADES):
                upgrade(daemon)
            assert (of_ipv4.take(), of_ipv6.take()) == (0, 0)
        after = daemon.list_routes()
        assert {one.group: one.status.state for one in after} == {one.group: one.status.state for one in listed}
        streams.wait_flowing()
        streams.finish().check()
        assert "has died" not in daemon.log()
        assert sorted(path.name for path in daemon.socket.parent.iterdir()) == ["mcastd.sock", "mcastd.sock.lock"]


class Writer(threading.Thread):
    """Puts one route after the other, and again where it is not acknowledged."""

    def __init__(self, router: Router, first: int) -> None:
        super().__init__(daemon=True)
        self._router, self._number = router, first
        self._channel = grpc.insecure_channel(f"unix:{router.daemon.socket}", (("first", first),))
        self._stub = rs_grpc.RouteServiceStub(self._channel)
        self.acknowledged: list[str] = []
        self.longest = 0.0
        self.other: list[grpc.StatusCode] = []
        """What else a call has ended with."""
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            self._number += 1
            route = self._router.route(self._number, "down1")
            began = time.monotonic()
            while not self._put(rs.PutRoutesRequest(routes=[route])):
                self.ended.wait(0.001)
            self.longest = max(self.longest, time.monotonic() - began)
            self.acknowledged.append(route.group)
        self._channel.close()

    def _put(self, request: rs.PutRoutesRequest) -> bool:
        try:
            return self._stub.PutRoutes(request, timeout=60, wait_for_ready=True).result.failed == 0
        except grpc.RpcError as exc:
            if exc.code() is not grpc.StatusCode.UNAVAILABLE:
                self.other.append(exc.code())
            return False


def test_every_acknowledged_write_is_there(router: Router) -> None:
    writers = [Writer(router, first) for first in (0x10000, 0x20000)]
    for writer in writers:
        writer.start()
    for _ in range(4):
        upgrade(router.daemon)
    for writer in writers:
        writer.ended.set()
        writer.join(60)
    listed = {one.group: one.status.state for one in router.daemon.list_routes()}
    for writer in writers:
        assert [one for one in writer.acknowledged if listed.get(one) != t.ROUTE_STATE_PROGRAMMED] == []
        assert len(writer.acknowledged) > 100
        assert writer.other == []
        assert writer.longest < GAP_SECONDS
    _log.info("clients waited for %s s at most", [round(writer.longest, 3) for writer in writers])


def test_write_under_way_is_finished_by_the_old_server(router: Router) -> None:
    before = router.daemon.server_pid()
    routes = list(bulk(router.family, 2000, router.source, "down1"))

    def asked_in_between() -> Iterator[t.Route]:
        yield from routes[:1000]
        os.kill(router.daemon.process.pid, signal.SIGUSR2)
        wait_until(lambda: "the server hands over to another" in router.daemon.log(), 20, router.daemon.log)
        yield from routes[1000:]

    assert router.daemon.replace(asked_in_between()).created == 2000
    router.wait_server_after(before)
    assert len(router.daemon.list_routes()) == 2000


def synced(daemon: McastdProcess, request: sv.WatchRequest, groups: list[str]) -> bool:
    """Watch until all has been told, if the server lets in; adds the groups of the routes."""
    call: Any = daemon.events.Watch(request, wait_for_ready=True)
    try:
        for message in call:
            groups += [event.route.group for event in message.events]
            if message.synced:
                return True
    except grpc.RpcError as exc:
        if exc.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
    finally:
        call.cancel()
    return False


def test_watcher_is_told_why_and_goes_on_where_it_was(router: Router) -> None:
    router.put(router.route(1, "down1"))
    request = sv.WatchRequest(kinds=[sv.KIND_ROUTE])
    call, token, why = router.daemon.events.Watch(request), "", None
    for message in call:
        token = message.resume_token or token
        if message.synced:
            break
    router.daemon.process.send_signal(signal.SIGUSR2)
    try:
        for message in call:
            token = message.resume_token or token
    except grpc.RpcError as exc:
        why = exc
    assert why is not None
    assert (why.code(), "SHUTTING_DOWN" in str(why.trailing_metadata())) == (grpc.StatusCode.UNAVAILABLE, True)
    assert token
    groups: list[str] = []
    wait_until(lambda: synced(router.daemon, sv.WatchRequest(kinds=[sv.KIND_ROUTE], resume_token=token), groups), 20)
    assert [pack_address(one) for one in groups] == [pack_address(router.route(1).group)]


def test_routes_and_memberships_are_taken_over_in_silence(testbed: Testbed, directory: Path) -> None:
    member = Member(testbed, directory)
    try:
        router = member.router
        router.daemon.replace(bulk(Family.IPV4, ROUTES, router.source, "down1"))
        member.call(sv.PutJoinsRequest(joins=joins(JOINS)))
        before = {family: member.state(family) for family in Family}
        wait_until(lambda: all(member.has_heard(family, 1) for family in Family), 10)
        since = member.settle()
        with router.notices() as notices:
            upgrade(router.daemon)
            assert notices.take() == 0
        time.sleep(1.5)  # a report would have come by then, and its repetition
        assert {family: member.heard(family, since) for family in Family} == {family: [] for family in Family}
        assert {family: member.state(family) for family in Family} == before
        assert len(router.daemon.list_routes()) == ROUTES
    finally:
        member.router.close()


def test_router_discovery_goes_on_without_a_termination(testbed: Testbed, directory: Path) -> None:
    """Whoever stands for the router is the keeper: nobody is told that it has left, and no group is left or joined."""
    with Router(testbed, Family.IPV4, directory=directory) as router:
        near = Neighbour(router.star.receivers[0])
        request = sv.SetInterfaceRequest(interface="down1", router_discovery=True)
        assert router.daemon.interfaces.SetInterface(request, timeout=10).interface.router_discovery
        for family in Family:
            near.wait(family, ADVERTISEMENT, 3)
        since = time.time()
        upgrade(router.daemon)
        for family in Family:
            near.wait(family, ADVERTISEMENT, since=since)  # the new server says that the router is there
            assert near.discovery(family, TERMINATION) == []
            assert near.reports(family, since) == []
