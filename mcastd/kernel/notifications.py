"""Notifications: what the kernel says of changes of the forwarding cache and of VIFs, decoded by native/notifications.c.

Two rtnetlink groups of one family (RTNLGRP_IPV4_MROUTE and _NETCONF, or those of IPv6) on a socket that needs no privilege.
Our own additions and changes are filtered out in the kernel (rtm_protocol 17): they cost nothing. Our own removals come, and
so does what we write over an entry that somebody else has touched, which stays STATIC for good (ipmr_mfc_add).
"""

import errno
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

from mcastd.kernel._native import ffi, lib
from mcastd.kernel.mfc_dump import MfcDump, take
from mcastd.model.address import Family
from mcastd.model.errors import KernelRefused

RECEIVE_BUFFER = 4 << 20
"""Bytes asked for; the kernel grants at most net.core.rmem_max, and counts some 900 for a notification."""

REMOVED: int = lib.MR_REMOVED
"""What a notification has in the place of MfcEntry.unresolved where an entry was removed; 0 = it was added or changed."""

_SOL_NETLINK = 270
_GROUPS = {
    Family.IPV4: (lib.RTNLGRP_IPV4_MROUTE, lib.RTNLGRP_IPV4_NETCONF),
    Family.IPV6: (lib.RTNLGRP_IPV6_MROUTE, lib.RTNLGRP_IPV6_NETCONF),
}


class Notices(NamedTuple):
    """What one reading found."""

    entries: MfcDump
    """One record for each change, in order: MfcEntry.unresolved is REMOVED or 0; counters are as of the change."""
    removals: bool
    """Whether each of them is a removal: so it is with those of our own."""
    vifs: bool
    """Whether an interface's mc_forwarding may have changed: VIFs may have come or gone."""
    more: bool
    """Whether there may be more to read."""
    lost: bool
    """Whether some were lost or could not be understood: only a dump tells what has changed."""


class MfcMonitor:
    """The notifications of one family, of all its tables in this network namespace."""

    def __init__(self, family: Family) -> None:
        """Listen from now on. Raises KernelRefused."""
        self.family = family
        try:
            self._sock = _open(family)
        except OSError as exc:
            text = f"cannot hear of changes of the IPv{family.value} multicast forwarding cache (rtnetlink): {exc.strerror}"
            raise KernelRefused("NETLINK_ADD_MEMBERSHIP", exc.errno or 0, text, family=family.name) from exc

    def fileno(self) -> int:
        """The descriptor, for waiting."""
        return self._sock.fileno()

    def close(self) -> None:
        """Listen no more; may be called twice."""
        self._sock.close()

    def read(self, limit: int) -> Notices:
        """Read at most `limit` notifications, without waiting."""
        native = _new(self.family)
        result = lib.mr_notices_receive(native, self.fileno(), limit)
        return _notices(native, self.family, result)


def decode(family: Family, buffers: list[bytes]) -> Notices:
    """Decode received buffers, as `MfcMonitor.read` does."""
    native, result = _new(family), lib.MR_MORE
    for buffer in buffers:
        one = lib.mr_notices_feed(native, buffer, len(buffer))
        result = result if one == lib.MR_MORE else one
    return _notices(native, family, result)


def vifs_of_interface(family: Family, name: str) -> int | None:
    """How many VIFs the kernel has of an interface, in all tables (conf.IF.mc_forwarding); None = it does not say.

    It tells what the number of a VIF does not: that the number is another interface's by now.
    """
    try:
        return int(Path(f"/proc/sys/net/ipv{family.value}/conf/{name}/mc_forwarding").read_text("utf-8"))
    except OSError:  # The interface has gone, or is without this protocol (a small MTU), or there is no /proc.
        return None


def link_exists(ifindex: int) -> bool:
    """Whether there is an interface of this index now: a VIF that has gone with its link was taken by nobody."""
    try:
        socket.if_indextoname(ifindex)
    except OSError:
        return False
    return True


def _open(family: Family) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        _filter(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind((0, 0))
        for group in _GROUPS[family]:
            sock.setsockopt(_SOL_NETLINK, lib.NETLINK_ADD_MEMBERSHIP, group)
    except BaseException:
        sock.close()
        raise
    return sock


def _filter(sock: socket.socket) -> None:
    """Before it hears anything."""
    number = lib.mr_filter_notices(sock.fileno())
    if number:
        raise OSError(number, os.strerror(number))


def _new(family: Family) -> Any:
    native = lib.mr_notices_new(family is Family.IPV6)
    if native == ffi.NULL:
        raise MemoryError
    return ffi.gc(native, lib.mr_notices_free)


def _notices(native: Any, family: Family, result: int) -> Notices:
    if result == errno.ENOMEM:
        raise MemoryError
    entries = take(lib.mr_notices_mfc(native), family)
    lost = result not in {lib.MR_DONE, lib.MR_MORE}
    return Notices(
        entries,
        removals=not lib.mr_notices_changes(native),
        vifs=bool(lib.mr_notices_vifs(native)),
        more=result != lib.MR_DONE,
        lost=lost,
    )
