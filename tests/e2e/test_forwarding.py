"""What a route says is what packets do: globs, TTL thresholds, drops, hairpins, and the path to a receiver and back."""

import socket
from collections.abc import Iterator

import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.kernel.mroute import Mroute
from mcastd.model.address import Family
from tests.e2e.keeper_bench import open_directory
from tests.e2e.router import PROGRAMMED, Router, group
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel


def patch(router: Router, one: t.Route, add: tuple[str, ...] = (), remove: tuple[str, ...] = ()) -> None:
    key = t.RouteKey(group=one.group, source=one.source)
    patches = [t.RoutePatch(key=key, add_oifs=[t.Oif(interface=name) for name in add], remove_oifs=remove)]
    assert router.daemon.routes.PatchRoutes(rs.PatchRoutesRequest(patches=patches), timeout=5).result.updated == 1


def test_packets_reach_the_receivers_that_are_routed_to(router: Router) -> None:
    sender, other = router.sender(1), router.sender(2)
    first, second = (port.receiver(sender.group) for port in router.star.receivers)
    one = router.route(sender, "down1", "down2")
    router.put(one, router.route(other))
    sender.send(50)
    first.wait(sender)
    second.wait(sender)
    assert first.duplicates(sender) == second.duplicates(sender) == 0

    patch(router, one, remove=("down2",))
    sender.send(50)
    first.wait(sender)
    router.check_leaves(sender, "down1")
    assert second.count(sender) == 50

    patch(router, one, add=("down2",))
    router.check_leaves(sender, "down1", "down2")
    router.daemon.delete(t.RouteKey(group=one.group, source=one.source))
    router.check_leaves(sender)
    assert {key for key, (_, oifs) in router.kernel().items() if oifs} == set(), "what is left stops traffic"
    assert router.key(other) in router.kernel()


def test_route_without_oifs_drops_in_the_kernel(router: Router) -> None:
    """No upcalls either: the entry counts the packets, and nothing waits to be sent later."""
    sender = router.sender()
    router.put(router.route(sender))
    assert router.status(sender).state == PROGRAMMED
    router.check_leaves(sender, count=40)
    assert router.dump().by_key[router.key(sender)].packets == 40
    router.put(router.route(sender, "down1"))
    router.check_leaves(sender, "down1")
    router.put(router.route(sender))
    router.check_leaves(sender)
    assert router.dump().by_key[router.key(sender)].packets == 80


def test_globs_are_resolved_again_when_interfaces_come_and_go(router: Router) -> None:
    every, but_one, other = (router.sender(number) for number in (1, 2, 3))
    router.put(
        router.route(every, "down*"),
        router.route(but_one, "down*", "!down2"),
        router.route(other, "spare?", "up*"),  # the incoming interface is never among a glob's
    )
    router.check_leaves(every, "down1", "down2")
    router.check_leaves(but_one, "down1")
    router.check_leaves(other)
    assert set(router.status(but_one).installed_oifs) == {"down1"}

    router.plug("down3")
    router.plug("spare1")
    router.wait_state(every, PROGRAMMED, "down1", "down2", "down3")
    router.wait_state(but_one, PROGRAMMED, "down1", "down3")
    router.wait_state(other, PROGRAMMED, "spare1")
    router.check_leaves(every, "down1", "down2", "down3")
    router.check_leaves(but_one, "down1", "down3")
    router.check_leaves(other, "spare1")

    router.rename("spare1", "down4")
    router.namespace.ip("link del down1")
    router.wait_state(every, PROGRAMMED, "down2", "down3", "down4")
    router.wait_state(but_one, PROGRAMMED, "down3", "down4")
    wait_until(lambda: router.kernel()[router.key(other)] == ("up", ()))
    router.check_leaves(every, "down2", "down3", "down4")
    router.check_leaves(but_one, "down3", "down4")
    router.check_leaves(other)
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": 3}


def test_incoming_interface_named_outright_among_the_oifs(router: Router) -> None:
    sender = router.sender()
    router.put(router.route(sender, "up", "down1"))
    router.check_leaves(sender, "up", "down1")
    router.put(router.route(sender, "down1"))
    router.check_leaves(sender, "down1")


def test_packets_on_another_interface_are_not_forwarded(router: Router) -> None:
    sender = router.sender()
    # In IPv4 only interfaces with a VIF are looked at (mc_forwarding of the interface), so there is one of down2.
    router.put(router.route(sender, "down1"), router.route(2, "down2"))
    stray = router.star.receivers[1].sender(sender.group, source=router.source)
    router.check_leaves(stray)
    assert router.dump().by_key[router.key(sender)].wrong_if == 20
    router.put(router.route(sender, "down1", iif="down2"))
    router.check_leaves(stray, "down1")
    router.check_leaves(sender)


