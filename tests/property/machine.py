"""The world of the engine's state machine: a fake router, a model of what owners asked for, and the invariants that tie them.

Rules (in test_engine.py) move the world; `check_always` holds at every moment, `check_settled` when the plan has come to its end.
"""

from collections.abc import Iterable

from mcastd.core.engine import SWEEPS_AFTER_LOSS
from mcastd.core.templates import tree_key
from mcastd.core.vifs import VifState
from mcastd.model.address import Family, key_family, key_table
from mcastd.model.errors import Reason
from mcastd.model.interface import Link
from mcastd.model.limits import Limits
from mcastd.model.route import Paths, Route, RouteState, Template
from mcastd.model.template import is_template_key
from tests.fakekernel import FakeKernel
from tests.fakerouter import Router
from tests.property.flows import Flows
from tests.property.oracle import Verdict, incoming, judge, judge_template, judge_tree
from tests.property.wishes import Wishes, wish_of

TICKS = 20_000
"""Moves in which any plan here must come to its end."""


def entry_key(route: Route) -> bytes:
    """Key of the MFC entry that a route is about."""
    return tree_key(route.key) if isinstance(route, Template) else route.key


class World:
    """A router and everything that is known about it from outside."""

    def __init__(self, *names: str, limits: Limits | None = None) -> None:
        self.router = Router(*names, limits=limits or Limits(routes_max=9))
        self.wanted: Wishes = {}
        """What was acknowledged."""
        self.thresholds: dict[str, int] = {}
        self.pins: set[tuple[str, int]] = set()
        self.may_send: dict[bytes, set[int]] = {}
        """Ifindexes that an intent of this key has named since the last time all was settled."""
        self.may_take: dict[bytes, set[int]] = {}
        self.flows = Flows(self)
        self._allowed: object = None
        self.revision = 0
        self.revisions: dict[bytes, int] = {}
        self.etags: dict[tuple[bytes, int], object] = {}
        self.owners: dict[str, int] = {}
        self.router.watch = self.check_always

    @property
    def kernel(self) -> FakeKernel:
        """The kernel."""
        return self.router.kernel

    def packet(self, key: bytes, name: str) -> list[int]:
        """Let a packet in; ifindexes that it left by."""
        self.flows.came(key, self.kernel.named(name).ifindex)
        return [self.kernel.named(oif).ifindex for oif in self.router.packet(key, name, 255)]

    # --- at every moment ---------------------------------------------------------------------------------------------

    def allow(self) -> None:
        """Take note of what the intents name just now, in the engine's view of the links and in the kernel's."""
        kernel, engine = list(self.kernel.links.values()), list(self.router.engine.world.by_index.values())
        now = kernel, engine, dict(self.wanted), dict(self.thresholds)
        if now == self._allowed:
            return
        self._allowed = now
        for links in (kernel, engine):
            for key, wish in self.wanted.items():
                verdict = self.judge(key, wish.paths, links)
                self.may_send.setdefault(key, set()).update(verdict.oifs)
                taken = incoming(wish.paths, links) if is_template_key(key) else {verdict.iif} - {None}
                self.may_take.setdefault(key, set()).update(filter(None, taken))

    def check_always(self) -> None:
        """No entry sends a stream, or takes one, where neither the old nor the new intent of its key wants it."""
        self.allow()
        for table in self.kernel.tables.values():
            for key in table.entries:
                known = self.kernel.paths(key)
                assert known is not None
                send, take = self.flows.allowed(key)
                assert set(known[1]) <= send, f"{key.hex()} is sent to {known[1]}"
                assert known[0] in {0, *take}, f"{key.hex()} is taken from {known[0]}"
        self.flows.check_keeper()

    def check_desired(self) -> None:
        """Readers see what was acknowledged, and nothing else; revisions only grow."""
        engine = self.router.engine
        assert {k: wish_of(r) for k, r in engine.desired.routes.items()} == self.wanted
        counts: dict[str, int] = {}
        for wish in self.wanted.values():
            counts[wish.owner] = counts.get(wish.owner, 0) + 1
        assert {owner: n for owner, n in engine.desired.entries.items() if n} == counts
        assert engine.revision >= self.revision
        self.revision = engine.revision
        for key, route in engine.desired.routes.items():
            revision = max(route.revision, route.fate.revision)
            assert self.revisions.get(key, 0) <= revision <= engine.revision
            self.revisions[key] = revision
        for name, record in engine.desired.owners.items():
            assert self.owners.get(name, 0) <= record.revision <= engine.revision
            self.owners[name] = record.revision

    def check_programmed(self) -> None:
        """A route that is PROGRAMMED is in the kernel just as asked, also while the plan is at work on others.

        As far as the engine can know: not while it has yet to hear of links or of what came of an effect.
        """
        if self.router.events or self.router.unanswered or self.router.keeper.records or self.flows.unheard:
            return
        for route in self.router.engine.desired.routes.values():
            if route.state is RouteState.PROGRAMMED:
                verdict = self.judge(route.key, route.paths)
                assert self.kernel.paths(entry_key(route)) == (verdict.iif, verdict.oifs)

    # --- when all is done --------------------------------------------------------------------------------------------

    def judge(self, key: bytes, paths: Paths, links: Iterable[Link] | None = None) -> Verdict:
        """What the route ought to come to."""
        links = self.kernel.links.values() if links is None else links
        how = judge if not is_template_key(key) else judge_tree if self.wanted[key].tree else judge_template
        return how(paths, key_family(key), links, self.thresholds)

    def settle(self) -> None:
        """Let the plan come to its end, with what the kernel refuses; then all that is said is true."""
        self.router.settle(TICKS)
        self.allow()
        self.check_desired()
        for route in self.router.engine.desired.routes.values():
            if isinstance(route, Template) and not route.shared_tree:
                self.check_template(route)
            else:
                self.check_route(route)
            self.check_etag(route)
        self.check_vifs()

    def heal(self) -> None:
        """Let the kernel refuse nothing any more, and the plan come to its end: then everything is as it ought to be."""
        self.kernel.refusals.clear()
        self.router.keeper.busy.clear()
        self.settle()
        for _ in range(3):
            if self.router.engine.troubled:
                self.router.engine.retry()
                self.settle()
        assert not self.router.engine.troubled
        for _ in range(SWEEPS_AFTER_LOSS if self.flows.unheard else 0):
            self.router.sweep()
            self.settle()
        self.flows.unheard = False
        for route in self.router.engine.desired.routes.values():
            self.check_healed(route)
        self.flows.check_entries()
        self.may_send, self.may_take, self._allowed = {}, {}, None
        self.flows.reset()
        self.check_always()
        self.check_rest()

    def check_route(self, route: Route) -> None:
        """What is said of a route is what the kernel does, whatever that is."""
        verdict, known = self.judge(route.key, route.paths), self.kernel.paths(entry_key(route))
        if route.state is RouteState.FAILED:
            assert (route.problem or route.fate.problem) is not None
            return
        if route.state is RouteState.PENDING:
            assert known is None or self.flows.unheard
            assert verdict.iif is None or route.fate.problem is not None
            return
        assert known is not None
        assert verdict.iif is not None
        assert known[0] == verdict.iif
        names = {self.kernel.links[ifindex].name: ttl for ifindex, ttl in known[1].items()}
        assert tuple(sorted(names)) == route.fate.installed_oifs
        assert known[1].items() <= verdict.oifs.items()
        wanting = {self.kernel.links[ifindex].name for ifindex in verdict.oifs.keys() - known[1].keys()}
        assert set(route.fate.missing) == verdict.missing | wanting
        assert (route.state is RouteState.PARTIAL) == bool(route.fate.missing) == (route.fate.problem is not None)
        assert route.installed_at
        if not isinstance(route, Template):
            self.check_packet(route, verdict.iif, known[1])

    def check_template(self, route: Template) -> None:
        """What is said of a template is what its entries will do."""
        if route.state is RouteState.FAILED:
            assert route.fate.problem is not None
            return
        verdict = self.judge(route.key, route.paths)
        if not self.router.engine.tables[key_table(route.key), key_family(route.key)].opened:
            assert route.state is RouteState.PENDING
            return
        assert set(route.fate.missing) >= verdict.missing
        if route.state is RouteState.PENDING:
            assert verdict.iif is None or route.fate.problem is not None
            return
        assert verdict.iif is not None
        assert set(route.fate.installed_oifs) <= {self.kernel.links[ifindex].name for ifindex in verdict.oifs}
        assert (route.state is RouteState.PARTIAL) == bool(route.fate.missing) == (route.fate.problem is not None)

    def check_etag(self, route: Route) -> None:
        """One revision of a route never stands for two contents, in one life of the server or in several."""
        fate = route.fate
        content = *wish_of(route), route.state, fate.installed_oifs, fate.missing
        assert self.etags.setdefault((route.key, max(route.revision, fate.revision)), content) == content

    def check_packet(self, route: Route, iif: int, oifs: dict[int, int]) -> None:
        """A packet goes where the route's status says."""
        names = tuple(sorted(self.kernel.links[i].name for i in self.kernel.forward(route.key, iif, 255)))
        assert names == route.fate.installed_oifs
        for ttl in set(oifs.values()):
            assert self.kernel.forward(route.key, iif, ttl) == sorted(i for i, threshold in oifs.items() if threshold < ttl)

    def check_healed(self, route: Route) -> None:
        """Nothing but a want of VIFs keeps a route from what it asks for."""
        verdict = self.judge(route.key, route.paths)
        if route.fate.problem is not None and route.fate.problem.reason is Reason.VIF_TABLE_FULL:
            vifs = self.kernel.tables[key_table(route.key), key_family(route.key)].vifs
            assert None not in vifs
            assert len(set(vifs)) == len(vifs)
            assert route.state is (RouteState.PARTIAL if route.fate.forwarding else RouteState.PENDING)
            return
        assert set(route.fate.missing) == verdict.missing
        if isinstance(route, Template) and not route.shared_tree:
            whole = RouteState.TEMPLATE if verdict.state is RouteState.PROGRAMMED else verdict.state
            assert route.state is whole
            return
        assert route.state is verdict.state
        if verdict.iif is not None:
            assert self.kernel.paths(entry_key(route)) == (verdict.iif, verdict.oifs)

    def check_vifs(self) -> None:
        """The numbers in use are those that shapes hold, as often; kernel, keeper and engine agree on them."""
        for kernel in self.router.engine.tables.values():
            users: dict[int, int] = {}
            for shape in kernel.all_shapes():
                for ifindex, number in shape.held.items():
                    slot = kernel.vifs.slots[number]
                    assert slot is not None
                    assert slot.ifindex == ifindex
                    users[number] = users.get(number, 0) + 1
            for number, slot in enumerate(kernel.vifs.slots):
                if slot is not None:
                    assert slot.users == users.get(number, 0)
                    assert slot.users or kernel.vifs._bits[number] or kernel.blind, f"VIF {number} leaks: {slot.state}"
            if kernel.opened:
                where = kernel.table, kernel.family
                assert self.router.keeper.maps[where] == kernel.vifs.map_entries()
                held = {n: s.ifindex for n, s in enumerate(kernel.vifs.slots) if s is not None and s.state is VifState.ACTIVE}
                present = self.kernel.tables[where].vifs
                assert {n: ifindex for n, ifindex in enumerate(present) if n in held} == held

    def check_rest(self) -> None:
        """Once healed: VIFs are exactly those needed, none is kept for anything else; another settling does nothing."""
        needed = self.flows.needed()
        for key, wish in self.wanted.items():
            verdict = self.judge(key, wish.paths)
            found = verdict.ifindexes - {0}
            if is_template_key(key) and not wish.tree and verdict.iif is not None:
                found |= incoming(wish.paths, self.kernel.links.values())
            needed.setdefault((key_table(key), key_family(key)), set()).update(found)
        for name, table in self.pins:
            pinned = {link.ifindex for link in self.kernel.links.values() if link.name == name and link.multicast}
            for family in Family:
                needed.setdefault((table, family), set()).update(pinned)
        for where, table_ in self.kernel.tables.items():
            have = [vif for vif in table_.vifs if vif is not None]
            want = needed.get(where, set())
            assert len(have) == len(set(have))
            if len(want) <= len(table_.vifs):
                assert set(have) == want
            else:
                assert set(have) <= want
        self.router.lines.clear()
        assert self.router.settle(TICKS) == 0
        assert self.router.lines == []
