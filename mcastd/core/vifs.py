"""VIF numbers of one table and family: allocated by use, freed through quarantine.

Life of a number:

    FREE -> ADDING -> ACTIVE -> RETIRING -> DRAINING -> FREE
              |         |           | a route wants the interface again: back to ACTIVE
              `---------+-----------+-> DEAD (the link is gone, and the kernel's VIF with it; or none was made)
                                          -> DRAINING -> FREE

A number leaves RETIRING and DEAD only when no MFC entry in the kernel names it any more: entries keep the bit of a VIF that
is gone, and a re-used number would send their stream out of an interface that no route names. Both end with a DelVif: where the
link came back under its old ifindex (as after a visit to another namespace) before we knew that it had gone, a VIF that was
being added then is there, for an interface whose next VIF has another number. It leaves DRAINING when the keeper has
acknowledged a map without it, so that no queued upcall is taken for one of the next interface.
"""

from enum import Enum

from mcastd.model.address import Family
from mcastd.model.interface import VIFS_MAX
from mcastd.model.route import Forwarding


class VifState(Enum):
    """Where a number stands."""

    ADDING = "adding"
    ACTIVE = "active"
    RETIRING = "retiring"
    DEAD = "dead"
    DRAINING = "draining"


class Vif:
    """One number in use."""

    __slots__ = ("ifindex", "name", "state", "users")

    def __init__(self, ifindex: int, name: str, state: VifState) -> None:
        """Nobody uses it yet."""
        self.ifindex = ifindex
        self.name = name
        self.state = state
        self.users = 0


