"""TEMPLATES and LEARNED messages: what is written is read, and nothing else is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.keeper.channel import MESSAGE_MAX, ChannelError, Message, encode, parse_body
from mcastd.keeper.templates import (
    FIRST,
    LAST,
    PART,
    TOLD_MAX,
    bodies,
    learned_bodies,
    read_learned,
    read_templates,
    take_told,
    told_values,
)
from mcastd.model.address import Family
from mcastd.model.interface import VIFS_MAX
from mcastd.model.template import TemplateAction, TemplateChange, TemplateKey

families = st.sampled_from(Family)
tables = st.integers(0, 2**31 - 1)
counts = st.integers(0, 2**32 - 1)
names = st.binary(min_size=8, max_size=8)
iifs = st.text(st.characters(codec="utf-8", exclude_characters="/"), max_size=15)


@st.composite
def changes(draw: st.DrawFn, table: int, family: Family) -> TemplateChange:
    size = 4 if family is Family.IPV4 else 16
    address, length = st.binary(min_size=size, max_size=size), st.integers(0, 8 * size)
    key = TemplateKey(table, family, draw(address), draw(length), draw(address), draw(length), draw(iifs))
    bits = st.integers(0, 2**32 - 1)
    action = TemplateAction(draw(bits), draw(st.binary(min_size=VIFS_MAX, max_size=VIFS_MAX)), draw(bits))
    return TemplateChange(key, draw(names), draw(st.sampled_from([action, None])), draw(counts), draw(counts))


@given(st.data(), tables, families, st.booleans())
def test_what_is_written_is_read(data: st.DataObject, table: int, family: Family, whole: bool) -> None:
    written = data.draw(st.lists(changes(table, family), max_size=5))
    (body,) = bodies(table, family, written, whole=whole)
    assert read_templates(body) == (table, family, PART | FIRST | LAST if whole else 0, written)


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("whole", [True, False])
def test_many_take_several_messages(family: Family, whole: bool) -> None:
    size = 4 if family is Family.IPV4 else 16
    action = TemplateAction(1, bytes(VIFS_MAX), 0)
    written = [
        TemplateChange(TemplateKey(0, family, n.to_bytes(size, "big"), 32, bytes(size), 0, "x" * (n % 16)), bytes(8), action)
        for n in range(2000)
    ]
    found = [read_templates(body) for body in bodies(0, family, written, whole=whole)]
    assert all(len(encode(Message.TEMPLATES, 1, body)) <= MESSAGE_MAX for body in bodies(0, family, written, whole=whole))
    assert len(found) > 2
    assert [one for part in found for one in part.templates] == written
    last = len(found) - 1
    want = [PART | (FIRST if n == 0 else 0) | (LAST if n == last else 0) if whole else 0 for n in range(len(found))]
    assert [part.flags for part in found] == want


@given(st.data(), tables, families)
def test_what_is_told_is_taken(data: st.DataObject, table: int, family: Family) -> None:
    told = data.draw(st.lists(changes(table, family), max_size=5))
    assert take_told(parse_body(json.dumps(told_values(table, family, told, 7)).encode())) == (told, 7)


def test_an_answer_with_as_many_as_there_may_be_fits_a_message() -> None:
    key = TemplateKey(999_999_999, Family.IPV6, bytes(16), 128, bytes(16), 128, "x" * 64)
    told = [TemplateChange(key, bytes(8), TemplateAction(1, bytes(VIFS_MAX), 0))] * TOLD_MAX
    assert len(encode(Message.REPLY, 1, told_values(999_999_999, Family.IPV6, told, 2**32))) <= MESSAGE_MAX


@pytest.mark.parametrize(
    "values", [{}, {"templates": 7, "total": 1}, {"templates": "?", "total": 1}, {"templates": "", "total": 1}]
)
def test_an_answer_that_tells_nothing_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ChannelError):
        take_told(values)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_read(body: bytes) -> None:
    for read in (read_templates, read_learned):
        try:
            read(body)
        except ChannelError:
            continue


@given(st.data(), families)
def test_damaged_messages_are_refused_or_read(data: st.DataObject, family: Family) -> None:
    """Cut short anywhere, or with any byte changed."""
    written = data.draw(st.lists(changes(1, family), min_size=1, max_size=3))
    (body,) = bodies(1, family, written, whole=False)
    cut = data.draw(st.integers(0, len(body) - 1))
    at, byte = data.draw(st.integers(0, len(body) - 1)), data.draw(st.integers(0, 255))
    for damaged in (body[:cut], body[:at] + bytes([byte]) + body[at + 1 :]):
        try:
            found = read_templates(damaged)
        except ChannelError:
            continue
        assert len(found.templates) <= len(written)


@given(tables, families, st.lists(st.tuples(names, st.integers(-(2**31), 2**31 - 1)), max_size=20))
def test_differences_are_read_as_written(table: int, family: Family, differences: list[tuple[bytes, int]]) -> None:
    found = [read_learned(body) for body in learned_bodies(table, family, differences)]
    assert [one for _, _, part in found for one in part] == differences
    assert all(part[:2] == (table, family) for part in found)


def test_differences_of_many_templates_take_several_messages() -> None:
    differences = [(n.to_bytes(8, "big"), -1) for n in range(20_000)]
    parts = list(learned_bodies(0, Family.IPV6, differences))
    assert all(len(encode(Message.LEARNED, body=body)) <= MESSAGE_MAX for body in parts)
    assert [one for body in parts for one in read_learned(body)[2]] == differences
