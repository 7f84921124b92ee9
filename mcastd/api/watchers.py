"""Who watches: the hub that wakes those for whom there is something, paces what is told in bulk, and ends all in order."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Protocol

from mcast.v1 import services_pb2 as sv
from mcastd.core.feed import Feed, Kind

PATIENCE = 30.0
"""Seconds that a message may wait for its reader."""

SHARE = 0.03
"""Of the loop's own processor time that may go into telling in bulk while routes are being written: writes come first."""

WAIT_MAX = 4
"""By how much longer that may take where the loop has other things to wait for: telling waits for no more than this."""

LOOK, LOOK_MIN = 0.02, 0.001
"""Seconds after which it is looked whether the writes are over by now: a loop that waits uses up no processor time."""

LINGER = 0.5
"""Seconds after a write in which the next one is expected, but no longer than it took itself: nobody is told in between."""

HEAD = 0.1
"""Seconds of the loop's processor time that a write has before anything is told in bulk beside it."""

AT_ONCE = 16
"""Watchers that have their turn before others than watchers have theirs."""


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
    turn: bool
    """Whether it may tell of many routes though writes are being carried out; it takes it back when it has."""

    def subscriber(self) -> sv.Subscriber:
        """What GetStatus tells of it."""


class Pacer:
    """Lets those who tell of routes in bulk go on, a share of the time while writes are being carried out.

    Who waits for a turn gets it together with all others: what they tell is then made once for all of them.
    """

    def __init__(self, busy: Callable[[], bool]) -> None:
        """`busy` says whether writes are being carried out."""
        self._busy = busy
        self._busy_since: float | None = None
        self._busy_at = -math.inf
        self._free_at = self._free_at_latest = 0.0
        self._waiting: dict[Awakable, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def delay(self) -> float:
        """Seconds to wait before it is asked again whether the next part may go on; 0 = it may."""
        now = time.monotonic()
        if not self._pressed(now):
            return 0.0
        left = min(self._free_at - time.thread_time(), self._free_at_latest - now)
        return min(LOOK, max(left, LOOK_MIN)) if left > 0 else 0.0

    def spent(self, seconds: float) -> None:
        """A part has taken this much of the processor's time."""
        now = time.monotonic()
        if self._pressed(now):
            self._pause(now, seconds * (1 / SHARE - 1))

    def _pause(self, now: float, seconds: float) -> None:
        """Have all wait for so long."""
        used = time.thread_time()
        if used >= self._free_at or now >= self._free_at_latest:
            self._free_at, self._free_at_latest = used, now
        self._free_at += seconds
        self._free_at_latest += seconds * WAIT_MAX

    def _pressed(self, now: float) -> bool:
        """Whether writes come first now."""
        if self._busy():
            self._busy_at = now
            if self._busy_since is None:
                self._busy_since = now
                if not self._waiting:  # Who does has waited long enough: writes may come one after the other for ever.
                    self._free_at = self._free_at_latest = 0.0
                    self._pause(now, HEAD)
            return True
        if self._busy_since is not None and now - self._busy_at < min(LINGER, self._busy_at - self._busy_since):
            return True
        self._busy_since = None
        return False

    def wait(self, watcher: Awakable) -> None:
        """Wake it, with a turn, when bulk may be told of."""
        delay = self.delay()
        self._waiting[watcher] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def forget(self, watcher: Awakable) -> None:
        """It waits for no turn any more."""
        self._waiting.pop(watcher, None)

    def _look(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if delay := self.delay():
            self._timer = asyncio.get_running_loop().call_later(delay, self._look)
            return
        waiting, self._waiting = list(self._waiting), {}
        self._give(waiting)

    def _give(self, waiting: list[Awakable]) -> None:
        """Give each a turn, some at once, others when those have had theirs."""
        for watcher in waiting[:AT_ONCE]:
            watcher.turn = True
            watcher.woken.set()
        if len(waiting) > AT_ONCE:
            asyncio.get_running_loop().call_soon(self._give, waiting[AT_ONCE:])


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
        self.pacer.forget(watcher)

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
