"""What interfaces have joined, as /proc/net/igmp and igmp6 list it for the network namespace of the thread that reads."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from mcastd.kernel.joinnotes import Spot
from mcastd.model.address import Family

_PROC = Path("/proc/thread-self/net")


def listed_spots(family: Family) -> set[Spot]:
    """Every group that any interface has joined, whoever wants it; OSError where there is no list, and then no multicast."""
    if family is Family.IPV6:
        path = _PROC / "igmp6"  # missing where the kernel has no IPv6
        return set(read_igmp6(path.read_text("utf-8", "replace").splitlines())) if path.exists() else set()
    return set(read_igmp((_PROC / "igmp").read_text("utf-8", "replace").splitlines()))


def read_igmp(lines: Iterable[str]) -> Iterator[Spot]:
    """Lines of igmp (igmp_mc_seq_show, net/ipv4/igmp.c): one for the interface, then one for each of its groups."""
    ifindex = 0
    for line in lines:
        first = line.split(maxsplit=1)[:1]
        if not line.startswith("\t"):
            ifindex = int(first[0]) if first and first[0].isdigit() else 0
        elif ifindex and first:
            yield Spot(ifindex, int(first[0], 16).to_bytes(4, sys.byteorder))


def read_igmp6(lines: Iterable[str]) -> Iterator[Spot]:
    """Lines of igmp6 (igmp6_mc_seq_show, net/ipv6/mcast.c): ifindex, interface, group and more."""
    for line in lines:
        ifindex, _, group, *_ = line.split()
        yield Spot(int(ifindex), bytes.fromhex(group))
