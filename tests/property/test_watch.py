"""Watch against the engine in memory: whatever happens, and however clients read, leave and resume, in the end they know what is.

Writes, links, packets, refusals, crashes and the executor's moves come in any order (those of test_templates.py); watchers, which
are the real ones, run in between, also between the slices of a write. Each client's view is built from events alone.
"""

import asyncio
import errno
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.core.engine import Engine
from mcastd.model.address import key_family, key_table, pack_address
from mcastd.model.event import LinkEvent
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.route import Paths, Route
from mcastd.model.write import DeleteJoins, DeleteRoutes, PutJoins, PutRoutes, Write, WriteOptions
from tests.fakerouter import sg
from tests.fakewatch import Client, Server, rest, turns
from tests.property.machine import TICKS
from tests.property.test_engine import of_machine
from tests.property.test_templates import SmallMachine, TemplateMachine

pytestmark = pytest.mark.timeout(600)

KINDS = {"route": sv.KIND_ROUTE, "interface": sv.KIND_INTERFACE, "source": sv.KIND_SOURCE, "join": sv.KIND_JOIN}

SELECTORS = [
    t.Selector(),
    t.Selector(owner="alice"),
    t.Selector(cookie="red"),
    t.Selector(interface="a1"),
    t.Selector(interface="a[01]"),
    t.Selector(states=[t.ROUTE_STATE_PROGRAMMED, t.ROUTE_STATE_TEMPLATE]),
    t.Selector(states=[t.ROUTE_STATE_PENDING, t.ROUTE_STATE_PARTIAL, t.ROUTE_STATE_FAILED]),
    t.Selector(group="239.1.0.0/30"),
    t.Selector(source="10.0.0.1", owner="bob"),
    t.Selector(table=5),
    t.Selector(table=0, group="ff00::/8", interface="a*"),
]

LOG_MAX = 6
"""Changes that a log keeps, at least: those who read slowly have to keep keys themselves, and tokens grow too old."""

followers = st.integers(0, 2)
join_keys = st.builds(
    JoinKey,
    st.sampled_from(["alice", "bob"]),
    st.sampled_from(["a0", "a1", "a*", "a[01]"]),
    st.sampled_from([pack_address("239.1.0.0"), pack_address("239.1.0.2")]),
    st.sampled_from([31, 32]),
    st.just(b""),
    st.just(0),
)


