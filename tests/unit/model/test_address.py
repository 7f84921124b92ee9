"""mcastd.model.address: packed addresses, groups that are never forwarded, and keys."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.model.address import (
    Family,
    address_text,
    exact_key,
    exact_prefix,
    family_of,
    is_link_local_group,
    is_multicast,
    key_family,
    key_table,
    pack_address,
    split_key,
    table_prefix,
)

addresses = st.ip_addresses().map(lambda address: address.packed)
tables = st.integers(0, 0x7FFFFFFF)


@given(addresses)
def test_text_and_back(packed: bytes) -> None:
    text = address_text(packed)
    assert pack_address(text) == packed
    assert ipaddress.ip_address(text).packed == packed
    assert family_of(packed) == ipaddress.ip_address(text).version


@pytest.mark.parametrize(
    "text,canonical", [("FF3E:0:0::1", "ff3e::1"), ("::ffff:10.0.0.1", "::ffff:10.0.0.1"), ("10.0.0.1", "10.0.0.1")]
)
def test_text_is_canonical(text: str, canonical: str) -> None:
    assert address_text(pack_address(text)) == canonical


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0", "10.0.0.256", "010.0.0.1", "10.0.0.1/32", " 10.0.0.1", "fe80::1%eth0", "1::2::3", "eth0", "10.0.0.1\0", "é:"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError) as error:
        pack_address(text)
    assert repr(text) in str(error.value)


@given(addresses)
def test_multicast(packed: bytes) -> None:
    assert is_multicast(packed) == ipaddress.ip_address(packed).is_multicast


@pytest.mark.parametrize(
    "text,never",
    [
        ("224.0.0.0", True),
        ("224.0.0.255", True),
        ("224.0.1.0", False),
        ("239.0.0.1", False),
        ("ff00::1", True),
        ("ff01::1", True),
        ("ff02::1", True),
        ("ff12::1", True),
        ("ff32::1", True),
        ("ff03::1", False),
        ("ff05::2", False),
        ("ff0e::1", False),
        ("ff3e::1", False),
    ],
)
def test_groups_that_are_never_forwarded(text: str, never: bool) -> None:
    assert is_link_local_group(pack_address(text)) is never


@given(tables, st.booleans(), st.binary(min_size=32, max_size=32))
def test_keys_come_apart_as_they_were_put_together(table: int, v6: bool, data: bytes) -> None:
    size = 16 if v6 else 4
    group, source = data[:size], data[16 : 16 + size]
    key = exact_key(table, group, source)
    assert split_key(key) == (table, group, source)
    assert key_table(key) == table
    assert key_family(key) is (Family.IPV6 if v6 else Family.IPV4)
    assert (key[:4], len(key)) == exact_prefix(table, key_family(key))


def test_keys_of_one_group_lie_together() -> None:
    """In the order of their bytes: by table, then group, then source."""
    groups = [
        (table, group, source)
        for table in (0, 1, 256)
        for group in ("239.1.1.1", "239.1.1.2")
        for source in ("1.0.0.1", "9.0.0.1")
    ]
    keys = [exact_key(table, pack_address(group), pack_address(source)) for table, group, source in groups]
    assert keys == sorted(keys)
    assert table_prefix(256) == b"\0\0\1\0"
