"""Flows: which (S,G) entries have series of their own on /metrics, and their text.

Tier 2 is the top flows and all that are expected (routes with `monitored`, the entries of such templates); tier 3 is every
flow. Stop filters are no flows: they are counted among the entries.
"""

import asyncio
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from mcastd.core.engine import Engine
from mcastd.core.tables import KernelTable
from mcastd.core.templates import tree_key
from mcastd.model.address import Family, address_text, key_family, key_table, split_key
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.route import Route, Template
from mcastd.model.template import parts_of, prefix_text
from mcastd.telemetry.exposition import escape
from mcastd.telemetry.ports import Row, Sample, Sampler, TableSample
from mcastd.telemetry.silence import SilenceWatch, Used
from mcastd.telemetry.state import learned_count
from mcastd.telemetry.top import Ranked, TopFlows

SLICE = 1000
"""Flows that are looked at between two turns of the event loop: 1 ms at most."""


class FlowRow(NamedTuple):
    """One flow as it is exported."""

    labels: str
    """As they are written, braces included."""
    origin: str
    """The further labels of mcastd_flow_info, written."""
    packets: int
    octets: int
    wrong_if: int
    last_used: float
    expected: bool
    counted: bool = True
    """False for a template: its entries are counted, each by itself."""


class FlowPage(NamedTuple):
    """What a scrape of /metrics tells of flows."""

    rows: list[FlowRow]
    total: int
    """Flows there are in the kernel."""
    exported: int
    """Of them."""


class Names:
    """Labels of flows as they are written, each made once."""

    def __init__(self, engine: Engine) -> None:
        """Names of interfaces and owners of entries are this engine's."""
        self._engine = engine
        self._written: dict[bytes, tuple[str, str]] = {}
        """By key: the iif, and the labels."""

    def labels(self, key: bytes, ifindex: int) -> str:
        """Labels of a kernel's entry; where its iif is gone it is the route's, while there is one."""
        link = self._engine.world.by_index.get(ifindex)
        if link is not None:
            iif = link.name
        else:
            route = self._engine.desired.routes.get(key)
            iif = route.paths.iif if route is not None else ""
        known = self._written.get(key)
        if known is not None and known[0] == iif:
            return known[1]
        table, group, source = split_key(key)
        name = address_text(source) if any(source) else "*"
        written = _labels(table, key_family(key), name, address_text(group), iif)
        self._written[key] = iif, written
        return written

    def trim(self, flows: int) -> None:
        """There are so many flows: forget, where far more are remembered."""
        if len(self._written) > 2 * flows + SLICE:
            self._written = {}

    def origin(self, kernel: KernelTable, key: bytes) -> str:
        """Who wants an entry: the owner, and the cookie that he has given it."""
        route = self._engine.desired.routes.get(key)
        if route is None:
            learned = kernel.learned.get(key)
            shape = learned.shape if learned is not None else kernel.trees.get(key)
            route = shape.route if shape is not None else None
        return origin_of(route)


def origin_of(route: Route | None) -> str:
    """The further labels of mcastd_flow_info."""
    return _origin(KERNEL_OWNER, "") if route is None else _origin(route.owner, route.cookie)


@lru_cache(maxsize=4096)
def _origin(owner: str, cookie: str) -> str:
    return f'set="{escape(owner)}",name="{escape(cookie)}"'


def _labels(table: int, family: Family, source: str, group: str, iif: str) -> str:
    return f'{{table="{table}",family="{family.name.lower()}",source="{source}",group="{group}",iif="{escape(iif)}"}}'


def entry_key(route: Route) -> bytes:
    """Key of the one kernel entry that a route is; empty for a template that makes many."""
    if isinstance(route, Template):
        return tree_key(route.key) if route.shared_tree else b""
    return route.key


def is_stop(kernel: KernelTable, key: bytes) -> bool:
    """Whether an entry is a stop filter."""
    learned = kernel.learned.get(key)
    return learned is not None and learned.shape is None


