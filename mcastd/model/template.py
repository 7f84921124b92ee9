"""Templates: which packets they are for, which of several is meant, and what the entry that one makes does.

Shared by the keeper, which answers upcalls, and the engine, which must come to the same answer.
"""

import sys
from bisect import insort
from collections.abc import Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

from mcastd.model.address import Family, address_text, split_key
from mcastd.model.interface import VIFS_MAX, is_glob

TEMPLATE_BIT = 1 << 31
"""Set in the table's part of a template's key: tables go to 999,999,999."""

TEMPLATE_MARK = TEMPLATE_BIT >> 24
"""First byte from which on a key is that of a template."""

ANY_VIF = (1 << VIFS_MAX) - 1
"""Every number: a template that does not say where its packets come in."""

IifRank = tuple[int, int, str]


class TemplateKey(NamedTuple):
    """What makes a template: two that differ in iif alone are two."""

    table: int
    family: Family
    group: bytes
    group_length: int
    """Prefix length in bits."""
    source: bytes
    source_length: int
    """0 = any source."""
    iif: str
    """Name, glob, or nothing for any."""

    def pack(self) -> bytes:
        """The key as bytes; its first bit tells it from the key of an exact (S,G)."""
        head = (self.table | TEMPLATE_BIT).to_bytes(4, "big") + bytes((self.family, self.group_length, self.source_length))
        return head + self.group + self.source + self.iif.encode()


def is_template_key(key: bytes) -> bool:
    """Whether a key is that of a template."""
    return key[0] >= 0x80


def unpack_template_key(key: bytes) -> TemplateKey:
    """Undo TemplateKey.pack; ValueError or IndexError for other bytes."""
    family = Family(key[4])
    size = 4 if family is Family.IPV4 else 16
    group, source, iif = key[7 : 7 + size], key[7 + size : 7 + 2 * size], key[7 + 2 * size :].decode()
    table = int.from_bytes(key[:4], "big") & ~TEMPLATE_BIT
    return TemplateKey(table, family, group, key[5], source, key[6], iif)


def parts_of(key: bytes) -> TemplateKey:
    """The parts of any route's key; those of an exact (S,G) have full lengths and no iif."""
    if is_template_key(key):
        return unpack_template_key(key)
    table, group, source = split_key(key)
    bits = 8 * len(group)
    return TemplateKey(table, Family.IPV4 if bits == 32 else Family.IPV6, group, bits, source, bits, "")


def prefix_text(address: bytes, length: int) -> str:
    """Text of a prefix: without a length where it is one address, empty where it is any."""
    if not length:
        return ""
    text = address_text(address)
    return text if length == 8 * len(address) else f"{text}/{length}"


def key_text(key: bytes) -> str:
    """(S,G) for messages and logs, with the iif of a template, and the table where it is not the default one."""
    parts = parts_of(key)
    where = f" from {parts.iif}" if parts.iif else ""
    table = f" in table {parts.table}" if parts.table else ""
    source = prefix_text(parts.source, parts.source_length) or "*"
    return f"({source}, {prefix_text(parts.group, parts.group_length)}){where}{table}"


def masked(address: bytes, length: int) -> int:
    """The first `length` bits of an address, as a number."""
    return int.from_bytes(address, "big") >> (8 * len(address) - length)


def covers(key: TemplateKey, group: bytes, source: bytes) -> bool:
    """Whether an (S,G) of its table and family is inside the template's prefixes, whatever the iif."""
    return masked(group, key.group_length) == masked(key.group, key.group_length) and masked(source, key.source_length) == masked(
        key.source, key.source_length
    )


def iif_rank(iif: str) -> IifRank:
    """Order of templates that differ in iif alone: a name, the glob with the longest literal part, any; then text order."""
    if not iif:
        return 2, 0, ""
    if is_glob(iif):
        return 1, -sum(c not in "*?[]!" for c in iif), iif
    return 0, 0, iif


