"""The joiner between book and pool: notes before joins, answers to those who wait, and an end that leaves nobody hanging."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import pytest

from mcastd.core.joins import JoinBook, JoinWork
from mcastd.core.shapes import World
from mcastd.kernel.joins import HeldSocket, Keeping
from mcastd.model.errors import McastdError, Reason
from mcastd.model.interface import Link
from mcastd.model.join import JoinKey, JoinRecord, Membership
from mcastd.runtime import joiner as module
from mcastd.runtime.joiner import Joiner, keeper_pool
from mcastd.runtime.tasks import cancel, spawn
from mcastd.telemetry.metrics import Metrics

GROUP = bytes([239, 1, 1, 1])
KEY = JoinKey("me", "up", GROUP, 32, b"", 0)
MEMBERSHIP = Membership(1, GROUP, b"")


class FakePool:
    """Remembers; `gate` holds its thread back."""

    def __init__(self) -> None:
        self.joined: set[Membership] = set()
        self.errno = 0
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()

    def adopt(self, held: Iterable[HeldSocket]) -> set[Membership]:
        """Whatever was joined."""
        list(held)
        return set(self.joined)

    def leave(self, unwanted: Sequence[Membership]) -> list[int]:
        """Leave all."""
        self.joined.difference_update(unwanted)
        return [0] * len(unwanted)

    def join(self, wanted: Sequence[Membership]) -> list[int]:
        """Join all, or none."""
        if wanted:
            self.busy.set()
        assert self.gate.wait(20)
        if not self.errno:
            self.joined.update(wanted)
        return [self.errno] * len(wanted)


def a_book() -> JoinBook:
    world = World()
    link = Link(1, "up", up=True, multicast=True)
    world.by_index, world.by_name = {1: link}, {"up": link}
    return JoinBook(world)


def put(book: JoinBook) -> JoinWork:
    work = JoinWork()
    book.put(JoinRecord(KEY), work)
    book.begin(work)
    return work


@asynccontextmanager
async def running(joiner: Joiner) -> AsyncIterator[asyncio.Task[None]]:
    task = spawn(joiner.run(), "joiner")
    yield task
    if not task.done():
        await cancel(task)


async def test_who_waits_is_answered_when_the_kernel_has_answered() -> None:
    book, pool = a_book(), FakePool()
    joiner = Joiner(book, pool, Metrics())
    async with running(joiner):
        await joiner.quiet()
        pool.gate.clear()
        done = spawn(joiner.done(put(book)), "wait")
        await asyncio.to_thread(pool.busy.wait, 20)
        assert not done.done()
        pool.gate.set()
        await done
        assert pool.joined == {MEMBERSHIP}
        work = JoinWork()
        book.delete(KEY, work)
        book.begin(work)
        await joiner.done(work)
        assert pool.joined == set()
        await joiner.done(work)  # finished already


async def test_what_is_refused_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    book, pool = a_book(), FakePool()
    pool.errno = errno.ENOBUFS
    metrics = Metrics()
    joiner = Joiner(book, pool, metrics)
    async with running(joiner):
        await joiner.done(put(book))
        problem = book.error_of(KEY)
        assert problem is not None
        assert problem.reason is Reason.MEMBERSHIP_LIMIT
        assert metrics.registry.get_sample_value("mcastd_membership_failures_total", {"errno": "ENOBUFS"})
        pool.errno = 0
        async with asyncio.timeout(20):
            while book.error_of(KEY) is not None:  # noqa: ASYNC110 - it has no event for this
                await asyncio.sleep(0.01)
    assert pool.joined == {MEMBERSHIP}


async def test_what_is_adopted_is_not_joined_again() -> None:
    book, pool = a_book(), FakePool()
    pool.joined = {MEMBERSHIP, Membership(1, bytes([239, 9, 9, 9]), b"")}
    put(book)
    joiner = Joiner(book, pool, Metrics())
    await joiner.adopt([])
    async with running(joiner):
        await joiner.quiet()
    assert pool.joined == {MEMBERSHIP}, "what nobody wants any more is left"
    assert not pool.busy.is_set()


async def test_the_end_waits_for_the_step_under_way_and_fails_those_who_wait() -> None:
    book, pool = a_book(), FakePool()
    joiner = Joiner(book, pool, Metrics())
    async with running(joiner) as task:
        await joiner.quiet()
        pool.gate.clear()
        done = spawn(joiner.done(put(book)), "wait")
        await asyncio.to_thread(pool.busy.wait, 20)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done()
        pool.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(McastdError) as ended:
            await done
        assert ended.value.reason is Reason.SHUTTING_DOWN


class FakeKeeper:
    """What the pool's holder talks to."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, str, int | None]] = []
        self.dropped: list[str] = []
        self.error: McastdError | None = None

    async def store_fd(self, name: str, note: str, fd: int | None) -> None:
        """Remember it, after a while."""
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.stored.append((name, note, fd))

    def drop_fd(self, name: str) -> None:
        """Remember it."""
        self.dropped.append(name)


@pytest.mark.parametrize(
    "error, number",
    [
        (None, 0),
        (McastdError(Reason.TOO_MANY_ITEMS, "too many"), errno.EMFILE),
        (McastdError(Reason.SHUTTING_DOWN, "the keeper is gone"), errno.ESHUTDOWN),
    ],
)
async def test_the_keeper_is_asked_from_the_pools_thread(error: McastdError | None, number: int) -> None:
    keeper = FakeKeeper()
    keeper.error = error
    pool = keeper_pool(keeper)
    keepings = [Keeping("join-1", "note", 7), Keeping("join-2", "note", None)]
    assert await asyncio.to_thread(pool._holder.store, keepings) == [number] * 2
    assert keeper.stored == ([] if error else [tuple(one) for one in keepings])
    await asyncio.to_thread(pool._holder.drop, ["join-1"])
    await asyncio.sleep(0)
    assert keeper.dropped == ["join-1"]
