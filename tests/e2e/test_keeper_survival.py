"""The keeper ends, killed or in order, under a service manager that stores its descriptors: nothing of it is seen outside."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import grpc
import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from mcastd.kernel.rawsock import open_mroute
from mcastd.model.address import Family
from tests.e2e import templates
from tests.e2e.keeper_bench import status_of
from tests.e2e.mrd import ADVERTISEMENT, Heard, Neighbour
from tests.e2e.router import Router
from tests.e2e.templates import Spray, prefix, template
from tests.netns.memberships import group_table
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until
from tests.testbed.manager import FakeManager

pytestmark = pytest.mark.kernel

RATE = 2000
"""Packets a second of each flow."""

TABLE = 17
RULE = '[[table]]\nnumber = 17\nrules = [{ iif = "down2", priority = 900 }]\n'
REEXECUTED = 'msg="the keeper is re-executed"'

NEW = 0x3000
"""First group of new flows."""

_REPORTS = {Family.IPV4: {0x12, 0x16, 0x17, 0x22}, Family.IPV6: {131, 132, 143}}
"""Reports and leaves."""
_DISCOVERY = {Family.IPV4: {0x32}, Family.IPV6: {153}}
"""Terminations."""


@pytest.fixture
def manager() -> Iterator[FakeManager]:
    with FakeManager() as made:
        yield made


def options(directory: Path, manager: FakeManager) -> dict[str, Any]:
    """Of a start with all that the manager has stored."""
    config = directory / "mcastd.toml"
    config.write_text(RULE)
    config.chmod(0o644)
    return manager.options(directory=directory, arguments=("--config", str(config)))


def start(router: Router, manager: FakeManager, **more: Any) -> None:
    router.start(**options(router.daemon.directory, manager), **more)


class Site:
    """A router that joins, forwards by an exact route and a template, and has a policy rule; with a neighbour that listens."""

    def __init__(self, router: Router, manager: FakeManager) -> None:
        self.manager, self.router, self.family = manager, router, router.family
        family = router.family
        self.neighbour = Neighbour(router.star.source)
        self.exact, self.learned = router.sender(1), router.sender(0x200)
        router.put(router.route(self.exact, "down1", "down2"))
        templates.put(router, template(prefix(family, 0x200, 8), "up", "down1"), template(prefix(family, NEW, 12), "up", "down2"))
        joins = sv_grpc.JoinServiceStub(router.daemon.channel)
        joins.PutJoins(sv.PutJoinsRequest(joins=[self.join(n) for n in range(30)]), timeout=10)
        router.daemon.interfaces.SetInterface(sv.SetInterfaceRequest(interface="up", router_discovery=True), timeout=10)
        self.neighbour.wait(family, ADVERTISEMENT)
        templates.check_learned(router, self.learned, "down1")
        self.flows = [self.exact.start(RATE), self.learned.start(RATE)]
        self.settle()
        self.since = time.time()
        self.notices = router.notices()
        self.before = self.look()

    def join(self, number: int) -> t.Join:
        return t.Join(interface="up", group=f"239.3.1.{number}" if self.family is Family.IPV4 else f"ff15::3:{number:x}")

    def settle(self) -> None:
        """Wait until the kernel has repeated its reports."""
        wait_until(lambda: time.time() - max((m.time for m in self.heard(_REPORTS, 0)), default=0.0) > 1.5, 30)

    def heard(self, kinds: dict[Family, set[int]], since: float) -> list[Heard]:
        self.neighbour._listen()
        return [m for m in self.neighbour._heard if m.family is self.family and m.kind in kinds[self.family] and m.time >= since]

    def look(self) -> tuple[object, ...]:
        """What is in the kernel: entries, VIFs, groups, rules."""
        router, option = self.router, "-4" if self.family is Family.IPV4 else "-6"
        rules = router.namespace.command("ip", option, "mrule")
        assert "iif down2 lookup 17" in rules
        return router.kernel(), router.vifs(), group_table(router.namespace, self.family, "up"), rules

    def restart(self, number: signal.Signals) -> None:
        self.manager.stop(self.router.daemon.process, number)
        assert self.look() == self.before
        start(self.router, self.manager)

    def restart_quietly(self) -> None:
        """Once more, and nothing is written."""
        self.notices.take()
        self.manager.stop(self.router.daemon.process)
        start(self.router, self.manager)
        assert self.notices.take() == 0

    def finish(self) -> None:
        """End the flows; every packet has come once, and nothing was said or changed."""
        for flow in self.flows:
            flow.stop()
        for sender, oifs in ((self.exact, ("down1", "down2")), (self.learned, ("down1",))):
            self.router.departures.wait(sender)
            wanted = dict.fromkeys(oifs, sender.sent)
            wait_until(lambda sender=sender, wanted=wanted: dict(self.router.departures.by_interface(sender)) == wanted)  # type: ignore[misc]
        time.sleep(1.5)  # a report would have come by then, and its repetition
        assert self.heard(_REPORTS, self.since) == []
        assert self.heard(_DISCOVERY, self.since) == []
        assert "Traceback" not in self.router.daemon.log(), self.router.daemon.log()


@pytest.fixture
def site(testbed: Testbed, family: Family, directory: Path, manager: FakeManager) -> Iterator[Site]:
    with Router(testbed, family, 2, **options(directory, manager)) as router:
        yield Site(router, manager)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_keeper_is_restarted_unnoticed(site: Site, number: signal.Signals) -> None:
    for _ in range(2):
        site.restart(number)
        assert site.notices.take() == 0
        assert site.look() == site.before
        assert len(site.router.daemon.list_routes()) == 3
    site.finish()
    assert site.router.daemon.log().count("what the last keeper has left is taken over") == 2


def test_keeper_is_reexecuted_unnoticed(site: Site) -> None:
    daemon = site.router.daemon
    server = daemon.server_pid()
    for count in (1, 2):
        daemon.process.send_signal(signal.SIGUSR1)
        wait_until(lambda count=count: daemon.log().count(REEXECUTED) == count, 20, daemon.log)  # type: ignore[misc]
        assert daemon.server_pid() == server
        assert daemon.serving()
        assert site.look() == site.before
        assert site.notices.take() == 0
        assert len(daemon.list_routes()) == 3
    site.finish()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_new_flows_are_answered_before_there_is_a_server(site: Site, number: signal.Signals) -> None:
    """They wait in the kernel while there is no keeper, and the next one answers from the templates of the one before."""
    router, manager = site.router, site.manager
    manager.stop(router.daemon.process, number)
    spray = Spray(router.star.source, router.family)
    spray.send_numbers(range(NEW, NEW + 50))
    start(router, manager, ready=False)
    router.departures.wait(spray, 50)
    assert "the server serves" not in router.daemon.log().rpartition("what the last keeper has left")[2]
    router.daemon.wait_ready()
    assert len(templates.learned(router.daemon)) == 51
    assert {oifs for _, oifs in router.kernel().values()} == {("down1", "down2"), ("down1",), ("down2",)}
    site.finish()


def test_server_of_a_killed_keeper_is_in_nobodys_way(site: Site) -> None:
    """It has copies of everything, a call under way, and a second or so to live, when the next keeper starts."""
    router, manager = site.router, site.manager
    call = router.daemon.routes.ReplaceRoutes.future(slow_requests(), timeout=20)
    old = router.daemon.server_pid()
    time.sleep(0.2)  # it is on its way
    router.daemon.process.kill()
    router.daemon.process.wait()
    start(router, manager)
    assert site.look() == site.before
    assert site.notices.take() == 0
    assert router.daemon.server_pid() not in {0, old}
    wait_until(lambda: not Path(f"/proc/{old}").exists() or status_of(old)["State"].startswith("Z"), 10)
    assert len(router.daemon.list_routes()) == 3
    with pytest.raises(grpc.RpcError):
        call.result(timeout=10)
    site.finish()


@pytest.mark.parametrize("damage", ["a byte", "the header", "the version", "its loss"])
def test_state_that_cannot_be_read_costs_no_packet(site: Site, damage: str) -> None:
    """The kernel tells of the default table's VIFs; the server gives its templates to the keeper again."""
    router, manager = site.router, site.manager
    manager.stop(router.daemon.process, signal.SIGKILL)
    state = manager.get("state")
    match damage:
        case "a byte":
            os.pwrite(state, b"\xff" * 8, 64 + 20)
        case "the header":
            os.pwrite(state, b"garbage!", 0)
        case "the version":
            head = os.pread(state, 20, 0)
            head = head[:8] + (99).to_bytes(4, "big") + head[12:]
            os.pwrite(state, head + crc32(head).to_bytes(4, "big"), 0)
        case _:
            manager.remove("state")
    start(router, manager)
    entries, vifs = router.kernel(), router.vifs()
    assert (entries, vifs) == site.before[:2]
    if damage != "its loss":
        assert "the stored state of the last keeper can't be used" in router.daemon.log()
    for flow in site.flows:
        flow.stop()
    for sender in (site.exact, site.learned):
        router.departures.wait(sender)
    site.manager.wait_for(lambda: "state" in manager.names())
    # What was taken over without it is what there is from now on.
    site.restart_quietly()
    assert router.kernel() == entries


