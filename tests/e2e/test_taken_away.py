"""What somebody else takes out of the kernel behind the daemon's back comes back."""

import socket
import struct

import pytest

from mcastd.model.address import Family
from tests.e2e.router import PROGRAMMED, Router
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel

MRT_FLUSH = 212
EVERYTHING = 15
"""MRT_FLUSH_VIFS, _VIFS_STATIC, _MFC and _MFC_STATIC (linux/mroute.h)."""


def test_vifs_and_entries_that_are_flushed_come_back(router: Router) -> None:
    senders = [router.sender(n) for n in range(2)]
    router.put(*(router.route(sender, "down1") for sender in senders))
    for sender in senders:
        router.check_leaves(sender, "down1")
    ipv4 = router.family is Family.IPV4
    family, protocol = (socket.AF_INET, socket.IPPROTO_IGMP) if ipv4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    with router.namespace.socket(family, socket.SOCK_RAW, protocol) as other:
        level = socket.IPPROTO_IP if ipv4 else socket.IPPROTO_IPV6
        other.setsockopt(level, MRT_FLUSH, struct.pack("@i", EVERYTHING))
    wait_until(lambda: "interfaces have lost their VIFs" in router.daemon.log(), 20)
    for sender in senders:
        router.wait_state(sender, PROGRAMMED, "down1")
        router.check_leaves(sender, "down1")
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": 2}