class TemplateAction(NamedTuple):
    """What the entries of a template do, by VIF number."""

    allowed: int
    """Bit n: packets that come in on VIF n are meant."""
    body: bytes
    """Bytes 2 to 34 of Forwarding.packed: TTL thresholds, or the if_set."""
    named: int
    """Bit n: VIF n was named among the oifs outright, so it stays one where packets come in on it; a glob's match does not."""

    def forwarding(self, family: Family, vif: int) -> bytes:
        """Forwarding.packed of the entry for a packet that came in on `vif`."""
        parent = vif.to_bytes(2, sys.byteorder)
        if self.named >> vif & 1:
            return parent + self.body
        body = bytearray(self.body)
        if family is Family.IPV4:
            body[vif] = 255
        else:
            bits = int.from_bytes(body[:4], sys.byteorder) & ~(1 << vif)
            body[:4] = bits.to_bytes(4, sys.byteorder)
        return parent + bytes(body)

    def bits(self, family: Family) -> int:
        """VIF numbers that its entries may name as oifs."""
        if family is Family.IPV4:
            return sum(1 << n for n, ttl in enumerate(self.body) if ttl < 255)
        return int.from_bytes(self.body[:4], sys.byteorder)


class TemplateChange(NamedTuple):
    """A template as the keeper is to have it, or (no action) one that it is to forget."""

    key: TemplateKey
    name: bytes
    """8 bytes that stand for the key in upcall records."""
    action: TemplateAction | None
    learned: int = 0
    """Entries that it has made and that are there still."""
    cap: int = 0
    """Entries that it may have."""


class Matchable(Protocol):
    """What an index holds."""

    @property
    def allowed(self) -> int:
        """VIF numbers (bits) on which its packets come in."""


M = TypeVar("M", bound=Matchable)


class TemplateIndex(Generic[M]):
    """Templates of one table and family, found by longest match.

    The cost of a search grows with the number of distinct pairs of prefix lengths, not with the number of templates.
    """

    __slots__ = ("_bits", "_buckets", "_order")

    def __init__(self, family: Family) -> None:
        """An empty index."""
        self._bits = 32 if family is Family.IPV4 else 128
        self._buckets: dict[tuple[int, int], dict[tuple[int, int], list[tuple[IifRank, M]]]] = {}
        self._order: list[tuple[int, int, dict[tuple[int, int], list[tuple[IifRank, M]]]]] = []
        """Bits to drop of group and source, the most specific first."""

    def __len__(self) -> int:
        """Templates."""
        return sum(len(found) for bucket in self._buckets.values() for found in bucket.values())

    def put(self, key: TemplateKey, value: M) -> None:
        """Add a template, or replace the value of one that is there."""
        lengths = key.group_length, key.source_length
        bucket = self._buckets.get(lengths)
        if bucket is None:
            bucket = self._buckets[lengths] = {}
            drops = self._bits - lengths[0], self._bits - lengths[1]
            self._order.append((*drops, bucket))
            self._order.sort(key=lambda entry: entry[:2])
        rank, where = iif_rank(key.iif), (masked(key.group, lengths[0]), masked(key.source, lengths[1]))
        found = bucket.setdefault(where, [])
        found[:] = [entry for entry in found if entry[0] != rank]
        insort(found, (rank, value), key=lambda entry: entry[0])

    def remove(self, key: TemplateKey) -> None:
        """Take a template out; KeyError if it is not there."""
        lengths = key.group_length, key.source_length
        bucket = self._buckets[lengths]
        where = masked(key.group, lengths[0]), masked(key.source, lengths[1])
        rank, found = iif_rank(key.iif), bucket[where]
        left = [entry for entry in found if entry[0] != rank]
        if len(left) == len(found):
            raise KeyError(key)
        found[:] = left
        if not found:
            del bucket[where]
        if not bucket:
            del self._buckets[lengths]
            self._order = [entry for entry in self._order if entry[2] is not bucket]

    def find(self, group: bytes, source: bytes, vif: int) -> M | None:
        """The template meant for an (S,G) that came in on a VIF."""
        g, s = int.from_bytes(group, "big"), int.from_bytes(source, "big")
        for group_drop, source_drop, bucket in self._order:
            found = bucket.get((g >> group_drop, s >> source_drop))
            if found is not None:
                for _, value in found:
                    if value.allowed >> vif & 1:
                        return value
        return None

    def covering(self, group: bytes, source: bytes) -> Iterator[M]:
        """All templates that cover an (S,G), on whatever iif; the most specific first."""
        g, s = int.from_bytes(group, "big"), int.from_bytes(source, "big")
        for group_drop, source_drop, bucket in self._order:
            for _, value in bucket.get((g >> group_drop, s >> source_drop), ()):
                yield value