def test_descriptors_that_are_no_use_are_closed(site: Site, testbed: Testbed) -> None:
    router, manager = site.router, site.manager
    manager.stop(router.daemon.process, signal.SIGTERM)
    elsewhere = testbed.namespace("elsewhere").run(lambda: open_mroute(site.family, 55))
    here, there = os.pipe()
    with (
        elsewhere,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        router.namespace.run(lambda: raw(site.family)) as bare,
    ):
        for name, fd in {
            "strange": here,
            "mroute4-98": there,
            "mroute4-99": udp.fileno(),
            f"mroute{site.family.value}-55": elsewhere.fileno(),
            f"mroute{site.family.value}-56": bare.fileno(),
            "join-99": bare.fileno(),
            "unknown-1": udp.fileno(),
        }.items():
            manager.put(name, fd)
        wanted = set(manager.names())
        start(router, manager)
    os.close(here)
    os.close(there)
    manager.wait_for(lambda: not {"strange", "mroute4-98", "mroute4-99", "join-99"} & set(manager.names()))
    assert not {name for name in manager.names() if name.endswith(("-55", "-56"))}
    assert wanted - set(manager.names()) <= {
        "strange",
        "mroute4-98",
        "mroute4-99",
        "join-99",
        "unknown-1",
        f"mroute{site.family.value}-55",
        f"mroute{site.family.value}-56",
    }
    assert "it is of another network namespace" in router.daemon.log()
    assert "it is the socket of no routing table" in router.daemon.log()
    assert site.look() == site.before
    assert site.notices.take() == 0
    site.finish()


