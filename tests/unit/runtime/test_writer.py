"""mcastd.runtime.writer: group commit, order, what a failing disk and an end in between come to."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest

from mcastd.core.engine import Engine
from mcastd.core.memberships import JoinWork
from mcastd.core.plan import Work
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.event import LinkChanged
from mcastd.model.interface import Link
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.limits import Limits
from mcastd.model.record import Intent, Lease, OnExpiry, Stored
from mcastd.model.route import Paths, Route
from mcastd.model.write import DeleteJoins, DeleteRoutes, OpenSession, PutJoins, PutRoutes, ReplaceRoutes, Write, WriteOptions
from mcastd.runtime import writer
from mcastd.runtime.executor import Executor
from mcastd.runtime.tasks import cancel, spawn
from mcastd.runtime.writer import GROUP_MAX, Writer
from mcastd.store.sqlite import Store
from tests.api.waiting import until
from tests.netns.routed import key_of

OPTIONS = WriteOptions("alice")


class FakeStore:
    """A disk that can be slow, full, or in want of compaction."""

    def __init__(self) -> None:
        self.commits: list[int] = []
        """Writes in each transaction."""
        self.gate = threading.Event()
        self.gate.set()
        self.full = False
        self.refusal: McastdError | None = None
        self.compactions = 0
        self.wants = False
        self.compacted: list[int] = []

    def commit(self, intents: Sequence[Intent]) -> None:
        """One transaction."""
        assert self.gate.wait(10)
        if self.full:
            self.refusal = McastdError(Reason.STORE_UNAVAILABLE, "the disk is full")
            raise self.refusal
        self.refusal = None
        self.commits.append(len(intents))

    def wants_compaction(self) -> bool:
        """Whether the journal has grown."""
        return self.wants

    def mark(self) -> object:
        """Where the journal is."""
        return object()

    def compaction(self, _mark: object, routes: Sequence[Route], *_rest: object) -> Iterator[None]:
        """Slices of a compaction."""
        self.wants = False
        for _ in range(3):
            yield
        self.compacted.append(len(routes))


class FakeExecutor:
    """Programs nothing; works are done when the test says so."""

    def __init__(self) -> None:
        self.works: list[Work] = []
        self.ready = asyncio.Event()
        self.ready.set()

    def wake(self) -> None:
        """There may be something to do."""

    async def done(self, work: Work) -> None:
        """Wait for the kernel."""
        self.works.append(work)
        await self.ready.wait()

    async def quiet(self) -> None:
        """Nothing is left to do."""


class FakeJoiner:
    """Joins nothing; works are done when the test says so."""

    def __init__(self) -> None:
        self.works: list[JoinWork] = []
        self.ready = asyncio.Event()
        self.ready.set()

    def wake(self) -> None:
        """There may be something to do."""

    async def done(self, work: JoinWork) -> None:
        """Wait for the kernel."""
        self.works.append(work)
        await self.ready.wait()


class Bench:
    """A writer at work."""

    def __init__(self) -> None:
        self.engine = Engine(1, Stored(), Limits())
        self.store = FakeStore()
        self.executor = FakeExecutor()
        self.joiner = FakeJoiner()
        self.writer = Writer(self.engine, cast("Store", self.store), cast("Executor", self.executor), self.joiner)


@asynccontextmanager
async def working() -> AsyncIterator[Bench]:
    """Run a writer."""
    bench = Bench()
    task = spawn(bench.writer.run(), "writer")
    try:
        yield bench
    finally:
        bench.store.gate.set()
        await cancel(task)


def route(number: int, cookie: str = "", oif: str = "down1") -> Route:
    """A route by number."""
    paths = Paths("up", ())
    return Route(key_of(Family.IPV4, number), paths if oif == "down1" else Paths(oif, ()), "alice", cookie)


def put(*numbers: int, cookie: str = "") -> PutRoutes:
    """A write of some routes."""
    return PutRoutes(OPTIONS, [route(number, cookie) for number in numbers])


async def test_writes_of_sessions_wait_and_others_are_refused_where_too_many_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each session has only so many under way; were they refused, a hundred controllers could not replay at once."""
    monkeypatch.setattr(writer, "QUEUE_MAX", 3)
    lease = Lease(0.0, OnExpiry.RETAIN)
    async with working() as bench:
        bench.store.gate.clear()
        tasks = [spawn(bench.writer.write(put(0)), "first")]
        await until(lambda: bench.writer.busy and not bench.writer._queue)
        sessions = [OpenSession(WriteOptions(f"owner{n}"), n, lease) for n in range(1, 20)]
        tasks += [spawn(bench.writer.write(one), "session") for one in sessions]
        tasks += [spawn(bench.writer.write(put(n)), "unary") for n in range(1, 4)]
        await until(lambda: len(bench.writer._queue) == 22)
        with pytest.raises(McastdError, match="3 writes wait already") as refused:
            await bench.writer.write(put(4))
        assert refused.value.reason is Reason.STORE_UNAVAILABLE
        bench.store.gate.set()
        await asyncio.gather(*tasks)
        await bench.writer.write(put(5))


