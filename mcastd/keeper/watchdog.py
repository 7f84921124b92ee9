"""Whether the server that serves is alive: when to ask, how long to be patient, when the service manager hears that all is well.

The rules alone, without a clock. The keeper asks in rounds (PING); the server answers (PONG) when the question has been
through its event loop, its executor and the kernel's socket. A round in which an answer is outstanding counts as missed, however
late the round comes: where the whole machine stood still (suspended, a frozen virtual machine, both processes stopped) that is
one round, not all of them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

PATIENCE = 30.0
"""Seconds without an answer after which a server is replaced, where no service manager says how long its own patience is."""

STARTING_PATIENCE = 180.0
"""Seconds until the first answer, or until it says that it is ready: a server reads all that is stored before it listens."""

ROUNDS = 6
"""Rounds in PATIENCE."""


@dataclass(slots=True)
class Round:
    """What is to be done in one round."""

    ping: int = 0
    """Number of the question to ask; 0 = none."""
    well: bool = False
    """Whether the service manager may be told that all is well."""
    overdue: bool = False
    """Whether the server has to be replaced."""


class Watchdog:
    """Counts the rounds."""

    def __init__(self, period: float | None, now: float) -> None:
        """`period`: seconds in which the service manager wants to hear that all is well; half of it is the patience here.

        So a server that hangs is replaced, and all is well again, before the service manager gives the keeper up.
        """
        self.patience = PATIENCE if period is None else period / 2
        self._fed = period is not None
        self._interval = self.patience / ROUNDS
        self._next_at = now
        self._following = False
        self._starting = False
        """Whether the server has neither answered yet nor said that it is ready."""
        self._asked = 0
        self._answered = 0
        self._missed = 0

    def follow(self, now: float, *, ready: bool = False) -> None:
        """Another server serves from now on, or will once it has started."""
        self._following, self._starting = True, not ready
        self._answered = self._asked
        self._missed = 0
        self._next_at = min(self._next_at, now + self._interval)

    def ready(self) -> None:
        """The server has started: it has to answer from now on, though it may not have been asked yet."""
        if self._starting:
            self._starting = False
            self._missed = 0

    def leave(self) -> None:
        """No server serves."""
        self._following = False

    def answered(self, number: int) -> None:
        """The server has answered this question; one that was asked before it came is none of its own."""
        if self._following and number == self._asked != self._answered:
            self._answered = number
            self._missed = 0
            self._starting = False

    def spare(self) -> None:
        """The server that is overdue shall have another round."""
        self._missed -= 1

    def next_at(self) -> float | None:
        """When the next round is due; None while nobody cares."""
        return self._next_at if self._following or self._fed else None

    def due(self, now: float) -> Round | None:
        """The round that is due, if one is."""
        if not (self._following or self._fed) or now < self._next_at:
            return None
        self._next_at = now + self._interval
        if not self._following:
            return Round(well=self._fed)
        if self._asked == self._answered:
            self._asked += 1
            return Round(ping=self._asked, well=self._fed)
        self._missed += 1
        overdue = self._missed * self._interval >= (STARTING_PATIENCE if self._starting else self.patience)
        return Round(well=self._fed and self._starting and not overdue, overdue=overdue)


def watchdog_period(environ: Mapping[str, str]) -> float | None:
    """Seconds of $WATCHDOG_USEC, where $WATCHDOG_PID says that it is meant for this process: sd_watchdog_enabled(3)."""
    text, own = environ.get("WATCHDOG_USEC", ""), str(os.getpid())
    if not text.isascii() or not text.isdigit() or environ.get("WATCHDOG_PID", own) != own:
        return None
    return int(text) / 1e6 or None