def test_store_that_is_too_small_is_told_of(testbed: Testbed, directory: Path) -> None:
    with FakeManager(3) as manager, Router(testbed, Family.IPV4, **options(directory, manager)) as router:
        assert "too small" not in router.daemon.log()
        joins = sv_grpc.JoinServiceStub(router.daemon.channel)
        joins.PutJoins(sv.PutJoinsRequest(joins=[t.Join(interface="up", group="239.4.1.1")]), timeout=10)
        assert "the service manager's store of descriptors is too small" in router.daemon.log()
        assert "capacity=3" in router.daemon.log()
        assert manager.refused == []
        assert set(manager.names()) == {"state", "mroute4-0", "mroute6-0"}


def test_end_for_good_leaves_nothing(testbed: Testbed, directory: Path, manager: FakeManager, family: Family) -> None:
    with Router(testbed, family, **options(directory, manager)) as router:
        sender = router.sender(1)
        router.put(router.route(sender, "down1"))
        router.daemon.daemon.Shutdown(sv.ShutdownRequest(keep_forwarding=True), timeout=10)
        assert router.daemon.process.wait(20) == 0
        assert len(router.kernel()) == 1
        start(router, manager)
        assert "what the last keeper has left is taken over" in router.daemon.log()
        router.check_leaves(sender, "down1")
        router.daemon.daemon.Shutdown(sv.ShutdownRequest(), timeout=10)
        assert router.daemon.process.wait(20) == 0
        manager.wait_for(lambda: manager.names() == [])
        assert router.vifs() == {}
        assert "lookup 17" not in router.namespace.command("ip", "-4" if family is Family.IPV4 else "-6", "mrule")


def test_manager_that_is_behind_gets_all_in_the_end(testbed: Testbed, directory: Path, manager: FakeManager) -> None:
    """Its queue holds a dozen messages; nothing waits for it but what is to be stored."""
    with Router(testbed, Family.IPV4, **options(directory, manager)) as router:
        joins = sv_grpc.JoinServiceStub(router.daemon.channel)
        router.namespace.sysctl("net/ipv4/igmp_max_memberships", "1")
        with manager.busy():
            wanted = [t.Join(interface="up", group=f"239.4.{n // 250}.{n % 250 + 1}") for n in range(300)]
            assert list(joins.PutJoins(sv.PutJoinsRequest(joins=wanted), timeout=60).joins) == []
            assert len([name for name in manager.names() if name.startswith("join-")]) < 300
        manager.wait_for(lambda: len([name for name in manager.names() if name.startswith("join-")]) == 300)
        before = group_table(router.namespace, Family.IPV4, "up")
        manager.stop(router.daemon.process, signal.SIGKILL)
        assert group_table(router.namespace, Family.IPV4, "up") == before
        start(router, manager)
        assert group_table(router.namespace, Family.IPV4, "up") == before


def slow_requests() -> Iterator[rs.ReplaceRoutesRequest]:
    yield rs.ReplaceRoutesRequest(header=rs.ReplaceRoutesRequest.Header())
    time.sleep(5)


def raw(family: Family) -> socket.socket:
    if family is Family.IPV4:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
    return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
