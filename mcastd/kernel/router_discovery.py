"""Router discovery's packets (RFC 4286): their bytes, and sending and receiving them on the keeper's control sockets.

The keeper has set what needs privilege or is the same for all packets: router alert, hop limit 1, no loop, the filter that lets
only solicitations in (keeper/controls.py). Memberships of the routers' group are the control socket's own: it keeps them while
the server is away, so a restart sends no report and no leave.
"""

import errno
import socket
import struct

from mcastd.model.address import Family, pack_address
from mcastd.model.router_discovery import ALL_ROUTERS, ALL_SNOOPERS, TYPES, Message

RECEIVE_MAX = 64
"""Solicitations taken at once: they are answered together."""

# linux/in.h, asm-generic: not in Python's socket module
_IP_PKTINFO = 8

_PKTINFO_V4 = struct.Struct("=I4s4s")
_PKTINFO_V6 = struct.Struct("=16sI")
_ADVERTISEMENT = struct.Struct("!BBHHH")
_SHORT = struct.Struct("!BBH")
_MREQN = struct.Struct("=4s4si")
_MREQ_V6 = struct.Struct("=16sI")

_PACKED_ROUTERS = {family: pack_address(ALL_ROUTERS[family]) for family in Family}
_IPV4_HEADER_MIN = 20
_LINK_LOCAL_BITS = 0x3FA
"""fe80::/10."""

_NO_ROOM = frozenset({errno.ENOBUFS, errno.ENOMEM})
"""igmp_max_memberships (20 for each socket by default) or optmem_max is reached."""


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of bytes whose own checksum field is 0; 0 if that field is right."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def build(family: Family, message: Message, interval: int = 0) -> bytes:
    """A message as it is given to the socket; the kernel puts in the checksum of ICMPv6.

    `interval` in seconds, for an advertisement. Query interval and robustness variable are 0: this router is no querier
    (sections 3.2.4 and 3.2.5).
    """
    kind = TYPES[family][message]
    data = _ADVERTISEMENT.pack(kind, interval, 0, 0, 0) if message is Message.ADVERTISEMENT else _SHORT.pack(kind, 0, 0)
    if family is Family.IPV6:
        return data
    return data[:2] + checksum(data).to_bytes(2, "big") + data[4:]


def is_solicitation_v4(packet: bytes) -> bool:
    """Whether an IPv4 packet, with its header, is a valid solicitation (section 4.4)."""
    if len(packet) < _IPV4_HEADER_MIN:
        return False
    body = packet[(packet[0] & 0xF) * 4 :]
    return (
        packet[16:20] == _PACKED_ROUTERS[Family.IPV4]
        and len(body) >= _SHORT.size
        and body[0] == TYPES[Family.IPV4][Message.SOLICITATION]
        and checksum(body) == 0
    )


def is_solicitation_v6(body: bytes, source: bytes, destination: bytes) -> bool:
    """Whether an ICMPv6 message, whose checksum the kernel has seen to, is a valid solicitation (section 4.4)."""
    return (
        len(body) >= _SHORT.size
        and body[0] == TYPES[Family.IPV6][Message.SOLICITATION]
        and destination == _PACKED_ROUTERS[Family.IPV6]
        and is_link_local(source)
    )


def is_link_local(address: bytes) -> bool:
    """Whether an IPv6 address is a link-local one."""
    return int.from_bytes(address[:2], "big") >> 6 == _LINK_LOCAL_BITS


class ControlSocket:
    """A control socket of the keeper, for some interfaces of one family: how many is for the kernel to say."""

    def __init__(self, sock: socket.socket, family: Family) -> None:
        """Own this copy of it."""
        self._sock = sock
        self._family = family

    def fileno(self) -> int:
        """The descriptor, for the event loop."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close this copy; memberships stay as long as the keeper has its own."""
        self._sock.close()

    def send(self, message: Message, ifindex: int, interval: int) -> None:
        """Send a message to all snoopers on an interface.

        Raises OSError where that can't be: EADDRNOTAVAIL for IPv6 where the interface has no link-local address that is ready
        (section 3.3.1 allows no other source), ENODEV or ENETDOWN where the interface has gone or is down.
        """
        data, group = build(self._family, message, interval), ALL_SNOOPERS[self._family]
        if self._family is Family.IPV4:
            # The kernel takes the interface's address as the source, or one of another interface where it has none.
            info = _PKTINFO_V4.pack(ifindex, b"", b"")
            self._sock.sendmsg([data], [(socket.IPPROTO_IP, _IP_PKTINFO, info)], 0, (group, 0))
        else:
            info = _PKTINFO_V6.pack(_own_link_local(ifindex), ifindex)
            self._sock.sendmsg([data], [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)], 0, (group, 0, 0, ifindex))

    def receive(self) -> list[int]:
        """Interfaces (ifindex) on which valid solicitations have come; OSError for what the kernel says of the socket itself."""
        found = []
        for _ in range(RECEIVE_MAX):
            try:
                packet, ancillary, _, address = self._sock.recvmsg(512, 64)
            except BlockingIOError:
                break
            for level, kind, data in ancillary:
                ifindex = self._solicited(packet, level, kind, data, address)
                if ifindex:
                    found.append(ifindex)
        return found

    def join(self, ifindex: int) -> bool:
        """Be a member of the routers' group on an interface; False if this socket has room for no more.

        Raises OSError where the interface does not take it. May wait for the kernel's rtnl lock.
        """
        try:
            self._member(ifindex, socket.IP_ADD_MEMBERSHIP, socket.IPV6_JOIN_GROUP)
        except OSError as exc:
            if exc.errno in _NO_ROOM:
                return False
            if exc.errno != errno.EADDRINUSE:  # a member already, since a server before this one
                raise
        return True

    def leave(self, ifindex: int) -> bool:
        """Be no member on an interface any more; False if it was none, as where the interface has gone."""
        try:
            self._member(ifindex, socket.IP_DROP_MEMBERSHIP, socket.IPV6_LEAVE_GROUP)
        except OSError as exc:
            if exc.errno not in {errno.EADDRNOTAVAIL, errno.ENODEV}:
                raise
            return False
        return True

    def _member(self, ifindex: int, option_v4: int, option_v6: int) -> None:
        group = _PACKED_ROUTERS[self._family]
        if self._family is Family.IPV4:
            self._sock.setsockopt(socket.IPPROTO_IP, option_v4, _MREQN.pack(group, b"", ifindex))
        else:
            self._sock.setsockopt(socket.IPPROTO_IPV6, option_v6, _MREQ_V6.pack(group, ifindex))

    def _solicited(self, packet: bytes, level: int, kind: int, data: bytes, address: tuple[str, ...]) -> int:
        """Interface of a valid solicitation by one of its control messages, else 0."""
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO) and self._family is Family.IPV4:
            return int(_PKTINFO_V4.unpack(data)[0]) if is_solicitation_v4(packet) else 0
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) and self._family is Family.IPV6:
            destination, ifindex = _PKTINFO_V6.unpack(data)
            source = pack_address(address[0].partition("%")[0])
            return int(ifindex) if is_solicitation_v6(packet, source, destination) else 0
        return 0


def _own_link_local(ifindex: int) -> bytes:
    """The address that the kernel would send from; OSError if it is no link-local one."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.connect((ALL_SNOOPERS[Family.IPV6], 9, 0, ifindex))  # sends nothing
        address = pack_address(probe.getsockname()[0].partition("%")[0])
    if not is_link_local(address):
        raise OSError(errno.EADDRNOTAVAIL, "the interface has no IPv6 link-local address that is ready")
    return address
