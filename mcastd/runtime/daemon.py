"""The daemon as its API sees it: engine, writer, executor and counters put together."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager

from mcastd import __version__
from mcastd.api.ports import CounterSample, ServerInfo
from mcastd.api.principals import Principals
from mcastd.core.engine import Engine
from mcastd.core.join_problems import is_refusal
from mcastd.keeper.channel import Losses, UpcallRecord
from mcastd.kernel.mroute import Mroute
from mcastd.model.address import Family, exact_key
from mcastd.model.errors import McastdError, Problem, Reason
from mcastd.model.event import Answer, UpcallKind
from mcastd.model.interface import VifCounters
from mcastd.model.join import JoinKey
from mcastd.model.route import Route, RouteState
from mcastd.model.rule import Rule
from mcastd.model.template import TemplateChange, key_text
from mcastd.model.write import JoinChange, Outcome, PutJoins, Restore, RestoreJoins, Write, WriteOptions
from mcastd.runtime.actions import ActionCaller
from mcastd.runtime.configuration import Configurator
from mcastd.runtime.counters import CounterCache
from mcastd.runtime.drift import Reconciler
from mcastd.runtime.executor import Executor
from mcastd.runtime.joiner import Joiner, PoolPort, keeper_pool
from mcastd.runtime.keeper_client import KeeperClient
from mcastd.runtime.leases import Leases
from mcastd.runtime.recovery import Recovery
from mcastd.runtime.rules import Rules
from mcastd.runtime.tasks import spawn
from mcastd.runtime.writer import Writer
from mcastd.store.sqlite import Store
from mcastd.telemetry.metrics import Metrics

COMING = 0.05
"""Seconds after a part of a write in which the next one is expected: a client that stalls holds up nobody for longer."""

NEW_FROM, NEW_TO = -0.005, 1.0
"""Seconds between the making of a route's entry and an upcall for it: then one of its packets is stuck."""

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

    async def close_table(self, table: int) -> None:
        """Returns when the keeper has closed its sockets of a table."""
        await self._keeper.close_table(table)


