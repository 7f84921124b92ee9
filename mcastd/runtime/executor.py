"""The executor: carries out the engine's effects, one step at a time, and tells it what came of them.

There is one, and it alone calls the kernel for changes: so the engine's picture of the kernel is that of one writer.
"""

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from mcastd.core.engine import Engine
from mcastd.core.plan import Work
from mcastd.kernel.mroute import Mroute
from mcastd.model.address import Family
from mcastd.model.effect import AddVif, CloseTable, DeleteMfc, DelVif, Effect, OpenTable, ProgramMfc, SetTemplates, SetVifMap
from mcastd.model.errors import KernelRefused, McastdError, Problem, Reason
from mcastd.model.template import TemplateChange
from mcastd.telemetry.metrics import Metrics

INLINE = 16
"""Entries that are programmed at once (about 40 µs); more go to a thread, which costs some 60 µs but stalls nobody."""

RETRY_SECONDS = 5.0
"""How often what the kernel refused is tried again, beside the tries when interfaces change."""

_log = logging.getLogger(__name__)


class TablePort(Protocol):
    """What the executor asks of the keeper."""

    async def set_vif_map(self, table: int, family: Family, entries: tuple[tuple[int, int, str], ...]) -> None:
        """Returns when the keeper has the map and has passed on every upcall that was queued before."""

    async def set_templates(self, table: int, family: Family, changes: list[TemplateChange], *, whole: bool) -> None:
        """Returns when the keeper uses them, and every record of what it answered by older ones has come."""

    def set_learned(self, table: int, family: Family, counts: list[tuple[bytes, int]]) -> None:
        """Tell by how many the learned entries of templates differ from what it counts."""

    async def open_table(self, table: int) -> Mapping[Family, Mroute]:
        """Open a table's sockets; McastdError if that can't be."""

    async def close_table(self, table: int) -> None:
        """Returns when the keeper has closed its sockets of a table."""


