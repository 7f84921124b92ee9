"""Router discovery proved against a Linux bridge that snoops: the router's port gets streams once the bridge knows of it."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e.router import group
from tests.testbed import Port, Testbed
from tests.testbed.daemon import McastdProcess, wait_until
from tests.testbed.traffic import Capture, Direction, Receiver, Sender, Tally

pytestmark = pytest.mark.kernel

_BRIDGE = "link add br0 type bridge mcast_snooping 1 mcast_query_response_interval 20"
_QUERIER = "link set br0 type bridge mcast_querier 1"
"""Told apart from the interval: a querier is believed one interval after it is switched on, which is 10 s by default."""


class Lan(NamedTuple):
    """A bridge with a source, a member and a router on it, and a receiver behind the router."""

    daemon: McastdProcess
    lan: Port
    """The router's interface on the bridge."""
    sender: Sender
    member: Receiver
    """On the bridge: has joined, so it gets the stream whatever the bridge knows of routers."""
    behind: Receiver


@pytest.fixture
def on_a_bridge(testbed: Testbed, family: Family) -> Iterator[Lan]:
    """Everything in place, and the bridge forwarding to members only."""
    switch, router = testbed.namespace("switch"), testbed.namespace("router")
    ports = [testbed.connect(testbed.namespace(name), "eth0", switch, f"p{name}") for name in ("source", "member")]
    lan, towards = testbed.connect(router, "lan", switch, "prouter")
    _, below = testbed.connect(router, "down", testbed.namespace("behind"), "eth0")
    enslaved = [f"link set {port.name} master br0" for port in (*(far for _, far in ports), towards)]
    switch.ip(_BRIDGE, *enslaved, "link set br0 up", _QUERIER)
    with McastdProcess(router) as daemon:
        daemon.put(t.Route(group=wide(family), iif="lan", oifs=[t.Oif(interface="down")]))
        source, member = ports[0][0], ports[1][0]
        stream = source.sender(group(family))
        receiver = member.receiver(stream.group)
        shown = str(ip_address(stream.group))
        wait_until(lambda: f"grp {shown} " in switch.command("bridge", "mdb", "show"))
        yield Lan(daemon, lan, stream, receiver, below.receiver(stream.group))


def wide(family: Family) -> str:
    """A template's prefix that has the stream's group in it."""
    return "232.0.0.0/8" if family is Family.IPV4 else "ff3e::/16"


def test_bridge_forwards_to_the_router_once_it_advertises(on_a_bridge: Lan) -> None:
    daemon, lan, sender, member, behind = on_a_bridge
    capture = lan.capture(Direction.IN)

    # A bridge floods what it does not know until a querier has been there for a while: then members get it, and routers.
    wait_until(lambda: not reaches(sender, member, capture), 20)
    before, reached = member.count(sender), capture.count(sender)
    sender.send(100)
    member.wait(sender, before + 100)
    assert capture.count(sender) == reached
    assert behind.count(sender) <= reached

    daemon.interfaces.SetInterface(sv.SetInterfaceRequest(interface="lan", router_discovery=True), timeout=10)
    wait_until(lambda: reaches(sender, member, capture), 10)
    sender.send()
    assert behind.wait_until(lambda: behind.count(sender) > reached)  # the template's entry is there
    first = sender.sent
    sender.send(100)
    assert capture.wait_until(lambda: nothing_missing(capture, sender, first))
    assert behind.wait_until(lambda: nothing_missing(behind, sender, first))


def nothing_missing(tally: Tally, sender: Sender, first: int) -> bool:
    """Whether every packet from this number on has come."""
    return not [number for number in tally.missing(sender) if number >= first]


def reaches(sender: Sender, member: Receiver, capture: Capture) -> bool:
    """Send one packet; whether it came to the router as well as to the member."""
    before, come = capture.count(sender), member.count(sender)
    sender.send()
    member.wait(sender, come + 1)
    return capture.wait_until(lambda: capture.count(sender) > before, 0.2)
