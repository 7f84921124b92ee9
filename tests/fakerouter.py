"""A router in memory: the engine on a fake kernel, keeper and disk, moved step by step as the asynchronous executor would.

A test changes links, writes, crashes and restarts in any order, also between the effects of a step and between an effect and its
result; `transcript` tells what was asked of the kernel since the last look, a line each.
"""

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TypeVar

from mcastd.core.engine import Engine
from mcastd.core.plan import Work
from mcastd.core.prepare import prepare
from mcastd.core.unused import CLOSE_SECONDS
from mcastd.keeper.templates import FIRST, LAST, PART
from mcastd.model.address import Family, exact_key, key_family, key_table, pack_address
from mcastd.model.effect import AddVif, CloseTable, DeleteMfc, DelVif, Effect, OpenTable, ProgramMfc, SetTemplates, SetVifMap
from mcastd.model.event import Answer, LinkChanged, LinkEvent, LinkGone, LinksResync, UpcallKind
from mcastd.model.interface import Link
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.limits import Limits
from mcastd.model.record import Intent, InterfaceSettings, OwnerRecord, Stored
from mcastd.model.route import Oif, Paths, Route, Template
from mcastd.model.template import TemplateKey, key_text
from mcastd.model.write import Outcome, Write
from tests.fakekeeper import FakeKeeper, Record
from tests.fakekernel import NO_OIF, FakeKernel, Where, unpack

Result = TypeVar("Result")

NOW = 1000.0


