"""mcastd.runtime.counters: one dump serves all who ask, and none of them can spoil it for the others."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from mcastd.core.engine import Engine
from mcastd.model.address import Family
from mcastd.model.errors import KernelRefused
from mcastd.model.limits import Limits
from mcastd.model.record import Stored
from mcastd.model.route import Forwarding
from mcastd.runtime import counters, samples
from mcastd.runtime.counters import CounterCache
from mcastd.runtime.samples import Sample, TableCounters
from mcastd.runtime.tasks import cancel, spawn
from tests.api.waiting import until
from tests.netns.routed import key_of
from tests.unit.telemetry.counted import Count, dump_of

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
        self.times: list[float] = []

    def __call__(self, tables: list[tuple[int, Family]]) -> Sample:
        """One dump."""
        self.times.append(time.monotonic())
        assert self.gate.wait(10)
        self.taken += 1
        self.tables = list(tables)
        if self.refuses:
            raise KernelRefused("RTM_GETROUTE", 12, "no memory")
        counts = {KEY: Count(self.packets, 100 * self.packets), OTHER: Count(foreign=True)}
        wall = time.time()
        return Sample([TableCounters(0, dump_of(Family.IPV4, counts), wall)], wall, self.times[-1])


@pytest.fixture
def dumps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dumps]:
    one = Dumps()
    monkeypatch.setattr(samples, "dump", one)
    monkeypatch.setattr(counters, "INTERVAL_MIN", 0.0)
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
    assert second.interval == pytest.approx(second.time - first.time, abs=0.05)
    third = await cache.get(0)
    assert third.previous == second.counters
    assert dict(third.previous) == dict(second.counters)


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


async def test_at_most_one_dump_in_a_while_however_many_want_one_of_now(
    cache: CounterCache, dumps: Dumps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "INTERVAL_MIN", 0.2)
    for _ in range(3):
        await asyncio.gather(*(cache.get(0) for _ in range(20)))
    assert dumps.taken == 3
    assert all(later - earlier >= 0.19 for earlier, later in zip(dumps.times, dumps.times[1:], strict=False))
    began = time.monotonic()
    await cache.get(3600)
    assert time.monotonic() - began < 0.1


async def test_refused_dumps_are_not_tried_more_often(cache: CounterCache, dumps: Dumps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "INTERVAL_MIN", 0.2)
    dumps.refuses = True
    for _ in range(3):
        with pytest.raises(KernelRefused):
            await cache.get(0)
    assert all(later - earlier >= 0.19 for earlier, later in zip(dumps.times, dumps.times[1:], strict=False))


async def test_api_and_scrapes_share_a_sample(cache: CounterCache, dumps: Dumps) -> None:
    sample = await cache.sample(3600)
    answer = await cache.get(3600)
    assert dumps.taken == 1
    assert answer.time == sample.time
    assert await cache.get(3600) is answer


async def test_a_baseline_is_taken_while_there_are_entries(
    cache: CounterCache, dumps: Dumps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "BASELINE_SECONDS", 0.02)
    running = spawn(cache.run(), "baselines")
    await asyncio.sleep(0.1)
    assert dumps.taken == 0
    cache._engine.tables[0, Family.IPV4].actual[KEY] = Forwarding(b"", 0)
    dumps.refuses = True
    await until(lambda: dumps.taken >= 2)
    dumps.refuses = False
    await until(lambda: dumps.taken >= 4)
    assert (await cache.get(3600)).interval > 0
    await cancel(running)
