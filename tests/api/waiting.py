"""Waiting on the event loop for a condition that nothing announces."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until it holds; TimeoutError when it never does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for belongs to the code under test, which has no event for it
            await asyncio.sleep(0.002)
