"""Opens multicast routing sockets; the keeper's part of the adapter (standard library and the C extension only).

A socket is given to the world with its filter in place: nothing but upcalls ever enters its queue. Without the filter
20,000 pings lose two thirds of the upcalls, and an IGMP flood all (measured, design.md).
"""

import errno
import logging
import os
import socket
import struct

from mcastd.kernel._native import ffi, lib
from mcastd.model.address import Family
from mcastd.model.errors import KernelRefused, McastdError, Reason

RECEIVE_BUFFER = 8 << 20
"""Bytes asked for: a burst of 5,000 new groups fits; the default buffer holds 256 upcalls (measured)."""

_DEFAULT_TABLE = {Family.IPV4: 253, Family.IPV6: 254}
"""RT_TABLE_DEFAULT (net/ipv4/ipmr.c) and RT6_TABLE_DFLT (net/ipv6/ip6mr.c): the default table's number in dumps."""

_CALL = {Family.IPV4: "MRT", Family.IPV6: "MRT6"}

_SO_MEMINFO = 55  # asm-generic/socket.h

_log = logging.getLogger(__name__)


def canonical_table(family: Family, table: int) -> int:
    """The daemon's number of a table: 0 for the family's default one, whose own number the kernel refuses (EADDRINUSE)."""
    return 0 if table == _DEFAULT_TABLE[family] else table


def kernel_table(family: Family, table: int) -> int:
    """The kernel's number of a table: its dumps know the default one by number only."""
    return table or _DEFAULT_TABLE[family]


def open_mroute(family: Family, table: int = 0) -> socket.socket:
    """Open the multicast routing socket of a table, filtered, initialised and non-blocking.

    Whoever has it, and every process that inherits it, may program the table without any capability; when its last
    duplicate closes, the kernel removes the table's VIFs and entries.

    Raises McastdError: MROUTE_SOCKET_BUSY, NOT_ALLOWED, or KERNEL_ERROR (KernelRefused), each saying what to do.
    """
    table = canonical_table(family, table)
    step = "socket"
    try:
        sock = _raw_socket(family)
        try:
            if table:
                step = f"{_CALL[family]}_TABLE"
                _set(sock, family, lib.MRT_TABLE, table)
            step = "filter"
            _filter(sock, family)
            step = "SO_RXQ_OVFL"
            sock.setsockopt(socket.SOL_SOCKET, lib.SO_RXQ_OVFL, 1)
            _enlarge(sock)
            step = f"{_CALL[family]}_INIT"
            _set(sock, family, lib.MRT_INIT, 1)
            step = f"{_CALL[family]}_ASSERT"
            _set(sock, family, lib.MRT_ASSERT, 1)
            _ask_for_every_wrong_interface(sock, family)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        raise _refusal(family, table, step, exc) from exc
    return sock


def adopt(fd: int) -> socket.socket:
    """Wrap an inherited multicast routing socket; the socket owns the descriptor from now on.

    Raises ValueError where the descriptor is no raw IGMP or ICMPv6 socket; it is left open then.
    """
    try:
        sock = socket.socket(fileno=fd)  # asks the kernel for family, type and protocol
    except OSError as exc:
        raise ValueError(f"descriptor {fd} is no socket: {exc.strerror}") from exc
    if (sock.family, sock.type, sock.proto) not in {
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP),
        (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    }:
        sock.detach()
        raise ValueError(
            f"descriptor {fd} is no multicast routing socket: family {sock.family}, type {sock.type}, protocol {sock.proto}"
        )
    sock.setblocking(False)
    return sock


def assert_mroute(sock: socket.socket, family: Family) -> None:
    """Set an option that is set already: OSError (EACCES) if the socket has no table, and CAP_NET_ADMIN is not effective."""
    _set(sock, family, lib.MRT_ASSERT, 1)


