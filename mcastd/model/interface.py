"""Interfaces: names, globs, and links as the kernel reports them."""

import fnmatch
import re
from dataclasses import dataclass
from functools import lru_cache

IFNAMSIZ = 16
"""include/uapi/linux/if.h: 15 bytes of name and the final NUL."""

VIFS_MAX = 32
"""MAXVIFS of linux/mroute.h, MAXMIFS of linux/mroute6.h: virtual interfaces in each table and family."""

_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface as the kernel has it now."""

    ifindex: int
    name: str
    up: bool
    """Administratively up and with carrier (IFF_UP and IFF_LOWER_UP)."""
    multicast: bool
    """IFF_MULTICAST, and not the loopback."""


@dataclass(frozen=True, slots=True)
class VifCounters:
    """What one VIF or MIF has carried since it was made (struct sioc_vif_req, linux/mroute.h)."""

    in_packets: int
    out_packets: int
    in_bytes: int
    out_bytes: int


def is_glob(name: str) -> bool:
    """Whether it is a pattern rather than a name."""
    return not _GLOB.isdisjoint(name)


@lru_cache(maxsize=4096)
def name_problem(name: str) -> str:
    """Why the kernel would never have an interface of this name (dev_valid_name, net/core/dev.c), or nothing."""
    if not name:
        return "is empty"
    if len(name.encode()) >= IFNAMSIZ:
        return f"is longer than {IFNAMSIZ - 1} bytes"
    if name in {".", ".."} or any(c in "/:" or c.isspace() or not c.isprintable() for c in name):
        return "holds characters that no interface name has"
    return ""


@lru_cache(maxsize=4096)
def glob_matcher(pattern: str) -> re.Pattern[str]:
    """The pattern compiled; use its `match`. Same grammar as fnmatch: * ? [seq] [!seq]."""
    return re.compile(fnmatch.translate(pattern))
