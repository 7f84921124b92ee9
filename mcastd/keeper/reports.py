"""What the service manager is told: that the daemon serves, reloads, stops or is well, and how it does, in words; sd_notify(3).

Nothing here blocks. What its socket does not take now waits, in order; of two states in words only the newer one.
"""

import time
from collections import deque

from mcastd.keeper.notify import Notifier

RETRY_SECONDS = 0.1
"""Until what the service manager did not take is offered again."""

STATUS_MAX = 400
"""Characters of a status: it is one line on a terminal."""

UNSENT_MAX = 64
"""States that wait; of more the oldest are never told. A server makes some of them, and may do so very often."""

EXTEND_SECONDS = 60
"""In which a start that makes progress has to make some more, beside the time that it has anyway (TimeoutStartSec=)."""

_STATUS = "STATUS="


class Reports:
    """Where the daemon is in its life, as the service manager has it."""

    def __init__(self, notifier: Notifier) -> None:
        """Nothing is told yet."""
        self._notifier = notifier
        self._unsent: deque[str] = deque()
        self._retry_at = 0.0
        self._status = ""
        self._started = False
        """Whether READY=1 was ever told."""
        self._stopping = False
        self._reloading = False
        self._reloads = 0
        """Number of the last reload that was asked for by a signal."""
        self._awaited = 0
        """What a server must have read the configuration for, or later, before the reload is over."""

    def ready(self) -> None:
        """A server serves: after a start, or a restart, which ends a reload that its predecessor did not live to see."""
        self._started = True
        self._reloading = False
        self._tell("READY=1")

    @property
    def reloads(self) -> int:
        """Number of the last reload that was asked for by a signal."""
        return self._reloads

    def resume(self, reloads: int) -> None:
        """Go on after a re-execution, in which a reload may have ended unheard."""
        self._reloads = reloads
        self.ready()

    def reload(self) -> int:
        """The configuration is to be read again: the number of this reload, which the server repeats when it has done so."""
        self._reloads += 1
        self._begin_reload(self._reloads)
        return self._reloads

    def say(self, text: str, *, reloading: bool = False, reloads: int = 0) -> None:
        """What the server says of itself, and whether it is reading its configuration; `reloads`: those that are over."""
        self.status(text)
        if reloading and not self._reloading:
            self._begin_reload(reloads)
        elif not reloading and self._reloading and reloads >= self._awaited:
            self._reloading = False
            self._tell("READY=1")

    def status(self, text: str) -> None:
        """How the daemon does. At the start it is progress, too: the service manager waits for longer."""
        text = one_line(text)
        if text != self._status:
            self._status = text
            extend = "" if self._started or self._stopping else f"\nEXTEND_TIMEOUT_USEC={EXTEND_SECONDS * 1_000_000}"
            self._tell(f"{_STATUS}{text}{extend}")

    def well(self) -> None:
        """All is well: feeds the watchdog. What is not taken now is not told later."""
        if not self._unsent:
            self._notifier.send("WATCHDOG=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._stopping, self._reloading = True, False
        self._tell("STOPPING=1")

    def next_at(self) -> float | None:
        """When to offer again what was not taken."""
        return self._retry_at if self._unsent else None

    def retry(self, now: float) -> None:
        """Offer again what was not taken."""
        if self._unsent and self._retry_at <= now:
            self._flush()

    def _begin_reload(self, number: int) -> None:
        """Without the time systemd does not know which of two reloads is meant, and waits for ever (sd_notify(3))."""
        self._awaited = number
        if self._started and not self._stopping:
            self._reloading = True
            self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def _tell(self, state: str) -> None:
        if state.startswith(_STATUS):
            self._unsent = deque(one for one in self._unsent if not one.startswith(_STATUS))
        self._unsent.append(state)
        if len(self._unsent) > UNSENT_MAX:
            self._unsent.popleft()
        self._flush()

    def _flush(self) -> None:
        while self._unsent and self._notifier.send(self._unsent[0]):
            self._unsent.popleft()
        self._retry_at = time.monotonic() + RETRY_SECONDS


def one_line(text: str) -> str:
    """Text that is a single line, and no second state: what the server says is passed on, and is not trusted."""
    return "".join(character if character.isprintable() else " " for character in text[:STATUS_MAX])
