"""The engine with templates against a kernel and a keeper in memory that go on while servers come and go.

Beside what test_engine.py does: templates that overlap, shared trees, packets that the keeper answers at once and of which the
server hears later, or never; sweeps and flushes; a keeper that is slower than the server between its look and its entry.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from mcastd.model.address import Family, pack_address
from mcastd.model.effect import OpenTable, SetTemplates, SetVifMap
from mcastd.model.limits import Limits
from mcastd.model.route import Paths
from mcastd.model.template import TemplateKey
from tests.fakekernel import Where
from tests.fakerouter import prefix, sg
from tests.property.machine import World
from tests.property.test_engine import COOKIES, CROWD, NAMES, EngineMachine, Item, exact_items, of_machine, paths_of

GROUPS = {
    Family.IPV4: ["224.0.0.0/4", "239.1.0.0/16", "239.1.0.0/30", "239.1.0.2/31", "239.1.0.1", "239.1.0.2"],
    Family.IPV6: ["ff00::/8", "ff3e::/64", "ff3e::/126", "ff3e::2/127", "ff3e::1", "ff3e::2"],
}
SOURCES = {Family.IPV4: ["", "", "10.0.0.0/8", "10.0.0.1"], Family.IPV6: ["", "", "2001:db8::/32", "2001:db8::1"]}
TABLES = st.sampled_from([0, 0, 0, 5])
PATTERNS = [*NAMES[:4], "a*", "a?", "!a1", "w*"]


@st.composite
def template_items(
    draw: st.DrawFn, families: st.SearchStrategy[Family], tables: st.SearchStrategy[int], iifs: list[str], groups: list[int]
) -> Item:
    """Items of templates, one in some a shared tree; `groups` by their places in GROUPS."""
    family = draw(families)
    bits = 32 if family is Family.IPV4 else 128
    table, iif = draw(tables), draw(st.sampled_from(iifs))
    group, source = GROUPS[family][draw(st.sampled_from(groups))], draw(st.sampled_from(SOURCES[family]))
    tree = draw(st.booleans()) and "/" not in group and not source and iif in NAMES
    if "/" not in group and "/" not in source and source:
        source = ""
    key = TemplateKey(table, family, *prefix(group, bits), *prefix(source, bits), iif).pack()
    oifs = draw(paths_of([iif], PATTERNS)).oifs
    return key, Paths(iif, oifs), draw(st.sampled_from(COOKIES)), tree


def flow(number: int, family: Family, table: int, other: bool) -> bytes:
    """The key of an (S,G), of the source that exact routes have or of another one."""
    key = sg(number, family, table)
    if not other:
        return key
    return key[:8] + pack_address("11.0.0.1") if family is Family.IPV4 else key[:20] + pack_address("2002::1")


class TemplateMachine(EngineMachine):
    """Few interfaces and groups, so that everything overlaps."""

    KEYS = st.builds(sg, st.integers(1, 3), st.sampled_from(Family), TABLES)
    FLOWS = st.builds(flow, st.integers(0, 3), st.sampled_from(Family), TABLES, st.booleans())
    TEMPLATES = template_items(st.sampled_from(Family), TABLES, [*NAMES[:3], "", "a*", "a?", "*"], [0, 1, 2, 3, 4, 5])
    ITEMS = exact_items(KEYS, EngineMachine.PATHS) | TEMPLATES | TEMPLATES
    LIMITS = Limits(routes_max=20, idle_timeout=30.0, other_tables=frozenset({5}))

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Where, list[tuple[bytes, float, int, int]]] = {}
        """What a look at the kernel found that the engine has yet to be told of."""
        self.found_at = 0.0

    def new_world(self) -> World:
        return World(*NAMES[:3], *CROWD[: self.CROWD_AT_START], limits=self.LIMITS)

    # --- traffic -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.kernel.links)
    @rule(data=st.data(), key=of_machine("FLOWS"), slow=st.integers(0, 6))
    def packet(self, data: st.DataObject, key: bytes, slow: int) -> None:
        """A packet comes in; between the keeper's look and its entry the server gets on."""
        table = self.world.kernel.tables.get((int.from_bytes(key[:4], "big"), Family.IPV4 if len(key) == 12 else Family.IPV6))
        if table is None:
            return
        link = data.draw(st.sampled_from(list(self.world.kernel.links.values())))
        self.world.router.keeper.pause = lambda: self.move_without_keeper(slow)
        try:
            self.world.packet(key, link.name)
        finally:
            self.world.router.keeper.pause = lambda: None

    def move_without_keeper(self, count: int) -> None:
        """Move the executor as far as it goes while the keeper is busy."""
        router = self.world.router
        for _ in range(count):
            if not isinstance(router.next_effect, (OpenTable, SetTemplates, SetVifMap)):
                router.tick()

    @rule(count=st.sampled_from([1, 1, 2, 1000]))
    def hear(self, count: int) -> None:
        self.world.router.hear(count)

    @rule(data=st.data())
    def lose_record(self, data: st.DataObject) -> None:
        """The keeper's ring was full."""
        records = self.world.router.keeper.records
        if records:
            self.world.flows.unheard = True
            self.world.router.lose_record(data.draw(st.integers(0, len(records) - 1)))

    @rule()
    def expire(self) -> None:
        self.world.kernel.expire()

    @rule(seconds=st.sampled_from([1, 4, 31, 100]))
    def wait(self, seconds: int) -> None:
        self.world.kernel.clock += seconds

    @rule(old=st.booleans())
    def sweep(self, old: bool) -> None:
        """Look at the kernel; what is found is told at once, or when other things have happened."""
        if old:
            self.found = {where: self.world.kernel.ages(where) for where in self.world.router.where()}
            self.found_at = self.world.router.now()
            return
        self.world.router.sweep()

    @precondition(lambda self: self.found)
    @rule()
    def sweep_late(self) -> None:
        for where, found in self.found.items():
            self.world.router.engine.sweep(*where, found, self.found_at)
        self.found = {}

    @rule(keys=st.none() | st.sets(of_machine("FLOWS"), max_size=3))
    def flush(self, keys: set[bytes] | None) -> None:
        engine = self.world.router.engine
        engine.flush({key for kernel in engine.tables.values() for key in kernel.learned} if keys is None else keys)

    @precondition(lambda self: self.world.kernel.links)
    @rule(data=st.data(), key=of_machine("FLOWS"))
    def probe(self, data: st.DataObject, key: bytes) -> None:
        """All is healed; then a packet gets what it ought to."""
        self.found = {}
        self.world.heal()
        self.world.flows.probe(key, data.draw(st.sampled_from(list(self.world.kernel.links.values()))))
        self.world.heal()


class SmallMachine(TemplateMachine):
    """One family and table, few groups: everything meets."""

    KEYS = st.builds(sg, st.integers(1, 2))
    FLOWS = st.builds(flow, st.integers(1, 2), st.just(Family.IPV4), st.just(0), st.booleans())
    TEMPLATES = template_items(st.just(Family.IPV4), st.just(0), ["a0", "", "a*", "*", "a?"], [2, 2, 4])
    ITEMS = exact_items(KEYS, EngineMachine.PATHS) | TEMPLATES | TEMPLATES


TestTemplates, TestSmall = TemplateMachine.TestCase, SmallMachine.TestCase
TestTemplates.settings = TestSmall.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
