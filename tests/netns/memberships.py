"""Memberships as the kernel lists them in /proc/net, which is that of the namespace of the thread that reads it."""

import sys
from pathlib import Path

from mcastd.model.address import Family, pack_address
from tests.testbed.namespace import Namespace

FilterTable = dict[tuple[str, bytes], set[bytes]]
"""Joined sources by interface and group."""


def group_table(namespace: Namespace, family: Family, interface: str) -> set[bytes]:
    """Groups that an interface has joined (/proc/net/igmp, igmp6)."""
    if family is Family.IPV6:
        rows = [line.split() for line in _read(namespace, "igmp6").splitlines()]
        return {bytes.fromhex(row[2]) for row in rows if row[1] == interface}
    found, here = set(), False
    for line in _read(namespace, "igmp").splitlines()[1:]:
        if not line.startswith("\t"):
            here = line.split()[1] == interface
        elif here:
            found.add(int(line.split()[0], 16).to_bytes(4, sys.byteorder))
    return found


def source_table(namespace: Namespace, family: Family) -> FilterTable:
    """Sources that are joined (/proc/net/mcfilter, mcfilter6)."""
    found: FilterTable = {}
    for line in _read(namespace, "mcfilter" if family is Family.IPV4 else "mcfilter6").splitlines():
        number, interface, group, source, included, *_ = line.split()
        if number.isdigit() and int(included):
            found.setdefault((interface, _packed(group)), set()).add(_packed(source))
    return found


def _packed(text: str) -> bytes:
    if text.startswith("0x"):
        return int(text, 16).to_bytes(4)
    return pack_address(text) if ":" in text else bytes.fromhex(text)


def _read(namespace: Namespace, name: str) -> str:
    with namespace.entered():
        return Path("/proc/thread-self/net", name).read_text()
