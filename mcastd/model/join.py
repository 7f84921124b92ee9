"""Joins: what owners want to be joined, and the memberships of the kernel that this comes to."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mcastd.model.address import Family, is_link_local_group
from mcastd.model.route import Route
from mcastd.model.template import parts_of, prefix_text

MEMBERSHIPS_MAX = 4096
"""Memberships that the prefixes of one join may stand for."""


class JoinKey(NamedTuple):
    """Identity of a join: each owner has its own, and a membership stays while any of them wants it."""

    owner: str
    interface: str
    """Name or glob."""
    group: bytes
    """Packed, host bits zero."""
    group_length: int
    source: bytes
    """Packed, host bits zero; empty = any source."""
    source_length: int

    @property
    def size(self) -> int:
        """Memberships that the prefixes stand for, on each interface."""
        groups = 1 << 8 * len(self.group) - self.group_length
        return groups << 8 * len(self.source) - self.source_length if self.source else groups

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """Group and source of each; without link-local groups at the edge of a prefix, which nobody forwards."""
        size = len(self.group)
        first, last = _span(self.group, self.group_length)
        sources = [b""]
        if self.source:
            sources = [number.to_bytes(size, "big") for number in range(*_span(self.source, self.source_length))]
        for number in range(first, last):
            group = number.to_bytes(size, "big")
            if not is_link_local_group(group):
                for source in sources:
                    yield group, source

    def __str__(self) -> str:
        """For messages and logs."""
        source = prefix_text(self.source, self.source_length) or "*"
        return f"({source}, {prefix_text(self.group, self.group_length)}) on {self.interface}"


def _span(address: bytes, length: int) -> tuple[int, int]:
    first = int.from_bytes(address, "big")
    return first, first + (1 << 8 * len(address) - length)


def route_join_key(route: Route) -> JoinKey:
    """The join that a route with `join` makes: its group and source on its iif, in its owner's name."""
    parts = parts_of(route.key)
    source = parts.source if parts.source_length else b""
    return JoinKey(route.owner, route.paths.iif, parts.group, parts.group_length, source, parts.source_length)


@dataclass(slots=True)
class JoinRecord:
    """One join as it is wanted and stored."""

    key: JoinKey
    cookie: str = ""
    revision: int = 0
    """Of its last change."""


class Membership(NamedTuple):
    """One membership of the kernel on one interface: any-source, or of one source."""

    ifindex: int
    group: bytes
    """4 or 16 bytes."""
    source: bytes
    """As long; empty = any source."""

    @property
    def family(self) -> Family:
        """Which sockets hold it."""
        return Family.IPV4 if len(self.group) == 4 else Family.IPV6
