"""Kernel tables: for each table and family what the kernel has, as far as its answers say, and the shapes that live there."""

from collections import Counter

from mcastd.core.shapes import Shape, bits_of
from mcastd.core.templates import Learned, TemplateShape, TreeShape
from mcastd.core.vifs import VifTable
from mcastd.model.address import Family
from mcastd.model.errors import Problem
from mcastd.model.route import Forwarding, Paths
from mcastd.model.template import TemplateIndex


class KernelTable:
    """One table and family."""

    __slots__ = (
        "_doubtful",
        "actual",
        "blind",
        "by_name",
        "capped",
        "dumped_at",
        "family",
        "foreign",
        "holds",
        "index",
        "keeper_knows",
        "learned",
        "opened",
        "pins",
        "pressed",
        "problem",
        "recount",
        "shapes",
        "stale_holds",
        "starved",
        "stops",
        "stops_refused",
        "table",
        "templates",
        "touched",
        "trees",
        "unheard",
        "unsent",
        "vifs",
    )

    def __init__(self, table: int, family: Family) -> None:
        """Not open, nothing in it."""
        self.table, self.family = table, family
        self.opened = False
        self.problem: Problem | None = None
        """Why it can't be opened."""
        self.dumped_at = 0.0
        """When a dump was taken over, seconds since the epoch."""
        self.vifs = VifTable(table, family)
        self.actual: dict[bytes, Forwarding] = {}
        """MFC entries in the kernel, by key."""
        self.foreign: set[bytes] = set()
        """Entries that somebody else has made and that we have nothing to do with, as far as we have heard."""
        self._doubtful = Forwarding(b"", 0)
        self.touched: set[bytes] | None = None
        """While a dump is under way and compared: entries that were written or deleted since it began."""
        self.shapes: dict[Paths, Shape] = {}
        self.pins: dict[str, Shape] = {}
        """Pinned interfaces: shapes without members that hold a VIF."""
        self.starved: dict[Shape, None] = {}
        """Shapes that lack a VIF, in the order in which they came."""
        self.templates: dict[bytes, TemplateShape] = {}
        """Templates by the key of their route."""
        self.by_name: dict[bytes, TemplateShape] = {}
        """The same by their short names, and those that the keeper has yet to forget."""
        self.index: TemplateIndex[TemplateShape] = TemplateIndex(family)
        self.trees: dict[bytes, TreeShape] = {}
        """Shared trees by the key of their entry."""
        self.learned: dict[bytes, Learned] = {}
        self.stops = 0
        """Learned entries that are, or would rather be, stop filters."""
        self.capped = 0
        """Upcalls that a cap on learned entries has refused."""
        self.stops_refused = 0
        """Stop filters that a cap has refused."""
        self.pressed: dict[TemplateShape | TreeShape | None, float] = {}
        """When the cap of a template or tree has refused an entry last; None = the cap on stop filters has. Kept for a while."""
        self.keeper_knows = False
        """Whether the keeper has our templates rather than a predecessor's."""
        self.blind = 0
        """Sweeps to come until it is known again what the keeper has made: it has lost records."""
        self.unheard: set[bytes] = set()
        """Entries that the last sweep found and of which we have not heard."""
        self.unsent: dict[TemplateShape, None] = {}
        """What the keeper has yet to be told."""
        self.holds: dict[bytes, Forwarding] = {}
        """By name of the template: the numbers that the keeper may use."""
        self.stale_holds: list[Forwarding] = []
        """What it may use until it has acknowledged what it was told last."""
        self.recount: dict[TemplateShape, None] = {}
        """Templates of which the keeper may count other learned entries than there are."""

    @property
    def wanted(self) -> bool:
        """Whether anything lives here."""
        return bool(self.shapes or self.pins or self.templates or self.trees)

    def hungry(self) -> bool:
        """Whether anything lacks a VIF that names the interface: what would have all of them stands back."""
        return any(shape.paths.iif for shape in self.starved)

    def all_shapes(self) -> list[Shape]:
        """Everything that holds VIFs."""
        return [*self.shapes.values(), *self.pins.values(), *self.templates.values(), *self.trees.values()]

    def unlike(self) -> Forwarding:
        """Stands for an entry of which it is not known what it does: it may name any number in use."""
        return Forwarding(b"", bits_of(n for n, slot in enumerate(self.vifs.slots) if slot is not None))

    def programmed(self, key: bytes, forwarding: Forwarding) -> None:
        """The kernel took an entry."""
        old = self.actual.get(key)
        self.actual[key] = forwarding
        self.vifs.entry_added(forwarding)
        if old is not None:
            self.vifs.entry_removed(old)
        elif self.foreign:
            self.foreign.discard(key)
        if self.touched is not None:
            self.touched.add(key)

    def programmed_all(self, keys: list[bytes], forwardings: list[Forwarding]) -> None:
        """The kernel took these entries, in order."""
        if len(set(keys)) < len(keys):  # Works may repeat keys: then the order counts.
            for key, forwarding in zip(keys, forwardings, strict=True):
                self.programmed(key, forwarding)
            return
        olds = list(map(self.actual.get, keys))
        self.actual.update(zip(keys, forwardings, strict=True))
        for forwarding, number in Counter(forwardings).items():
            self.vifs.entry_added(forwarding, number)
        for old, number in Counter(olds).items():
            if old is not None:
                self.vifs.entry_removed(old, number)
        if self.foreign:
            self.foreign.difference_update([key for key, old in zip(keys, olds, strict=True) if old is None])
        if self.touched is not None:
            self.touched.update(keys)

    def doubt(self, key: bytes) -> None:
        """Whether the kernel still has the entry is not known: write or delete it again. It counts with all numbers it named."""
        vifs = self.actual[key].vifs
        if self._doubtful.vifs != vifs:
            self._doubtful = Forwarding(b"", vifs)  # One for many: mostly those in doubt at a time were alike.
        self.programmed(key, self._doubtful)

    def deleted(self, key: bytes) -> None:
        """The kernel has the entry no more."""
        old = self.actual.pop(key, None)
        if old is not None:
            self.vifs.entry_removed(old)
        if self.touched is not None:
            self.touched.add(key)
