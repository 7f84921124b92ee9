"""mcastd.runtime.tasks: tasks are held while they run, and none dies unheard."""

import asyncio
import gc

import pytest

from mcastd.runtime.tasks import cancel, spawn


async def test_a_task_is_held_while_it_runs() -> None:
    done = asyncio.Event()

    async def wait() -> None:
        await asyncio.sleep(0.01)
        done.set()

    held = [spawn(wait(), "waiter").get_name()]
    gc.collect()
    async with asyncio.timeout(5):
        await done.wait()
    assert held == ["waiter"]


async def test_tasks_have_names() -> None:
    task = spawn(asyncio.sleep(0), "a name")
    assert task.get_name() == "a name"
    await task


async def test_cancel_waits_for_the_end() -> None:
    ended: list[str] = []

    async def slow(name: str) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.01)
            ended.append(name)

    tasks = [spawn(slow(name), name) for name in "ab"]
    await asyncio.sleep(0)
    await cancel(*tasks)
    assert sorted(ended) == ["a", "b"]


async def test_cancel_raises_what_a_task_has_died_of() -> None:
    async def fail() -> None:
        raise RuntimeError("a bug")

    task = spawn(fail(), "failing")
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="a bug"):
        await cancel(task)


async def test_cancel_of_what_has_ended_is_nothing() -> None:
    task = spawn(asyncio.sleep(0), "short")
    await task
    await cancel(task)
    await cancel()
