"""Samples: what one dump of the kernel's tables has counted, kept as the dump's own bytes until somebody looks.

An entry costs the 50 (IPv4) or 74 bytes of its record. An index by key, some 130 bytes an entry more, is made where entries are
looked up; who walks all of them needs none.
"""

import asyncio
import time
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from mcastd.kernel import mfc_dump
from mcastd.kernel.mfc_dump import MfcDump, MfcRow
from mcastd.model.address import KEY_SIZE_V4, Family, key_table
from mcastd.model.event import AdoptedEntry
from mcastd.model.route import Counters

SLICE = 2000
"""Entries that are indexed between two turns of the event loop: some 0.3 ms."""


class TableCounters:
    """What one table and family has counted."""

    def __init__(self, table: int, dump: MfcDump, taken: float) -> None:
        """Take over a dump that was read at `taken`, seconds since the epoch."""
        self.table = table
        self.family = dump.family
        self.taken = taken
        self.iifs = [paths.iif for paths in dump.paths]
        """ifindex of the iif by the number that a row has for its paths; 0 = its VIF does not exist."""
        self.rows = dump.rows
        self.unresolved = dump.unresolved()
        """Numbers of rows of (S,G) for which packets wait: they have no counters."""
        self._dump = dump
        self._index: dict[bytes, int] | None = None

    def __len__(self) -> int:
        """Rows, unresolved ones included."""
        return len(self._dump)

    async def index(self) -> None:
        """Make it possible to look up entries, in slices."""
        if self._index is not None:
            return
        index: dict[bytes, int] = {}
        waiting = set(self.unresolved)
        for at in range(0, len(self._dump), SLICE):
            keys = (key for (key,) in self._dump.keys(at, at + SLICE))
            numbers = range(at, at + SLICE)
            if waiting.isdisjoint(numbers):
                index.update(zip(keys, numbers, strict=False))
            else:
                index.update((key, n) for key, n in zip(keys, numbers, strict=False) if n not in waiting)
            await asyncio.sleep(0)
        self._index = index

    @property
    def indexed(self) -> bool:
        """Whether entries can be looked up."""
        return self._index is not None

    def row(self, key: bytes) -> MfcRow | None:
        """One resolved entry; RuntimeError before `index`."""
        if self._index is None:
            raise RuntimeError("the sample has no index yet")
        number = self._index.get(key)
        return None if number is None else self._dump.row(number)

    def keys(self) -> Iterator[bytes]:
        """Keys of all resolved entries; RuntimeError before `index`."""
        if self._index is None:
            raise RuntimeError("the sample has no index yet")
        return iter(self._index)

    def counters(self, row: MfcRow) -> Counters:
        """What the kernel has counted for an entry."""
        packets, octets, wrong_if, idle, *_ = row
        return Counters(packets, octets, wrong_if, self.taken - idle if idle >= 0 else 0.0)

    def foreign(self) -> Iterator[AdoptedEntry]:
        """Entries that somebody else has put into the kernel."""
        for number in self._dump.foreign():
            row = self._dump.row(number)
            if not row[6]:
                yield AdoptedEntry(row[7], self._dump.paths[row[4]], True)


class KernelCounters(Mapping[bytes, Counters]):
    """Counters by key, of all tables of one sample; made of them when they are looked up."""

    def __init__(self, tables: Iterable[TableCounters]) -> None:
        """Look things up in these, which are indexed."""
        self._tables = {(one.table, one.family): one for one in tables}

    def __getitem__(self, key: bytes) -> Counters:
        """The counters of one entry; KeyError if the kernel had none."""
        found: Counters | None = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def get(self, key: bytes, default: Any = None) -> Any:
        """The counters of one entry, or the default."""
        table = self._tables.get((key_table(key), Family.IPV4 if len(key) == KEY_SIZE_V4 else Family.IPV6))
        row = table.row(key) if table is not None else None
        return default if table is None or row is None else table.counters(row)

    def items(self) -> ItemsView[bytes, Counters]:
        """All of them, without looking each up."""
        return _Items(self)

    def each(self) -> Iterator[tuple[bytes, Counters]]:
        """Key and counters of every resolved entry."""
        for table in self._tables.values():
            yield from ((row[7], table.counters(row)) for row in table.rows() if not row[6])

    def __iter__(self) -> Iterator[bytes]:
        """All keys."""
        for table in self._tables.values():
            yield from table.keys()

    def __len__(self) -> int:
        """Resolved entries."""
        return sum(len(table) - len(table.unresolved) for table in self._tables.values())


class _Items(ItemsView[bytes, Counters]):
    """Keys and counters in one walk."""

    def __init__(self, counters: KernelCounters) -> None:
        super().__init__(counters)
        self._counters = counters

    def __iter__(self) -> Iterator[tuple[bytes, Counters]]:
        return self._counters.each()


class Sample:
    """What the kernel had counted at one time."""

    def __init__(self, tables: list[TableCounters], taken: float, at: float, previous: "Sample | None" = None) -> None:
        """What `dump` has read; `taken` in seconds since the epoch, `at` by the monotonic clock."""
        self.tables = tables
        self.time = taken
        self.at = at
        self.previous = previous
        """The one before, which has none itself."""

    def after(self, before: "Sample") -> "Sample":
        """The same, with one before it."""
        return Sample(self.tables, self.time, self.at, Sample(before.tables, before.time, before.at))

    @property
    def interval(self) -> float:
        """Seconds since the one before; 0 = there is none."""
        return self.at - self.previous.at if self.previous is not None else 0.0

    @property
    def entries(self) -> int:
        """Rows of all tables."""
        return sum(map(len, self.tables))

    def table(self, table: int, family: Family) -> TableCounters | None:
        """One of its tables."""
        return next((one for one in self.tables if one.table == table and one.family is family), None)

    async def index(self) -> None:
        """Make it possible to look up entries, here and in the one before."""
        for one in (self, self.previous):
            for table in one.tables if one is not None else ():
                await table.index()

    async def foreign(self, wanted: Mapping[bytes, object]) -> tuple[AdoptedEntry, ...]:
        """Entries that somebody else has put into the kernel and that nobody wants."""
        out: list[AdoptedEntry] = []
        for table in self.tables:
            entries = table.foreign()
            while part := list(islice(entries, SLICE)):
                out += (entry for entry in part if entry.key not in wanted)
                await asyncio.sleep(0)
        return tuple(out)


def dump(tables: Iterable[tuple[int, Family]]) -> Sample:
    """Read the counters of these tables. Blocks: for a thread; nearly all of it is C that lets other threads run.

    Raises KernelRefused.
    """
    at, wall = time.monotonic(), time.time()
    return Sample([TableCounters(table, mfc_dump.dump(family, table), time.time()) for table, family in tables], wall, at)
