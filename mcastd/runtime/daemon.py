"""The daemon as its API sees it: engine, writer, executor and counters put together."""

import logging
import time
import uuid
from collections.abc import Callable, Mapping

from mcastd import __version__
from mcastd.api.ports import CounterSample, ServerInfo
from mcastd.core.engine import Engine
from mcastd.keeper.channel import Losses, UpcallRecord
from mcastd.kernel.mroute import Mroute
from mcastd.model.address import Family, exact_key, key_text
from mcastd.model.event import UpcallKind
from mcastd.model.interface import VifCounters
from mcastd.model.write import Outcome, Restore, Write, WriteOptions
from mcastd.runtime.counters import CounterCache
from mcastd.runtime.executor import Executor
from mcastd.runtime.keeper_client import KeeperClient
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
        """Carry out a write."""
        return await self.writer.write(write)

    async def undo(self, write: Write, outcome: Outcome) -> None:
        """Put back what was before; best effort, since forwarding is not transactional."""
        # The last change first: where a request names a route twice, what was before the first change is put back last.
        done = [change for change in reversed(outcome.changes) if change.problem is None]
        puts = [change.before for change in done if change.before is not None]
        deletes = [change.after.key for change in done if change.before is None and change.after is not None]
        options = WriteOptions(owner=write.options.owner, take_over=True)
        await self.writer.write(Restore(options, [route.copy() for route in puts], deletes))

    async def steady(self) -> None:
        """Wait until no write is half in force."""
        await self.writer.steady()

    async def counters(self, max_age: float) -> CounterSample:
        """Counters not older than `max_age` seconds."""
        return await self._cache.get(max_age)

    def vif_counters(self, table: int, ipv6: bool, vif: int) -> VifCounters | None:
        """What one VIF has carried."""
        mroute = self._tables.get((table, Family.IPV6 if ipv6 else Family.IPV4))
        return mroute.vif_counters(vif) if mroute is not None else None

    def upcalls_lost(self) -> int:
        """Upcalls dropped by the kernel since this server started."""
        return self._upcalls_lost

    def check_vifs(self) -> None:
        """After link changes were lost: an interface may have gone and come back as it was, but its VIFs do not."""
        for (table, family), mroute in self._tables.items():
            known = self.engine.tables[table, family].vifs.in_kernel()
            gone = [number for number in known if mroute.vif_counters(number) is None]
            if gone:
                _log.warning("interfaces have lost their VIFs, which are made anew", extra={"table": table, "vifs": gone})
                self.engine.vifs_gone(table, family, gone)

    def request_shutdown(self) -> None:
        """End the daemon in order: the keeper is told that none shall follow, and this server ends."""
        _log.info("a client asked for the end")
        self._keeper.request_shutdown()
        self._end()

    # --- what the keeper tells ---------------------------------------------------------------------------------------

    def upcalls(self, records: list[UpcallRecord]) -> None:
        """Count them; an entry of ours that the kernel lacks, as a NOCACHE for it says, is put back."""
        for record in records:
            kind = UpcallKind(record.kind)
            self._metrics.upcalls.labels(str(record.table), record.family.name.lower(), kind.name.lower()).inc()
            if kind is UpcallKind.NOCACHE:
                self._put_back(record)

    def _put_back(self, record: UpcallRecord) -> None:
        """Put back an entry that the kernel should have and still lacks: most are younger than the packet, or on their way."""
        key = exact_key(record.table, record.group, record.source)
        kernel = self.engine.tables.get((record.table, record.family))
        if kernel is None or key not in kernel.actual or key not in self.engine.desired.routes:
            return
        mroute = self._tables.get((record.table, record.family))
        if mroute is None or mroute.counters([key])[0] is not None:
            return
        if self.engine.lost(key):
            _log.warning("the kernel lacked an entry, which is put back", extra={"route": key_text(key)})
            self.executor.wake()

    def losses(self, losses: Losses) -> None:
        """Count what nobody will hear of."""
        self._upcalls_lost += losses.kernel
        self._metrics.upcall_drops.inc(losses.kernel + losses.keeper)
        _log.warning(
            "upcalls were lost",
            extra={"table": losses.table, "family": losses.family.name, "kernel": losses.kernel, "keeper": losses.keeper},
        )
