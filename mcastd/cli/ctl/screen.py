"""Standard output as a place to write to: its width, its colours, and whether the reader is still there."""

import os
import shutil
import sys
from collections.abc import Iterable

from mcastd.cli.ctl.table import HEADER, SIGN

BOLD, RED, GREEN, YELLOW = "1", "31", "32", "33"

_LEAST_WIDTH = 40
# What a reader looks for first in a table.
_TONES = {
    "FAILED": RED,
    "PENDING": YELLOW,
    "PARTIAL": YELLOW,
    HEADER: BOLD,
    f"{SIGN}+": GREEN,
    f"{SIGN}-": RED,
    f"{SIGN}~": YELLOW,
}


class Screen:
    """Where data goes."""

    def __init__(self) -> None:
        """Look at standard output as it is now."""
        self.terminal = sys.stdout.isatty()
        self.colours = self.terminal and colours_wanted()

    @property
    def width(self) -> int | None:
        """Characters in a line; None = no limit."""
        return max(_LEAST_WIDTH, shutil.get_terminal_size().columns) if self.terminal else None

    def write(self, text: str) -> None:
        """Write text as it is, at once."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def lines(self, lines: Iterable[str]) -> None:
        """Write lines, at once."""
        self.write("".join(line + "\n" for line in lines))

    def paint(self, written: str, text: str) -> str:
        """Colour what is written by what it says; where there are colours."""
        tone = _TONES.get(text) if self.colours else None
        return colour(written, tone) if tone else written


def colours_wanted() -> bool:
    """Whether the user wants colours at all (no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in {None, "", "dumb"}


def colour(text: str, tone: str) -> str:
    """Text in a colour."""
    return f"\x1b[{tone}m{text}\x1b[0m"


def complain(line: str) -> None:
    """Write a line to standard error, in red at its start on a terminal."""
    if sys.stderr.isatty() and colours_wanted():
        head, colon, rest = line.partition(":")
        line = colour(head + colon, RED) + rest
    tell(line)


def tell(line: str) -> None:
    """Write a line to standard error."""
    sys.stdout.flush()
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
