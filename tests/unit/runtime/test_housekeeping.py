"""mcastd.runtime.housekeeping: when it is looked, and what comes of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcastd.model.address import Family
from mcastd.model.event import Answer, UpcallKind
from mcastd.model.limits import Limits
from mcastd.model.route import Template
from mcastd.model.write import PutRoutes, WriteOptions
from mcastd.runtime import housekeeping
from mcastd.runtime.housekeeping import INTERVAL_MAX, INTERVAL_MIN, Housekeeper
from mcastd.runtime.tasks import cancel, spawn
from tests.api.rig import Rig, running
from tests.api.waiting import until
from tests.fakerouter import sg, template

ALICE = WriteOptions("alice")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(Rig(tmp_path)) as one:
        yield one


async def put(rig: Rig, group: str, idle_timeout: float) -> None:
    """Put a template with an idle timeout of its own."""
    made = template(group, "", "up", "down1")
    await rig.daemon.write(PutRoutes(ALICE, [Template(made.key, made.paths, "alice", idle_timeout=idle_timeout)]))


async def test_the_shortest_idle_time_decides_how_often_it_is_looked(rig: Rig) -> None:
    keeper = Housekeeper(rig.engine, rig.daemon.executor)
    assert keeper.interval() == INTERVAL_MAX
    await put(rig, "239.1.0.0/16", 0.0)
    assert keeper.interval() == INTERVAL_MAX
    await put(rig, "239.2.0.0/16", 20.0)
    await put(rig, "239.3.0.0/16", 3600.0)
    assert keeper.interval() == 5.0
    await put(rig, "ff3e::/64", 2.0)
    assert keeper.interval() == INTERVAL_MIN
    rig.engine.limits = Limits(idle_timeout=8.0)
    assert keeper.interval() == INTERVAL_MIN


async def test_stop_filters_age_by_the_default_where_templates_last_long(rig: Rig) -> None:
    await put(rig, "239.3.0.0/16", 3600.0)
    rig.engine.limits = Limits(idle_timeout=8.0)
    assert Housekeeper(rig.engine, rig.daemon.executor).interval() == 2.0


async def test_what_is_idle_goes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is looked at once it is due; the other family, where nothing was learned, is not."""
    await put(rig, "239.1.0.0/16", 1.0)
    key, looked = sg(1), list[tuple[int, Family]]()
    rig.engine.upcall(key, UpcallKind.NOCACHE, 0, Answer.REFUSED, bytes(8), 2000.0)
    rig.daemon.executor.wake()
    await rig.daemon.executor.quiet()
    assert rig.kernel.entry(key) is not None

    def ours(table: int, family: Family, _learned: object) -> tuple[list[tuple[bytes, float, int, int]], float]:
        looked.append((table, family))
        rig.kernel.clock += 1.0
        return rig.kernel.ages((table, family)), 3000.0

    monkeypatch.setattr(housekeeping, "_ours", ours)
    monkeypatch.setattr(housekeeping, "INTERVAL_MIN", 0.01)
    task = spawn(Housekeeper(rig.engine, rig.daemon.executor).run(), "housekeeper")
    try:
        async with asyncio.timeout(30):
            await until(lambda: rig.kernel.entry(key) is None)
    finally:
        await cancel(task)
    assert set(looked) == {(0, Family.IPV4)}


async def test_where_a_cap_presses_it_is_looked_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[tuple[int, Family]] = []

    def ours(table: int, family: Family, _learned: object) -> tuple[list[tuple[bytes, float, int, int]], float]:
        looked.append((table, family))
        return [], 3000.0

    monkeypatch.setattr(housekeeping, "_ours", ours)
    monkeypatch.setattr(housekeeping, "INTERVAL_MIN", 0.01)
    rig.engine.tables[0, Family.IPV6].pressed[None] = 0.0
    task = spawn(Housekeeper(rig.engine, rig.daemon.executor).run(), "housekeeper")
    try:
        async with asyncio.timeout(30):
            await until(lambda: not rig.engine.tables[0, Family.IPV6].pressed)
    finally:
        await cancel(task)
    assert set(looked) == {(0, Family.IPV6)}
