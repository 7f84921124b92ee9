"""mcastd.kernel.upcall: what the kernel reports, and that nothing else gets into the socket."""

import socket
import struct

import pytest

from mcastd.kernel import rawsock
from mcastd.kernel.upcall import LIMIT_MAX, Upcall, UpcallKind, receive
from mcastd.model.address import Family, pack_address
from tests.netns.routed import Routed, group

pytestmark = pytest.mark.kernel

PINGS = 2000
NEW_GROUPS = 3000


def test_a_flow_without_entry_is_reported_once(routed: Routed) -> None:
    sender = routed.sender()
    sender.send(5)

    wanted = Upcall(UpcallKind.NOCACHE, 0, pack_address(sender.group), pack_address(sender.source))
    assert receive(routed.sock) == ([wanted], 0, 0)
    assert receive(routed.sock) == ([], 0, 0)


@pytest.mark.parametrize("oifs", [(1, 2), (1,)], ids=["an oif of the entry", "no oif of it"])
def test_a_flow_on_another_interface_is_reported_whether_or_not_that_is_an_oif(routed: Routed, oifs: tuple[int, ...]) -> None:
    """The second one comes by MRT_PIM alone."""
    source = routed.star.source.address(routed.family)
    sender = routed.star.receivers[1].sender(group(routed.family), source=source)
    key = routed.program(sender, *oifs)

    sender.send(3)

    wanted = Upcall(UpcallKind.WRONGVIF, 2, pack_address(sender.group), pack_address(source))
    assert receive(routed.sock).upcalls == [wanted]
    [counters] = routed.mroute.counters([key])
    assert counters is not None
    assert counters[2] == 3


def test_pings_and_membership_reports_do_not_enter_the_socket(routed: Routed) -> None:
    family, source = routed.family, routed.star.source
    ipv4 = family is Family.IPV4
    kind, protocol = (socket.AF_INET, socket.IPPROTO_IGMP) if ipv4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    # A socket without filter beside it proves that they came.
    witness = routed.bed.close_with(routed.router.socket(kind, socket.SOCK_RAW, protocol))
    witness.settimeout(5)
    noise = routed.bed.close_with(source.namespace.socket(kind, socket.SOCK_RAW, protocol))
    report = (
        struct.pack("!BBH4s", 0x16, 0, 0, pack_address("239.9.9.9"))
        if ipv4
        else struct.pack("!BBHHH16s", 131, 0, 0, 0, 0, bytes(16))
    )
    ping = struct.pack("!BBHHH", 8 if ipv4 else 128, 0, 0, 1, 1)

    for _ in range(PINGS):
        noise.sendto(ping, (routed.star.uplink.address(family), 0))
        noise.sendto(report, (routed.star.uplink.address(family), 0))
    routed.sender().send(1)

    assert report[:1] in {witness.recv(2048)[20 if ipv4 else 0 :][:1] for _ in range(10)} or not ipv4
    received = receive(routed.sock, LIMIT_MAX)
    assert [upcall.kind for upcall in received.upcalls] == [UpcallKind.NOCACHE]
    assert received.garbage == 0
    assert received.lost == 0


def test_lost_upcalls_are_counted(routed: Routed) -> None:
    routed.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
    with routed.star.source.namespace.entered():
        sock = routed.bed.close_with(
            socket.socket(socket.AF_INET if routed.family is Family.IPV4 else socket.AF_INET6, socket.SOCK_DGRAM)
        )
    if routed.family is Family.IPV4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(routed.star.source.ipv4))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 9)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, routed.star.source.ifindex)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 9)
    for number in range(1, NEW_GROUPS + 1):
        sock.sendto(b"x", (group(routed.family, number), 5000))
    before = receive(routed.sock, LIMIT_MAX)
    sock.sendto(b"x", (group(routed.family, NEW_GROUPS + 1), 5000))  # carries the count of what was lost before it
    after = receive(routed.sock, LIMIT_MAX)

    assert 0 < len(before.upcalls) < NEW_GROUPS
    assert len(after.upcalls) == 1
    # While it is full, the kernel counts what the filter would have kept out as well: some neighbour discovery here.
    assert 0 <= after.lost - (NEW_GROUPS - len(before.upcalls)) < 20
    # Who takes the socket over is not told again.
    assert 0 <= rawsock.dropped(routed.sock) - after.lost < 20


def test_no_more_than_the_limit_is_read(routed: Routed) -> None:
    for number in range(1, 6):
        routed.sender(number).send(1)

    assert [len(receive(routed.sock, limit=2).upcalls) for _ in range(4)] == [2, 2, 1, 0]
