"""A multicast routing kernel in memory, which behaves as the real one does (shared facts: kernel.md).

What matters to the engine and the keeper is here: VIF numbers and their errnos, entries that are changed in place, bits of VIFs
that do not exist (dropped when an entry is written, kept when the link goes later), a dump that does not tell them, upcalls.
"""

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from mcastd.model.address import Family, exact_key, key_family, key_table, split_key
from mcastd.model.event import AdoptedEntry, UpcallKind
from mcastd.model.interface import Link

VIFS = 32
NO_OIF = 255

Where = tuple[int, Family]
"""A table and a family."""


@dataclass(slots=True)
class Entry:
    """An MFC entry."""

    parent: int
    ttls: list[int]
    static: bool = False
    packets: int = 0
    wrong_if: int = 0
    used: float = 0.0
    """When it was made, or saw its last packet."""


@dataclass(slots=True)
class Table:
    """VIFs by number (the ifindex; None = there is none), and entries by key."""

    vifs: list[int | None] = field(default_factory=lambda: [None] * VIFS)
    entries: dict[bytes, Entry] = field(default_factory=dict)
    unresolved: set[bytes] = field(default_factory=set)
    """Keys of which packets wait for an entry: there is no second upcall of them."""


class Arrival(NamedTuple):
    """What became of a packet that came in."""

    oifs: list[int]
    """Ifindexes that it left by."""
    upcall: UpcallKind | None = None
    vif: int = 0
    """Where it came in, for the upcall."""


@dataclass(slots=True)
class Refusal:
    """An errno for the next calls of this name whose subject fits."""

    call: str
    number: int
    times: int
    fits: Callable[[object], bool]


