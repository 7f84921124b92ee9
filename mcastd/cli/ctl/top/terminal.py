"""The terminal: entered and left as a whole, drawn line by line, and asked for keys. It is put back at any end."""

import fcntl
import os
import select
import signal
import struct
import termios
import tty
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from mcastd.cli.ctl.screen import colours_wanted
from mcastd.cli.ctl.top.keys import Keys

# xterm's control sequences (ctlseqs): alternate screen, cursor hidden, and no wrapping, so that a line that a terminal takes for
# wider than we do cannot push the others down.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[0m\x1b[?1049l"

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class TerminalGoneError(OSError):
    """Nobody is at the other end any more."""


class Terminal:
    """A terminal while it shows a picture; use it as a context."""

    def __init__(self, keyboard: int, screen: int) -> None:
        """Take its descriptors, those of standard input and output."""
        self.colours = colours_wanted()
        self._input = keyboard
        self._output = screen
        self._keys = Keys()
        self._shown: list[str] = []
        self._size = (0, 0)
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._stopping = False
        self._wake, self._woken = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._input)
        for number in _ENDING:
            self._handle(number, _end)
        self._handle(signal.SIGWINCH, self._changed)
        self._handle(signal.SIGTSTP, self._stop)
        try:
            self._enter()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Put everything back as it was."""
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)  # not now
        try:
            self._leave()
        finally:
            for handled, handler in self._handlers.items():
                signal.signal(handled, handler)
            os.close(self._wake)
            os.close(self._woken)

    # --- what it shows -----------------------------------------------------------------------------------------------

    def size(self) -> tuple[int, int]:
        """Columns and lines now."""
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(self._output, termios.TIOCGWINSZ, bytes(8)))
        return columns or 80, rows or 24

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines from the top; only those that differ from what is there are written, all at once."""
        if self.size() != self._size:
            self._size = self.size()
            self.forget()
        parts = ["\x1b[2J"] if not self._shown else []
        for at, line in enumerate(lines):
            if at >= len(self._shown) or self._shown[at] != line:
                # Erased first: after a line as long as the screen is wide the cursor stands on its last character.
                parts.append(f"\x1b[{at + 1};1H\x1b[K{line}\x1b[0m")
        if len(lines) < len(self._shown):
            parts.append(f"\x1b[{len(lines) + 1};1H\x1b[J")
        self._shown = list(lines)
        if parts:
            self._write("".join(parts))

    def forget(self) -> None:
        """Draw everything next time."""
        self._shown = []

    # --- what it says ------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have `keys` return; from any thread."""
        with suppress(BlockingIOError):  # it has been woken a thousand times already
            os.write(self._woken, b"\0")

    def keys(self, seconds: float) -> list[str]:
        """The keys pressed, after so many seconds at most or when woken; TerminalGoneError if there is nobody any more."""
        ready, _, _ = select.select([self._input, self._wake], [], [], max(0.0, seconds))
        if self._wake in ready:
            os.read(self._wake, 4096)
        if self._stopping:
            self._pause()
        if self._input not in ready:
            return []
        data = os.read(self._input, 4096)
        if not data:
            raise TerminalGoneError("the terminal is gone")
        return self._keys.feed(data)

    # --- signals -----------------------------------------------------------------------------------------------------

    def _handle(self, number: signal.Signals, handler: Callable[[int, FrameType | None], Any]) -> None:
        self._handlers[number] = signal.signal(number, handler)

    def _changed(self, _number: int, _frame: FrameType | None) -> None:
        self.wake()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self.wake()

    def _pause(self) -> None:
        """Stop as Ctrl-Z asks, with the terminal as the shell had it, and go on when it says so."""
        self._stopping = False
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._enter()
        self.forget()

    # --- the terminal ------------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        tty.setcbreak(self._input)
        self._write(_ENTER)

    def _leave(self) -> None:
        try:
            self._write(_LEAVE)
        finally:
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._output, data) :]


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
