"""Router discovery seen from a neighbour: its packets captured whole, with their times, and solicitations sent."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mcastd.model.address import Family
from tests.testbed import Port
from tests.testbed.daemon import wait_until

ADVERTISEMENT, SOLICITATION, TERMINATION = range(3)
TYPES = {Family.IPV4: (0x30, 0x31, 0x32), Family.IPV6: (151, 152, 153)}
SNOOPERS = {Family.IPV4: socket.inet_aton("224.0.0.106"), Family.IPV6: socket.inet_pton(socket.AF_INET6, "ff02::6a")}
ROUTERS = {Family.IPV4: socket.inet_aton("224.0.0.2"), Family.IPV6: socket.inet_pton(socket.AF_INET6, "ff02::2")}

_ETH_P_ALL = 3
_SO_TIMESTAMPNS = 35
_IP_MULTICAST_IF = 32
_V4_REPORTS = {0x12, 0x16, 0x17, 0x22}
_V6_REPORTS = {131, 132, 143}
_ALERT_V4 = bytes([148, 4, 0, 0])
_ALERT_V6 = bytes([0, 0, 5, 2, 0, 0, 1, 0])


class Heard(NamedTuple):
    """One IGMP or ICMPv6 message that came in."""

    time: float
    """Seconds since the epoch, by the kernel that received it."""
    family: Family
    header: bytes
    """The IP header, with options or the hop-by-hop header."""
    body: bytes

    @property
    def kind(self) -> int:
        """The type byte."""
        return self.body[0]

    @property
    def source(self) -> bytes:
        """Packed."""
        return self.header[12:16] if self.family is Family.IPV4 else self.header[8:24]

    @property
    def destination(self) -> bytes:
        """Packed."""
        return self.header[16:20] if self.family is Family.IPV4 else self.header[24:40]


def ones_sum(data: bytes) -> int:
    """Ones' complement sum of 16-bit words (RFC 1071): 0xffff where a checksum in it is right."""
    total = sum(int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return total


def checksum_is_right(heard: Heard) -> bool:
    """Whether the message's checksum, and that of an IPv4 header, are right."""
    if heard.family is Family.IPV4:
        return ones_sum(heard.body) == ones_sum(heard.header) == 0xFFFF
    pseudo = heard.source + heard.destination + struct.pack("!I3xB", len(heard.body), 58)
    return ones_sum(pseudo + heard.body) == 0xFFFF


class Neighbour:
    """A port beside the router's interface that listens to everything and speaks when told."""

    def __init__(self, port: Port) -> None:
        """Listen from now on."""
        self.port = port
        with port.namespace.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL))
            self._socket.bind((port.name, _ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        port.bed.close_with(self._socket)
        self._heard: list[Heard] = []

    def discovery(self, family: Family, message: int, since: float = 0.0) -> list[Heard]:
        """Messages of router discovery that have come, in order."""
        self._listen()
        kind = TYPES[family][message]
        return [one for one in self._heard if one.family is family and one.kind == kind and one.time >= since]

    def reports(self, family: Family, since: float) -> list[Heard]:
        """Reports and leaves of the routers' group."""
        self._listen()
        kinds = _V4_REPORTS if family is Family.IPV4 else _V6_REPORTS
        heard = [one for one in self._heard if one.family is family and one.time >= since and one.kind in kinds]
        return [one for one in heard if ROUTERS[family] in one.body]

    def wait(self, family: Family, message: int, count: int = 1, *, since: float = 0.0, seconds: float = 10.0) -> list[Heard]:
        """Wait until so many messages have come since then."""
        found: list[Heard] = []

        def come() -> bool:
            found[:] = self.discovery(family, message, since)
            return len(found) >= count

        wait_until(come, seconds, lambda: f"{len(found)} of {count} messages {message} of {family.name}")
        return found

    def solicit(self, family: Family) -> float:
        """Send a valid solicitation; when."""
        body = struct.pack("!BBH", TYPES[family][SOLICITATION], 0, 0)
        now = time.time()
        with self.port.namespace.entered():
            if family is Family.IPV4:
                with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP) as sock:
                    sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, _ALERT_V4)
                    sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", self.port.ifindex))
                    sock.sendto(body[:2] + (~ones_sum(body) & 0xFFFF).to_bytes(2, "big"), ("224.0.0.2", 0))
            else:
                with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, _ALERT_V6)
                    sock.sendto(body, ("ff02::2", 0, 0, self.port.ifindex))
        return now

    def _listen(self) -> None:
        while True:
            try:
                packet, ancillary, _, address = self._socket.recvmsg(2048, 256)
            except BlockingIOError:
                return
            if address[2] != socket.PACKET_OUTGOING:
                self._heard += _messages(packet, ancillary)


def _messages(packet: bytes, ancillary: list[tuple[int, int, bytes]]) -> Iterator[Heard]:
    (when,) = (struct.unpack("@ll", data) for level, kind, data in ancillary if (level, kind) == (1, _SO_TIMESTAMPNS))
    length, family = 0, Family.IPV4
    if packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_IGMP:
        length = (packet[0] & 0xF) * 4
        packet = packet[: int.from_bytes(packet[2:4], "big")]
    elif packet[0] >> 4 == 6 and packet[6] == 0 and packet[40] == socket.IPPROTO_ICMPV6:
        length, family = 48, Family.IPV6
    if length:
        yield Heard(when[0] + when[1] / 1e9, family, packet[:length], packet[length:])


def no_more(look: Callable[[], list[Heard]], count: int, seconds: float) -> None:
    """See for so long that nothing is heard beyond so many."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert len(look()) <= count, look()[count:]
        time.sleep(0.05)
