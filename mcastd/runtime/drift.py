"""Drift: sees what others do to our VIFs and entries, by the kernel's notifications, and has it put right.

Where notifications were lost one dump is compared, however many were lost. VIFs are looked at when the kernel says that an
interface's mc_forwarding has changed, and from time to time.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import chain

from mcastd.core.drift import Drift, Found
from mcastd.core.engine import Engine
from mcastd.core.tables import KernelTable
from mcastd.kernel import mfc_dump
from mcastd.kernel.mroute import Mroute
from mcastd.kernel.notifications import REMOVED, MfcMonitor, Notices, link_exists, vifs_of_interface
from mcastd.model.address import Family
from mcastd.model.errors import McastdError
from mcastd.model.template import key_text
from mcastd.telemetry.metrics import Metrics

VERIFY_SECONDS = 0.5
"""Between two looks at our VIFs: one ioctl each."""

AT_ONCE = 1000
"""Notifications that are read between two yields: about 1 ms."""

GATHER = 0.01
"""Seconds between two rounds: what comes meanwhile is one batch."""

TRUCE = 0.1
"""Seconds to the next round after one that has put anything right: another daemon that does the same makes no storm of it."""

LULL = 0.1
"""Seconds from a loss to the dump. Nothing is read meanwhile: the kernel drops what follows a loss, at no cost, until all is."""

REST = 0.3
"""At least so many seconds, and as many as the last comparison took, lie between two dumps."""

STALE_MAX = 100
"""Readings after a loss that are thrown away; what comes on and on is read as always."""

_log = logging.getLogger(__name__)

_TEXTS = {"missing": "entries that were gone are put back", "different": "entries that somebody else changed are put right"}


class Reconciler:
    """Puts right what others have done to our tables."""

    def __init__(
        self, engine: Engine, wake: Callable[[], None], tables: Mapping[tuple[int, Family], Mroute], metrics: Metrics
    ) -> None:
        """Look after the engine's tables; `wake` has the executor carry out what is found to do."""
        self._engine = engine
        self._execute = wake
        self._tables = tables
        self._metrics = metrics
        self._drift = Drift(engine)
        self._monitors: Sequence[MfcMonitor] = ()
        self._wake = asyncio.Event()
        self._readable: set[MfcMonitor] = set()
        self._vifs_changed = False
        self._lost: dict[MfcMonitor, float] = {}
        """When to compare a dump, by the monotonic clock; until then nothing is read."""
        self._rested: dict[MfcMonitor, float] = {}
        """When the next dump may be compared."""
        metrics.drift_routes.labels("missing").set_function(lambda: self._drift.under_repair()[0])
        metrics.drift_routes.labels("different").set_function(lambda: self._drift.under_repair()[1])
        metrics.drift_routes.labels("foreign").set_function(lambda: sum(len(one.foreign) for one in engine.tables.values()))

    def follow(self, monitors: Sequence[MfcMonitor]) -> None:
        """Read these, which have been open since before the tables were taken over: so nothing is missed."""
        self._monitors = monitors

    async def run(self) -> None:
        """Follow notifications until cancelled."""
        looked = time.monotonic()
        for monitor in self._monitors:
            self._listen(monitor)
        try:
            while True:
                await self._wait(looked + VERIFY_SECONDS)
                for monitor in list(self._readable):
                    await self._read(monitor)
                if self._vifs_changed or time.monotonic() >= looked + VERIFY_SECONDS:
                    thorough, self._vifs_changed = self._vifs_changed, False
                    looked = time.monotonic()
                    self.check_vifs(thorough=thorough)
                repaired = await self._see_to(self._drift.settle(self._absent))
                for monitor in [one for one, due in self._lost.items() if due <= time.monotonic()]:
                    await self._recover(monitor)
                await asyncio.sleep(TRUCE if repaired else GATHER)
        finally:
            for monitor in self._monitors:
                asyncio.get_running_loop().remove_reader(monitor.fileno())

    async def _wait(self, until: float) -> None:
        due = min([until, *self._lost.values()])
        if self._drift.pending:
            return
        try:
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    # --- notifications -----------------------------------------------------------------------------------------------

    def _listen(self, monitor: MfcMonitor) -> None:
        asyncio.get_running_loop().add_reader(monitor.fileno(), self._has_come, monitor)

    def _has_come(self, monitor: MfcMonitor) -> None:
        asyncio.get_running_loop().remove_reader(monitor.fileno())  # Until it is read, or it would be called again and again.
        self._readable.add(monitor)
        self._wake.set()

    async def _read(self, monitor: MfcMonitor) -> None:
        self._readable.discard(monitor)
        more = True
        while more:
            notices = monitor.read(AT_ONCE)
            self._note(notices)
            if notices.lost:
                now = time.monotonic()
                self._lost[monitor] = max(now + LULL, self._rested.get(monitor, 0.0))
                return
            more = notices.more
            await asyncio.sleep(0)
        self._listen(monitor)

    def _note(self, notices: Notices) -> None:
        self._vifs_changed = self._vifs_changed or notices.vifs
        if notices.removals:
            self._drift.hear_removals(chain.from_iterable(notices.entries.keys()))
            return
        paths = notices.entries.paths
        self._drift.hear((row[7], None if row[6] == REMOVED else paths[row[4]]) for row in notices.entries.rows())

    async def _recover(self, monitor: MfcMonitor) -> None:
        """Notifications were lost: compare dumps with what we think is there."""
        del self._lost[monitor]
        for _ in range(STALE_MAX):  # What is queued is older than the dump.
            if not monitor.read(AT_ONCE).more:
                break
            await asyncio.sleep(0)
        self._listen(monitor)
        began = time.monotonic()
        self.check_vifs(thorough=True)
        for (table, family), kernel in list(self._engine.tables.items()):
            if family is monitor.family and kernel.opened:
                await self.reconcile(table, family)
        took = time.monotonic() - began
        self._rested[monitor] = time.monotonic() + max(REST, took)

    async def reconcile(self, table: int, family: Family) -> int:
        """Compare a dump of one table with what we think is there; how many entries are put right."""
        kernel, began = self._engine.tables[table, family], time.monotonic()
        self._metrics.reconciles.labels("notifications_lost").inc()
        self._drift.dump_begins(kernel)
        try:
            dump = await asyncio.to_thread(mfc_dump.dump, family, table)
            found = self._drift.compare(kernel, dump.rows(), dump.paths, mfc_dump.PROTOCOL_FOREIGN, self._absent)
            repaired = await self._see_to(found)
        except McastdError as exc:
            _log.warning("a table can't be compared with what it should be", extra={"table": table, "error": str(exc)})
            return 0
        finally:
            self._drift.dump_ends(kernel)
        self._metrics.reconcile_seconds.observe(time.monotonic() - began)
        self._metrics.reconcile_success.set_to_current_time()
        _log.debug("a table was compared", extra={"table": table, "family": family.name, "entries": len(dump), "off": repaired})
        return repaired

    async def _see_to(self, findings: Generator[Found, None, None]) -> int:
        """Let what is found be put right at once, and tell of it once; how many entries."""
        counts: Counter[tuple[KernelTable, str]] = Counter()
        examples: dict[tuple[KernelTable, str], bytes] = {}
        for found in findings:
            for kind, keys in (("missing", found.missing), ("different", found.different)):
                if keys:
                    counts[found.kernel, kind] += len(keys)
                    examples.setdefault((found.kernel, kind), keys[0])
                    self._metrics.drift_repairs.labels(kind).inc(len(keys))
                    self._execute()
            await asyncio.sleep(0)
        for (kernel, kind), count in counts.items():
            example = key_text(examples[kernel, kind])
            extra = {"table": kernel.table, "family": kernel.family.name, "entries": count, "example": example}
            _log.warning(_TEXTS[kind], extra=extra)
        return counts.total()

    def _absent(self, kernel: KernelTable, keys: list[bytes]) -> list[bytes]:
        mroute = self._tables.get((kernel.table, kernel.family))
        if mroute is None:
            return []
        return [key for key, counters in zip(keys, mroute.counters(keys), strict=True) if counters is None]

    # --- VIFs --------------------------------------------------------------------------------------------------------

    def check_vifs(self, *, thorough: bool = False) -> None:
        """Have VIFs made anew that the kernel has no more; `thorough`: also those whose number is another interface's by now.

        Somebody else took them away, or an interface went and came back as it was while link changes were lost.
        """
        for (table, family), mroute in self._tables.items():
            vifs = self._engine.tables[table, family].vifs
            gone = [n for n in vifs.in_kernel() if mroute.vif_counters(n) is None or (thorough and self._taken(family, n, table))]
            gone = [n for n in gone if (slot := vifs.slots[n]) is not None and link_exists(slot.ifindex)]
            if gone:
                _log.warning("interfaces have lost their VIFs, which are made anew", extra={"table": table, "vifs": gone})
                self._metrics.drift_repairs.labels("vif").inc(len(gone))
                self._engine.vifs_gone(table, family, gone)
                self._execute()

    def _taken(self, family: Family, number: int, table: int) -> bool:
        """Whether the kernel has fewer VIFs of an interface than we have made, in all tables."""
        slot = self._engine.tables[table, family].vifs.slots[number]
        if slot is None:
            return False
        there = vifs_of_interface(family, slot.name)
        return there is not None and there < sum(
            kernel.vifs.by_ifindex.get(slot.ifindex) in kernel.vifs.in_kernel()
            for (_, other), kernel in self._engine.tables.items()
            if other is family
        )