class Flows:
    """Chooses the flows of /metrics, and watches those that are expected."""

    def __init__(self, engine: Engine, silence: SilenceWatch, top: int) -> None:
        """Export `top` flows by rate, nearly, beside those that are expected."""
        self.engine = engine
        self.names = Names(engine)
        self.silence = silence
        self._top = TopFlows(top)
        self._page: tuple[Sample, FlowPage] | None = None
        """The last one, for all who scrape the same sample."""
        self._members: list[bytes] = []
        """Entries of templates that are expected."""
        self._lock = asyncio.Lock()

    @property
    def limit(self) -> int:
        """K."""
        return self._top.size

    async def page(self, sample: Sample) -> FlowPage:
        """What to export of a sample."""
        async with self._lock:
            if self._page is None or self._page[0] is not sample:
                await self._look(sample, await self._monitored())
                self._page = sample, await self._choose(sample)
            return self._page[1]

    async def watch(self, sampler: Sampler, max_age: float) -> None:
        """Look at the flows that are expected, if any, on a sample of this age at most; McastdError if the kernel refuses it."""
        async with self._lock:
            monitored = await self._monitored()
            if monitored or self.silence.expected:
                await self._look(await sampler.sample(max_age), monitored)

    async def _look(self, sample: Sample, monitored: list[tuple[Route, list[bytes]]]) -> None:
        if not monitored and not self.silence.expected:
            return
        await sample.index()

        def used(key: bytes) -> Used | None:
            row, table = _find(sample, key)
            return None if row is None or table is None else (row[0], last_used(row, table))

        for _ in self.silence.look(monitored, used, sample.time):
            await asyncio.sleep(0)
        self._members = [key for route, keys in monitored if isinstance(route, Template) for key in keys]

    async def _monitored(self) -> list[tuple[Route, list[bytes]]]:
        """Routes of which traffic is expected, and the keys of their entries."""
        found: dict[bytes, tuple[Route, list[bytes]]] = {}
        routes, templates = list(self.engine.desired.routes.values()), False
        for at in range(0, len(routes), 5 * SLICE):
            for route in routes[at : at + 5 * SLICE]:
                if route.monitored:
                    templates = templates or isinstance(route, Template)
                    entry = entry_key(route)
                    found[route.key] = route, [entry] if entry else []
            await asyncio.sleep(0)
        for kernel in self.engine.tables.values() if templates else ():
            learned = list(kernel.learned.items())
            for at in range(0, len(learned), 5 * SLICE):
                for key, one in learned[at : at + 5 * SLICE]:
                    if one.shape is not None and one.shape.route.key in found:
                        found[one.shape.route.key][1].append(key)
                await asyncio.sleep(0)
        return list(found.values())

    async def _choose(self, sample: Sample) -> FlowPage:
        total = sum(self.flows_of(table) for table in sample.tables)
        await sample.index()
        chosen = dict.fromkeys(self._members)
        if total <= self.limit:
            present = [row[7] for table in sample.tables for row in table.rows() if self._is_flow(table, row)]
            self._top.choose_all(present, sample.at)
            chosen.update(dict.fromkeys(present))
        elif self.limit:
            leaders = await self._leaders(sample)
            chosen.update(dict.fromkeys(self._top.choose(leaders, lambda key: _find(sample, key)[0] is not None, sample.at)))
        self.names.trim(total)
        rows: list[FlowRow] = []
        for number, one in enumerate(list(self.silence.expected.values()), 1):
            chosen.pop(entry_key(one.route), None)
            rows.append(self._expected(sample, one.route, one.last_used))
            if number % SLICE == 0:
                await asyncio.sleep(0)
        exported = sum(row.counted for row in rows)
        for number, key in enumerate(chosen, 1):
            row, table = _find(sample, key)
            if row is not None and table is not None:
                rows.append(self._row(row, table))
                exported += 1
            if number % SLICE == 0:
                await asyncio.sleep(0)
        # A template may look like an entry of somebody else's; the same series twice would spoil the scrape.
        unique = {row.labels: row for row in reversed(rows)}
        return FlowPage(list(unique.values()), total, min(total, exported))

    def flows_of(self, table: TableSample) -> int:
        """How many flows a table has."""
        kernel = self.engine.tables.get((table.table, table.family))
        stops = len(kernel.learned) - learned_count(kernel) if kernel is not None else 0
        return max(0, len(table) - len(table.unresolved) - stops)

    def _is_flow(self, table: TableSample, row: Row) -> bool:
        kernel = self.engine.tables.get((table.table, table.family))
        return not row[6] and kernel is not None and not is_stop(kernel, row[7])

    async def _leaders(self, sample: Sample) -> list[Ranked]:
        """The flows with the highest rates (the most bytes so far, where there is but one sample)."""
        leaders: list[Ranked] = []
        for table in sample.tables:
            kernel = self.engine.tables.get((table.table, table.family))
            before = sample.previous.table(table.table, table.family) if sample.previous is not None else None
            for at in range(0, len(table) if kernel is not None else 0, SLICE):
                rates = _rates(table, before, at)
                leaders = self._top.leaders(leaders, ((r, k) for r, k in rates if kernel is not None and not is_stop(kernel, k)))
                await asyncio.sleep(0)
        return leaders

    def _row(self, row: Row, table: TableSample) -> FlowRow:
        key = row[7]
        labels, kernel = self.names.labels(key, table.iifs[row[4]]), self.engine.tables[table.table, table.family]
        return FlowRow(labels, self.names.origin(kernel, key), row[0], row[1], row[2], last_used(row, table), expected=False)

    def _expected(self, sample: Sample, route: Route, last_used: float) -> FlowRow:
        """A route with `monitored`: it has its series whether or not the kernel has an entry."""
        key = entry_key(route)
        row, table = _find(sample, key) if key else (None, None)
        if row is not None and table is not None:
            labels = self.names.labels(key, table.iifs[row[4]])
            return FlowRow(labels, origin_of(route), row[0], row[1], row[2], last_used, expected=True)
        parts = parts_of(route.key)
        source, group = prefix_text(parts.source, parts.source_length), prefix_text(parts.group, parts.group_length)
        iif = route.paths.iif or "*"
        labels = _labels(key_table(route.key), key_family(route.key), source or "*", group, iif)
        return FlowRow(labels, origin_of(route), 0, 0, 0, last_used, expected=True, counted=bool(key))


def last_used(row: Row, table: TableSample) -> float:
    """When a packet was seen last; 0 = never. The kernel's own time is that of the last change as well."""
    return table.taken - row[3] if row[0] and row[3] >= 0 else 0.0


def _find(sample: Sample, key: bytes) -> tuple[Row | None, TableSample | None]:
    table = sample.table(key_table(key), key_family(key))
    return (table.row(key), table) if table is not None else (None, None)


def _rates(table: TableSample, before: TableSample | None, at: int) -> Iterator[Ranked]:
    """Bytes since the sample before of a slice of rows, where there were any."""
    old = before.rows(at, at + SLICE) if before is not None else iter(())
    for row in table.rows(at, at + SLICE):
        if row[6]:
            next(old, None)
            continue
        was = next(old, None)  # Mostly the same place: so this costs less than a look-up.
        if (was is None or was[7] != row[7] or was[6]) and before is not None:
            was = before.row(row[7])
        octets = row[1] - was[1] if was is not None and was[1] <= row[1] else row[1]
        if octets:
            yield octets, row[7]
