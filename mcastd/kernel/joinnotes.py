"""Notes on join sockets: text that says which groups a socket may have joined, and on which interfaces.

One word for each, "ifindex/group" in hexadecimal digits. Sources are not noted: the kernel tells them of a group.
"""

from collections.abc import Iterable
from typing import NamedTuple

from mcastd.model.address import Family

GROUPS_MAX = 256
"""Groups of one socket: what its note may hold, at 42 characters each, and what the kernel searches with each join."""


class Spot(NamedTuple):
    """A group on an interface."""

    ifindex: int
    group: bytes


def note_of(spots: Iterable[Spot]) -> str:
    """The note."""
    return " ".join(f"{ifindex:x}/{group.hex()}" for ifindex, group in sorted(spots))


def read_note(note: str, family: Family) -> frozenset[Spot] | None:
    """Undo note_of; None = that is no note on a socket of the family."""
    spots = set()
    for word in note.split():
        ifindex, slash, group = word.partition("/")
        try:
            spot = Spot(int(ifindex, 16), bytes.fromhex(group))
        except ValueError:
            return None
        if not slash or not 0 < spot.ifindex < 2**31 or len(spot.group) != (4 if family is Family.IPV4 else 16):
            return None
        spots.add(spot)
    return frozenset(spots)
