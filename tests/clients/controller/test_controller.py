"""The controller at work on routers in the test's process: taken over amid a change, routers that come late or refuse it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mcast.client import Client, Lease
from mcast_controller import router
from mcast_controller.controller import Controller, Settings
from mcast_controller.election import Election
from mcast_controller.metrics import Metrics
from mcast_controller.topology import Port, load
from mcast_controller.trees import Flow
from mcastd.model.settings import Access
from tests.api.rig import Rig, running

SOURCE = Port("leaf1", "up")
GROUPS = {4: "232.1.{}.{}", 6: "ff3e::{:x}:{:x}"}
SOURCES = {4: "10.0.0.5", 6: "fd00::5"}


def flow(family: int, number: int) -> Flow:
    """A flow by number."""
    return Flow(GROUPS[family].format(number >> 8, number & 255), SOURCES[family])


def controller(directory: Path) -> Controller:
    """A controller of two routers with a link between them, and hosts at both."""
    for name in ("leaf1", "leaf2"):
        (directory / name).mkdir(exist_ok=True)
    topology, wishes = directory / "topology.toml", directory / "wishes.toml"
    topology.write_text(f"""
        owner = "fabric"
        [router.leaf1]
        address = "unix:{directory}/leaf1/rig.sock"
        [router.leaf2]
        address = "unix:{directory}/leaf2/rig.sock"
        [[link]]
        a = "leaf1/down1"
        b = "leaf2/up"
        [segment.h1]
        at = "leaf1/up"
        [segment.h2]
        at = "leaf2/down1"
    """)
    wishes.write_text("""
        [[wish]]
        group = "232.0.0.0/8"
        segments = ["h2"]
        [[wish]]
        group = "ff3e::/16"
        segments = ["h2"]
    """)
    return Controller(load(topology), wishes, Settings(lease=Lease(30), start=0.2), Metrics())


@asynccontextmanager
async def at_work(made: Controller, election: Election) -> AsyncIterator["asyncio.Task[None]"]:
    """Let it run."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(made.run(election))
        try:
            yield task
        finally:
            task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nothing tells of."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("family", [4, 6])
async def test_who_is_taken_over_in_the_middle_of_a_change_ends_in_order(tmp_path: Path, family: int) -> None:
    async def keep_busy() -> None:
        for number in range(1, 1000):
            made.source_seen(flow(family, number), SOURCE)
            await asyncio.sleep(0.001)

    made = controller(tmp_path)
    async with (
        running(Rig(tmp_path / "leaf1")) as rig,
        running(Rig(tmp_path / "leaf2")),
        Client(f"unix:{tmp_path}/leaf1/rig.sock") as other,
        at_work(made, Election(1, None)) as run,
        asyncio.TaskGroup() as group,
    ):
        busy = group.create_task(keep_busy())
        await until(lambda: len(rig.entries()) > 10)
        async with other.program("fabric", epoch=2):
            await asyncio.wait_for(run, 30)
        busy.cancel()


@pytest.mark.parametrize("family", [4, 6])
async def test_a_router_that_is_down_at_the_start_gets_its_routes_when_it_comes(tmp_path: Path, family: int) -> None:
    made = controller(tmp_path)
    async with running(Rig(tmp_path / "leaf1")) as first, at_work(made, Election(1, None)) as run:
        await until(lambda: made._routers["leaf1"].attached)
        made.source_seen(flow(family, 1), SOURCE)
        await until(lambda: len(first.entries()) == 1)
        async with running(Rig(tmp_path / "leaf2")) as second:
            await until(lambda: len(second.entries()) == 1)
            (route,) = await second.listed()
            assert (route.iif, [oif.interface for oif in route.oifs], route.cookie) == ("up", ["down1"], "leaf1/up")
            assert not run.done()


async def test_a_router_that_refuses_is_named_once_and_keeps_nobody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "AGAIN_SECONDS", 0.05)
    caplog.set_level(logging.ERROR, "mcast_controller")
    made = controller(tmp_path)
    async with (
        running(Rig(tmp_path / "leaf1")) as first,
        running(Rig(tmp_path / "leaf2", access=Access.VIEW)),
        at_work(made, Election(1, None)) as run,
    ):
        await until(lambda: made._routers["leaf1"].attached)
        made.source_seen(flow(4, 1), SOURCE)
        await until(lambda: len(first.entries()) == 1)
        await asyncio.sleep(0.5)
        assert [record.getMessage() for record in caplog.records if "leaf2: takes no orders: NOT_ALLOWED" in record.getMessage()]
        assert len(caplog.records) == 1
        assert not run.done()
