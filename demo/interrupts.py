"""Ctrl-C and its like, noticed where it is safe: between steps and while waiting, never in the middle of a statement.

An exception out of a signal handler may come between the making of a thing and the remembering of it, or leave a lock held;
a flag that is looked at cannot.
"""

import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PAUSE = 0.005


class Interrupted(BaseException):
    """Somebody wants the demo to end now."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


class Interrupts:
    """Takes the signals that ask for the end while its block runs; cleaning up in that block is not disturbed by more."""

    def __init__(self) -> None:
        self.came: signal.Signals | None = None
        """The first one."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            # Once one has come the program is at its end: an impatient second one shall not change its exit code.
            signal.signal(number, handler if self.came is None else signal.SIG_IGN)

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.came is not None:
            raise Interrupted(self.came)

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is true; False = it was not in time. Interrupted when a signal comes."""
        end = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > end:
                return False
            time.sleep(_PAUSE)
        self.check()
        return True

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.came is None:
            self.came = signal.Signals(number)
