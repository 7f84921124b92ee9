"""What the kernel itself says of changes in its multicast forwarding cache: one notification for each."""

import contextlib
import socket
import struct
from typing import Self

from mcastd.model.address import Family
from tests.testbed import Namespace

BUFFER = 256 << 20
"""Bytes of the socket's buffer: a notification takes about 1 kB of it, and a bulk write makes 100,000."""

# linux/rtnetlink.h, linux/netlink.h, asm-generic/socket.h
_GROUPS = {Family.IPV4: 6, Family.IPV6: 10}
_RTM_NEWROUTE = 24
_RTM_DELROUTE = 25
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_SO_RCVBUFFORCE = 33
_HEADER = struct.Struct("=IHHII")


class MfcNotices:
    """Counts the notifications of one family in one namespace since it was made; one that was lost is an error (ENOBUFS)."""

    def __init__(self, namespace: Namespace, family: Family) -> None:
        """Listen from now on."""
        self._socket = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
        except PermissionError:  # in a user namespace: net.core.rmem_max is the limit, by default room for some 250 notifications
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _GROUPS[family])
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def take(self) -> int:
        """How many there were since the last call. The kernel sends them before the call that makes the change returns."""
        changes = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self._socket.recv(1 << 16)
                at = 0
                while at < len(data):
                    length, kind, _, _, _ = _HEADER.unpack_from(data, at)
                    changes += kind in {_RTM_NEWROUTE, _RTM_DELROUTE}
                    at += (length + 3) & ~3
        return changes
