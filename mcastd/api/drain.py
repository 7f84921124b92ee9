"""Calls under way, and how they run out when the server is to leave everything to its successor.

gRPC's own end of a server answers CANCELLED to calls that reach it in that moment: a client could not tell that from a call
that it has cancelled itself. So it is not used then. New calls are refused here, with a reason that says to try again, and when
those under way are answered the process ends: what is still on its way finds a closed connection, which is UNAVAILABLE.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from mcastd.api.ports import Context
from mcastd.api.status import refuse
from mcastd.model.errors import McastdError, Reason

FLUSH_SECONDS = 0.01
"""For gRPC to write the last answers, which it has by then."""

Behaviour = Callable[[Any, Context], Awaitable[Any]]


class Drain:
    """Counts calls; use it in one event loop."""

    def __init__(self) -> None:
        """None is under way."""
        self._calls = 0
        self._closed = False
        self._empty = asyncio.Event()

    def counted(self, inner: Behaviour) -> Behaviour:
        """The handler, counted while it runs, and refused once it is too late."""

        async def counted(request: Any, context: Context) -> Any:
            if self._closed:
                text = "the server hands over to its successor: try again"
                await refuse(context, McastdError(Reason.SHUTTING_DOWN, text))
            self._calls += 1
            try:
                return await inner(request, context)
            finally:
                self._calls -= 1
                self._note()

        return counted

    def close(self) -> None:
        """Refuse calls from now on."""
        self._closed = True
        self._note()

    def _note(self) -> None:
        if self._closed and not self._calls:
            self._empty.set()

    async def drained(self, seconds: float) -> bool:
        """Wait until no call is under way, but not for longer; whether that is so. Close it first."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        await asyncio.sleep(FLUSH_SECONDS)
        return True