def test_ttl_thresholds(testbed: Testbed) -> None:
    """IPv4 alone has them. A packet is forwarded if its TTL is above the threshold."""
    with Router(testbed, Family.IPV4) as router:
        oifs = [t.Oif(interface="down1", ttl_threshold=10), t.Oif(interface="down2")]
        router.put(t.Route(group=group(router.family), source=router.source, iif="up", oifs=oifs))
        low, at, above = (router.sender(hops=hops) for hops in (9, 10, 11))
        router.check_leaves(low, "down2")
        router.check_leaves(at, "down2")
        router.check_leaves(above, "down1", "down2")

        # The interface's own threshold holds where the route names none.
        router.daemon.interfaces.SetInterface(sv.SetInterfaceRequest(interface="down2", ttl_threshold=10), timeout=5)
        router.check_leaves(at)
        router.check_leaves(above, "down1", "down2")


def test_the_same_hop_limits_in_ipv6(testbed: Testbed) -> None:
    with Router(testbed, Family.IPV6) as router:
        router.put(router.route(1, "down1"))
        router.check_leaves(router.sender(hops=1))
        router.check_leaves(router.sender(hops=2), "down1")


RULE = {Family.IPV4: ("ip", "mrule"), Family.IPV6: ("ip", "-6", "mrule")}


def test_tables_are_opened_when_routes_name_them(router: Router) -> None:
    """One (S,G) with another iif and other oifs in each table; a rule of the namespace chooses by the interface."""
    second = router.plug("in2")
    router.namespace.command(*RULE[router.family], "add", "iif", "in2", "lookup", "100", "pref", "10")
    sender = router.sender()
    again = second.sender(sender.group, source=router.source)
    router.put(router.route(sender, "down1"))
    router.check_leaves(again)
    router.put(router.route(sender, "down2", iif="in2", table=100), router.route(2, "down1", "down2", iif="in2", table=101))
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": 3}
    router.check_leaves(sender, "down1")
    router.check_leaves(again, "down2")
    assert list(router.kernel(100).values()) == [("in2", ("down2",))]
    assert list(router.kernel(101).values()) == [("in2", ("down1", "down2"))]

    # The tables outlive the server as the default one does.
    with router.notices() as notices:
        killed = router.daemon.kill_server()
        router.wait_server_after(killed)
        assert notices.take() == 0
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": 3}
    router.check_leaves(again, "down2")
    router.daemon.delete(t.RouteKey(group=sender.group, source=router.source, table=100))
    router.check_leaves(again)
    router.check_leaves(sender, "down1")


def strange_hand(router: Router) -> Mroute:
    """Another process's way to the table: any raw socket of its family, with CAP_NET_ADMIN."""
    ipv4 = router.family is Family.IPV4
    kind = (socket.AF_INET, socket.IPPROTO_IGMP) if ipv4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    sock = router.namespace.socket(kind[0], socket.SOCK_RAW, kind[1])
    return Mroute(router.bed.close_with(sock), router.family)


def test_entry_that_somebody_removed_is_put_back(router: Router) -> None:
    sender = router.sender()
    router.put(router.route(sender, "down1"))
    router.check_leaves(sender, "down1")
    assert strange_hand(router).delete([router.key(sender)]) is None
    sender.send()
    wait_until(lambda: router.kernel() == {router.key(sender): ("up", ("down1",))})
    router.check_leaves(sender, "down1")
    assert "put back" in router.daemon.log()


@pytest.fixture
def patient(testbed: Testbed, family: Family) -> Iterator[Router]:
    """A router that lets unrouted traffic alone, so that its first packets wait in the kernel."""
    with open_directory() as directory:
        (directory / "config.toml").write_text('[daemon]\nunrouted = "ignore"\n')
        with Router(testbed, family, directory=directory, arguments=("--config", str(directory / "config.toml"))) as one:
            yield one


def test_packets_that_come_before_their_route(patient: Router) -> None:
    """They wait in the kernel and ask for an entry; once it is there the asking is no reason to touch it again."""
    router = patient
    router.put(router.route(1000, "down1"))  # without a VIF nobody looks at what comes in
    senders = [router.sender(number) for number in range(1, 201)]
    for sender in senders:
        sender.send(2)
    with router.notices() as notices:
        router.put(*(router.route(sender, "down1") for sender in senders))
        router.check_leaves(senders[0], "down1")
        for sender in senders:
            assert router.departures.by_interface(sender)["down1"] >= 2
        assert notices.take() == len(senders)
    assert "put back" not in router.daemon.log()
