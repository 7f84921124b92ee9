"""The daemon as its API sees it: engine, writer, executor and counters put together."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

from mcastd import __version__
from mcastd.api.ports import CounterSample, ServerInfo
from mcastd.core.engine import Engine
from mcastd.keeper.channel import Losses, UpcallRecord
from mcastd.kernel import mfc_dump
from mcastd.kernel.mroute import Mroute
from mcastd.model.address import Family, exact_key
from mcastd.model.errors import McastdError
from mcastd.model.event import Answer, UpcallKind
from mcastd.model.interface import VifCounters
from mcastd.model.route import Route, RouteState
from mcastd.model.template import TemplateChange, key_text
from mcastd.model.write import Outcome, Restore, Write, WriteOptions
from mcastd.runtime.counters import CounterCache
from mcastd.runtime.executor import Executor
from mcastd.runtime.keeper_client import KeeperClient
from mcastd.runtime.tasks import spawn
from mcastd.runtime.writer import Writer
from mcastd.store.sqlite import Store
from mcastd.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)


class KeeperTables:
    """What the executor asks of the keeper, on the channel; a table's sockets come back as Mroute."""

    def __init__(self, keeper: KeeperClient) -> None:
        """Ask this keeper."""
        self._keeper = keeper

    async def set_vif_map(self, table: int, family: Family, entries: tuple[tuple[int, int, str], ...]) -> None:
        """Returns when the keeper has the map and has passed on every upcall that was queued before."""
        await self._keeper.set_vif_map(table, family, entries)

    async def set_templates(self, table: int, family: Family, changes: list[TemplateChange], *, whole: bool) -> None:
        """Returns when the keeper uses them, and every record of what it answered by older ones has come."""
        await self._keeper.set_templates(table, family, changes, whole=whole)

    def set_learned(self, table: int, family: Family, counts: list[tuple[bytes, int]]) -> None:
        """Tell by how many the learned entries of templates differ from what it counts."""
        self._keeper.set_learned(table, family, counts)

    async def open_table(self, table: int) -> Mapping[Family, Mroute]:
        """Open a table's sockets; McastdError if that can't be."""
        sockets = await self._keeper.open_table(table)
        return {family: Mroute(sock, family, table) for family, sock in sockets.items()}


