"""When to start again, and how long to be patient: the clock rules of keeping a server, without a clock."""

import signal

FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0
STEADY_AFTER = 10.0
"""Seconds of life after which the end of a server counts as the first one again."""

TERM_AFTER = 8.0
KILL_AFTER = 10.0
"""Seconds after the server was asked to end."""

HURRY = 1.0
"""Seconds that SIGTERM gets once somebody is impatient, or the channel is closed."""


class Backoff:
    """Delay before the next start: doubles with each early end."""

    def __init__(self) -> None:
        """Start with the shortest."""
        self._delay = FIRST_DELAY

    def next_delay(self, lived: float) -> float:
        """Seconds to wait, after a server that lived so long."""
        if lived >= STEADY_AFTER:
            self._delay = FIRST_DELAY
        delay = self._delay
        self._delay = min(delay * 2, LONGEST_DELAY)
        return delay


class Ending:
    """The steps that follow when a server that was asked to end does not."""

    def __init__(self, now: float) -> None:
        """It was asked at `now`."""
        self._steps = [(now + TERM_AFTER, signal.SIGTERM), (now + KILL_AFTER, signal.SIGKILL)]

    def hurry(self, now: float) -> None:
        """Take the next step now, and the one after it soon."""
        self._steps = [(min(at, now + HURRY * n), number) for n, (at, number) in enumerate(self._steps)]

    def next_at(self) -> float | None:
        """When the next step is due."""
        return self._steps[0][0] if self._steps else None

    def due(self, now: float) -> list[signal.Signals]:
        """The signals to send by now, each once."""
        taken = [number for at, number in self._steps if at <= now]
        self._steps = self._steps[len(taken) :]
        return taken
