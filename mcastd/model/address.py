"""Addresses as packed bytes, and the packed key of an exact (S,G).

Inside the daemon an address is 4 (IPv4) or 16 (IPv6) bytes in network order; text exists only at the edges.
"""

import socket
from enum import IntEnum
from functools import lru_cache

_pton = socket.inet_pton
_ntop = socket.inet_ntop

KEY_SIZE_V4 = 12
KEY_SIZE_V6 = 36


class Family(IntEnum):
    """Address family; the value is the IP version."""

    IPV4 = 4
    IPV6 = 6


def pack_address(text: str) -> bytes:
    """Return the packed form of an IPv4 or IPv6 address; ValueError if it is neither."""
    try:
        return _pton(socket.AF_INET6, text) if ":" in text else _pton(socket.AF_INET, text)
    except (OSError, ValueError) as exc:
        msg = f"{text!r} is not an IPv4 or IPv6 address"
        raise ValueError(msg) from exc


def address_text(packed: bytes) -> str:
    """Return the canonical text of a packed address (RFC 5952 for IPv6)."""
    return _ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def is_multicast(packed: bytes) -> bool:
    """Whether it is a group address: 224.0.0.0/4 (RFC 5771) or ff00::/8 (RFC 4291 section 2.7)."""
    first = packed[0]
    return 224 <= first < 240 if len(packed) == 4 else first == 0xFF


def is_link_local_group(packed: bytes) -> bool:
    """Whether routers never forward the group: 224.0.0.0/24 (RFC 5771 section 4), ff00::/16 to ff02::/16 by scope."""
    if len(packed) == 4:
        return packed[:3] == b"\xe0\x00\x00"
    return packed[0] == 0xFF and packed[1] & 0x0F <= 2


def family_of(packed: bytes) -> Family:
    """Family of a packed address."""
    return Family.IPV4 if len(packed) == 4 else Family.IPV6


def exact_key(table: int, group: bytes, source: bytes) -> bytes:
    """Key of an exact (S,G): table as 4 bytes in network order, group, source: 12 bytes or 36."""
    return table_prefix(table) + group + source


@lru_cache(maxsize=256)
def table_prefix(table: int) -> bytes:
    """The table's part of a key."""
    return table.to_bytes(4, "big")


def exact_prefix(table: int, family: Family) -> tuple[bytes, int]:
    """What the keys of one table and family have in common: their first 4 bytes and their length."""
    return table_prefix(table), KEY_SIZE_V4 if family is Family.IPV4 else KEY_SIZE_V6


def key_family(key: bytes) -> Family:
    """Family of the key of a route."""
    if key[0] >= 0x80:
        return Family(key[4])  # mcastd.model.template.TemplateKey.pack
    return Family.IPV4 if len(key) == KEY_SIZE_V4 else Family.IPV6


def key_table(key: bytes) -> int:
    """Routing table of the key of a route."""
    return int.from_bytes(key[:4], "big") & 0x7FFFFFFF


def split_key(key: bytes) -> tuple[int, bytes, bytes]:
    """Table, packed group and packed source of the key of an exact (S,G)."""
    middle = 8 if len(key) == KEY_SIZE_V4 else 20
    return int.from_bytes(key[:4], "big"), key[4:middle], key[middle:]
