"""mcastd.keeper.controls: the control sockets in the real kernel, used by a thread without any capability."""

import select
import socket
from collections.abc import Iterator

import pytest

from mcastd.keeper.controls import KINDS, RECEIVE_BUFFER, Controls
from mcastd.kernel import privileges
from mcastd.kernel.router_discovery import ControlSocket
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.router_discovery import CONTROL_KIND, Message
from tests.e2e.mrd import ADVERTISEMENT, TERMINATION, Neighbour
from tests.testbed import Port, Testbed

pytestmark = pytest.mark.kernel


@pytest.fixture
def controls() -> Iterator[Controls]:
    """Closed after the test."""
    made = Controls()
    yield made
    made.close_all()


@pytest.fixture
def ends(testbed: Testbed) -> tuple[Port, Port]:
    """A router's interface, and a neighbour's."""
    return testbed.connect(testbed.namespace("router"), "lan", testbed.namespace("neighbour"), "eth0")


def open_here(controls: Controls, port: Port, family: Family, number: int = 0) -> socket.socket:
    with port.namespace.entered():
        return controls.open(CONTROL_KIND, family, number)


def test_sockets_are_kept_by_kind_family_and_number(ends: tuple[Port, Port], controls: Controls, family: Family) -> None:
    first = open_here(controls, ends[0], family)
    assert (first.type, first.getblocking(), first.get_inheritable()) == (socket.SOCK_RAW, False, False)
    assert first.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * RECEIVE_BUFFER
    assert open_here(controls, ends[0], family) is first
    assert open_here(controls, ends[0], family, 1) is not first
    controls.close_all()
    assert first.fileno() == -1
    assert KINDS == (CONTROL_KIND,)


def test_missing_capability_is_named(testbed: Testbed, controls: Controls, family: Family) -> None:
    def attempt() -> Reason:
        privileges.set_capabilities(0, 0)
        with pytest.raises(McastdError, match="CAP_NET_RAW") as refused:
            controls.open(CONTROL_KIND, family, 0)
        return refused.value.reason

    assert testbed.namespace().run(attempt) is Reason.NOT_ALLOWED


def test_used_without_any_capability(ends: tuple[Port, Port], controls: Controls, family: Family) -> None:
    port, neighbour = ends[0], Neighbour(ends[1])
    control = ControlSocket(open_here(controls, port, family).dup(), family)
    ifindex = port.ifindex

    def use() -> None:
        privileges.set_capabilities(0, 0)
        assert control.join(ifindex)
        assert control.join(ifindex)
        control.send(Message.ADVERTISEMENT, ifindex, 20)
        control.send(Message.TERMINATION, ifindex, 20)

    port.namespace.run(use)
    neighbour.wait(family, ADVERTISEMENT)
    neighbour.wait(family, TERMINATION)

    neighbour.solicit(family)
    assert select.select([control], [], [], 5)[0]
    assert control.receive() == [ifindex]
    assert control.leave(ifindex)
    assert not control.leave(ifindex)
    control.close()


def test_only_solicitations_get_in(ends: tuple[Port, Port], controls: Controls, family: Family) -> None:
    """Queries, reports and advertisements of others are kept out by the kernel."""
    port, near = ends[0], ends[1]
    sock = open_here(controls, port, family)
    control, neighbour = ControlSocket(sock.dup(), family), Neighbour(near)
    control.join(port.ifindex)
    others = Controls()
    other = ControlSocket(open_here(others, near, family).dup(), family)
    with near.namespace.entered():
        for _ in range(50):
            other.send(Message.ADVERTISEMENT, near.ifindex, 20)
    with near.namespace.entered(), socket.socket(sock.family, socket.SOCK_RAW, sock.proto) as raw:
        group = ("224.0.0.2", 0) if family is Family.IPV4 else ("ff02::2", 0, 0, near.ifindex)
        if family is Family.IPV4:
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(near.ipv4))
        for kind in (0x11, 0x12, 0x22, 128, 143):
            raw.sendto(bytes([kind, 0, 0, 0, 0, 0, 0, 0]), group)
    neighbour.solicit(family)
    assert select.select([sock], [], [], 5)[0]
    packet, _ = sock.recvfrom(500)
    body = packet[24:] if family is Family.IPV4 else packet
    assert body[0] == {Family.IPV4: 0x31, Family.IPV6: 152}[family]
    assert not select.select([sock], [], [], 0)[0]
    for one in (control, other):
        one.close()
    others.close_all()


def test_one_of_several_ipv4_sockets_hears(ends: tuple[Port, Port], controls: Controls) -> None:
    """That which has joined. IPv6, where one is enough, hears by all (raw_v6_match, net/ipv6/raw.c)."""
    port, neighbour = ends[0], Neighbour(ends[1])
    first, second = (ControlSocket(open_here(controls, port, Family.IPV4, n).dup(), Family.IPV4) for n in (0, 1))
    assert second.join(port.ifindex)
    neighbour.solicit(Family.IPV4)
    assert select.select([second], [], [], 5)[0]
    assert not select.select([first], [], [], 0)[0]
    for one in (first, second):
        one.close()


def test_ipv6_without_a_link_local_address_is_not_sent(ends: tuple[Port, Port], controls: Controls) -> None:
    port = ends[0]
    control = ControlSocket(open_here(controls, port, Family.IPV6).dup(), Family.IPV6)
    port.namespace.command("ip", "-6", "addr", "flush", "dev", port.name, "scope", "link")
    with port.namespace.entered(), pytest.raises(OSError, match="link-local"):
        control.send(Message.ADVERTISEMENT, port.ifindex, 20)
    port.namespace.ip(f"link set dev {port.name} down")
    with port.namespace.entered(), pytest.raises(OSError, match=r"unreachable|assign"):
        control.send(Message.ADVERTISEMENT, port.ifindex, 20)
    control.close()
