"""Notes on join sockets: what is written is read, whatever it is, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.keeper.held import NOTE_MAX
from mcastd.kernel.joinnotes import GROUPS_MAX, Spot, note_of, read_note
from mcastd.model.address import Family


@given(st.sampled_from(Family), st.data())
def test_a_note_is_read_as_it_was_written(family: Family, data: st.DataObject) -> None:
    size = 4 if family is Family.IPV4 else 16
    spots = data.draw(st.frozensets(st.builds(Spot, st.integers(1, 2**31 - 1), st.binary(min_size=size, max_size=size))))
    assert read_note(note_of(spots), family) == spots


@pytest.mark.parametrize("family", Family)
def test_the_longest_note_fits(family: Family) -> None:
    size = 4 if family is Family.IPV4 else 16
    spots = {Spot(2**31 - 1 - number, b"\xff" * size) for number in range(GROUPS_MAX)}
    assert len(note_of(spots)) <= NOTE_MAX


@pytest.mark.parametrize(
    "note", ["x", "1", "1/", "/ef010101", "0/ef010101", "1/ef0101", "-1/ef010101", "80000000/ef010101", "1/ef01010g"]
)
def test_what_is_no_note_is_none(note: str) -> None:
    assert read_note(note, Family.IPV4) is None
    assert read_note("1/ef010101", Family.IPV6) is None