def has_vif(sock: socket.socket, family: Family, vif: int) -> bool:
    """Whether the socket's table has a VIF of this number."""
    read = lib.mr_vif_counters4 if family is Family.IPV4 else lib.mr_vif_counters6
    return not read(sock.fileno(), vif, ffi.new("uint64_t[4]"))


def dropped(sock: socket.socket) -> int:
    """How many packets have found the buffer full so far, modulo 2**32 (SO_MEMINFO, sk_get_meminfo in net/core/sock.c)."""
    return int(struct.unpack("=9I", sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))[8])


def family_of_socket(sock: socket.socket) -> Family:
    """Family of a multicast routing socket."""
    return Family.IPV4 if sock.family == socket.AF_INET else Family.IPV6


def _raw_socket(family: Family) -> socket.socket:
    if family is Family.IPV4:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
    else:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    sock.setblocking(False)
    return sock


def _set(sock: socket.socket, family: Family, option: int, value: int) -> None:
    sock.setsockopt(socket.IPPROTO_IP if family is Family.IPV4 else socket.IPPROTO_IPV6, option, value)


def _filter(sock: socket.socket, family: Family) -> None:
    install = lib.mr_filter_upcalls4 if family is Family.IPV4 else lib.mr_filter_upcalls6
    number = install(sock.fileno())
    if number:
        raise OSError(number, os.strerror(number))
    # What came in between socket() and the filter: only upcalls may be read, and before MRT_INIT there are none.
    while True:
        try:
            sock.recv(1)
        except BlockingIOError:
            return


def _enlarge(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, lib.SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:
        # Without CAP_NET_ADMIN: as much as net.core.rmem_max allows.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def _ask_for_every_wrong_interface(sock: socket.socket, family: Family) -> None:
    """Turn on MRT_PIM: without it WRONGVIF comes only for interfaces that are oifs of the entry (ip_mr_forward).

    It touches nothing else here: PIM packets are handled by pim_rcv whether it is on or off, and decapsulated only where
    a register VIF exists, which mcastd never makes; 1 is not IGMPMSG_WRVIFWHOLE, so no whole packets come up.
    """
    try:
        _set(sock, family, lib.MRT_PIM, 1)
    except OSError as exc:
        if exc.errno != errno.ENOPROTOOPT:
            raise
        _log.warning("kernel without PIM-SM support: packets on a wrong interface are reported for oifs only (IPv%d)", family)


def _refusal(family: Family, table: int, step: str, exc: OSError) -> McastdError:
    where = {"family": family.name, "table": table, "call": step}
    name = f"the IPv{family.value} multicast routing socket of table {table}"
    if exc.errno == errno.EADDRINUSE:
        other = ", or give mcastd another table" if table else ""  # the default table is always opened
        return McastdError(
            Reason.MROUTE_SOCKET_BUSY,
            f"another multicast routing daemon holds table {table} of IPv{family.value} in this network namespace: stop it "
            f"(smcrouted, pimd, mrouted, another mcastd){other}",
            **where,
        )
    if exc.errno in {errno.EPERM, errno.EACCES}:
        capability = "CAP_NET_ADMIN" if step.endswith("_TABLE") else "CAP_NET_RAW"
        return McastdError(
            Reason.NOT_ALLOWED,
            f"not allowed to open {name}: {step} needs {capability} in the user namespace that owns the network namespace",
            capability=capability,
            **where,
        )
    if exc.errno in {errno.ENOPROTOOPT, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}:
        options = "CONFIG_IP_MROUTE" if family is Family.IPV4 else "CONFIG_IPV6_MROUTE"
        more = f" and {options}_MULTIPLE_TABLES" if step.endswith("_TABLE") else ""
        message = f"cannot open {name}: the kernel has no IPv{family.value} multicast routing (it needs {options}{more})"
    else:
        message = f"cannot open {name}: {step}: {exc.strerror}"
    return KernelRefused(step, exc.errno or 0, message, family=family.name, table=table)