async def test_a_write_is_stored_then_in_force_then_answered() -> None:
    async with working() as bench:
        bench.store.gate.clear()
        bench.executor.ready.clear()
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(bench.writer.write(put(1, 2)))
            await asyncio.sleep(0.01)
            assert bench.engine.desired.routes == {}, "the disk has yet to answer"
            bench.store.gate.set()
            await until(lambda: bool(bench.executor.works))
            assert len(bench.engine.desired.routes) == 2
            assert not writing.done(), "the kernel has yet to answer"
            bench.executor.ready.set()
        assert writing.result().created == 2


async def test_writes_that_come_while_the_disk_is_busy_share_a_transaction() -> None:
    async with working() as bench:
        bench.store.gate.clear()
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(bench.writer.write(put(1)))
            await asyncio.sleep(0.01)
            later = [tasks.create_task(bench.writer.write(put(n))) for n in range(2, 2 + GROUP_MAX + 10)]
            await asyncio.sleep(0.01)
            bench.store.gate.set()
        assert bench.store.commits == [1, GROUP_MAX, 10]
        revisions = [task.result().revision for task in (first, *later)]
        assert revisions == sorted(set(revisions)), "in the order in which they came"


async def test_writes_of_one_group_see_each_other() -> None:
    async with working() as bench:
        outcomes = await asyncio.gather(
            bench.writer.write(put(1)),
            bench.writer.write(put(1)),
            bench.writer.write(put(1, cookie="x")),
            bench.writer.write(DeleteRoutes(OPTIONS, [route(1).key])),
            bench.writer.write(put(1)),
        )
        assert [(o.created, o.unchanged, o.updated, o.deleted) for o in outcomes] == [
            (1, 0, 0, 0),
            (0, 1, 0, 0),
            (0, 0, 1, 0),
            (0, 0, 0, 1),
            (1, 0, 0, 0),
        ]
        assert list(bench.engine.desired.routes) == [route(1).key]


async def test_a_refused_write_leaves_the_rest_of_its_group_alone() -> None:
    async with working() as bench:
        stale = PutRoutes(WriteOptions("alice", epoch=1), [route(2)])
        results = await asyncio.gather(
            bench.writer.write(PutRoutes(WriteOptions("alice", epoch=5), [route(1)])),
            bench.writer.write(stale),
            bench.writer.write(put(3)),
            return_exceptions=True,
        )
        assert isinstance(results[1], McastdError)
        assert results[1].reason is Reason.STALE_EPOCH
        assert set(bench.engine.desired.routes) == {route(1).key, route(3).key}


async def test_what_changes_nothing_is_not_stored() -> None:
    async with working() as bench:
        await bench.writer.write(put(1))
        await bench.writer.write(put(1))
        await bench.writer.write(PutRoutes(WriteOptions("alice", validate_only=True), [route(2)]))
        assert bench.store.commits == [1]


async def test_what_cannot_be_stored_is_not_done(caplog: pytest.LogCaptureFixture) -> None:
    async with working() as bench:
        await bench.writer.write(put(1))
        bench.store.full = True
        results = await asyncio.gather(
            bench.writer.write(put(2)), bench.writer.write(ReplaceRoutes(OPTIONS, {}, allow_empty=True)), return_exceptions=True
        )
        assert [r.reason for r in results if isinstance(r, McastdError)] == [Reason.STORE_UNAVAILABLE] * 2
        assert list(bench.engine.desired.routes) == [route(1).key]
        assert "can't be stored" in caplog.text
        bench.store.full = False
        assert (await bench.writer.write(put(2))).created == 1


