"""What the service manager is told of the server: how it does, in words with counts, and when it reads its configuration.

The keeper passes it on. The words are made anew at most once a second, and told only where they have changed.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from mcastd.core.engine import Engine
from mcastd.model.errors import McastdError
from mcastd.model.route import RouteState
from mcastd.telemetry import state

INTERVAL = 1.0
"""Seconds between two looks."""

SHARE = 50
"""A look that took long is followed by the next one after so many times its duration."""

_SHAPES_AT_ONCE = 2000
_IN_KERNEL = frozenset({RouteState.PROGRAMMED, RouteState.PARTIAL, RouteState.TEMPLATE})
"""States of routes of which all or a part is in the kernel, or that have it answered from."""


class NotifyPort(Protocol):
    """Who passes it on."""

    reloads: int
    """Number of the last reload that it has asked for."""

    def notify(self, text: str, *, reloading: bool, reloads: int) -> None:
        """Pass it on."""


class Status:
    """Watches the server."""

    def __init__(
        self,
        engine: Engine,
        keeper: NotifyPort,
        sessions: Callable[[], int],
        watchers: Callable[[], int],
        store_refusal: Callable[[], McastdError | None] = lambda: None,
    ) -> None:
        """The callables count, and say why writes can't be stored; nothing is told yet."""
        self._engine = engine
        self._keeper = keeper
        self._sessions = sessions
        self._watchers = watchers
        self._store_refusal = store_refusal
        self._ready = False
        self._told = ""
        self._counted = "reading what is stored"
        self._fault = ""
        """Why the last reload failed."""
        self._reloading = 0
        self._reloads = 0
        """Number of the last reload of which it is sure that it is over."""

    async def run(self) -> None:
        """Tell what has changed until cancelled."""
        while True:
            began = time.monotonic()
            words = await self._words()
            if words != self._told:
                self._tell(words)
            await asyncio.sleep(max(INTERVAL, (time.monotonic() - began) * SHARE))

    async def ready(self) -> None:
        """The server serves: told at once."""
        self._ready = True
        self._tell(await self._words())

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """The configuration is being read and put in force meanwhile."""
        number = self._keeper.reloads
        self._reloading += 1
        self._tell(self._told)
        try:
            yield
            self._fault = ""
        except McastdError as exc:
            self._fault = f"the configuration was not reloaded: {exc}"
            raise
        finally:
            self._reloading -= 1
            self._reloads = max(self._reloads, number)
            self._tell(self._put())

    async def _words(self) -> str:
        self._counted = await self._count()
        return self._put()

    def _put(self) -> str:
        refusal = self._store_refusal()
        refused = "" if refusal is None else f"writes are refused: {refusal}"
        return "; ".join(filter(None, ["" if self._ready else "starting", refused, self._fault, self._counted]))

    async def _count(self) -> str:
        engine = self._engine
        tables = list(engine.tables.values())
        routes, there = len(engine.desired.routes), 0
        for number, (_, one, count) in enumerate(state.states(engine, tables), 1):
            there += count * (one in _IN_KERNEL)
            if number % _SHAPES_AT_ONCE == 0:
                await asyncio.sleep(0)
        there = max(0, min(routes, there) - engine.backlog())
        counts = (len(engine.desired.joins), "join"), (self._sessions(), "session"), (self._watchers(), "watcher")
        return ", ".join([f"{there} of {_several(routes, 'route')} in the kernel", *(_several(n, word) for n, word in counts)])

    def _tell(self, words: str) -> None:
        self._told = words
        self._keeper.notify(words, reloading=self._reloading > 0, reloads=self._reloads)


def _several(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
