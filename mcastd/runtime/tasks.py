"""Tasks: the one place that makes them, so that none is collected while it runs and none dies unheard."""

import asyncio
from collections.abc import Coroutine
from typing import Any

_alive: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Run a coroutine beside the others; the caller awaits it, or hands it to `first_failure`."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _alive.add(task)
    task.add_done_callback(_alive.discard)
    return task


async def cancel(*tasks: asyncio.Task[None]) -> None:
    """End tasks and wait until they have; an error that one ends with is raised."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
