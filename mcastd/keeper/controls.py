"""Control sockets: raw ones that only the keeper may open, with everything set that needs privilege, for the server to use.

The keeper never reads them. It keeps its copy until it ends: what a socket has joined stays joined while there is no server, so
a restart sends no leave and no report. A server that asks again gets the same sockets.
"""

import socket
import struct
from array import array

from mcastd.keeper.fdstore import NoShelf, Shelf
from mcastd.model.address import Family
from mcastd.model.errors import KernelRefused, McastdError, Reason
from mcastd.model.router_discovery import CONTROL_KIND, CONTROL_NUMBER_MAX, TYPES, Message

KINDS = (CONTROL_KIND,)
"""All kinds. Router discovery's sends to all snoopers, and receives solicitations where it has joined the routers' group."""

RECEIVE_BUFFER = 64 << 10
"""Bytes: some 100 solicitations. One answer is for all that have come, so losing some loses nothing."""

# linux/in.h, linux/icmpv6.h, asm-generic/socket.h: not in Python's socket module
_IP_PKTINFO = 8
_IP_MULTICAST_ALL = 49
_ICMPV6_FILTER = 1
_SO_ATTACH_FILTER = 26

_ROUTER_ALERT_V4 = bytes([148, 4, 0, 0])
"""RFC 2113."""

_ROUTER_ALERT_V6 = bytes([0, 0, 5, 2, 0, 0, 1, 0])
"""Hop-by-hop header with the option of RFC 2711, value 0 (multicast listener discovery), and PadN."""


class Controls:
    """The control sockets that are open, by kind, family and number."""

    def __init__(self) -> None:
        """None is open."""
        self._sockets: dict[tuple[str, Family, int], socket.socket] = {}
        self._shelf: Shelf = NoShelf()

    def put_on(self, shelf: Shelf) -> None:
        """Have copies of all sockets, and of those to come, outlive the process."""
        self._shelf = shelf
        for key, sock in self._sockets.items():
            shelf.add(socket_name(*key), sock.fileno())

    def descriptors(self) -> list[tuple[str, int]]:
        """All by name."""
        return [(socket_name(*key), sock.fileno()) for key, sock in self._sockets.items()]

    def adopt(self, kind: str, family: Family, number: int, sock: socket.socket) -> None:
        """Take over a socket that an earlier process has opened."""
        self._sockets[kind, family, number] = sock

    def open(self, kind: str, family: Family, number: int) -> socket.socket:
        """The socket, opened if it is not yet; it stays the keeper's.

        Raises McastdError: NOT_ALLOWED, or KERNEL_ERROR (KernelRefused).
        """
        sock = self._sockets.get((kind, family, number))
        if sock is None:
            sock = self._sockets[kind, family, number] = _open_router_discovery(family)
            self._shelf.add(socket_name(kind, family, number), sock.fileno())
        return sock

    def close_all(self) -> None:
        """Close the keeper's copies: what they have joined is left, unless a server still holds its own."""
        for key, sock in self._sockets.items():
            self._shelf.remove(socket_name(*key))
            sock.close()
        self._sockets.clear()


def socket_name(kind: str, family: Family, number: int) -> str:
    """Name under which a control socket is kept."""
    return f"{kind}{family.value}-{number}"


def read_name(name: str) -> tuple[str, Family, int] | None:
    """Kind, family and number of a control socket by its name; None = it is none's."""
    for kind in KINDS:
        for family in Family:
            digits = name.removeprefix(f"{kind}{family.value}-")
            if digits != name and digits.isascii() and digits.isdigit() and int(digits) <= CONTROL_NUMBER_MAX:
                return kind, family, int(digits)
    return None


def _open_router_discovery(family: Family) -> socket.socket:
    step = "socket"
    try:
        if family is Family.IPV4:
            sock = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_IGMP)
        else:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
        try:
            step = "setsockopt"
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            (_prepare_v4 if family is Family.IPV4 else _prepare_v6)(sock)
        except BaseException:
            sock.close()
            raise
    except PermissionError as exc:
        text = f"not allowed to open the {family.name} socket of router discovery: {step} needs CAP_NET_RAW"
        raise McastdError(Reason.NOT_ALLOWED, text, capability="CAP_NET_RAW", family=family.name, call=step) from exc
    except OSError as exc:
        text = f"cannot open the {family.name} socket of router discovery: {step}: {exc.strerror}"
        raise KernelRefused(step, exc.errno or 0, text, family=family.name) from exc
    return sock


def _prepare_v4(sock: socket.socket) -> None:
    _filter_igmp_type(sock, TYPES[Family.IPV4][Message.SOLICITATION])
    for option, value in (
        (socket.IP_MULTICAST_TTL, 1),
        (socket.IP_MULTICAST_LOOP, 0),
        (_IP_MULTICAST_ALL, 0),  # only what this socket has joined, not what any socket of this host has
        (_IP_PKTINFO, 1),
    ):
        sock.setsockopt(socket.IPPROTO_IP, option, value)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, _ROUTER_ALERT_V4)


def _prepare_v6(sock: socket.socket) -> None:
    solicitation = TYPES[Family.IPV6][Message.SOLICITATION]
    blocked = [0xFFFFFFFF] * 8  # struct icmp6_filter: a set bit keeps the type out
    blocked[solicitation >> 5] &= ~(1 << (solicitation & 31))
    sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, struct.pack("=8I", *blocked))
    for option, value in (
        (socket.IPV6_MULTICAST_HOPS, 1),
        (socket.IPV6_MULTICAST_LOOP, 0),
        (socket.IPV6_RECVPKTINFO, 1),
    ):
        sock.setsockopt(socket.IPPROTO_IPV6, option, value)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, _ROUTER_ALERT_V6)


def _filter_igmp_type(sock: socket.socket, kind: int) -> None:
    """Let only IGMP messages of one type in. A raw IPv4 socket's filter sees the IP header first."""
    program = [
        (0xB1, 0, 0, 0),  # X = length of the IP header (BPF_LDX | BPF_B | BPF_MSH)
        (0x50, 0, 0, 0),  # A = first byte after it (BPF_LD | BPF_B | BPF_IND)
        (0x15, 0, 1, kind),  # BPF_JMP | BPF_JEQ | BPF_K
        (0x06, 0, 0, 0xFFFFFFFF),  # BPF_RET | BPF_K
        (0x06, 0, 0, 0),
    ]
    code = array("B", b"".join(struct.pack("=HBBI", *one) for one in program))
    address, _ = code.buffer_info()
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), address))  # struct sock_fprog
