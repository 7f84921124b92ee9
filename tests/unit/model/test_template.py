"""Which template is meant for a packet: compared with the rule spelled out, in every order of insertion."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.core.templates import template_name
from mcastd.model.address import Family, exact_key, pack_address
from mcastd.model.interface import VIFS_MAX
from mcastd.model.template import (
    ANY_VIF,
    TEMPLATE_MARK,
    TemplateAction,
    TemplateIndex,
    TemplateKey,
    covers,
    iif_rank,
    is_template_key,
    key_text,
    masked,
    parts_of,
    prefix_text,
    unpack_template_key,
)

families = st.sampled_from(Family)
IIFS = ("", "eth0", "eth1", "eth*", "e*", "*", "?th0", "eth[01]")


def size_of(family: Family) -> int:
    return 4 if family is Family.IPV4 else 16


@st.composite
def keys(draw: st.DrawFn, family: Family, table: int = 0) -> TemplateKey:
    """Keys that often overlap: few bits differ, at both ends of the address."""
    size = size_of(family)

    def prefix(shortest: int) -> tuple[bytes, int]:
        length = draw(st.sampled_from([n for n in (0, 4, 8, 9, 8 * size - 1, 8 * size) if n >= shortest]))
        address = draw(addresses(family, multicast=shortest > 0))
        drop = 8 * size - length
        return (int.from_bytes(address, "big") >> drop << drop).to_bytes(size, "big"), length

    return TemplateKey(table, family, *prefix(4), *prefix(0), draw(st.sampled_from(IIFS)))


@st.composite
def addresses(draw: st.DrawFn, family: Family, *, multicast: bool) -> bytes:
    first = draw(st.sampled_from([224, 225, 239] if multicast else [10, 11]))
    return bytes([first, draw(st.sampled_from([0, 128, 255])), *bytes(size_of(family) - 3), draw(st.integers(0, 3))])


class Entry:
    """A template in an index."""

    def __init__(self, key: TemplateKey, allowed: int) -> None:
        self.key = key
        self.allowed = allowed


@st.composite
def cases(draw: st.DrawFn) -> tuple[Family, list[Entry], bytes, bytes, int]:
    family = draw(families)
    found = draw(st.lists(keys(family), unique=True, max_size=12))
    entries = [Entry(key, draw(st.integers(0, 15))) for key in found]
    group, source = draw(addresses(family, multicast=True)), draw(addresses(family, multicast=False))
    return family, draw(st.permutations(entries)), group, source, draw(st.integers(0, 4))


def rank(entry: Entry) -> tuple[int, int, tuple[int, int, str]]:
    """The order of preference of design.md: group, source, iif."""
    return -entry.key.group_length, -entry.key.source_length, iif_rank(entry.key.iif)


def expected(entries: list[Entry], group: bytes, source: bytes) -> list[Entry]:
    return sorted((one for one in entries if covers(one.key, group, source)), key=rank)


@given(cases())
def test_most_specific_wins_whatever_the_order(case: tuple[Family, list[Entry], bytes, bytes, int]) -> None:
    family, entries, group, source, vif = case
    index: TemplateIndex[Entry] = TemplateIndex(family)
    for entry in entries:
        index.put(entry.key, entry)
    assert len(index) == len(entries)
    covering = expected(entries, group, source)
    assert list(index.covering(group, source)) == covering
    assert index.find(group, source, vif) is next((one for one in covering if one.allowed >> vif & 1), None)


@given(cases(), st.data())
def test_what_is_removed_leaves_the_rest_as_if_it_had_never_been_there(
    case: tuple[Family, list[Entry], bytes, bytes, int], data: st.DataObject
) -> None:
    family, entries, group, source, vif = case
    index: TemplateIndex[Entry] = TemplateIndex(family)
    gone = [entry for entry in entries if data.draw(st.booleans())]
    for entry in entries:
        index.put(entry.key, entry)
    for entry in gone:
        index.remove(entry.key)
        with pytest.raises(KeyError):
            index.remove(entry.key)
    left = [entry for entry in entries if entry not in gone]
    assert len(index) == len(left)
    covering = expected(left, group, source)
    assert list(index.covering(group, source)) == covering
    assert index.find(group, source, vif) is next((one for one in covering if one.allowed >> vif & 1), None)


def test_put_again_replaces() -> None:
    index: TemplateIndex[Entry] = TemplateIndex(Family.IPV4)
    key = TemplateKey(0, Family.IPV4, pack_address("232.1.0.0"), 16, bytes(4), 0, "eth0")
    first, second = Entry(key, ANY_VIF), Entry(key, ANY_VIF)
    index.put(key, first)
    index.put(key, second)
    assert len(index) == 1
    assert index.find(pack_address("232.1.2.3"), pack_address("10.0.0.1"), 31) is second


def test_cost_does_not_grow_with_the_number_of_templates() -> None:
    """What a search looks at: one place for each pair of prefix lengths."""
    index: TemplateIndex[Entry] = TemplateIndex(Family.IPV4)
    for n in range(5000):
        key = TemplateKey(0, Family.IPV4, bytes([232, n >> 8, n & 255, 1]), 32, bytes(4), 0, "eth0")
        index.put(key, Entry(key, 1))
    assert len(index._order) == 1
    found = index.find(bytes([232, 1, 2, 1]), pack_address("10.0.0.1"), 0)
    assert found is not None
    assert found.key.group == bytes([232, 1, 2, 1])


@pytest.mark.parametrize(
    "better,worse",
    [("eth0", "eth*"), ("eth0", ""), ("eth*", "e*"), ("e*", "*"), ("*", ""), ("eth0", "eth1"), ("a*", "b*"), ("eth", "eth?")],
)
def test_order_of_iifs(better: str, worse: str) -> None:
    """A name, the glob with the longest literal part, any; then text order."""
    assert iif_rank(better) < iif_rank(worse)


@given(st.data(), families, st.integers(0, 999_999_999))
def test_key_survives_packing(data: st.DataObject, family: Family, table: int) -> None:
    key = data.draw(keys(family, table))
    packed = key.pack()
    assert is_template_key(packed)
    assert packed[0] >= TEMPLATE_MARK
    assert unpack_template_key(packed) == parts_of(packed) == key
    assert len(template_name(packed)) == 8
    assert not is_template_key(exact_key(table, key.group, key.source))


@given(st.binary(max_size=80))
def test_other_bytes_are_refused_or_read(data: bytes) -> None:
    """Never anything but ValueError and IndexError, which callers know of."""
    try:
        unpack_template_key(data)
    except (ValueError, IndexError):
        return


def test_parts_of_an_exact_route() -> None:
    group, source = pack_address("ff3e::1"), pack_address("fd00::1")
    assert parts_of(exact_key(7, group, source)) == TemplateKey(7, Family.IPV6, group, 128, source, 128, "")


def test_texts() -> None:
    key = TemplateKey(3, Family.IPV4, pack_address("232.1.0.0"), 16, bytes(4), 0, "eth*")
    assert key_text(key.pack()) == "(*, 232.1.0.0/16) from eth* in table 3"
    assert key_text(exact_key(0, pack_address("232.1.1.1"), pack_address("10.0.0.1"))) == "(10.0.0.1, 232.1.1.1)"
    assert prefix_text(pack_address("ff3e::"), 32) == "ff3e::/32"


@given(families, st.data())
def test_covers_is_what_prefixes_mean(family: Family, data: st.DataObject) -> None:
    key = data.draw(keys(family))
    group, source = data.draw(addresses(family, multicast=True)), data.draw(addresses(family, multicast=False))

    def bits(address: bytes) -> str:
        return "".join(f"{byte:08b}" for byte in address)

    inside = bits(group)[: key.group_length] == bits(key.group)[: key.group_length]
    inside = inside and bits(source)[: key.source_length] == bits(key.source)[: key.source_length]
    assert covers(key, group, source) is inside
    assert masked(group, 0) == 0


@given(st.integers(0, ANY_VIF), st.integers(0, ANY_VIF), st.integers(0, VIFS_MAX - 1))
def test_entry_of_a_template_leaves_the_iif_out_unless_it_is_named(oifs: int, named: int, vif: int) -> None:
    """In both families; everything else is as the template says."""
    left = oifs if named >> vif & 1 else oifs & ~(1 << vif)
    ttls = bytes(7 if oifs >> n & 1 else 255 for n in range(VIFS_MAX))
    action = TemplateAction(ANY_VIF, ttls, named)
    assert action.bits(Family.IPV4) == oifs
    packed = action.forwarding(Family.IPV4, vif)
    assert packed[:2] == vif.to_bytes(2, sys.byteorder)
    assert packed[2:] == bytes(7 if left >> n & 1 else 255 for n in range(VIFS_MAX))

    action = TemplateAction(ANY_VIF, oifs.to_bytes(4, sys.byteorder) + bytes(VIFS_MAX - 4), named)
    assert action.bits(Family.IPV6) == oifs
    packed = action.forwarding(Family.IPV6, vif)
    assert packed[:2] == vif.to_bytes(2, sys.byteorder)
    assert packed[2:] == left.to_bytes(4, sys.byteorder) + bytes(VIFS_MAX - 4)
