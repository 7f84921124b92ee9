"""The engine against an in-memory kernel: any order of writes, link events, refusals, crashes and moves of the executor.

After each rule what readers see is what was acknowledged; at every moment no stream leaves by an interface that no intent of its
key names; when the plan has come to its end all that is said of routes is true, and VIFs are neither leaked nor short.
"""

import errno
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcastd.core.prepare import prepare
from mcastd.model.address import Family, key_family, key_table
from mcastd.model.errors import McastdError, Problem, Reason
from mcastd.model.route import Oif, Paths, Route, Template
from mcastd.model.template import is_template_key
from mcastd.model.write import (
    DeleteRoutes,
    Patch,
    PatchRoutes,
    PutRoutes,
    ReplaceRoutes,
    Restore,
    SetInterface,
    Write,
    WriteOptions,
)
from tests.fakerouter import sg
from tests.property.machine import World
from tests.property.wishes import fulfil

pytestmark = pytest.mark.timeout(600)  # seconds: not for passing, but for shrinking a failing example (5 minutes at most)

NAMES = [f"a{n}" for n in range(6)]
CROWD = [f"w{n:02}" for n in range(36)]
COOKIES = ["", "red"]


def of_machine(attribute: str) -> st.SearchStrategy[Any]:
    """A strategy that the machine's class chooses."""
    return st.runner().flatmap(lambda machine: getattr(machine, attribute))


def paths_of(iifs: list[str], patterns: list[str]) -> st.SearchStrategy[Paths]:
    """Paths of these names and globs, some with thresholds."""
    oif = st.builds(Oif, st.sampled_from(patterns), st.sampled_from([0, 0, 7]))
    oifs = st.lists(oif, max_size=4, unique_by=lambda one: one.interface.lstrip("!")).map(lambda found: tuple(sorted(found)))
    return st.builds(Paths, st.sampled_from(iifs), oifs)


keys, paths = of_machine("KEYS"), of_machine("PATHS")
names = st.sampled_from(NAMES)
owners = st.sampled_from(["alice", "bob"])
items = of_machine("ITEMS")
Item = tuple[bytes, Paths, str, bool]
"""Key, paths, cookie, and whether it is a shared tree."""


def made(item: Item, owner: str, cookie: str | None = None) -> Route:
    """The route that an item stands for."""
    key, its_paths, its_cookie, tree = item
    its_cookie = its_cookie if cookie is None else cookie
    if is_template_key(key):
        return Template(key, its_paths, owner, its_cookie, shared_tree=tree)
    return Route(key, its_paths, owner, its_cookie)


def exact_items(some_keys: st.SearchStrategy[bytes], some_paths: st.SearchStrategy[Paths]) -> st.SearchStrategy[Item]:
    """Items of exact routes."""
    return st.tuples(some_keys, some_paths, st.sampled_from(COOKIES), st.just(False))


moves = st.integers(0, 6)