class VifTable:
    """The numbers of one table and family, and the Forwardings that name them."""

    def __init__(self, table: int, family: Family) -> None:
        """Start with every number free."""
        self.table = table
        self.family = family
        self.slots: list[Vif | None] = [None] * VIFS_MAX
        self.by_ifindex: dict[int, int] = {}
        self.forwardings: dict[bytes, Forwarding] = {}
        self._bits = [0] * VIFS_MAX
        """Per number, how many distinct Forwardings with entries in the kernel name it."""
        self.map_stale = False
        """Whether the keeper's map differs from ours."""

    @property
    def used(self) -> int:
        """Numbers that are not free."""
        return sum(slot is not None for slot in self.slots)

    def acquire(self, ifindex: int, name: str) -> int | None:
        """Use the interface's number once more, allocating the lowest free one if it has none; None = all are taken."""
        number = self.by_ifindex.get(ifindex)
        if number is None:
            number = next((n for n, slot in enumerate(self.slots) if slot is None), None)
            if number is None:
                return None
            self.slots[number] = Vif(ifindex, name, VifState.ADDING)
            self.by_ifindex[ifindex] = number
            self.map_stale = True
        slot = self._slot(number)
        slot.users += 1
        if slot.state is VifState.RETIRING:
            slot.state = VifState.ACTIVE
        return number

    def release(self, ifindex: int, number: int) -> None:
        """Use the number once less; the last user retires it. Does nothing once it is the interface's no more (the link went)."""
        if self.by_ifindex.get(ifindex) != number:
            return
        slot = self._slot(number)
        slot.users -= 1
        if slot.users == 0 and slot.state is VifState.ACTIVE:
            slot.state = VifState.RETIRING

    def link_gone(self, ifindex: int) -> None:
        """Take note that the kernel has removed the interface, and its VIF."""
        number = self.by_ifindex.get(ifindex)
        if number is not None:
            self._leave(number, VifState.DEAD)

    def rename(self, ifindex: int, name: str) -> None:
        """Take note of an interface's new name."""
        number = self.by_ifindex.get(ifindex)
        if number is not None and (slot := self._slot(number)).name != name:
            slot.name = name
            self.map_stale = True

    def adopt(self, number: int, ifindex: int, name: str, *, present: bool) -> None:
        """Take over a number from the keeper's map; not present = the kernel has no such VIF any more."""
        self.slots[number] = Vif(ifindex, name, VifState.RETIRING if present else VifState.DEAD)
        if present:
            self.by_ifindex[ifindex] = number

    def to_add(self) -> list[int]:
        """Numbers that the kernel has yet to be given."""
        return [n for n, slot in enumerate(self.slots) if slot is not None and slot.state is VifState.ADDING]

    def added(self, number: int, errno: int) -> bool:
        """Result of adding; whether it is an error that counts: then the number goes, and the interface's users have none."""
        slot = self._slot(number)
        if slot.state is not VifState.ADDING:
            return False  # The link went while the call was under way: whatever came of it is not about its successor.
        if errno:
            self._leave(number, VifState.DEAD)
        else:
            slot.state = VifState.ACTIVE if slot.users else VifState.RETIRING
        return bool(errno)

    def in_kernel(self) -> list[int]:
        """Numbers that the kernel has, as far as we know."""
        there = {VifState.ACTIVE, VifState.RETIRING}
        return [n for n, slot in enumerate(self.slots) if slot is not None and slot.state in there]

    def to_delete(self) -> list[int]:
        """Retiring and dead numbers that no entry names any more."""
        going = {VifState.RETIRING, VifState.DEAD}
        return [n for n, slot in enumerate(self.slots) if slot is not None and slot.state in going and not self._bits[n]]

    def deleted(self, number: int) -> None:
        """The kernel no longer has it (whatever it answered: EADDRNOTAVAIL means that it was gone already)."""
        slot = self._slot(number)
        if slot.state in {VifState.RETIRING, VifState.DEAD}:
            self._leave(number, VifState.DRAINING)
            self.map_stale = True
        elif slot.state is VifState.ACTIVE:
            # Wanted again while the call was under way: make it anew.
            slot.state = VifState.ADDING

    def map_entries(self) -> tuple[tuple[int, int, str], ...]:
        """The map as the keeper should have it."""
        return tuple(
            (n, slot.ifindex, slot.name)
            for n, slot in enumerate(self.slots)
            if slot is not None and slot.state is not VifState.DRAINING
        )

    def map_acknowledged(self, numbers: frozenset[int]) -> bool:
        """The keeper has a map that holds just `numbers`: free what drains and is not in it. Whether any was freed."""
        freed = False
        for n, slot in enumerate(self.slots):
            if slot is not None and slot.state is VifState.DRAINING and n not in numbers:
                self.slots[n] = None
                freed = True
        return freed

    def entry_added(self, forwarding: Forwarding, number: int = 1) -> None:
        """One more MFC entry does this, or so many."""
        forwarding.entries += number
        if forwarding.entries == number:
            self._count(forwarding.vifs, 1)

    def entry_removed(self, forwarding: Forwarding, number: int = 1) -> None:
        """One MFC entry less does this, or so many."""
        forwarding.entries -= number
        if forwarding.entries == 0:
            self._count(forwarding.vifs, -1)
            if self.forwardings.get(forwarding.packed) is forwarding:
                del self.forwardings[forwarding.packed]

    def intern(self, packed: bytes, vifs: int) -> Forwarding:
        """The one Forwarding of this value."""
        found = self.forwardings.get(packed)
        if found is None:
            found = self.forwardings[packed] = Forwarding(packed, vifs)
        return found

    def _count(self, vifs: int, step: int) -> None:
        bits, n = self._bits, 0
        while vifs:
            if vifs & 1:
                bits[n] += step
            vifs >>= 1
            n += 1

    def _leave(self, number: int, state: VifState) -> None:
        slot = self._slot(number)
        slot.state = state
        slot.users = 0
        if self.by_ifindex.get(slot.ifindex) == number:
            del self.by_ifindex[slot.ifindex]

    def _slot(self, number: int) -> Vif:
        slot = self.slots[number]
        if slot is None:
            msg = f"VIF {number} of table {self.table} {self.family.name} is free"
            raise AssertionError(msg)
        return slot
