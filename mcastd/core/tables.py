"""Kernel tables: for each table and family what the kernel has, as far as its answers say, and the shapes that live there."""

from mcastd.core.shapes import Shape
from mcastd.core.vifs import VifTable
from mcastd.model.address import Family
from mcastd.model.errors import Problem
from mcastd.model.route import Forwarding, Paths


class KernelTable:
    """One table and family."""

    __slots__ = ("actual", "family", "opened", "pins", "problem", "shapes", "starved", "table", "vifs")

    def __init__(self, table: int, family: Family) -> None:
        """Not open, nothing in it."""
        self.table = table
        self.family = family
        self.opened = False
        self.problem: Problem | None = None
        """Why it can't be opened."""
        self.vifs = VifTable(table, family)
        self.actual: dict[bytes, Forwarding] = {}
        """MFC entries in the kernel, by key."""
        self.shapes: dict[Paths, Shape] = {}
        self.pins: dict[str, Shape] = {}
        """Pinned interfaces: shapes without members that hold a VIF."""
        self.starved: dict[Shape, None] = {}
        """Shapes that lack a VIF, in the order in which they came."""

    @property
    def wanted(self) -> bool:
        """Whether anything lives here."""
        return bool(self.shapes or self.pins)

    def programmed(self, key: bytes, forwarding: Forwarding) -> None:
        """The kernel took an entry."""
        old = self.actual.get(key)
        self.actual[key] = forwarding
        self.vifs.entry_added(forwarding)
        if old is not None:
            self.vifs.entry_removed(old)

    def doubt(self, key: bytes) -> None:
        """Whether the kernel still has the entry is not known: write or delete it again. It counts with all numbers it named."""
        self.programmed(key, Forwarding(b"", self.actual[key].vifs))

    def deleted(self, key: bytes) -> None:
        """The kernel has the entry no more."""
        old = self.actual.pop(key, None)
        if old is not None:
            self.vifs.entry_removed(old)
