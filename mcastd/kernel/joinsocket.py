"""One join socket: what it has joined, as we know it and as the kernel says.

What holds of the kernel (net/ipv4/igmp.c, net/ipv6/mcast.c, measured on 6.18):
- A socket has at most net.ipv4.igmp_max_memberships groups (20; IPv6: what net.core.optmem_max bytes hold), and of each at most
  net.ipv4.igmp_max_msf (10) or net.ipv6.mld_max_msf (64) sources: beyond that ENOBUFS or ENOMEM.
- One group on one interface is either joined whole or by sources: a source joined beside the whole replaces it silently.
- When an interface goes, its groups stay joined on the socket; they count, and are left by the group alone (by source: ENODEV).
"""

import errno
import logging
import os
import socket
from typing import Any

from mcastd.kernel._native import ffi, lib
from mcastd.kernel.joinnotes import Spot
from mcastd.model.address import Family
from mcastd.model.join import Membership

FULL = frozenset({errno.ENOBUFS, errno.ENOMEM})
"""The socket takes no more groups, or no more sources of this one."""

ANY = b""
"""Stands among the sources of a group for all of them."""

_ROOM = 64

_log = logging.getLogger(__name__)


class JoinSocket:
    """A UDP socket, never bound, that hears nothing."""

    __slots__ = ("family", "full", "full_spots", "name", "noted", "number", "sock", "spots")

    def __init__(self, number: int, family: Family, sock: socket.socket) -> None:
        """Own the socket; `number` is in its name."""
        self.number = number
        self.family = family
        self.name = f"join-{number}"
        self.sock = sock
        self.spots: dict[Spot, set[bytes]] = {}
        """Sources by group; just ANY = the group whole."""
        self.noted: frozenset[Spot] | None = None
        """What the holder's note says; None = it does not have the socket."""
        self.full = False
        """Whether it has refused another group since something left it."""
        self.full_spots: set[Spot] = set()
        """Groups of which it has refused another source since something left it."""

    @classmethod
    def open(cls, number: int, family: Family) -> "JoinSocket":
        """Make one in the network namespace of this thread; OSError if there are no descriptors left."""
        sock = socket.socket(socket.AF_INET if family is Family.IPV4 else socket.AF_INET6, socket.SOCK_DGRAM)
        refused = lib.jn_deaf(sock.fileno(), family is Family.IPV6)
        if refused:
            sock.close()
            raise OSError(refused, os.strerror(refused))
        return cls(number, family, sock)

    def join(self, one: Membership) -> int:
        """Join; an errno."""
        return self._change(one, 1)

    def leave(self, one: Membership) -> int:
        """Leave; an errno. ENODEV: the interface has gone, see leave_spot."""
        return self._change(one, 0)

    def leave_spot(self, spot: Spot) -> int:
        """Leave a group with all its sources, also where its interface has gone; an errno."""
        return lib.jn_group(self.sock.fileno(), self.family is Family.IPV6, 0, spot.ifindex, spot.group)

    def probe(self, spot: Spot) -> list[bytes]:
        """Which sources of a group it has joined, as the kernel says: none, [ANY], or some."""
        fd, ipv6, room = self.sock.fileno(), self.family is Family.IPV6, _ROOM
        state: Any = ffi.new("jn_state *")
        while True:
            sources = ffi.new("uint8_t[]", room * 16)
            refused = lib.jn_filter(fd, ipv6, spot.ifindex, spot.group, room, sources, state)
            if refused or state.sources <= room:
                break
            room = state.sources
        if refused:
            if refused != errno.EADDRNOTAVAIL:
                _log.warning("a join socket does not say what it has joined", extra={"error": os.strerror(refused)})
            return []
        if state.any_source:
            return [ANY]
        size = len(spot.group)
        packed = bytes(ffi.buffer(sources, state.sources * size))
        return [packed[at : at + size] for at in range(0, len(packed), size)]

    def _change(self, one: Membership, join: int) -> int:
        fd, ipv6 = self.sock.fileno(), self.family is Family.IPV6
        if one.source:
            return lib.jn_source(fd, ipv6, join, one.ifindex, one.group, one.source)
        return lib.jn_group(fd, ipv6, join, one.ifindex, one.group)


def number_of(name: str) -> int | None:
    """The number in the name of a join socket; None = it is none."""
    start, _, digits = name.partition("-")
    return int(digits) if start == "join" and digits.isascii() and digits.isdigit() else None