class Executor:
    """Runs the engine's plan whenever there is anything in it."""

    def __init__(self, engine: Engine, keeper: TablePort, tables: dict[tuple[int, Family], Mroute], metrics: Metrics) -> None:
        """Work on these tables; `tables` grows as tables are opened."""
        self._engine = engine
        self._keeper = keeper
        self._tables = tables
        self._metrics = metrics
        self._closed_tables: dict[int, str] = {}
        """Why tables can't be opened, as the log has it."""
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._waiting: dict[Work, asyncio.Future[None]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kernel")
        self._probes: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        """There may be something to do."""
        self._quiet.clear()
        self._wake.set()

    async def done(self, work: Work) -> None:
        """Wait until every key of a work has been seen to."""
        if not work.finished:
            future = self._waiting.setdefault(work, asyncio.get_running_loop().create_future())
            self.wake()
            await asyncio.shield(future)

    async def probe(self) -> None:
        """Return once the executor has had a turn, and its thread and the kernel have answered what changes nothing."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._probes.append(future)
        self._wake.set()
        await future

    @property
    def busy(self) -> bool:
        """Whether somebody waits for what the kernel is being told."""
        return bool(self._waiting)

    async def quiet(self) -> None:
        """Wait until there is nothing to do."""
        await self._quiet.wait()

    async def run(self) -> None:
        """Carry out steps until cancelled."""
        try:
            while True:
                await self._drain()
                self._quiet.set()
                try:
                    async with asyncio.timeout(RETRY_SECONDS if self._engine.troubled else None):
                        await self._wake.wait()
                except TimeoutError:
                    self._engine.retry()
                self._wake.clear()
        finally:
            text = "the daemon is ending: the write is stored, and the kernel follows when it is back"
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(McastdError(Reason.SHUTTING_DOWN, text))
            self._thread.shutdown(wait=True)

    async def _drain(self) -> None:
        engine = self._engine
        while step := engine.pull(time.time()):
            for effect in step:
                result = await self._carry_out(effect)
                engine.push(effect, result, time.time())
            self._report()
            await self._answer_probes()
            await asyncio.sleep(0)
        self._report()
        await self._answer_probes()
        for table, family, counts in engine.recounts():
            self._keeper.set_learned(table, family, counts)

    async def _answer_probes(self) -> None:
        if not self._probes:
            return
        probes, self._probes = self._probes, []
        if self._tables:
            await asyncio.get_running_loop().run_in_executor(self._thread, _ask_kernel, next(iter(self._tables.values())))
        for future in probes:
            if not future.done():
                future.set_result(None)

    def _report(self) -> None:
        for work in self._engine.finished():
            future = self._waiting.pop(work, None)
            if future is not None and not future.done():
                future.set_result(None)

    async def _carry_out(self, effect: Effect) -> object:
        match effect:
            case OpenTable():
                return await self._open(effect.table)
            case CloseTable():
                await self._close(effect.table)
                return None
            case SetVifMap():
                await self._keeper.set_vif_map(effect.table, effect.family, effect.entries)
                return None
            case SetTemplates():
                await self._keeper.set_templates(effect.table, effect.family, effect.changes, whole=effect.whole)
                return None
            case _:
                return await self._change(effect, self._tables[effect.table, effect.family])

    async def _change(self, effect: ProgramMfc | DeleteMfc | AddVif | DelVif, mroute: Mroute) -> object:
        match effect:
            case ProgramMfc():
                packed = [forwarding.packed for forwarding in effect.forwardings]
                return await self._batch("add_mfc", len(effect.keys), lambda: mroute.program(effect.keys, packed))
            case DeleteMfc():
                return await self._batch("del_mfc", len(effect.keys), lambda: mroute.delete(effect.keys))
            case AddVif():
                return self._vif("add_vif", effect, lambda: mroute.add_vif(effect.vif, effect.ifindex))
            case DelVif():
                return self._vif("del_vif", effect, lambda: mroute.del_vif(effect.vif))

    async def _batch(self, operation: str, size: int, call: Callable[[], Sequence[int] | None]) -> Sequence[int] | None:
        with self._metrics.kernel_operation_seconds.labels(operation).time():
            if size <= INLINE:
                errnos = call()
            else:
                errnos = await asyncio.get_running_loop().run_in_executor(self._thread, call)
        self._metrics.kernel_operations.labels(operation).inc(size)
        for number in errnos or ():
            if number:
                self._metrics.kernel_operation_failures.labels(operation, errno.errorcode.get(number, str(number))).inc()
        return errnos

    def _vif(self, operation: str, effect: AddVif | DelVif, call: Callable[[], None]) -> int:
        """A VIF's change; its errno. A VIF that is to go may be gone: its link went first."""
        self._metrics.kernel_operations.labels(operation).inc()
        try:
            with self._metrics.kernel_operation_seconds.labels(operation).time():
                call()
        except KernelRefused as exc:
            self._metrics.kernel_operation_failures.labels(operation, errno.errorcode.get(exc.errno, str(exc.errno))).inc()
            if not (isinstance(effect, DelVif) and exc.errno == errno.EADDRNOTAVAIL):
                _log.warning("the kernel refused a VIF", extra={"operation": operation, "vif": effect.vif, "error": str(exc)})
            return exc.errno
        _log.debug("a VIF changed", extra={"operation": operation, "vif": effect.vif, "table": effect.table})
        return 0

    async def _close(self, table: int) -> None:
        """Close our sockets of a table at once, before anybody else has a turn, and have the keeper close its own."""
        for family in Family:
            mroute = self._tables.pop((table, family), None)
            if mroute is not None:
                mroute.close()
        await self._keeper.close_table(table)
        _log.info("a table that nothing wanted is closed", extra={"table": table})

    async def _open(self, table: int) -> dict[Family, Problem | None]:
        """Open what is not open; by family None, or why not."""
        result: dict[Family, Problem | None] = {f: None for f in Family if (table, f) in self._tables}
        if len(result) == len(Family):
            return result
        try:
            opened = await self._keeper.open_table(table)
        except McastdError as exc:
            if self._closed_tables.get(table) != str(exc):  # It is tried again and again; one line says it.
                self._closed_tables[table] = str(exc)
                _log.warning("a table can't be opened; it is tried again", extra={"table": table, "error": str(exc)})
            return {f: result.get(f, exc.problem) if f not in result else None for f in Family}
        for family in Family:
            if family in opened and (table, family) not in self._tables:
                self._tables[table, family] = opened[family]
            if (table, family) in self._tables:
                result[family] = None
            else:
                result[family] = unsupported(family)
        return result


def _ask_kernel(mroute: Mroute) -> None:
    try:
        mroute.vif_counters(0)
    except KernelRefused as exc:  # An answer it is: what is wrong with the socket shows where something is changed.
        _log.debug("the kernel refuses to count", extra={"error": str(exc)})


def unsupported(family: Family) -> Problem:
    """Why a family has no sockets although the keeper opened the table."""
    text = f"the kernel has no multicast routing for {family.name} ({os.uname().release}): IP_MROUTE or IPV6_MROUTE is missing"
    return Problem(Reason.KERNEL_ERROR, text, {"call": "MRT_INIT", "errno": str(errno.ENOPROTOOPT)})
