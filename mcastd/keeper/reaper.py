"""What init has to do, where the keeper is process 1 of a container: wait for orphans, whose entries nobody else would remove.

They come from the action script, and from what is executed in a running container. The keeper's own children are waited for in
the round of its loop in which their pidfd tells of their end. So who has ended and is still there at the next look is an orphan.
"""

import logging
import os
from collections.abc import Callable

INTERVAL = 30.0
"""Seconds between two looks: an orphan that has ended costs an entry in the table of processes, nothing else."""

_log = logging.getLogger(__name__)


class Reaper:
    """Looks for orphans now and then, where the keeper is process 1."""

    def __init__(self, own: Callable[[], set[int]], now: float, *, is_init: bool | None = None) -> None:
        """`own` names children that somebody waits for late."""
        self._own = own
        self._ended: set[int] = set()
        """Children that had ended at the last look."""
        self._next: float | None = now + INTERVAL if (os.getpid() == 1 if is_init is None else is_init) else None

    def next_at(self) -> float | None:
        """When to look next; None = never, somebody else is process 1."""
        return self._next

    def keep_times(self, now: float) -> None:
        """Look, if it is time."""
        if self._next is None or now < self._next:
            return
        self._next = now + INTERVAL
        ended = {pid for pid in _children() - self._own() if _has_ended(pid)}
        orphans = ended & self._ended
        for pid in orphans:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        self._ended = ended - orphans
        if orphans:
            _log.debug("orphans were waited for", extra={"count": len(orphans)})


def _children() -> set[int]:
    with open("/proc/thread-self/children", encoding="ascii") as file:
        return set(map(int, file.read().split()))


def _has_ended(pid: int) -> bool:
    """Whether only its exit status is left; it stays."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