async def test_a_caller_that_leaves_does_not_stop_the_write() -> None:
    async with working() as bench:
        bench.store.gate.clear()
        leaving = asyncio.get_running_loop().create_task(bench.writer.write(put(1)))
        await asyncio.sleep(0.01)
        leaving.cancel()
        bench.store.gate.set()
        assert (await bench.writer.write(put(1))).unchanged == 1


async def test_the_end_refuses_what_waits() -> None:
    async with working() as bench:
        bench.store.gate.clear()
        loop = asyncio.get_running_loop()
        first = loop.create_task(bench.writer.write(put(1)))
        await asyncio.sleep(0.01)
        second = loop.create_task(bench.writer.write(put(2)))
        await asyncio.sleep(0.01)
    with pytest.raises(McastdError) as caught:
        await second
    assert caught.value.reason is Reason.SHUTTING_DOWN
    with pytest.raises(McastdError, match="ending"):
        await bench.writer.write(put(3))
    first.cancel()


async def test_steady_is_never_in_the_middle_of_a_write() -> None:
    """Writes of 2,500 routes take three slices each; whoever waits for `steady` sees all of one and nothing of the next."""
    async with working() as bench:
        sets = [ReplaceRoutes(OPTIONS, {r.key: r for r in (route(n, str(which)) for n in range(1, 2501))}) for which in range(2)]
        await bench.writer.write(sets[0])
        seen: set[frozenset[str]] = set()
        stop = False

        async def watch() -> None:
            while not stop:
                await bench.writer.steady()
                seen.add(frozenset(r.cookie for r in bench.engine.desired.routes.values()))
                await asyncio.sleep(0)

        watchers = [asyncio.get_running_loop().create_task(watch()) for _ in range(3)]
        for n in range(6):
            turns = (sets[1], sets[0], sets[1]) if n % 2 else (sets[0], sets[1], sets[0])
            copies = [ReplaceRoutes(OPTIONS, {k: r.copy() for k, r in one.routes.items()}) for one in turns]
            await asyncio.gather(*(bench.writer.write(one) for one in copies))
        stop = True
        await asyncio.gather(*watchers)
        assert seen == {frozenset("0"), frozenset("1")}


JOIN = JoinKey("alice", "up", b"\xef\1\1\1", 32, b"", 0)


@pytest.mark.parametrize("what", ["join", "again", "leave", "route"])
async def test_a_write_waits_until_the_kernel_has_joined(what: str) -> None:
    async with working() as bench:
        bench.engine.links(LinkChanged(Link(1, "up", up=True, multicast=True)))
        write: Write = PutJoins(OPTIONS, [JoinRecord(JOIN)])
        if what in {"again", "leave"}:
            await bench.writer.write(write)
        if what == "leave":
            step = bench.engine.joins.pull()
            assert step is not None
            bench.engine.joins.push(step, [], [0])
            write = DeleteJoins(OPTIONS, [JOIN])
        elif what == "route":
            joining = route(1)
            joining.join = True
            write = PutRoutes(OPTIONS, [joining])
        bench.joiner.works.clear()
        bench.joiner.ready.clear()
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(bench.writer.write(write))
            await until(lambda: bool(bench.joiner.works))
            assert len(bench.joiner.works[0].waiting) == 1
            assert not writing.done()
            bench.joiner.ready.set()


async def test_a_write_without_joins_waits_for_none() -> None:
    async with working() as bench:
        await bench.writer.write(put(1))
        await bench.writer.write(put(1))
        await bench.writer.write(DeleteJoins(OPTIONS, [JOIN]))
        assert bench.joiner.works == []


async def test_a_long_journal_is_compacted_while_writes_go_on() -> None:
    async with working() as bench:
        await bench.writer.write(put(1, 2, 3))
        bench.store.wants = True
        await bench.writer.write(put(4))
        async with asyncio.timeout(5):
            while not bench.store.compacted:
                await bench.writer.write(put(5))
        assert bench.store.compacted == [4]
