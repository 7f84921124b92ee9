"""Sockets and settings of the network that need a capability, tried from inside the server."""

import os
import socket
import struct

from .attempts import Target, attempt

# asm-generic/socket.h, linux/in.h, linux/netlink.h, linux/rtnetlink.h, linux/mroute.h: not in Python's socket module
_SO_RCVBUFFORCE, _SO_MARK, _IP_TRANSPARENT = 33, 36, 19
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _RTNLGRP_IPV4_MROUTE_R = 270, 1, 30
_REQUEST, _ACK, _CREATE = 1, 4, 0x400
_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE, _RTM_NEWRULE = 16, 20, 24, 32
_RTNL_FAMILY_IPMR = 128
_MRT_INIT, _MRT_TABLE = 200, 209
_HEADER = struct.Struct("=IHHII")
_LOOPBACK = 1


@attempt("make a raw IPv4 socket", reaches_out=True)
def raw4(_: Target) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)


@attempt("make a raw IPv6 socket", reaches_out=True)
def raw6(_: Target) -> None:
    socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)


@attempt("make a packet socket", reaches_out=True)
def packet(_: Target) -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))


def mroute(family: int, protocol: int, level: int) -> None:
    with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
        sock.setsockopt(level, _MRT_TABLE, 4711)
        sock.setsockopt(level, _MRT_INIT, 1)


@attempt("take a multicast routing table of IPv4", reaches_out=True)
def mroute4(_: Target) -> None:
    mroute(socket.AF_INET, socket.IPPROTO_IGMP, socket.IPPROTO_IP)


@attempt("take a multicast routing table of IPv6", reaches_out=True)
def mroute6(_: Target) -> None:
    mroute(socket.AF_INET6, socket.IPPROTO_ICMPV6, socket.IPPROTO_IPV6)


def option(level: int, number: int, value: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(level, number, value)


@attempt("have a receive buffer beyond the limit", reaches_out=True)
def rcvbufforce(_: Target) -> None:
    option(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)


@attempt("mark packets", reaches_out=True)
def mark(_: Target) -> None:
    option(socket.SOL_SOCKET, _SO_MARK, 1)


@attempt("send from any address", reaches_out=True)
def transparent(_: Target) -> None:
    option(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)


@attempt("listen on a port below 1024", reaches_out=True)
def low_port(_: Target) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 667))


@attempt("read upcalls by netlink", reaches_out=True)
def upcalls(_: Target) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _RTNLGRP_IPV4_MROUTE_R)


def rtnetlink(kind: int, body: bytes, *attributes: tuple[int, bytes]) -> None:
    data = body + b"".join(struct.pack("=HH", 4 + len(value), number) + value for number, value in attributes)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.bind((0, 0))
        sock.send(_HEADER.pack(_HEADER.size + len(data), kind, _REQUEST | _ACK | _CREATE, 1, 0) + data)
        (number,) = struct.unpack_from("=i", sock.recv(4096), _HEADER.size)
    if number:
        raise OSError(-number, os.strerror(-number))


@attempt("add an address", reaches_out=True)
def add_address(_: Target) -> None:
    body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, _LOOPBACK)
    rtnetlink(_RTM_NEWADDR, body, (2, socket.inet_aton("10.66.66.66")))


@attempt("set an interface up", reaches_out=True)
def set_link(_: Target) -> None:
    rtnetlink(_RTM_NEWLINK, struct.pack("=BxHiII", 0, 0, _LOOPBACK, 1, 1))


@attempt("add a route", reaches_out=True)
def add_route(_: Target) -> None:
    body = struct.pack("=8BI", socket.AF_INET, 32, 0, 0, 254, 4, 253, 1, 0)
    rtnetlink(_RTM_NEWROUTE, body, (1, socket.inet_aton("10.66.66.67")), (4, struct.pack("=I", _LOOPBACK)))


def add_rule(family: int) -> None:
    rtnetlink(_RTM_NEWRULE, struct.pack("=8BI", family, 0, 0, 0, 254, 0, 0, 1, 0), (6, struct.pack("=I", 31999)))


@attempt("add a rule", reaches_out=True)
def add_unicast_rule(_: Target) -> None:
    add_rule(socket.AF_INET)


@attempt("add a rule of multicast routing", reaches_out=True)
def add_multicast_rule(_: Target) -> None:
    add_rule(_RTNL_FAMILY_IPMR)
