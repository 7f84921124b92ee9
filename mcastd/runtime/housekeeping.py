"""Housekeeping: learned entries that no packet has used for their idle time go; the kernel's own age of last use decides."""

import asyncio
import time
from collections.abc import Callable, Container

from mcastd.core.engine import Engine
from mcastd.kernel import mfc_dump
from mcastd.model.address import Family
from mcastd.runtime.executor import Executor

INTERVAL_MAX = 15.0
"""Seconds between two looks; entries go at most this, or a quarter of the shortest idle time, late."""

INTERVAL_MIN = 1.0
"""Also how often it is looked where a cap has refused entries."""


class Housekeeper:
    """Looks at the kernel's tables while anything is learned there."""

    def __init__(self, engine: Engine, executor: Executor, keep: Callable[[], Container[int]] = frozenset) -> None:
        """Look after these; `keep`: tables that stay open though nothing is in them."""
        self._keep = keep
        self._engine = engine
        self._executor = executor

    async def run(self) -> None:
        """Look again and again until cancelled."""
        looked = -INTERVAL_MAX  # At once: stop filters that are in the kernel already are traffic to be listed.
        while True:
            await asyncio.sleep(INTERVAL_MIN)
            self._engine.roster.touch_interfaces()
            self._engine.sources.expire(time.time())
            due = time.monotonic() >= looked + self.interval()
            if due:
                looked = time.monotonic()
            if self._engine.unused.look(self._keep(), time.monotonic()):
                self._executor.wake()
            for (table, family), kernel in list(self._engine.tables.items()):
                if kernel.opened and (kernel.pressed or kernel.blind or (due and (kernel.learned or kernel.templates))):
                    await self.look(table, family)

    def interval(self) -> float:
        """Seconds until the next look."""
        shortest = min(
            (
                shape.route.idle_timeout
                for kernel in self._engine.tables.values()
                for shape in kernel.templates.values()
                if shape.route.idle_timeout
            ),
            default=self._engine.limits.idle_timeout,
        )
        return max(INTERVAL_MIN, min(INTERVAL_MAX, shortest / 4, self._engine.limits.idle_timeout / 4))

    async def look(self, table: int, family: Family) -> None:
        """Look at one table now."""
        found, now = await asyncio.to_thread(_ours, table, family, self._engine.tables[table, family].learned)
        self._engine.sweep(table, family, found, now)
        self._executor.wake()


def _ours(table: int, family: Family, learned: Container[bytes]) -> tuple[list[tuple[bytes, float, int, int]], float]:
    """Our own entries: key, seconds idle, ifindex of the iif, packets. In a thread.

    A learned entry that somebody else once overwrote is ours again, but stays STATIC for good (ipmr_mfc_add).
    """
    dump = mfc_dump.dump(family, table)
    paths = dump.paths
    found = [
        (key, idle, paths[number].iif, packets)
        for packets, _, _, idle, number, protocol, unresolved, key in dump.rows()
        if not unresolved and (protocol == mfc_dump.PROTOCOL_OURS or key in learned)
    ]
    return found, time.time()
