"""What the service manager is told of the server: words, counts, reloads."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.write import PutRoutes, WriteOptions
from mcastd.runtime import status
from mcastd.runtime.status import Status
from mcastd.runtime.tasks import cancel, spawn
from tests.api.rig import Rig, running
from tests.api.waiting import until
from tests.fakerouter import route
from tests.netns.routed import key_of

ALICE = WriteOptions("alice")


class Said(NamedTuple):
    """One NOTIFY."""

    text: str
    reloading: bool
    reloads: int


class Keeper:
    """Listens."""

    def __init__(self) -> None:
        self.reloads = 0
        self.said: list[Said] = []

    def notify(self, text: str, *, reloading: bool, reloads: int) -> None:
        """Remember it."""
        self.said.append(Said(text, reloading, reloads))


class Bench:
    """A server with as many sessions and watchers as the test says."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.keeper = Keeper()
        self.sessions = self.watchers = 0
        self.status = Status(rig.daemon.engine, self.keeper, lambda: self.sessions, lambda: self.watchers)

    def words(self) -> str:
        """What was said last."""
        return self.keeper.said[-1].text


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running(Rig(tmp_path)) as rig:
        yield Bench(rig)


async def test_words_count_what_there_is(bench: Bench) -> None:
    await bench.status.ready()
    assert bench.words() == "0 of 0 routes in the kernel, 0 joins, 0 sessions, 0 watchers"
    known, unknown = route(key_of(Family.IPV4, 1), "up", "down1"), route(key_of(Family.IPV6, 2), "nowhere", "down1")
    await bench.rig.daemon.write(PutRoutes(ALICE, [known]))
    bench.sessions = bench.watchers = 1
    await bench.status.ready()
    assert bench.words() == "1 of 1 route in the kernel, 0 joins, 1 session, 1 watcher"
    await bench.rig.daemon.write(PutRoutes(ALICE, [unknown]))
    bench.sessions = bench.watchers = 12
    await bench.status.ready()
    assert bench.words() == "1 of 2 routes in the kernel, 0 joins, 12 sessions, 12 watchers"


async def test_until_the_server_serves_it_is_starting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "INTERVAL", 0.01)
    task = spawn(bench.status.run(), "status")
    await until(lambda: bool(bench.keeper.said))
    assert bench.words() == "starting; 0 of 0 routes in the kernel, 0 joins, 0 sessions, 0 watchers"
    await bench.status.ready()
    assert not bench.words().startswith("starting")
    await cancel(task)


async def test_words_are_told_only_where_they_change(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "INTERVAL", 0.001)
    await bench.status.ready()
    task = spawn(bench.status.run(), "status")
    await asyncio.sleep(0.1)
    assert len(bench.keeper.said) == 1
    bench.watchers = 1
    await until(lambda: len(bench.keeper.said) == 2)
    await cancel(task)


async def test_what_waits_for_its_turn_is_not_in_the_kernel_yet(bench: Bench) -> None:
    await bench.status.ready()
    for mroute in bench.rig.mroutes.values():
        mroute.gate.clear()
    bench.rig.daemon.engine.routes_max = 5000
    routes = [route(key_of(Family.IPV4, number), "up", "down1") for number in range(5000)]
    write = spawn(bench.rig.daemon.write(PutRoutes(ALICE, routes)), "write")
    await until(lambda: any(mroute.held_back.is_set() for mroute in bench.rig.mroutes.values()))
    await until(lambda: bench.rig.daemon.engine.backlog() > 0)
    await bench.status.ready()
    there, _, wanted = bench.words().partition(" routes ")[0].partition(" of ")
    assert 0 <= int(there) < int(wanted)
    for mroute in bench.rig.mroutes.values():
        mroute.gate.set()
    await write
    await bench.status.ready()
    assert bench.words().startswith("5000 of 5000 ")


async def test_a_reload_is_told_with_the_number_that_was_asked_for_before_it_began(bench: Bench) -> None:
    await bench.status.ready()
    bench.keeper.reloads = 3
    with bench.status.reloading():
        assert bench.keeper.said[-1][1:] == (True, 0)
        bench.keeper.reloads = 4
    assert bench.keeper.said[-1][1:] == (False, 3)
    with bench.status.reloading():
        assert bench.keeper.said[-1][1:] == (True, 3)
    assert bench.keeper.said[-1][1:] == (False, 4)


async def test_of_two_reloads_at_a_time_the_last_one_ends_it(bench: Bench) -> None:
    await bench.status.ready()
    bench.keeper.reloads = 1
    with bench.status.reloading():
        bench.keeper.reloads = 2
        with bench.status.reloading():
            pass
        assert bench.keeper.said[-1][1:] == (True, 2)
    assert bench.keeper.said[-1][1:] == (False, 2)


async def test_why_a_reload_has_failed_is_said_until_one_succeeds(bench: Bench) -> None:
    await bench.status.ready()
    counted = bench.words()
    with pytest.raises(McastdError), bench.status.reloading():
        raise McastdError(Reason.STORE_UNAVAILABLE, "the disk is full")
    assert bench.words() == f"the configuration was not reloaded: the disk is full; {counted}"
    bench.watchers = 1
    await bench.status.ready()
    assert bench.words().startswith("the configuration was not reloaded: the disk is full; ")
    with bench.status.reloading():
        pass
    assert bench.words().startswith("0 of 0 routes")


async def test_why_writes_are_refused_is_said_as_long_as_they_are(bench: Bench) -> None:
    refusal: list[McastdError | None] = [McastdError(Reason.STORE_UNAVAILABLE, "the disk is full")]
    made = Status(bench.rig.daemon.engine, bench.keeper, lambda: 0, lambda: 0, lambda: refusal[0])
    await made.ready()
    assert bench.words().startswith("writes are refused: the disk is full; 0 of ")
    refusal[0] = None
    await made.ready()
    assert "refused" not in bench.words()
