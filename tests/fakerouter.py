"""A router in memory: the engine on a fake kernel, keeper and disk, moved step by step as the asynchronous executor would.

A test changes links, writes, crashes and restarts in any order, also between the effects of a step and between an effect and its
result; `transcript` tells what was asked of the kernel since the last look, a line each.
"""

from collections import deque
from collections.abc import Callable, Generator
from typing import TypeVar

from mcastd.core.engine import Engine
from mcastd.core.plan import Work
from mcastd.core.prepare import prepare
from mcastd.model.address import Family, exact_key, key_text, pack_address
from mcastd.model.effect import AddVif, DeleteMfc, DelVif, Effect, OpenTable, ProgramMfc, SetVifMap
from mcastd.model.event import LinkChanged, LinkEvent, LinkGone, LinksResync
from mcastd.model.interface import Link
from mcastd.model.record import Intent, InterfaceSettings, OwnerRecord, Stored
from mcastd.model.route import Oif, Paths, Route
from mcastd.model.write import Outcome, Write
from tests.fakekernel import NO_OIF, FakeKeeper, FakeKernel, Where, unpack

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


class Disk:
    """What was made durable."""

    def __init__(self) -> None:
        self.routes: dict[bytes, tuple[Paths, str, str, bool, int]] = {}
        self.owners: dict[str, tuple[int, int]] = {}
        self.settings: dict[tuple[str, str], InterfaceSettings] = {}

    def commit(self, intent: Intent) -> None:
        """Make one write durable."""
        for put in intent.puts:
            self.routes[put.key] = put.paths, put.owner, put.cookie, put.monitored, put.revision
        for key in intent.deletes:
            self.routes.pop(key, None)
        for owner in intent.owners:
            self.owners[owner.name] = owner.epoch, owner.revision
        for said in intent.settings:
            self.settings[said.interface, said.owner] = said

    def load(self) -> Stored:
        """Everything, in fresh objects."""
        return Stored(
            {key: Route(key, Paths(said[0].iif, said[0].oifs), *said[1:]) for key, said in self.routes.items()},
            {name: OwnerRecord(name, *values) for name, values in self.owners.items()},
            dict(self.settings),
        )


class Router:
    """All of it; table 0 is open from the start."""

    def __init__(self, *names: str, routes_max: int = 100_000) -> None:
        """Make interfaces of these names, up, with ifindexes from 1."""
        self.kernel = FakeKernel()
        self.keeper = FakeKeeper(self.kernel)
        self.disk = Disk()
        self.routes_max = routes_max
        self.starts = 0
        self.events: deque[LinkEvent] = deque()
        """Told by the kernel, not yet to the engine."""
        self.lines: list[str] = []
        self.watch: Callable[[], None] = lambda: None
        """Called after everything that can change what the kernel forwards."""
        self._last_ifindex = 0
        self._step: list[Effect] = []
        self._answer: tuple[object] | None = None
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
        self.engine = Engine(self.starts, self.disk.load(), self.routes_max)
        links = tuple(self.kernel.links.values())
        between()
        self.engine.links(LinksResync(links))
        for where in list(self.keeper.maps):
            vifs = self.keeper.adopted(where)
            between()
            entries = self.kernel.dump(where)
            between()
            self.engine.adopt(*where, vifs, entries)

    def write(self, *writes: Write) -> list[Outcome]:
        """Prepare writes in one draft, make them durable, put them in force; not in the kernel yet."""
        draft = self.engine.draft()
        outcomes = [drain(prepare(draft, write, self.engine.routes_max)) for write in writes]
        for intent in draft.intents:
            self.disk.commit(intent)
        for intent in draft.intents:
            drain(self.engine.commit(intent))
        return outcomes

    # --- the executor ------------------------------------------------------------------------------------------------

    def tick(self) -> bool:
        """One move: pull a step, carry out its next effect, or give a result back. False = there is nothing to do."""
        if self._answer is not None:
            self.engine.push(self._step.pop(0), self._answer[0], NOW)
            self._answer = None
        elif self._step:
            self._answer = (self._carry_out(self._step[0]),)
            self.watch()
        else:
            self._step = self.engine.pull(NOW)
            return bool(self._step)
        return True

    @property
    def unanswered(self) -> bool:
        """Whether an effect was carried out whose result the engine does not have yet."""
        return self._answer is not None

    def settle(self, ticks: int = 100_000) -> int:
        """Tell all events and move until there is nothing to do; how many moves that took."""
        self.tell()
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
            case SetVifMap(table, family, entries):
                self._say(table, family, " ".join(["map", *(f"{number}={name}" for number, _, name in entries)]))
                self.keeper.set_map((table, family), entries)
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