class EngineMachine(RuleBasedStateMachine):
    """Rules that move a World; few interfaces, both families, a table that is opened on demand."""

    KEYS = st.builds(sg, st.integers(1, 3), st.sampled_from(Family), st.sampled_from([0, 0, 5]))
    PATHS = paths_of(NAMES, [*NAMES, "a*", "a?", "!a1", "!a[12]", "w*"])
    ITEMS = exact_items(KEYS, PATHS)
    CROWDS = st.sampled_from([0, 2])
    CROWD_AT_START = 0

    def __init__(self) -> None:
        super().__init__()
        # Few keys, but many batches and slices: what comes between them is what is looked for.
        self.patches = [mock.patch(f"mcastd.core.{module}.BATCH", 2) for module in ("commits", "plan", "prepare")]
        for patch in self.patches:
            patch.start()
        self.world = self.new_world()

    def new_world(self) -> World:
        return World(*NAMES[:3], *CROWD[: self.CROWD_AT_START])

    def teardown(self) -> None:
        try:
            self.world.heal()
        finally:
            for patch in self.patches:
                patch.stop()

    @initialize(wanted=st.lists(items, min_size=2, max_size=5), settled=st.booleans())
    def begin(self, wanted: list[Item], settled: bool) -> None:
        self.put("alice", wanted, over=False, check=False, between=0)
        if settled:
            self.world.settle()

    # --- writes ------------------------------------------------------------------------------------------------------

    def write(self, write: Write, between: int, *, dropped: bool = False, crash: bool = False) -> bool:
        """Carry out a write, moving the executor between its slices; whether it was not refused as a whole."""
        world = self.world
        draft = world.router.engine.draft()
        before = dict(world.router.engine.desired.routes)
        preparation = prepare(draft, write, world.router.engine.routes_max)
        try:
            while True:
                next(preparation)
                self.move(between)
        except StopIteration:
            pass
        except McastdError:
            assert not draft.intents
            return False
        assert world.router.engine.desired.routes == before
        if dropped or write.options.validate_only:
            assert dropped or not draft.intents
            return False
        fulfil(world.wanted, write)
        for intent in draft.intents:
            world.router.disk.commit(intent)
        world.allow()
        if crash:
            world.router.boot()
            return True
        for intent in draft.intents:
            for _ in world.router.engine.commit(intent):
                self.move(between)
        return True

    @rule(owner=owners, wanted=st.lists(items, max_size=4), over=st.booleans(), check=st.booleans(), between=moves)
    def put(self, owner: str, wanted: list[Item], over: bool, check: bool, between: int) -> None:
        options = WriteOptions(owner, take_over=over, validate_only=check and over)
        self.write(PutRoutes(options, [made(item, owner) for item in wanted]), between)

    @rule(owner=owners, key=keys, add=paths, remove=paths, between=moves)
    def patch(self, owner: str, key: bytes, add: Paths, remove: Paths, between: int) -> None:
        patch = Patch(key, add.oifs, frozenset(oif.interface for oif in remove.oifs))
        self.write(PatchRoutes(WriteOptions(owner), [patch]), between)

    @rule(owner=owners, gone=st.none() | st.lists(keys, max_size=4), over=st.booleans(), between=moves)
    def delete(self, owner: str, gone: list[bytes] | None, over: bool, between: int) -> None:
        self.write(DeleteRoutes(WriteOptions(owner, take_over=over), gone), between)

    @rule(
        owner=owners, wanted=st.lists(items, max_size=6), cookie=st.sampled_from(COOKIES), between=moves, limit=st.integers(0, 3)
    )
    def replace(self, owner: str, wanted: list[Item], cookie: str, between: int, limit: int) -> None:
        routes = {item[0]: made(item, owner, cookie) for item in wanted}
        self.write(ReplaceRoutes(WriteOptions(owner), routes, cookie, allow_empty=True, max_deletions=limit), between)

    @rule(owner=owners, wanted=st.lists(items, max_size=4), between=moves)
    def put_and_restore(self, owner: str, wanted: list[Item], between: int) -> None:
        """A write that is undone, as one is of which the kernel refused an item."""
        before = {key: self.world.router.engine.desired.routes.get(key) for key, *_ in wanted}
        options = WriteOptions(owner, take_over=True)
        self.write(PutRoutes(options, [made(item, owner) for item in wanted]), between)
        back = [route.copy() for route in before.values() if route is not None]
        self.write(Restore(options, back, [key for key, route in before.items() if route is None]), between)

    @rule(owner=owners, wanted=st.lists(items, max_size=4), crash=st.booleans())
    def put_at_the_end_of_a_life(self, owner: str, wanted: list[Item], crash: bool) -> None:
        """The disk refuses the write, or has it and the server dies before it is in force."""
        routes = [made(item, owner) for item in wanted]
        self.write(PutRoutes(WriteOptions(owner), routes), 0, dropped=not crash, crash=crash)

    @rule(name=names, ttl=st.sampled_from([None, 1, 9]), pin=st.sampled_from([None, True, False]), table=st.sampled_from([0, 5]))
    def set_interface(self, name: str, ttl: int | None, pin: bool | None, table: int) -> None:
        if self.write(SetInterface(WriteOptions("alice"), name, pin, ttl, table), 0):
            if ttl is not None:
                self.world.thresholds[name] = ttl
            if pin is not None:
                (self.world.pins.add if pin else self.world.pins.discard)((name, table))

    # --- links -------------------------------------------------------------------------------------------------------

    @rule(name=names, ifindex=st.sampled_from([0, 0, 3, 50, 51]))
    def add_link(self, name: str, ifindex: int) -> None:
        kernel = self.world.kernel
        if ifindex not in kernel.links and all(link.name != name for link in kernel.links.values()):
            self.world.router.link(name, ifindex)

    @precondition(lambda self: self.world.kernel.links)
    @rule(data=st.data(), again=st.sampled_from(["", "same ifindex", "new ifindex"]))
    def delete_link(self, data: st.DataObject, again: str) -> None:
        link = data.draw(st.sampled_from(list(self.world.kernel.links.values())))
        self.world.router.unlink(link.name)
        if again:
            self.world.router.link(link.name, link.ifindex if again == "same ifindex" else 0)

    @precondition(lambda self: self.world.kernel.links)
    @rule(data=st.data(), up=st.booleans(), multicast=st.sampled_from([True, True, False]))
    def change_link(self, data: st.DataObject, up: bool, multicast: bool) -> None:
        link = data.draw(st.sampled_from(list(self.world.kernel.links.values())))
        self.world.router.link(link.name, link.ifindex, up=up, multicast=multicast)

    @precondition(lambda self: self.world.kernel.links)
    @rule(data=st.data(), name=names)
    def rename_link(self, data: st.DataObject, name: str) -> None:
        """Rename an interface; one that has the name swaps with it."""
        kernel, router = self.world.kernel, self.world.router
        link = data.draw(st.sampled_from(list(kernel.links.values())))
        other = next((one for one in kernel.links.values() if one.name == name), None)
        if other is not None and other is not link:
            router.link("swap", other.ifindex, up=other.up, multicast=other.multicast)
        old = link.name
        router.link(name, link.ifindex, up=link.up, multicast=link.multicast)
        if other is not None and other is not link:
            router.link(old, other.ifindex, up=other.up, multicast=other.multicast)

    @rule(count=of_machine("CROWDS"))
    def crowd(self, count: int) -> None:
        """Have this many more interfaces: more than a table takes, or none."""
        have = {link.name for link in self.world.kernel.links.values()}
        for n, name in enumerate(CROWD):
            if n < count and name not in have:
                self.world.router.link(name)
            elif n >= count and name in have:
                self.world.router.unlink(name)

    @rule(count=st.sampled_from([1, 1, 2, 1000]))
    def tell(self, count: int) -> None:
        self.world.router.tell(count)
        self.world.allow()

    @rule()
    def resync(self) -> None:
        self.world.router.resync()

    # --- the kernel and the executor ---------------------------------------------------------------------------------

    def move(self, count: int) -> None:
        """Move the executor, and tell of an event half way."""
        for n in range(count):
            self.world.router.tick()
            if n == count // 2:
                self.tell(1)

    @rule(count=st.integers(1, 12))
    def tick(self, count: int) -> None:
        for _ in range(count):
            self.world.router.tick()

    @rule(
        call=st.sampled_from(["add_vif", "add_mfc", "del_mfc"]),
        number=st.sampled_from([errno.ENOMEM, errno.ENOBUFS]),
        times=st.integers(1, 3),
    )
    def refuse(self, call: str, number: int, times: int) -> None:
        self.world.kernel.refuse(call, number, times)

    @rule(family=st.sampled_from(Family), busy=st.booleans())
    def occupy_table(self, family: Family, busy: bool) -> None:
        if busy:
            self.world.router.keeper.busy[5, family] = Problem(Reason.MROUTE_SOCKET_BUSY, "table 5 is in use")
        else:
            self.world.router.keeper.busy.pop((5, family), None)

    @rule(count=st.integers(0, 3))
    def close_unused(self, count: int) -> None:
        """Tables that nothing has wanted for long are closed, soon or later."""
        self.world.router.close_unused()
        self.move(count)

    @rule(key=keys, really=st.booleans())
    def lose_entry(self, key: bytes, really: bool) -> None:
        """An upcall says that an entry is not there: somebody removed it, or the upcall is older than the entry.

        Removed before the engine has heard that it is there, it is put back at the next upcall only: not looked at here.
        """
        table = self.world.kernel.tables.get((key_table(key), key_family(key)))
        if table is not None and not (really and self.world.router.unanswered):
            if really:
                table.entries.pop(key, None)
            elif key not in table.entries:
                return
            self.world.router.engine.lost(key)

    @rule()
    def retry(self) -> None:
        self.world.router.engine.retry()

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """The server dies and starts again; links change while it does."""

        def between() -> None:
            link = data.draw(st.sampled_from([None, *self.world.kernel.links.values()]))
            if link is not None:
                self.world.router.unlink(link.name)
                if data.draw(st.booleans()):
                    self.world.router.link(link.name, data.draw(st.sampled_from([0, link.ifindex])))

        self.world.router.boot(between)
        self.world.allow()

    @rule()
    def settle(self) -> None:
        self.world.settle()

    @rule()
    def heal(self) -> None:
        self.world.heal()

    @invariant()
    def always(self) -> None:
        self.world.check_always()
        self.world.check_desired()
        self.world.check_programmed()


class CrowdedMachine(EngineMachine):
    """The same where VIFs are short: one family, up to 42 interfaces, globs that want more than 32."""

    KEYS = st.builds(sg, st.integers(1, 4))
    PATHS = paths_of([*NAMES[:4], "w01", "w31"], ["a*", "w*", "w*", "w0*", "!w1*", "w2*", "a1", "w30", "w35"])
    ITEMS = exact_items(KEYS, PATHS)
    CROWDS = st.sampled_from([0, 26, 28, 30, 31, 33, 36])
    CROWD_AT_START = 33


class CrowdedMachineV6(CrowdedMachine):
    """And with IPv6."""

    KEYS = st.builds(sg, st.integers(1, 4), st.just(Family.IPV6))
    ITEMS = exact_items(KEYS, CrowdedMachine.PATHS)
    CROWD_AT_START = 29


def often(examples: int) -> settings:
    """So many examples; 25 to 50 ms each on an idle core."""
    return settings(max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))


TestEngine, TestCrowded, TestCrowdedV6 = EngineMachine.TestCase, CrowdedMachine.TestCase, CrowdedMachineV6.TestCase
TestEngine.settings, TestCrowded.settings, TestCrowdedV6.settings = often(200), often(100), often(40)
