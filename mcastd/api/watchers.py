"""Who watches: the hub that wakes those for whom there is something, paces what is told in bulk, and ends all in order."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Protocol

from mcast.v1 import services_pb2 as sv
from mcastd.core.feed import Feed, Kind

PATIENCE = 30.0
"""Seconds that a message may wait for its reader."""

SHARE = 0.05
"""Of the time that may go into telling of routes in bulk while routes are being written: writes come first."""


ASK_AGAIN = 0.1
"""Seconds after which it is looked whether the writes are over by now."""


class Resync(StrEnum):
    """Why a watcher that had been told all could not just go on."""

    UNKNOWN = "unknown"
    """It came with the token of another incarnation of the server, or with nonsense: it got a snapshot."""
    TOO_OLD = "too_old"
    """More had changed since its token than is kept, or it asked for other kinds: it got a snapshot."""
    SLOW_CONSUMER = "slow_consumer"
    """It did not read for so long that it was ended."""


class Awakable(Protocol):
    """A watcher, as the hub sees it."""

    woken: asyncio.Event

    def subscriber(self) -> sv.Subscriber:
        """What GetStatus tells of it."""


class Pacer:
    """Lets those who tell of routes in bulk go on, a share of the time while writes are being carried out."""

    def __init__(self, busy: Callable[[], bool]) -> None:
        """`busy` says whether writes are being carried out."""
        self._busy = busy
        self._free_at = 0.0

    def delay(self) -> float:
        """Seconds to wait before it is asked again whether the next part may go on; 0 = it may."""
        return min(ASK_AGAIN, max(0.0, self._free_at - time.monotonic())) if self._busy() else 0.0

    def spent(self, seconds: float) -> None:
        """Reading and serializing a part has taken this long; sending it takes about as long again."""
        self._free_at = max(self._free_at, time.monotonic()) + 2 * seconds * (1 / SHARE - 1)


class Hub:
    """All watchers of a server."""

    def __init__(self, feed: Feed, busy: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Listen to the feed."""
        self.pacer = Pacer(busy)
        self.patience = patience
        self.ending = False
        self.resyncs = dict.fromkeys(Resync, 0)
        """How often watchers had to begin anew, or were ended, and why."""
        self._watchers: dict[Awakable, None] = {}
        self._idle: dict[Kind | None, dict[Awakable, None]] = {kind: {} for kind in (*Kind, None)}
        """Who waits for changes of a kind, or (None) for upcalls."""
        feed.changed = self._wake
        feed.upcalled = self._wake_upcalled

    def join(self, watcher: Awakable) -> None:
        """One more."""
        self._watchers[watcher] = None

    def leave(self, watcher: Awakable) -> None:
        """One less."""
        del self._watchers[watcher]
        self.stir(watcher)

    def await_any(self, watcher: Awakable, kinds: Iterable[Kind | None]) -> None:
        """Wake it when anything of these kinds has changed."""
        for kind in kinds:
            self._idle[kind][watcher] = None

    def stir(self, watcher: Awakable) -> None:
        """It waits for nothing any more."""
        for idle in self._idle.values():
            idle.pop(watcher, None)

    def _wake(self, kind: Kind | None) -> None:
        idle = self._idle[kind]
        if idle:
            for watcher in idle:
                watcher.woken.set()
            idle.clear()

    def _wake_upcalled(self) -> None:
        self._wake(None)

    def end(self) -> None:
        """Have all watchers send their last token and end."""
        self.ending = True
        for watcher in self._watchers:
            watcher.woken.set()

    def subscribers(self) -> Iterator[sv.Subscriber]:
        """What GetStatus tells of them."""
        return (watcher.subscriber() for watcher in self._watchers)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._watchers)
