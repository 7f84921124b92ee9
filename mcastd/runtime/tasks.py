"""Tasks: the one place that makes them, so that none is collected while it runs and none dies unheard."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

_T = TypeVar("_T")

_alive: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, _T], name: str) -> asyncio.Task[_T]:
    """Run a coroutine beside the others; the caller awaits it, for its result or its failure."""
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


async def in_slices(generator: Generator[None, None, _T], after: Callable[[], None] | None = None) -> _T:
    """Run a generator to its end, letting others run at each of its yields; `after` is called at each, and at the end."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            result: _T = stop.value
            return result
        finally:
            if after is not None:
                after()
        await asyncio.sleep(0)
