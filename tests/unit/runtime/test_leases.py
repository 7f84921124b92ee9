"""Leases over time: ends written whatever it takes, hold times by a steady clock, over restarts by the wall clock."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mcastd.core.sessions import State, state_of
from mcastd.model.errors import McastdError, Reason
from mcastd.model.record import Lease, OnExpiry
from mcastd.model.write import ExpireLease, OpenSession, Outcome, Program, SessionWrite, WriteOptions
from mcastd.runtime import leases
from mcastd.runtime.leases import Leases
from mcastd.runtime.tasks import cancel, spawn
from tests.fakerouter import Router, route, sg

SDN = WriteOptions("sdn")
SHORT = Lease(0.05, OnExpiry.WITHDRAW)
LONG = Lease(3600.0, OnExpiry.WITHDRAW)


class Scene:
    """A router in memory with one session of "sdn" and its route; clocks and disk at the test's will."""

    def __init__(self, lease: Lease) -> None:
        self.router = Router("up", "down")
        self.router.write(OpenSession(SDN, 1, lease), Program(SDN, 1, [(1, route(sg(1), "up", "down", owner="sdn"))]))
        self.wall = 1000.0
        self.jump = 0.0
        self.full = False
        self.ending = False
        self.leases = self.made()

    def made(self) -> Leases:
        return Leases(self.router.engine, self.write, lambda: self.wall, lambda: asyncio.get_running_loop().time() + self.jump)

    async def write(self, write: SessionWrite) -> Outcome:
        await asyncio.sleep(0)
        if self.ending:
            raise McastdError(Reason.SHUTTING_DOWN, "the end")
        if self.full:
            raise McastdError(Reason.STORE_UNAVAILABLE, "full")
        (outcome,) = self.router.write(write)
        return outcome

    @property
    def state(self) -> State:
        return state_of(self.router.engine.desired.owners["sdn"])

    @property
    def until(self) -> float:
        return self.router.engine.desired.owners["sdn"].hold_until


def play(lease: Lease, act: Callable[[Scene], Awaitable[None]]) -> Scene:
    async def main() -> Scene:
        scene = Scene(lease)
        task = spawn(scene.leases.run(), "leases")
        try:
            await asyncio.wait_for(act(scene), 10)
        finally:
            if not task.done():
                await cancel(task)
        return scene

    return asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.002)


def test_nothing_is_said_to_be_withdrawn_from_an_owner_who_is_back_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async def act(scene: Scene) -> None:
        write = scene.write

        async def late(one: SessionWrite) -> Outcome:
            if isinstance(one, ExpireLease):
                scene.router.write(OpenSession(SDN, 2, SHORT))
            return await write(one)

        scene.leases._write = late
        scene.leases.ended("sdn", 1)
        await until(lambda: scene.state is State.ORPHANED)
        await until(lambda: scene.state is State.CONNECTED)
        await asyncio.sleep(0)
        assert len(scene.router.engine.desired.routes) == 1

    play(SHORT, act)
    assert "withdrawn" not in caplog.text


def test_an_end_is_written_and_the_hold_time_withdraws() -> None:
    async def act(scene: Scene) -> None:
        scene.leases.ended("sdn", 1)
        assert await scene.leases.settled(5)
        assert (scene.state, scene.until) == (State.ORPHANED, 1000.05)
        await until(lambda: scene.state is State.NONE)
        assert scene.router.engine.desired.routes == {}

    play(SHORT, act)


def test_who_comes_back_in_time_loses_nothing() -> None:
    async def act(scene: Scene) -> None:
        scene.leases.ended("sdn", 1)
        assert await scene.leases.settled(5)
        scene.router.write(OpenSession(SDN, 2, SHORT))
        scene.leases.ended("sdn", 1)
        await asyncio.sleep(0.15)
        assert scene.state is State.CONNECTED
        assert len(scene.router.engine.desired.routes) == 1

    play(SHORT, act)


@pytest.mark.parametrize("step", [-1e6, 1e6])
def test_a_step_of_the_wall_clock_withdraws_nothing_and_keeps_nothing(step: float) -> None:
    async def act(scene: Scene) -> None:
        scene.leases.ended("sdn", 1)
        assert await scene.leases.settled(5)
        await asyncio.sleep(0)
        scene.wall += step
        scene.leases.ended("other", 9)  # It looks again.
        assert await scene.leases.settled(5)
        assert scene.state is State.ORPHANED
        scene.jump = LONG.hold_time
        scene.leases.ended("other", 9)
        await until(lambda: scene.state is State.NONE)

    play(LONG, act)


def test_what_the_disk_refuses_is_written_later(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(leases, "RETRY_SECONDS", 0.01)

    async def act(scene: Scene) -> None:
        scene.full = True
        scene.leases.ended("sdn", 1)
        assert not await scene.leases.settled(0.05)
        assert caplog.text.count("the end of a session could not be stored") == 1, "it is tried often, and told once"
        scene.full = False
        assert await scene.leases.settled(5)
        assert scene.state is State.ORPHANED
        scene.full = True
        scene.jump = LONG.hold_time
        scene.leases.ended("other", 9)
        await asyncio.sleep(0.05)
        assert scene.state is State.ORPHANED
        scene.full = False
        await until(lambda: scene.state is State.NONE)

    play(LONG, act)


def test_after_a_restart_sessions_have_ended_and_hold_times_run_on() -> None:
    async def act(scene: Scene) -> None:
        scene.router.boot()
        scene.leases = scene.made()
        scene.leases.start()
        task = spawn(scene.leases.run(), "after the restart")
        assert await scene.leases.settled(5)
        assert (scene.state, scene.until) == (State.ORPHANED, 1000.0 + LONG.hold_time)
        await cancel(task)
        scene.wall += 10
        scene.router.boot()
        scene.leases = scene.made()
        scene.leases.start()
        task = spawn(scene.leases.run(), "after another one")
        assert await scene.leases.settled(5)
        assert scene.until == 1000.0 + LONG.hold_time, "it runs on"
        await cancel(task)
        scene.wall += LONG.hold_time
        scene.router.boot()
        scene.leases = scene.made()
        scene.leases.start()
        task = spawn(scene.leases.run(), "after the time is over")
        await until(lambda: scene.state is State.NONE)
        await cancel(task)

    play(LONG, act)


def test_it_ends_with_the_daemon() -> None:
    async def act(scene: Scene) -> None:
        scene.ending = True
        scene.leases.ended("sdn", 1)
        assert not await scene.leases.settled(0.05)

    assert play(LONG, act).state is State.CONNECTED, "the next server finds it"


def test_what_the_daemon_ends_is_held_for_a_while_whatever_the_lease_says() -> None:
    async def act(scene: Scene) -> None:
        scene.leases.leave()
        scene.leases.ended("sdn", 1)
        assert await scene.leases.settled(5)
        assert scene.until == 0, "that is for the next server"
        scene.router.boot()
        scene.leases = scene.made()
        scene.leases.start()
        task = spawn(scene.leases.run(), "after the restart")
        assert await scene.leases.settled(5)
        assert scene.until == scene.wall + leases.RESTART_GRACE
        await asyncio.sleep(0.1)
        assert scene.state is State.ORPHANED
        scene.jump = leases.RESTART_GRACE
        scene.leases.ended("other", 9)
        await until(lambda: scene.state is State.NONE)
        await cancel(task)

    play(SHORT, act)
