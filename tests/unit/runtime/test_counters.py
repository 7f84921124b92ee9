"""mcastd.runtime.counters: one dump serves all who ask, and none of them can spoil it for the others."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from mcastd.core.engine import Engine
from mcastd.model.address import Family
from mcastd.model.errors import KernelRefused
from mcastd.model.event import AdoptedEntry
from mcastd.model.limits import Limits
from mcastd.model.record import Stored
from mcastd.model.route import Counters
from mcastd.runtime import counters
from mcastd.runtime.counters import CounterCache
from tests.netns.routed import key_of

KEY, OTHER = key_of(Family.IPV4, 1), key_of(Family.IPV4, 2)


class Dumps:
    """Stands for the kernel's tables."""

    def __init__(self) -> None:
        self.taken = 0
        self.gate = threading.Event()
        self.gate.set()
        self.packets = 10
        self.refuses = False
        self.tables: list[tuple[int, Family]] = []

    def __call__(self, tables: list[tuple[int, Family]], now: float) -> tuple[dict[bytes, Counters], list[AdoptedEntry]]:
        """One dump."""
        assert self.gate.wait(10)
        self.taken += 1
        self.tables = list(tables)
        if self.refuses:
            raise KernelRefused("RTM_GETROUTE", 12, "no memory")
        return {KEY: Counters(self.packets, 100 * self.packets, 0, now)}, [AdoptedEntry(OTHER, (1, ()), True)]


@pytest.fixture
def dumps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dumps]:
    one = Dumps()
    monkeypatch.setattr(counters, "_dump", one)
    yield one
    one.gate.set()


@pytest.fixture
def cache(dumps: Dumps) -> CounterCache:
    engine = Engine(1, Stored(), Limits())
    engine.adopt(0, Family.IPV4, [], [])
    return CounterCache(engine)


async def test_a_sample_serves_while_it_is_young_enough(cache: CounterCache, dumps: Dumps) -> None:
    first = await cache.get(3600)
    assert await cache.get(3600) is first
    assert dumps.taken == 1
    assert await cache.get(0) is not first
    assert dumps.taken == 2
    assert dumps.tables == [(0, Family.IPV4)]


async def test_the_sample_before_is_kept_for_rates(cache: CounterCache, dumps: Dumps) -> None:
    first = await cache.get(0)
    assert (first.previous, first.interval) == ({}, 0.0)
    dumps.packets = 30
    second = await cache.get(0)
    assert (second.previous[KEY].packets, second.counters[KEY].packets) == (10, 30)
    assert second.interval == second.time - first.time > 0
    third = await cache.get(0)
    assert third.previous == second.counters


async def test_all_who_ask_at_once_share_a_dump(cache: CounterCache, dumps: Dumps) -> None:
    dumps.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(cache.get(3600)) for _ in range(10)]
        await asyncio.sleep(0.01)
        dumps.gate.set()
    assert dumps.taken == 1
    assert len({id(one.result()) for one in asking}) == 1


async def test_a_dump_under_way_is_too_old_for_who_wants_one_of_now(cache: CounterCache, dumps: Dumps) -> None:
    dumps.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(cache.get(0))
        await asyncio.sleep(0.01)
        second = tasks.create_task(cache.get(0))
        await asyncio.sleep(0.01)
        dumps.gate.set()
    assert dumps.taken == 2
    assert second.result() is not first.result()


async def test_who_leaves_does_not_take_the_sample_from_the_others(cache: CounterCache, dumps: Dumps) -> None:
    dumps.gate.clear()
    loop = asyncio.get_running_loop()
    first, second = (loop.create_task(cache.get(0)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    assert first.cancelled()
    dumps.gate.set()
    async with asyncio.timeout(5):
        assert (await second).counters[KEY].packets == 10


async def test_a_refused_dump_is_told_and_tried_again(cache: CounterCache, dumps: Dumps) -> None:
    dumps.refuses = True
    results = await asyncio.gather(cache.get(0), cache.get(0), return_exceptions=True)
    assert all(isinstance(result, KernelRefused) for result in results)
    dumps.refuses = False
    assert (await cache.get(3600)).counters[KEY].packets == 10


async def test_foreign_entries_are_those_that_no_owner_asks_for(cache: CounterCache) -> None:
    assert [entry.key for entry in (await cache.get(0)).foreign] == [OTHER]
