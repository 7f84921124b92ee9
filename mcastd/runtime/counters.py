"""Counters: one dump of the kernel's tables serves everybody who asks while it is fresh enough."""

import asyncio
import time
from collections.abc import Iterable

from mcastd.api.ports import CounterSample
from mcastd.core.engine import Engine
from mcastd.kernel import mfc_dump
from mcastd.model.address import Family
from mcastd.model.event import AdoptedEntry
from mcastd.model.route import Counters
from mcastd.runtime.tasks import spawn

_NONE = CounterSample({}, 0.0, {}, 0.0)


class CounterCache:
    """The last sample, and the one before it for rates."""

    def __init__(self, engine: Engine) -> None:
        """Dump the tables that the engine has open."""
        self._engine = engine
        self._sample = _NONE
        self._taken = 0.0
        """By the monotonic clock."""
        self._under_way: asyncio.Task[None] | None = None
        """A task of its own: who waits for it may be cancelled, and the others still wait."""

    async def get(self, max_age: float) -> CounterSample:
        """A sample at most `max_age` seconds old: the cached one, the one being taken where that will do, or a new one."""
        asked = time.monotonic()
        while not self._taken or self._taken < asked - max_age:
            if self._under_way is None:
                self._under_way = spawn(self._refresh(), "counters")
            await asyncio.shield(self._under_way)
        return self._sample

    async def _refresh(self) -> None:
        began, wall = time.monotonic(), time.time()
        open_tables = [key for key, kernel in self._engine.tables.items() if kernel.opened]
        try:
            counters, found = await asyncio.to_thread(_dump, open_tables, wall)
        finally:
            self._under_way = None
        routes = self._engine.desired.routes
        foreign = tuple(entry for entry in found if entry.key not in routes)
        before = self._sample
        interval = wall - before.time if before.time else 0.0
        self._sample = CounterSample(counters, wall, before.counters, interval, foreign)
        self._taken = began


def _dump(tables: Iterable[tuple[int, Family]], now: float) -> tuple[dict[bytes, Counters], list[AdoptedEntry]]:
    """Counters by key, and the entries that somebody else has made. In a thread; the decoding is C."""
    counters: dict[bytes, Counters] = {}
    foreign: list[AdoptedEntry] = []
    for table, family in tables:
        dump = mfc_dump.dump(family, table)
        for packets, octets, wrong_if, idle, paths, protocol, unresolved, key in dump.rows():
            if unresolved:
                continue
            counters[key] = Counters(packets, octets, wrong_if, now - idle if idle >= 0 else 0.0)
            if protocol == mfc_dump.PROTOCOL_FOREIGN:
                foreign.append(AdoptedEntry(key, dump.paths[paths], True))
    return counters, foreign
