"""No packet is stuck beside its entry: flows whose first packets come so fast that some look for the entry while it is made."""

import socket
import sys
import time
from pathlib import Path

import pytest

from mcastd.model.address import Family
from tests.e2e.router import Router
from tests.testbed.daemon import route, wait_until

pytestmark = pytest.mark.kernel

FLOWS = 3_000
"""Of these some 140 had a packet stuck, which the kernel dropped after 10 s, before the keeper looked for it."""

ROOT = Path(__file__).parents[2]

PACKETS = 12
"""In one burst: the keeper answers after some 40 us, a packet takes 5 to 10."""

GAP = 0.0004
"""Seconds between the beginnings of two flows."""

_CACHES = {Family.IPV4: "/proc/thread-self/net/ip_mr_cache", Family.IPV6: "/proc/thread-self/net/ip6_mr_cache"}


def test_bursts_that_race_their_entry(router: Router) -> None:
    everything = "232.0.0.0/8" if router.family is Family.IPV4 else "ff3e::/32"
    router.put(route(everything, "", "up", "down1"))
    sender = router.star.source.namespace.popen(
        [sys.executable, "-m", "tests.e2e.test_stuck_packets", str(int(router.family)), router.source, str(FLOWS)], cwd=ROOT
    )
    assert sender.wait(60) == 0
    wait_until(lambda: unresolved(router) == 0, 5, lambda: f"{unresolved(router)} flows have a packet that waits")
    assert len(router.daemon.list_routes(learned=True)) > FLOWS


def unresolved(router: Router) -> int:
    """(S,G)s of which packets wait (an iif of -1, ipmr_mfc_seq_show)."""
    lines = router.namespace.run(lambda: Path(_CACHES[router.family]).read_text().splitlines())
    return sum(line.split()[2] == "-1" for line in lines[1:])


def send(family: int, address: str, flows: int) -> None:
    """Begin one flow after the other, each with a burst."""
    ipv4 = family == Family.IPV4
    sock = socket.socket(socket.AF_INET if ipv4 else socket.AF_INET6, socket.SOCK_DGRAM)
    if ipv4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 16)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 16)
    sock.bind((address, 0))
    for flow in range(flows):
        begun = time.perf_counter()
        group = f"232.9.{flow >> 8}.{flow & 255}" if ipv4 else f"ff3e::9:{flow:x}"
        for _ in range(PACKETS):
            sock.sendto(bytes(20), (group, 5000))
        while time.perf_counter() - begun < GAP:
            pass


if __name__ == "__main__":
    send(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
