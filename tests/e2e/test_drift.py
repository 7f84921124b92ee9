"""A second process at the daemon's tables, while a stream flows: what it does to the daemon's entries is put right at once."""

import logging
import os
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from mcastd.kernel.mroute import Mroute
from mcastd.model.address import Family
from tests.e2e.router import PROGRAMMED, Router, bulk, key_of, keys_of
from tests.e2e.templates import METRICS, SHARED_TREE, check_learned, metric, template
from tests.netns.routed import forwarding
from tests.testbed import Sender, Testbed
from tests.testbed.daemon import wait_until
from tests.testbed.traffic import Flow

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("heavy")]

RATE = 1000
"""Packets a second."""

REPAIR_SECONDS = 1.0

MANY = 2000

MRT_FLUSH = 212
FLUSH_MFC, FLUSH_EVERYTHING = 1, 15
"""MRT_FLUSH_MFC; and all of MRT_FLUSH_VIFS, _VIFS_STATIC, _MFC and _MFC_STATIC (linux/mroute.h)."""

_log = logging.getLogger(__name__)


class Stranger:
    """A second socket with CAP_NET_ADMIN in a router's namespace."""

    def __init__(self, router: Router) -> None:
        self.ipv4 = router.family is Family.IPV4
        family, protocol = (socket.AF_INET, socket.IPPROTO_IGMP) if self.ipv4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
        self.sock = router.bed.close_with(router.namespace.socket(family, socket.SOCK_RAW, protocol))
        self.mroute = Mroute(self.sock, router.family)
        self.router = router

    def delete(self, *keys: bytes) -> None:
        """Remove entries."""
        for at in range(0, len(keys), 1000):
            assert self.mroute.delete(keys[at : at + 1000]) is None

    def program(self, iif: str, *oifs: str, keys: list[bytes]) -> None:
        """Write entries, by the VIFs' numbers now."""
        vifs = self.router.vifs()
        packed = forwarding(self.router.family, vifs[iif], *(vifs[name] for name in oifs))
        for at in range(0, len(keys), 1000):
            part = keys[at : at + 1000]
            assert self.mroute.program(part, [packed] * len(part)) is None

    def flush(self, flags: int) -> None:
        """MRT_FLUSH, MRT6_FLUSH."""
        self.sock.setsockopt(socket.IPPROTO_IP if self.ipv4 else socket.IPPROTO_IPV6, MRT_FLUSH, struct.pack("@i", flags))


@pytest.fixture
def router(testbed: Testbed, family: Family) -> Iterator[Router]:
    """A router with three receivers, metrics and a talkative log."""
    with Router(testbed, family, receivers=3, arguments=(*METRICS, "--log-level", "debug")) as made:
        yield made


@pytest.fixture
def stranger(router: Router) -> Stranger:
    return Stranger(router)