class Watched(TemplateMachine):
    """A router with three clients; the last one is told of everything."""

    def __init__(self) -> None:
        super().__init__()
        for module, name, value in (
            ("mcastd.api.watch", "EVENTS_MAX", 2),
            ("mcastd.api.watch", "BULK", 3),
            ("mcastd.api.events", "MESSAGE_BYTES", 200),
            ("mcastd.api.events", "_CACHED_MAX", 4),
            ("mcastd.api.events", "CHUNKS_BYTES", 400),
            ("mcastd.core.engine", "SHAPES_AT_ONCE", 1),
            ("mcastd.core.sources", "_AT_ONCE", 2),
            ("mcastd.core.sources", "SOURCES_MAX", 4),
        ):
            self.patches.append(mock.patch(f"{module}.{name}", value))
            self.patches[-1].start()
        self.loop = asyncio.new_event_loop()
        self.clients: list[Client] = []
        self.server = self.serve()
        self.reads_between = False

    def run(self, coroutine: Any) -> Any:
        """Let the watchers run until this is done."""
        return self.loop.run_until_complete(coroutine)

    def serve(self) -> Server:
        """A server of the engine as it is now."""
        engine: Engine = self.world.router.engine
        for log in engine.feed.logs.values():
            log._max = LOG_MAX

        def links(event: LinkEvent) -> None:
            for _ in engine.links_in_slices(event):
                self.read_eagerly()

        engine.links = links  # type: ignore[method-assign] # As the server has it done.
        return Server(engine)

    def teardown(self) -> None:
        try:
            if self.clients:
                self.agree()
        finally:
            for client in self.clients:
                self.run(client.disconnect())
            self.loop.close()
            for patch in self.patches:
                patch.stop()

    @initialize(
        chosen=st.lists(
            st.tuples(st.sampled_from(SELECTORS), st.sets(st.sampled_from(list(KINDS)), min_size=1)), min_size=2, max_size=2
        )
    )
    def follow(self, chosen: list[tuple[t.Selector, set[str]]]) -> None:
        for selector, kinds in [*chosen, (t.Selector(), set(KINDS))]:
            self.clients.append(Client(kinds=[KINDS[kind] for kind in sorted(kinds)], selector=selector))
        self.run(self._connect(self.clients[-1], 1000))

    # --- clients -----------------------------------------------------------------------------------------------------

    @rule(number=followers, room=st.sampled_from([0, 1, 3, 1000]), reads=st.integers(0, 8))
    def connect(self, number: int, room: int, reads: int) -> None:
        client = self.clients[number]
        if not client.connected:
            self.run(self._connect(client, room))
            self.read(number, reads)

    async def _connect(self, client: Client, room: int) -> None:
        client.connect(self.server, room)
        await turns(2)

    @rule(number=followers)
    def disconnect(self, number: int) -> None:
        """What was sent and not read is lost."""
        self.run(self.clients[number].disconnect())

    @rule(number=followers, count=st.integers(1, 8))
    def read(self, number: int, count: int) -> None:
        for _ in range(count):
            self.run(turns(2))
            self.clients[number].read(1)

    @rule(between=st.booleans())
    def when_to_read(self, between: bool) -> None:
        """Whether watchers get on between the slices of a write."""
        self.reads_between = between

    def move(self, count: int) -> None:
        super().move(count)
        if self.reads_between:
            for client in self.clients:
                client.read(1)
            self.read_eagerly()

    @rule(count=st.integers(1, 12))
    def tick(self, count: int) -> None:
        for _ in range(count):
            self.world.router.tick()
            self.read_eagerly()

    def read_eagerly(self) -> None:
        """The last client reads all there is, if it is connected."""
        for client in self.clients[-1:]:
            if client.connected:
                self.run(turns(3))
                client.read()

    # --- joins -------------------------------------------------------------------------------------------------------

    @rule(key=join_keys, cookie=st.sampled_from(["", "red"]))
    def put_join(self, key: JoinKey, cookie: str) -> None:
        self.write(PutJoins(WriteOptions(key.owner), [JoinRecord(key, cookie)]), 1)

    @rule(key=join_keys)
    def delete_join(self, key: JoinKey) -> None:
        self.write(DeleteJoins(WriteOptions(key.owner), [key]), 1)

    @rule(
        number=st.integers(1, 2),
        iif=st.sampled_from(["a0", "a1", "a2"]),
        owner=st.sampled_from(["alice", "bob"]),
        join=st.booleans(),
    )
    def put_joining(self, number: int, iif: str, owner: str, join: bool) -> None:
        """A route that joins, or does no more."""
        self.write(PutRoutes(WriteOptions(owner, take_over=True), [Route(sg(number), Paths(iif, ()), owner, join=join)]), 1)

    @rule(steps=st.integers(1, 3), refused=st.sampled_from([0, 0, errno.ENOBUFS]))
    def join_and_leave(self, steps: int, refused: int) -> None:
        """What the joiner does; the kernel refuses all of it or nothing."""
        book = self.world.router.engine.joins
        for _ in range(steps):
            if (step := book.pull()) is not None:
                book.push(step, [refused] * len(step.leave), [refused] * len(step.join))

    @rule()
    def join_again(self) -> None:
        self.world.router.engine.joins.retry()

    # --- the world ---------------------------------------------------------------------------------------------------

    @rule(key=of_machine("KEYS"))
    def put_back(self, key: bytes) -> None:
        """Somebody else has changed an entry, and the kernel has told of it."""
        kernel = self.world.router.engine.tables.get((key_table(key), key_family(key)))
        if kernel is not None and key in kernel.actual and not self.world.router.unanswered:
            self.world.router.engine.put_back(kernel, [key])

    @rule()
    def keep_house(self) -> None:
        """What the housekeeper does once a second."""
        self.world.router.engine.roster.touch_interfaces()
        self.world.router.engine.sources.expire(self.world.router.now())

    @precondition(lambda self: self.clients)
    @rule()
    def crash(self) -> None:
        """The server dies, and every call with it."""
        self.world.router.boot()
        for client in self.clients:
            self.run(client.disconnect())
        self.server = self.serve()
        self.run(self._connect(self.clients[-1], 1000))

    @rule(owner=st.sampled_from(["alice", "bob"]))
    def delete_all(self, owner: str) -> None:
        write: Write = DeleteRoutes(WriteOptions(owner, take_over=True), None)
        self.write(write, 1)

    def put_at_the_end_of_a_life(self) -> None:
        """Not here: it starts a server that these clients would not know of."""

    # --- in the end --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.clients)
    @rule()
    def agree(self) -> None:
        """All is at rest: every client that is connected knows what the lists say."""
        self.world.router.settle(TICKS)
        self.world.router.engine.roster.touch_interfaces()
        self.run(self._agree())

    async def _agree(self) -> None:
        for client in self.clients:
            if not client.connected:
                client.connect(self.server)
            client.context.room = 1 << 60
        await rest(*self.clients)
        for client in self.clients:
            assert client.connected, client.task
            assert client.view.synced
            selector = client.request.selector
            for kind, number in KINDS.items():
                want = await self.server.listed(kind, selector) if number in client.request.kinds else {}
                have = client.view.of(kind)
                assert have == want, differences(have, want)

    @invariant()
    def always(self) -> None:
        """One client reads all the time; whether the engine is right is tested by others."""
        self.read_eagerly()


def differences(have: dict[tuple[str, ...], Any], want: dict[tuple[str, ...], Any]) -> str:
    """What a view lacks, has too much, or has otherwise."""
    keys = [key for key in {**have, **want} if have.get(key) != want.get(key)]
    return "\n".join(f"{key}: the view has {have.get(key)}; the list has {want.get(key)}" for key in keys)


class WatchedSmall(Watched):
    """One family and table, few groups: everything meets."""

    KEYS = SmallMachine.KEYS
    FLOWS = SmallMachine.FLOWS
    TEMPLATES = SmallMachine.TEMPLATES
    ITEMS = SmallMachine.ITEMS


TestWatched, TestWatchedSmall = Watched.TestCase, WatchedSmall.TestCase
TestWatched.settings = TestWatchedSmall.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
