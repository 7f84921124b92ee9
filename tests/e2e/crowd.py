"""A crowd of watchers (tests/e2e/watchers.py) in a process, from the side of the test; and clients that stop reading."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.e2e import watchers
from tests.e2e.view import View, Watching
from tests.testbed.daemon import McastdProcess


class Crowd:
    """So many watchers; all have been told everything when it is made."""

    def __init__(self, daemon: McastdProcess, count: int, connections: int, kinds: Sequence[int], group: str = "") -> None:
        """Follow these kinds, of routes those of a group prefix."""
        arguments = [str(daemon.socket), str(count), str(connections), group, *map(str, map(int, kinds))]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.watchers", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert self._process.stdout is not None
        assert self._process.stdout.read(1) == watchers.READY

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def latencies(self) -> list[float]:
        """Seconds from the time in a route's cookie until each of the watchers was told, since the last look."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"report\n")
        self._process.stdin.flush()
        found: list[float] = json.loads(self._process.stdout.readline())
        return found


class Holding(Watching):
    """A client that can be made to read no more."""

    def __init__(self, daemon: McastdProcess, view: View | None = None, **request: Any) -> None:
        """Read, for now."""
        self._reading = threading.Event()
        self._reading.set()
        super().__init__(daemon, view or Held(self._reading), **request)

    def hold(self) -> None:
        """Read no more than one message."""
        self._reading.clear()

    def release(self) -> None:
        """Read again."""
        self._reading.set()

    def close(self) -> None:
        """Hang up."""
        self.release()
        super().close()


class Held(View):
    """A view that lets its reader wait."""

    def __init__(self, reading: threading.Event) -> None:
        """Wait for this before a message is taken."""
        super().__init__()
        self._reading = reading

    def take(self, message: Any) -> None:
        """Apply a message, once reading is allowed."""
        self._reading.wait()
        super().take(message)