def drain(generator: Generator[None, None, Result]) -> Result:
    """Run a generator to its end; what it returns."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            result: Result = stop.value
            return result


def sg(number: int, family: Family = Family.IPV4, table: int = 0) -> bytes:
    """The key of an (S,G), a different one for each number."""
    if family is Family.IPV4:
        return exact_key(table, bytes((239, 1)) + number.to_bytes(2, "big"), pack_address("10.0.0.1"))
    return exact_key(table, pack_address("ff3e::")[:14] + number.to_bytes(2, "big"), pack_address("2001:db8::1"))


def paths(iif: str, *oifs: str) -> Paths:
    """Paths by names, "name/ttl" where a threshold is asked for."""
    parts = [text.partition("/") for text in oifs]
    return Paths(iif, tuple(sorted(Oif(name, int(ttl or 0)) for name, _, ttl in parts)))


def route(key: bytes, iif: str, *oifs: str, owner: str = "alice", cookie: str = "") -> Route:
    """A route as a caller asks for it."""
    return Route(key, paths(iif, *oifs), owner, cookie)


def prefix(text: str, bits: int) -> tuple[bytes, int]:
    """Address and length of "239.1.0.0/16"; nothing = any of that many bits."""
    address, _, length = text.partition("/")
    return (pack_address(address), int(length or bits)) if text else (bytes(bits // 8), 0)


def template(
    group: str, source: str, iif: str, *oifs: str, owner: str = "alice", table: int = 0, shared_tree: bool = False
) -> Template:
    """A template as a caller asks for it: prefixes as text, nothing for any source; or a shared tree."""
    family = Family.IPV6 if ":" in group else Family.IPV4
    bits = 128 if family is Family.IPV6 else 32
    key = TemplateKey(table, family, *prefix(group, bits), *prefix(source, bits), iif)
    return Template(key.pack(), paths(iif, *oifs), owner, shared_tree=shared_tree)


class Disk:
    """What was made durable."""

    def __init__(self) -> None:
        self.routes: dict[bytes, Route] = {}
        self.owners: dict[str, OwnerRecord] = {}
        self.settings: dict[tuple[str, str], InterfaceSettings] = {}
        self.joins: dict[JoinKey, JoinRecord] = {}

    def commit(self, intent: Intent) -> None:
        """Make one write durable."""
        for put in intent.puts:
            self.routes[put.key] = put.copy()
        for key in intent.deletes:
            self.routes.pop(key, None)
        for owner in intent.owners:
            lease, until, syncing = (None, 0.0, False) if owner.lease is None else (owner.lease, owner.hold_until, owner.syncing)
            self.owners[owner.name] = OwnerRecord(owner.name, owner.epoch, owner.revision, lease, until, syncing)
        for said in intent.settings:
            self.settings[said.interface, said.owner] = said
        for join in intent.join_deletes:
            self.joins.pop(join, None)
        self.joins.update((record.key, replace(record)) for record in intent.join_puts)

    def load(self) -> Stored:
        """Everything, in fresh objects."""
        routes = {key: stored.copy() for key, stored in self.routes.items()}
        for one in routes.values():
            one.paths, one.session = Paths(one.paths.iif, one.paths.oifs), int(one.session > 0)
        return Stored(
            routes,
            {name: replace(owner) for name, owner in self.owners.items()},
            dict(self.settings),
            {key: replace(record) for key, record in self.joins.items()},
        )


class Router:
    """All of it; table 0 is open from the start."""

    def __init__(self, *names: str, limits: Limits | None = None) -> None:
        """Make interfaces of these names, up, with ifindexes from 1."""
        self.kernel = FakeKernel()
        self.keeper = FakeKeeper(self.kernel)
        self.disk = Disk()
        self.limits = limits or Limits()
        self.starts = 0
        self.events: deque[LinkEvent] = deque()
        """Told by the kernel, not yet to the engine."""
        self.lines: list[str] = []
        self.watch: Callable[[], None] = lambda: None
        """Called after everything that can change what the kernel forwards."""
        self._last_ifindex = 0
        self._step: list[Effect] = []
        self._answer: tuple[object] | None = None
        self._owed = 0
        self._unused_at = 0.0
        """Records that must be heard before the result under way is."""
        self.keeper.open(0)
        for name in names:
            self.link(name)
        self.boot()

    # --- links -------------------------------------------------------------------------------------------------------

    def link(self, name: str, ifindex: int = 0, *, up: bool = True, multicast: bool = True) -> int:
        """Make an interface, or change the one of this ifindex (also its name); its ifindex, a new one unless it is given."""
        ifindex = ifindex or self._last_ifindex + 1
        self._last_ifindex = max(self._last_ifindex, ifindex)
        link = Link(ifindex, name, up, multicast)
        self.kernel.set_link(link)
        self.events.append(LinkChanged(link))
        self.watch()
        return ifindex

    def unlink(self, name: str) -> int:
        """Take an interface away; its ifindex."""
        link = self.kernel.named(name)
        self.kernel.delete_link(link.ifindex)
        self.events.append(LinkGone(link.ifindex, name))
        self.watch()
        return link.ifindex

    def tell(self, count: int = 1_000_000) -> None:
        """Tell the engine of the oldest events, as the server does: after a resync it looks whether VIFs went unheard."""
        while self.events and count:
            event = self.events.popleft()
            count -= 1
            if isinstance(event, LinksResync) and self.unanswered and isinstance(self._step[0], AddVif):
                self.tick()  # The executor lets nobody look between a VIF's call and its result: it would miss that VIF.
            self.engine.links(event)
            if isinstance(event, LinksResync):
                self._check_vifs()

    def _check_vifs(self) -> None:
        for (table, family), known in self.engine.tables.items():
            if known.opened:
                vifs = self.kernel.tables[table, family].vifs
                gone = [number for number in known.vifs.in_kernel() if vifs[number] is None]
                self.engine.vifs_gone(table, family, gone)

    def resync(self) -> None:
        """Lose the events that are not told yet; all links as they are now take their place."""
        self.events.clear()
        self.events.append(LinksResync(tuple(self.kernel.links.values())))

    # --- the server --------------------------------------------------------------------------------------------------

    def boot(self, between: Callable[[], None] = lambda: None) -> None:
        """Start a server, the first one or after a crash; `between` is called wherever something could come between."""
        self.starts += 1
        self._step, self._answer = [], None
        self.events.clear()
        self._owed = 0
        self.engine = Engine(self.starts, self.disk.load(), self.limits)
        links = tuple(self.kernel.links.values())
        between()
        self.engine.links(LinksResync(links))
        for where in list(self.keeper.maps):
            vifs = self.keeper.adopted(where)
            between()
            dumped_at = self.now()
            entries = self.kernel.dump(where)
            between()
            self.engine.adopt(*where, vifs, entries, dumped_at)

    def write(self, *writes: Write) -> list[Outcome]:
        """Prepare writes in one draft, make them durable, put them in force; not in the kernel yet."""
        draft = self.engine.draft()
        outcomes = [drain(prepare(draft, write, self.engine.routes_max)) for write in writes]
        for intent in draft.intents:
            self.disk.commit(intent)
        for intent in draft.intents:
            drain(self.engine.commit(intent))
        return outcomes

    # --- traffic -----------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """The time, never the same twice."""
        self.kernel.clock += 0.001
        return self.kernel.clock

    def packet(self, key: bytes, name: str, ttl: int = 64) -> list[str]:
        """Let a packet of an (S,G) in; names of the interfaces that it leaves by."""
        self.now()
        left = self.keeper.packet(key, self.kernel.named(name).ifindex, ttl)
        self.watch()
        return sorted(self.kernel.links[ifindex].name for ifindex in left)

    def hear(self, count: int = 1_000_000) -> None:
        """Tell the engine of the oldest records, as mcastd.runtime.daemon does."""
        while self.keeper.records and count:
            record = self.keeper.records.popleft()
            self._owed -= 1
            count -= 1
            self._hear(record)

    def _hear(self, record: Record) -> None:
        key, engine = record.key, self.engine
        if key in engine.desired.routes and record.answer not in {Answer.INSTALLED, Answer.ELSEWHERE}:
            known = engine.tables.get((key_table(key), key_family(key)))
            if record.kind is UpcallKind.NOCACHE and known is not None and key in known.actual and self.kernel.entry(key) is None:
                engine.lost(key)
        engine.upcall(key, record.kind, record.vif, record.answer, record.template, record.time)

    def lose_record(self, at: int) -> None:
        """Nobody hears of this one, counted from the oldest; the keeper says that one was lost."""
        key = self.keeper.records[at].key
        del self.keeper.records[at]
        self._owed -= at < self._owed
        self.engine.records_lost(key_table(key), key_family(key))

    def sweep(self) -> None:
        """Look at what the kernel holds, as the housekeeper does."""
        for where, known in self.engine.tables.items():
            if known.opened:
                self.engine.sweep(*where, self.kernel.ages(where), self.now())

    def close_unused(self) -> None:
        """Let the time pass after which tables that nothing wants are closed, as the housekeeper sees it."""
        for _ in range(2):
            self._unused_at += 2 * CLOSE_SECONDS
            self.engine.unused.look((), self._unused_at)

    # --- the executor ------------------------------------------------------------------------------------------------

    def tick(self) -> bool:
        """One move: pull a step, carry out its next effect, or give a result back. False = there is nothing to do."""
        if self._answer is not None:
            self.hear(max(0, self._owed))
            self.engine.push(self._step.pop(0), self._answer[0], NOW)
            self._answer = None
        elif self._step:
            self._answer = (self._carry_out(self._step[0]),)
            self.watch()
        else:
            self._step = self.engine.pull(NOW)
            if not self._step:
                for table, family, counts in self.engine.recounts():
                    self.keeper.fastpaths[table, family].correct(counts)
            return bool(self._step)
        return True

    @property
    def next_effect(self) -> Effect | None:
        """What is carried out next, if that is known."""
        return self._step[0] if self._step and self._answer is None else None

    @property
    def unanswered(self) -> bool:
        """Whether an effect was carried out whose result the engine does not have yet."""
        return self._answer is not None

    def settle(self, ticks: int = 100_000) -> int:
        """Tell all events and move until there is nothing to do; how many moves that took."""
        self.tell()
        self.hear()
        taken = 0
        while self.tick():
            taken += 1
            assert taken < ticks, f"the plan does not come to an end: {self.lines[-20:]}"
        return taken

    def until(self, kind: type[Effect]) -> None:
        """Move until an effect of this kind is the next to be carried out."""
        while not (self._step and self._answer is None and isinstance(self._step[0], kind)):
            assert self.tick(), f"no {kind.__name__} comes"

    def transcript(self) -> list[str]:
        """Settle; what was done since the last look."""
        self.settle()
        lines, self.lines = self.lines, []
        return lines

    def _carry_out(self, effect: Effect) -> object:
        match effect:
            case OpenTable(table):
                self.lines.append(f"open {table}")
                return self.keeper.open(table)
            case CloseTable() | SetVifMap() | SetTemplates():
                self._tell_keeper(effect)
                self._owed = len(self.keeper.records)
                return None
            case AddVif(table, family, vif, ifindex, name):
                return self._call(table, family, f"vif {vif} = {name}", self.kernel.add_vif((table, family), vif, ifindex))
            case DelVif(table, family, vif):
                return self._call(table, family, f"vif {vif} deleted", self.kernel.del_vif((table, family), vif))
            case ProgramMfc(table, family, keys, forwardings):
                return self._batch(
                    [
                        self._call(
                            table, family, f"{key_text(key)} {packed_text(family, f.packed)}", self.kernel.add_mfc(key, f.packed)
                        )
                        for key, f in zip(keys, forwardings, strict=True)
                    ]
                )
            case DeleteMfc(table, family, keys):
                return self._batch(
                    [self._call(table, family, f"{key_text(key)} deleted", self.kernel.del_mfc(key)) for key in keys]
                )

    def _tell_keeper(self, effect: CloseTable | SetVifMap | SetTemplates) -> None:
        if isinstance(effect, CloseTable):
            self.lines.append(f"close {effect.table}")
            self.keeper.close(effect.table)
            return
        where = effect.table, effect.family
        if isinstance(effect, SetVifMap):
            self._say(*where, " ".join(["map", *(f"{number}={name}" for number, _, name in effect.entries)]))
            self.keeper.set_map(where, effect.entries)
            return
        if effect.changes or not effect.whole:  # Every server begins with a whole set, mostly an empty one.
            said = (f"{key_text(c.key.pack())}{'' if c.action is not None else ' forgotten'}" for c in effect.changes)
            self._say(*where, " ".join(["templates anew:" if effect.whole else "templates:", *said]))
        self.keeper.fastpaths[where].take(PART | FIRST | LAST if effect.whole else 0, effect.changes)

    def _say(self, table: int, family: Family, text: str) -> None:
        self.lines.append(f"v{family}{f'/{table}' if table else ''} {text}")

    def _call(self, table: int, family: Family, text: str, number: int) -> int:
        self._say(table, family, f"{text}: errno {number}" if number else text)
        return number

    @staticmethod
    def _batch(errnos: list[int]) -> list[int] | None:
        return errnos if any(errnos) else None

    # --- what is seen ------------------------------------------------------------------------------------------------

    def get(self, key: bytes) -> Route:
        """A route as a reader sees it."""
        return self.engine.desired.routes[key]

    def sends(self, key: bytes) -> list[str] | None:
        """Names of the interfaces that the kernel sends to; None = there is no entry, or its iif is not the route's."""
        known = self.kernel.paths(key)
        if known is None or not known[0] or self.kernel.links[known[0]].name != self.get(key).paths.iif:
            return None
        return sorted(self.kernel.links[ifindex].name for ifindex in known[1])

    def vifs(self, family: Family = Family.IPV4, table: int = 0) -> dict[int, str]:
        """Names by VIF number, as the kernel has them."""
        vifs = self.kernel.tables[table, family].vifs
        return {number: self.kernel.links[ifindex].name for number, ifindex in enumerate(vifs) if ifindex is not None}

    def where(self) -> list[Where]:
        """Open tables."""
        return list(self.keeper.maps)

    def finished(self, work: Work) -> bool:
        """Whether a work was reported as done by now."""
        return work.finished


def packed_text(family: Family, packed: bytes) -> str:
    """A Forwarding for people: "0 > 1 2/5" = in by VIF 0, out by 1 and, above a threshold of 5, by 2."""
    parent, ttls = unpack(family, packed)
    oifs = (f"{number}/{ttl}" if ttl > 1 else str(number) for number, ttl in enumerate(ttls) if ttl != NO_OIF)
    return " ".join([f"{parent} >", *oifs])