class Daemon:
    """One run of the server."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        keeper: KeeperClient,
        tables: dict[tuple[int, Family], Mroute],
        metrics: Metrics,
        end: Callable[[], None],
    ) -> None:
        """Put it together; nothing runs yet. `end` has the server end in order."""
        self.engine = engine
        self.info = ServerInfo(__version__, str(uuid.uuid4()), time.time())
        self.executor = Executor(engine, KeeperTables(keeper), tables, metrics)
        self.writer = Writer(engine, store, self.executor)
        self._keeper = keeper
        self._tables = tables
        self._metrics = metrics
        self._end = end
        self._cache = CounterCache(engine)
        self._upcalls_lost = 0

    # --- DaemonPort --------------------------------------------------------------------------------------------------

    async def write(self, write: Write) -> Outcome:
        """Carry out a write; one that is to be all or nothing is undone where an item fails, whether or not the caller stays."""
        if not write.options.all_or_nothing or write.options.validate_only:
            return await self.writer.write(write)
        return await asyncio.shield(spawn(self._all_or_nothing(write), "all or nothing"))

    async def _all_or_nothing(self, write: Write) -> Outcome:
        outcome = await self.writer.write(write)
        routes = [(change.id, change.after) for change in outcome.changes if change.after is not None]
        failed = next(((n, one) for n, one in [*routes, *outcome.kept] if one.state is RouteState.FAILED), None)
        problem = (failed[1].problem or failed[1].fate.problem) if failed is not None else None
        if failed is None or problem is None:
            return outcome
        text = f"item {failed[0]}: {problem.message}"
        try:
            skipped = await self.undo(write, outcome)
        except McastdError as exc:
            raise McastdError(
                problem.reason, f"{text}; it could not be undone ({exc}): what was written stays in force", **problem.metadata
            ) from exc
        others = f", but for {skipped} routes that were written again since" if skipped else ""
        raise McastdError(problem.reason, f"{text}; everything was put back as it was{others}", **problem.metadata)

    async def undo(self, write: Write, outcome: Outcome) -> int:
        """Put back what was before, where nobody has written since; best effort, since forwarding is not transactional.

        How many routes somebody has written since.
        """
        before: dict[bytes, Route | None] = {}
        after: dict[bytes, Route | None] = {}
        for change in outcome.changes:
            route = change.after or change.before
            if change.problem is None and route is not None:
                before.setdefault(route.key, change.before)
                after[route.key] = change.after
        puts = [route.copy() for route in before.values() if route is not None]
        deletes = [key for key, route in before.items() if route is None and after[key] is not None]
        options = WriteOptions(owner=write.options.owner, take_over=True)
        undone = await self.writer.write(Restore(options, puts, deletes, after))
        return len(puts) + len(deletes) - undone.created - undone.updated - undone.deleted - undone.unchanged

    async def steady(self) -> None:
        """Wait until no write is half in force."""
        await self.writer.steady()

    async def counters(self, max_age: float) -> CounterSample:
        """Counters not older than `max_age` seconds."""
        return await self._cache.get(max_age)

    async def flush(self, keys: AbstractSet[bytes]) -> int:
        """Remove these learned entries; how many there were."""
        work, count = self.engine.flush(keys)
        await self.executor.done(work)
        return count

    def vif_counters(self, table: int, ipv6: bool, vif: int) -> VifCounters | None:
        """What one VIF has carried."""
        mroute = self._tables.get((table, Family.IPV6 if ipv6 else Family.IPV4))
        return mroute.vif_counters(vif) if mroute is not None else None

    def upcalls_lost(self) -> int:
        """Upcalls dropped by the kernel since this server started."""
        return self._upcalls_lost

    def check_vifs(self) -> list[tuple[int, Family]]:
        """Have VIFs made anew that the kernel has no more though we never heard; the tables where that was so.

        Somebody else took them away, or an interface went and came back as it was while link changes were lost.
        """
        tables = []
        for (table, family), mroute in self._tables.items():
            known = self.engine.tables[table, family].vifs.in_kernel()
            gone = [number for number in known if mroute.vif_counters(number) is None]
            if gone:
                _log.warning("interfaces have lost their VIFs, which are made anew", extra={"table": table, "vifs": gone})
                self.engine.vifs_gone(table, family, gone)
                tables.append((table, family))
        return tables

    async def verify(self) -> None:
        """See whether the kernel still has our VIFs; where it has not, look at the entries as well, and put back what is gone."""
        for table, family in self.check_vifs():
            self.executor.wake()
            dump = await asyncio.to_thread(mfc_dump.dump, family, table)
            missing = self.engine.missing(table, family, {entry.key for entry in dump if not entry.unresolved})
            _log.warning("entries that were gone are put back", extra={"table": table, "family": family.name, "entries": missing})
            self.executor.wake()

    def request_shutdown(self) -> None:
        """End the daemon in order: the keeper is told that none shall follow, and this server ends."""
        _log.info("a client asked for the end")
        self._keeper.request_shutdown()
        self._end()

    # --- what the keeper tells ---------------------------------------------------------------------------------------

    def upcalls(self, records: list[UpcallRecord]) -> None:
        """Count them, and tell the engine; an entry of ours that the kernel lacks, as a NOCACHE for it says, is put back."""
        for record in records:
            kind, answer = UpcallKind(record.kind), Answer(record.answer)
            self._metrics.upcalls.labels(str(record.table), record.family.name.lower(), kind.name.lower()).inc()
            key = exact_key(record.table, record.group, record.source)
            if key in self.engine.desired.routes and answer not in {Answer.INSTALLED, Answer.ELSEWHERE}:
                if kind is UpcallKind.NOCACHE:
                    self._put_back(record, key)
            else:
                self.engine.upcall(key, kind, record.vif, answer, record.template, record.time)
        self.executor.wake()

    def _put_back(self, record: UpcallRecord, key: bytes) -> None:
        """Put back an entry that the kernel should have and still lacks: most are younger than the packet, or on their way."""
        kernel = self.engine.tables.get((record.table, record.family))
        mroute = self._tables.get((record.table, record.family))
        if kernel is None or key not in kernel.actual or mroute is None or mroute.counters([key])[0] is not None:
            return
        if self.engine.lost(key):
            _log.warning("the kernel lacked an entry, which is put back", extra={"route": key_text(key)})

    def losses(self, losses: Losses) -> None:
        """Count what nobody will hear of."""
        self._upcalls_lost += losses.kernel
        self._metrics.upcall_drops.inc(losses.kernel + losses.keeper)
        if losses.keeper:
            self.engine.records_lost(losses.table, losses.family)
            self.executor.wake()
        _log.warning(
            "upcalls were lost",
            extra={"table": losses.table, "family": losses.family.name, "kernel": losses.kernel, "keeper": losses.keeper},
        )
