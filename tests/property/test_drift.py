"""Drift against an in-memory kernel: any order of our writes, others' doings, notifications heard late or lost, and dumps.

What nobody else has touched is never called drift; in the end what is wanted is in the kernel, and what is not wanted is left
alone where others have made it.
"""

from collections import Counter
from collections.abc import Generator

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from mcastd.core.drift import Found
from mcastd.core.tables import KernelTable
from mcastd.model.address import Family
from mcastd.model.write import DeleteRoutes, PutRoutes, WriteOptions
from tests.fakenotices import Ear
from tests.fakerouter import Router, route, sg
from tests.netns.routed import forwarding

ALICE = WriteOptions("alice")
NAMES = [f"a{n}" for n in range(4)]

numbers = st.integers(1, 3)
names = st.sampled_from(NAMES)
vifs = st.lists(st.integers(0, 3), max_size=3, unique=True)


class Drifting(RuleBasedStateMachine):
    """One family's table, with somebody else at it."""

    @initialize(family=st.sampled_from(list(Family)))
    def start(self, family: Family) -> None:
        self.family = family
        self.router = Router(*NAMES)
        self.router.settle()
        self.ear = Ear(self.router)
        self.touched: Counter[bytes] = Counter()
        """How often somebody else has had a hand in an entry, and was not found out."""
        self.others: set[bytes] = set()
        """Keys that somebody else has had a hand in."""
        self.lost = False
        self.comparing: tuple[KernelTable, Generator[Found, None, None]] | None = None

    # --- what we do --------------------------------------------------------------------------------------------------

    @rule(number=numbers, iif=names, oif=names)
    def put(self, number: int, iif: str, oif: str) -> None:
        self.router.write(PutRoutes(ALICE, [route(sg(number, self.family), iif, oif)]))

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        self.router.write(DeleteRoutes(ALICE, [sg(number, self.family)]))

    @rule(count=st.integers(1, 4))
    def move(self, count: int) -> None:
        for _ in range(count):
            self.router.tick()

    @rule()
    def finish(self) -> None:
        self.router.settle()

    # --- what others do ----------------------------------------------------------------------------------------------

    @rule(number=numbers)
    def remove(self, number: int) -> None:
        key = sg(number, self.family)
        self.router.kernel.del_mfc(key)
        self.touched[key] += 1

    @rule(number=numbers, parent=st.integers(0, 3), out=vifs)
    def overwrite(self, number: int, parent: int, out: list[int]) -> None:
        key = sg(number, self.family)
        if (0, self.family) in self.router.kernel.tables:
            self.router.kernel.add_mfc(key, forwarding(self.family, parent, *out), static=True)
            self.touched[key] += 1
            self.others.add(key)

    @rule(name=names)
    def flap(self, name: str) -> None:
        self.router.unlink(name)
        self.router.link(name)

    # --- what is heard -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.comparing is None)
    @rule(count=st.integers(1, 3))
    def hear(self, count: int) -> None:
        self.ear.hear(count)

    @rule()
    def lose(self) -> None:
        self.lost = self.lost or bool(self.ear.queue)
        self.ear.queue.clear()

    @rule()
    def links(self) -> None:
        self.router.tell()

    @precondition(lambda self: self.comparing is None)
    @rule()
    def look(self) -> None:
        for found in self.ear.drift.settle(self.ear.absent):
            self.check(found)

    @precondition(lambda self: self.comparing is None)
    @rule()
    def begin(self) -> None:
        """As the server does: what is queued is thrown away, the dump is read, and compared some time later."""
        kernel = self.router.engine.tables.get((0, self.family))
        if kernel is not None and kernel.opened:
            self.ear.queue.clear()
            self.ear.drift.dump_begins(kernel)
            self.comparing = kernel, self.ear.compare((0, self.family))
            self.lost = False

    @precondition(lambda self: self.comparing is not None)
    @rule()
    def go_on(self) -> None:
        assert self.comparing is not None
        kernel, findings = self.comparing
        found = next(findings, None)
        if found is not None:
            self.check(found)
        else:
            self.ear.drift.dump_ends(kernel)
            self.comparing = None

    def come_to_an_end(self) -> None:
        """Compare the rest of the dump."""
        while self.comparing is not None:
            self.go_on()

    def check(self, found: Found) -> None:
        """Nobody is accused of what we have done, nor more often than is true."""
        for key in (*found.missing, *found.different):
            self.touched[key] -= 1
            assert self.touched[key] >= 0

    def teardown(self) -> None:
        if not hasattr(self, "router"):
            return
        self.router.settle()
        self.come_to_an_end()
        if self.lost:
            self.begin()
            self.come_to_an_end()
        for _ in range(3):
            self.router.settle()
            self.ear.settle()
        kernel, wanted = self.router.kernel, self.router.engine.desired.routes
        for key, one in wanted.items():
            iif, oifs = (kernel.named(name).ifindex for name in (one.paths.iif, one.paths.oifs[0].interface))
            assert kernel.paths(key) == (iif, {oifs: 1})
        if (0, self.family) in self.router.engine.tables:
            for key in kernel.tables[0, self.family].entries.keys() - wanted.keys():
                assert key in self.others
                assert key in self.router.engine.tables[0, self.family].foreign
        assert self.router.settle() == 0


TestDrifting = Drifting.TestCase
TestDrifting.settings = settings(
    max_examples=300, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