@pytest.fixture
def streaming(router: Router) -> Iterator[tuple[Sender, Flow]]:
    """A stream that is forwarded, and goes on."""
    sender = router.sender(1)
    router.put(router.route(sender, "down1"))
    flow = sender.start(RATE)
    assert router.departures.wait_until(lambda: router.departures.by_interface(sender)["down1"] > RATE // 10)
    yield sender, flow
    if flow.running:
        flow.stop()


def repairs(router: Router) -> Counter[str]:
    """mcastd_drift_repairs_total by kind."""
    return +Counter(
        {kind: int(metric(router, "mcastd_drift_repairs_total", kind=kind)) for kind in ("missing", "different", "vif")}
    )


@contextmanager
def standing_still(router: Router) -> Iterator[None]:
    """Stop the server meanwhile: it hears of all that happens, as far as its buffer holds it, afterwards."""
    pid = router.daemon.server_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def check_repaired(
    router: Router, want: dict[bytes, tuple[str, tuple[str, ...]]], what: str, limit: float = REPAIR_SECONDS
) -> None:
    """Wait until the kernel holds just this."""
    took = wait_until(lambda: router.kernel() == want, 10, lambda: f"{router.daemon.log()}\n{router.vifs()} {router.kernel()}")
    _log.info("%s IPv%d: repaired after %.0f ms at most", what, router.family.value, took * 1e3)
    assert took < limit


def check_flows(router: Router, sender: Sender, name: str = "down1") -> None:
    """See that the stream leaves an interface."""
    before = router.departures.by_interface(sender)[name]
    assert router.departures.wait_until(lambda: router.departures.by_interface(sender)[name] > before + 20)


def test_a_removed_entry_comes_back_and_no_packet_is_lost(
    router: Router, stranger: Stranger, streaming: tuple[Sender, Flow]
) -> None:
    """What comes while there is no entry waits in the kernel, four packets at most: as many milliseconds here."""
    sender, flow = streaming
    want, rounds, slow = router.kernel(), 5, 0
    for _ in range(rounds):
        lost = len(router.departures.missing(sender))
        stranger.delete(router.key(sender))
        check_repaired(router, want, "removed")
        check_flows(router, sender)
        slow += len(router.departures.missing(sender)) > lost + 3
    flow.stop()
    assert slow < rounds, "packets were lost each time"
    assert repairs(router)["missing"] == rounds
    router.wait_state(sender, PROGRAMMED, "down1")
    assert router.daemon.log().count("put back") == rounds


def test_an_overwritten_entry_is_put_right_in_place(router: Router, stranger: Stranger, streaming: tuple[Sender, Flow]) -> None:
    sender, flow = streaming
    want, key = router.kernel(), router.key(sender)
    packets = router.dump().by_key[key].packets
    for iif, oif in (("up", "down2"), ("down3", "down1"), ("up", "down3")):
        router.put(router.route(2, "down2"), router.route(3, "down3"))  # so that these are VIFs
        stranger.program(iif, oif, keys=[key])
        wait_until(lambda: router.kernel()[key] == want[key], REPAIR_SECONDS)
        check_flows(router, sender)
    flow.stop()
    assert router.dump().by_key[key].packets > packets, "its counters were kept"
    with router.notices() as notices:
        router.put(router.route(sender, "down1", "down2"))
        assert notices.take() == 1, "our own writing of it, which is told of from now on, is no drift"
    assert repairs(router) == {"different": 3}
    assert not [one for one in router.daemon.list_routes(learned=True) if one.status.owner == "kernel"]


def test_all_are_removed_or_overwritten(router: Router, stranger: Stranger) -> None:
    router.put(*bulk(router.family, MANY, router.source, "down1", "down2"))
    want = router.kernel()
    stranger.delete(*want)
    check_repaired(router, want, f"{MANY} removed")
    wait_until(lambda: repairs(router) == {"missing": MANY})
    assert router.daemon.log().count("put back") < 20, "one line a batch"
    stranger.program("up", "down2", keys=list(want))
    check_repaired(router, want, f"{MANY} overwritten")
    assert repairs(router)["different"] == MANY
    stranger.flush(FLUSH_EVERYTHING & ~3 | FLUSH_MFC)
    check_repaired(router, want, f"{MANY} flushed")
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": MANY}


def test_what_is_flushed_comes_back_with_its_vifs(router: Router, stranger: Stranger, streaming: tuple[Sender, Flow]) -> None:
    sender, _ = streaming
    router.put(*bulk(router.family, 100, router.source, "down1", "down2"))
    want = router.kernel()
    for _ in range(3):
        stranger.flush(FLUSH_EVERYTHING)
        check_repaired(router, want, "flushed")
        check_flows(router, sender)
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": 101}
    assert router.vifs().keys() == {"up", "down1", "down2"}


@pytest.mark.parametrize("lost", ["up", "down1"])
def test_a_vif_that_is_deleted_comes_back(router: Router, stranger: Stranger, streaming: tuple[Sender, Flow], lost: str) -> None:
    sender, _ = streaming
    want = router.kernel()
    stranger.mroute.del_vif(router.vifs()[lost])
    check_repaired(router, want, f"VIF of {lost} deleted")
    check_flows(router, sender)
    assert repairs(router)["vif"] == 1
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": 1}


def test_a_vif_number_that_is_given_to_another_interface(
    router: Router, stranger: Stranger, streaming: tuple[Sender, Flow]
) -> None:
    sender, _ = streaming
    want, number = router.kernel(), router.vifs()["down1"]
    with standing_still(router):
        stranger.mroute.del_vif(number)
        stranger.mroute.add_vif(number, router.namespace.ifindex("down3"))
    check_repaired(router, want, "VIF given to another interface")
    check_flows(router, sender)
    wait_until(lambda: router.vifs().keys() == {"up", "down1"})


def test_links_that_go_are_nobodys_doing(router: Router) -> None:
    for number in range(5):
        router.plug("extra")
        router.put(router.route(10, "extra", "down1"), router.route(11, "down2", iif="extra"))
        router.wait_state(10, PROGRAMMED, "extra", "down1")
        router.namespace.ip("link del extra")
        router.wait_state(10, t.ROUTE_STATE_PARTIAL, "down1")
        assert repairs(router) == {}, f"round {number}: {router.daemon.log()}"


def test_entries_of_others_are_listed_and_left_alone(router: Router, stranger: Stranger) -> None:
    router.put(router.route(1, "down1"), router.route(2, "down2"))
    theirs = router.sender(7)
    key = router.key(theirs)
    stranger.program("up", "down2", keys=[key])

    def listed() -> list[t.Route]:
        return [one for one in router.daemon.list_routes(learned=True) if one.status.owner == "kernel"]

    took = wait_until(lambda: bool(listed()), 5)
    assert took < 2
    (one,) = listed()
    assert (key_of(one), one.iif, [oif.interface for oif in one.oifs]) == (key, "up", ["down2"])
    assert one.status.origin == t.ORIGIN_FOREIGN
    wait_until(lambda: metric(router, "mcastd_drift_routes", kind="foreign") == 1)
    router.check_leaves(theirs, "down2")

    router.put(router.route(theirs, "down1"))
    router.check_leaves(theirs, "down1")
    assert listed() == []
    assert repairs(router) == {}
    router.daemon.delete(t.RouteKey(group=theirs.group, source=router.source, iif="up"))
    stranger.program("up", "down2", keys=[key])
    wait_until(lambda: bool(listed()), 5)
    stranger.delete(key)
    wait_until(lambda: not listed(), 5)
    wait_until(lambda: metric(router, "mcastd_drift_routes", kind="foreign") == 0)


def test_what_was_not_heard_is_found_by_one_dump(router: Router, stranger: Stranger) -> None:
    """The server stands still while more is told than its buffer holds: it can't have heard of all of it."""
    router.put(router.route(1, "down2"))
    routes = list(bulk(router.family, 20_000, router.source, "down1"))
    assert router.daemon.replace(routes, options=rs.WriteOptions(owner="bulk")).failed == 0
    want = router.kernel()
    with standing_still(router):
        stranger.delete(*list(want)[:15_000])
        stranger.program("up", "down2", keys=list(want)[15_000:])
    check_repaired(router, want, "20,000 unheard", 3 * REPAIR_SECONDS)  # looking at so many takes its time here
    found = repairs(router)
    assert found.total() == len(want) - 1 + (found["different"] - 5000), found
    assert metric(router, "mcastd_reconciles_total") == 1
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": len(want)}


def test_entries_that_no_exact_route_asks_for_come_back(router: Router, stranger: Stranger) -> None:
    learned, stopped, treed = (router.sender(n) for n in (1, 2, 3))
    tree = template(treed.group, "up", "down2", wildcard=SHARED_TREE)
    router.put(template(learned.group, "up", "down1"), tree)
    check_learned(router, learned, "down1")
    check_learned(router, treed, "down2")
    stopped.send()
    wait_until(lambda: router.kernel().get(router.key(stopped)) == ("up", ()))
    want = router.kernel()
    assert len(want) == 3
    stranger.delete(*want)
    check_repaired(router, want, "learned entry, stop filter and tree removed")
    stranger.program("down1", "down2", keys=list(want))
    check_repaired(router, want, "learned entry, stop filter and tree overwritten")
    router.check_leaves(learned, "down1")
    router.check_leaves(treed, "down2")
    router.check_leaves(stopped)
    assert repairs(router) == {"missing": 3, "different": 3}
    kernels = [one for one in router.daemon.list_routes(learned=True) if one.status.origin == t.ORIGIN_FOREIGN]
    assert kernels == [], "they are STATIC now, and ours all the same"


def test_what_we_do_ourselves_is_no_drift(router: Router) -> None:
    routes = list(bulk(router.family, 20_000, router.source, "down1"))
    others = list(bulk(router.family, 20_000, router.source, "down2", "down1"))
    for _ in range(2):
        for part in (routes, others, []):
            result = router.daemon.replace(part, options=rs.WriteOptions(owner="bulk"), allow_empty=True)
            assert result.failed == 0
            assert router.kernel().keys() == keys_of(part)
    time.sleep(0.5)  # whatever is queued is read by then
    assert repairs(router) == {}
    assert metric(router, "mcastd_reconciles_total") <= 4
    assert "put back" not in router.daemon.log()
