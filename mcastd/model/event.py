"""Events: what the outside tells the engine."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from mcastd.model.interface import Link


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """An interface is new, or differs from before: a rename is the same ifindex under another name."""

    link: Link


@dataclass(frozen=True, slots=True)
class LinkGone:
    """An interface is no more."""

    ifindex: int
    name: str


@dataclass(frozen=True, slots=True)
class LinksResync:
    """All interfaces, as they are now, after changes were lost."""

    links: tuple[Link, ...]


LinkEvent = LinkChanged | LinkGone | LinksResync


class UpcallKind(IntEnum):
    """Why the kernel called (IGMPMSG_* of linux/mroute.h; MRT6MSG_* have the same numbers)."""

    NOCACHE = 1
    WRONGVIF = 2
    WHOLEPKT = 3
    WRVIFWHOLE = 4


class Answer(IntEnum):
    """What the keeper did about a NOCACHE upcall, at once."""

    NONE = 0
    """No template is meant."""
    INSTALLED = 1
    """The template's entry is in the kernel."""
    PRESENT = 2
    """The kernel has an entry by now: another upcall of the same flow, or an exact route, was faster."""
    CAPPED = 3
    """The template has as many learned entries as it may."""
    REFUSED = 4
    """The kernel refused the entry."""
    ELSEWHERE = 5
    """The packet is a stray one: templates cover it on one other interface alone. The entry is in the kernel for that one, so
    that what comes in there does not wait behind the stray packet."""


KernelPaths = tuple[int, tuple[tuple[int, int], ...]]
"""What an MFC entry does, as a dump tells: ifindex of the iif (0 = its VIF does not exist), and (ifindex, TTL threshold) of
each oif, sorted; the threshold is 1 for IPv6. Bits of VIFs that do not exist are not told."""


class AdoptedEntry(NamedTuple):
    """An MFC entry that was found in the kernel at start."""

    key: bytes
    paths: KernelPaths
    foreign: bool
    """Added by somebody else through a socket of theirs (MFC_STATIC, rtm_protocol 4)."""


class AdoptedVif(NamedTuple):
    """A number of the keeper's VIF map, and whether the kernel has such a VIF."""

    vif: int
    ifindex: int
    name: str
    present: bool