class Daemon:
    """One run of the server."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        keeper: KeeperClient,
        tables: dict[tuple[int, Family], Mroute],
        metrics: Metrics,
        end: Callable[[bool], None],
        pool: PoolPort | None = None,
    ) -> None:
        """Put it together; nothing runs yet. `end` has the server end in order; `pool` None = real join sockets."""
        self.engine = engine
        self.info = ServerInfo(__version__, str(uuid.uuid4()), time.time())
        self.executor = Executor(engine, KeeperTables(keeper), tables, metrics)
        self.joiner = Joiner(engine.joins, pool if pool is not None else keeper_pool(keeper), metrics)
        self.writer = Writer(engine, store, self.executor, self.joiner)
        self.recovery = Recovery(engine, store, self.writer)
        self.principals = Principals()
        self.leases = Leases(engine, self.writer.write)
        self.rules = Rules(keeper)
        self._keeper = keeper
        self._tables = tables
        self._metrics = metrics
        self._end = end
        self.reconciler = Reconciler(engine, self.executor.wake, tables, metrics)
        self.sampler = CounterCache(engine)
        self._upcalls_lost = 0
        self._ponging: asyncio.Task[None] | None = None
        self._heard_at = -COMING
        self._writes = 0
        self.configuration: Configurator | None = None
        """Set by who starts the server; without one there is no file to reload."""
        self.forwarding_kept = False
        """Whether what forwards outlives the daemon; set by who starts the server."""
        self.actions: ActionCaller | None = None
        """Set by who starts the server, where there is an action script."""

    # --- DaemonPort --------------------------------------------------------------------------------------------------

    async def write(self, write: Write) -> Outcome:
        """Carry out a write; one that is to be all or nothing is undone where an item fails, whether or not the caller stays."""
        if not write.options.all_or_nothing or write.options.validate_only:
            return await self.writer.write(write)
        return await asyncio.shield(spawn(self._all_or_nothing(write), "all or nothing"))

    async def _all_or_nothing(self, write: Write) -> Outcome:
        outcome = await self.writer.write(write)
        refusal = self._refusal(outcome)
        if refusal is None:
            return outcome
        at, problem = refusal
        text = f"item {at}: {problem.message}"
        try:
            skipped = await self.undo(write, outcome)
        except McastdError as exc:
            raise McastdError(
                problem.reason, f"{text}; it could not be undone ({exc}): what was written stays in force", **problem.metadata
            ) from exc
        others = f", but for {skipped} items that were written again since" if skipped else ""
        raise McastdError(problem.reason, f"{text}; everything was put back as it was{others}", **problem.metadata)

    def _refusal(self, outcome: Outcome) -> tuple[int, Problem] | None:
        """The first item that the kernel has refused: its position, and why."""
        joins = self.engine.joins
        routes = [(change.id, change.after) for change in outcome.changes if change.after is not None]
        for at, route in (*routes, *outcome.kept):
            problem = (route.problem or route.fate.problem) if route.state is RouteState.FAILED else joins.error_of_route(route)
            if problem is not None and (route.state is RouteState.FAILED or is_refusal(problem)):
                return at, problem
        for at, change in enumerate(outcome.joins):
            problem = joins.error_of(change.key) if change.after is not None else None
            if problem is not None and is_refusal(problem):
                return at, problem
        return None

    async def undo(self, write: Write, outcome: Outcome) -> int:
        """Put back what was before, where nobody has written since; best effort, since forwarding is not transactional.

        How many items somebody has written since.
        """
        options = WriteOptions(owner=write.options.owner, take_over=True)
        if isinstance(write, PutJoins):
            return await self._undo_joins(options, outcome)
        before: dict[bytes, Route | None] = {}
        after: dict[bytes, Route | None] = {}
        for change in outcome.changes:
            route = change.after or change.before
            if change.problem is None and route is not None:
                before.setdefault(route.key, change.before)
                after[route.key] = change.after
        puts = [route.copy() for route in before.values() if route is not None]
        deletes = [key for key, route in before.items() if route is None and after[key] is not None]
        undone = await self.writer.write(Restore(options, puts, deletes, after))
        return len(puts) + len(deletes) - undone.created - undone.updated - undone.deleted - undone.unchanged

    def store_refusal(self) -> McastdError | None:
        """Why writes can't be stored now; None = they can."""
        return self.writer.refusal

    def session_ended(self, owner: str, session: int) -> None:
        """A session has ended, for whatever reason: it will be written down, and the hold time begins."""
        self.leases.ended(owner, session)

    async def reload(self, *, validate_only: bool) -> Outcome:
        """Read the configuration again and put the difference in force."""
        if self.configuration is None:
            raise McastdError(Reason.INVALID_VALUE, "there is no configuration file to read", field="config", value="")
        return await self.configuration.reload(validate_only=validate_only)

    async def _undo_joins(self, options: WriteOptions, outcome: Outcome) -> int:
        changed: dict[JoinKey, JoinChange] = {}
        for change in outcome.joins:
            if change.after is not change.before:
                before = changed[change.key].before if change.key in changed else change.before
                changed[change.key] = JoinChange(change.key, before, change.after)
        undone = await self.writer.write(RestoreJoins(options, list(changed.values())))
        return len(changed) - undone.created - undone.updated - undone.deleted

    async def apply_rules(self, rules: Iterable[Rule]) -> None:
        """Have the kernel hold just these policy rules of ours; McastdError if one is refused, the others hold."""
        await self.rules.apply(rules)

    async def steady(self) -> None:
        """Wait until no write is half in force."""
        await self.writer.steady()

    def busy(self) -> bool:
        """Whether a write is being carried out, or on its way in."""
        return self._writes > 0 or self.writer.busy or self.executor.busy or time.monotonic() - self._heard_at < COMING

    def write_coming(self) -> None:
        """A part of a write has come in."""
        self._heard_at = time.monotonic()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While this is entered a write is being carried out: its answer may take as long as the kernel's."""
        self._writes += 1
        try:
            yield
        finally:
            self._writes -= 1

    async def counters(self, max_age: float) -> CounterSample:
        """Counters not older than `max_age` seconds."""
        return await self.sampler.get(max_age)

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

    def request_shutdown(self, *, keep_forwarding: bool) -> None:
        """End the daemon in order: the keeper is told that none shall follow, and this server ends.

        McastdError NOT_IMPLEMENTED where forwarding shall be kept, and nothing would.
        """
        if keep_forwarding and not self.forwarding_kept:
            text = "keep_forwarding: nothing holds routes and joins beyond the daemon: it needs a service manager that stores "
            text += "its descriptors (systemd: FileDescriptorStoreMax=); kill -USR1 re-executes it, -USR2 upgrades the server"
            raise McastdError(Reason.NOT_IMPLEMENTED, text, field="keep_forwarding", feature="keep-forwarding")
        _log.info("a client asked for the end", extra={"keep_forwarding": keep_forwarding})
        self._keeper.request_shutdown(keep_forwarding=keep_forwarding)
        self._end(keep_forwarding)

    # --- what the keeper tells ---------------------------------------------------------------------------------------

    def ping(self, number: int) -> None:
        """Answer once the executor and the kernel have, which shows that all of this lives."""
        self._ponging = spawn(self._pong(number), "pong")

    async def _pong(self, number: int) -> None:
        await self.executor.probe()
        self._keeper.pong(number)

    def upcalls(self, records: list[UpcallRecord]) -> None:
        """Count them, and tell the engine; an entry of ours that the kernel lacks, as a NOCACHE for it says, is put back."""
        for record in records:
            kind, answer = UpcallKind(record.kind), Answer(record.answer)
            self._metrics.upcalls.labels(str(record.table), record.family.name.lower(), kind.name.lower()).inc()
            key = exact_key(record.table, record.group, record.source)
            exact = key in self.engine.desired.routes and answer not in {Answer.INSTALLED, Answer.ELSEWHERE}
            if exact and kind is UpcallKind.NOCACHE:
                self._put_back(record, key)
            self.engine.upcall(key, kind, record.vif, answer, record.template, record.time)
            if self.actions is not None:
                self.actions.upcall(key, kind, answer, record.time)
        self.engine.feed.upcalls_noted()
        self.executor.wake()

    def _put_back(self, record: UpcallRecord, key: bytes) -> None:
        """Put back an entry that the kernel should have and still lacks: most are younger than the packet, or on their way."""
        kernel = self.engine.tables.get((record.table, record.family))
        mroute = self._tables.get((record.table, record.family))
        if kernel is None or key not in kernel.actual or mroute is None:
            return
        if mroute.counters([key])[0] is not None:
            if self._stuck(record, key):
                self._let_go(mroute, key, kernel.actual[key].packed)
        elif self.engine.lost(key):
            self._metrics.drift_repairs.labels("missing").inc()
            _log.warning("the kernel lacked an entry, which is put back", extra={"route": key_text(key)})

    def _stuck(self, record: UpcallRecord, key: bytes) -> bool:
        """Whether a packet of a new route waits beside its entry: see FastPath._stuck, which does the same for what it makes."""
        since = record.time - self.engine.desired.routes[key].installed_at
        return NEW_FROM < since < NEW_TO and key not in self.engine.being_written()

    def _let_go(self, mroute: Mroute, key: bytes, packed: bytes) -> None:
        """Make an entry of some milliseconds anew, which lets go what waits for it."""
        mroute.delete([key])
        if mroute.program([key], [packed]) is not None:
            self.engine.lost(key)

    def losses(self, losses: Losses) -> None:
        """Count what nobody will hear of."""
        self._upcalls_lost += losses.kernel
        self._metrics.upcall_drops.inc(losses.kernel + losses.keeper)
        self.engine.feed.upcalls_lost()
        if losses.keeper:
            self.engine.records_lost(losses.table, losses.family)
            self.executor.wake()
        _log.warning(
            "upcalls were lost",
            extra={"table": losses.table, "family": losses.family.name, "kernel": losses.kernel, "keeper": losses.keeper},
        )