class FakeKernel:
    """Links, and the multicast routing tables that a socket holds open."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.tables: dict[Where, Table] = {}
        self.refusals: list[Refusal] = []
        self.clock = 1000.0
        """Seconds since the epoch."""
        self.vif_changes = 0
        self.mfc_changes = 0

    # --- links -------------------------------------------------------------------------------------------------------

    def set_link(self, link: Link) -> None:
        """Make an interface, or change it; a name belongs to one interface at a time."""
        assert all(other.name != link.name for other in self.links.values() if other.ifindex != link.ifindex)
        self.links[link.ifindex] = link

    def delete_link(self, ifindex: int) -> None:
        """Take an interface away, and its VIFs at once; entries keep their bits."""
        del self.links[ifindex]
        for table in self.tables.values():
            table.vifs = [None if vif == ifindex else vif for vif in table.vifs]

    def named(self, name: str) -> Link:
        """The interface of this name."""
        return next(link for link in self.links.values() if link.name == name)

    # --- refusals ----------------------------------------------------------------------------------------------------

    def refuse(self, call: str, number: int, times: int = 1, fits: Callable[[object], bool] = lambda _: True) -> None:
        """Answer the next calls with an errno; the subject is the ifindex for "add_vif" and the key for "add_mfc", "del_mfc"."""
        self.refusals.append(Refusal(call, number, times, fits))

    def _refused(self, call: str, subject: object) -> int:
        for refusal in self.refusals:
            if refusal.call == call and refusal.fits(subject):
                refusal.times -= 1
                if not refusal.times:
                    self.refusals.remove(refusal)
                return refusal.number
        return 0

    # --- calls on a multicast routing socket -------------------------------------------------------------------------

    def init(self, where: Where) -> int:
        """MRT_INIT: EADDRINUSE if the table is somebody's already."""
        if where in self.tables:
            return errno.EADDRINUSE
        self.tables[where] = Table()
        return 0

    def add_vif(self, where: Where, number: int, ifindex: int) -> int:
        """MRT_ADD_VIF, MRT6_ADD_MIF; the kernel lets an interface have several numbers."""
        if refused := self._refused("add_vif", ifindex):
            return refused
        if number >= VIFS:
            return errno.ENFILE
        vifs = self.tables[where].vifs
        if vifs[number] is not None:
            return errno.EADDRINUSE
        if ifindex not in self.links:
            return errno.EADDRNOTAVAIL
        vifs[number] = ifindex
        self.vif_changes += 1
        return 0

    def del_vif(self, where: Where, number: int) -> int:
        """MRT_DEL_VIF, MRT6_DEL_MIF."""
        vifs = self.tables[where].vifs
        if number >= VIFS or vifs[number] is None:
            return errno.EADDRNOTAVAIL
        vifs[number] = None
        self.vif_changes += 1
        return 0

    def add_mfc(self, key: bytes, packed: bytes, *, static: bool = False) -> int:
        """MRT_ADD_MFC, MRT6_ADD_MFC: replaces in place, any parent is accepted, bits of VIFs that do not exist are dropped."""
        if not static and (refused := self._refused("add_mfc", key)):
            return refused
        family = key_family(key)
        table = self.tables[key_table(key), family]
        parent, asked = unpack(family, packed)
        if parent >= VIFS:
            return errno.ENFILE
        ttls = [ttl if ttl and table.vifs[n] is not None else NO_OIF for n, ttl in enumerate(asked)]
        entry = table.entries.get(key)
        if entry is None:
            table.entries[key] = Entry(parent, ttls, static, used=self.clock)
            table.unresolved.discard(key)
        else:
            entry.parent, entry.ttls, entry.static = parent, ttls, entry.static or static
        self.mfc_changes += 1
        return 0

    def del_mfc(self, key: bytes) -> int:
        """MRT_DEL_MFC, MRT6_DEL_MFC."""
        if refused := self._refused("del_mfc", key):
            return refused
        if self.tables[key_table(key), key_family(key)].entries.pop(key, None) is None:
            return errno.ENOENT
        self.mfc_changes += 1
        return 0

    # --- what comes of it --------------------------------------------------------------------------------------------

    def entry(self, key: bytes) -> Entry | None:
        """The entry of this key."""
        table = self.tables.get((key_table(key), key_family(key)))
        return table.entries.get(key) if table else None

    def forward(self, key: bytes, ifindex: int, ttl: int = 64) -> list[int]:
        """Let a packet in; the ifindexes that it leaves by. Nothing without an entry, or in by another interface."""
        entry = self.entry(key)
        if entry is None:
            return []
        vifs = self.tables[key_table(key), key_family(key)].vifs
        if vifs[entry.parent] != ifindex:
            entry.wrong_if += 1
            return []
        entry.packets += 1
        return sorted(vif for vif, threshold in zip(vifs, entry.ttls, strict=True) if vif is not None and threshold < ttl)

    def arrive(self, key: bytes, ifindex: int, ttl: int = 64) -> Arrival:
        """Let a packet of an (S,G) in: the entry of its key comes first, then the group's shared tree, then an upcall."""
        table_number, group, _ = split_key(key)
        table = self.tables[table_number, key_family(key)]
        if ifindex not in table.vifs:
            return Arrival([])  # Where there is no VIF the kernel does not look at it.
        number = table.vifs.index(ifindex)
        entry = table.entries.get(key)
        if entry is not None:
            if table.vifs[entry.parent] != ifindex:
                entry.wrong_if += 1
                return Arrival([], UpcallKind.WRONGVIF, number)
            entry.used = self.clock
            return Arrival(self.forward(key, ifindex, ttl))
        tree = table.entries.get(exact_key(table_number, group, bytes(len(group))))
        if tree is not None and tree.ttls[number] != NO_OIF:
            tree.used = self.clock
            out = zip(table.vifs, tree.ttls, strict=True)
            return Arrival(sorted(vif for vif, threshold in out if vif not in {None, ifindex} and threshold < ttl))
        if key in table.unresolved:
            return Arrival([])
        table.unresolved.add(key)
        return Arrival([], UpcallKind.NOCACHE, number)

    def expire(self) -> None:
        """Give up on packets that wait, as the kernel does after 10 s."""
        for table in self.tables.values():
            table.unresolved.clear()

    def paths(self, key: bytes) -> tuple[int, dict[int, int]] | None:
        """The ifindex of the iif (0 = none), and the thresholds by ifindex of the oifs; None = no entry."""
        entry = self.entry(key)
        if entry is None:
            return None
        vifs = self.tables[key_table(key), key_family(key)].vifs
        oifs = {vif: ttl for vif, ttl in zip(vifs, entry.ttls, strict=True) if vif is not None and ttl != NO_OIF}
        return vifs[entry.parent] or 0, oifs

    def ages(self, where: Where) -> list[tuple[bytes, float, int, int]]:
        """RTM_GETROUTE as the housekeeper wants it: our own entries, seconds since their last packet, iif, packets."""
        found = [(key, entry) for key, entry in self.tables[where].entries.items() if not entry.static]
        vifs = self.tables[where].vifs
        return [(key, self.clock - entry.used, vifs[entry.parent] or 0, entry.packets) for key, entry in found]

    def dump(self, where: Where) -> list[AdoptedEntry]:
        """RTM_GETROUTE: entries with the ifindexes of VIFs that exist."""
        out = []
        for key, entry in self.tables[where].entries.items():
            paths = self.paths(key)
            assert paths is not None
            out.append(AdoptedEntry(key, (paths[0], tuple(sorted(paths[1].items()))), entry.static))
        return out


def unpack(family: Family, packed: bytes) -> tuple[int, list[int]]:
    """Parent and thresholds of Forwarding.packed, read as the kernel's headers lay it out (struct mfcctl, mf6cctl)."""
    if family is Family.IPV4:
        parent, *ttls = struct.unpack("=H32B", packed)
        return parent, ttls
    parent, *words = struct.unpack("=H8I", packed)
    return parent, [1 if words[n // 32] >> n % 32 & 1 else NO_OIF for n in range(VIFS)]
