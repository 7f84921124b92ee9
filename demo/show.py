"""How the demo looks on a terminal of 80 columns: titles, tables, marks, colours. It knows nothing of multicast."""

import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TextIO

WIDTH = 78
_INDENT = " " * 3
_GAP = " " * 2


class Mark(Enum):
    """How a piece of text stands out; the value is the terminal's code (ECMA-48, SGR)."""

    PLAIN = ""
    STRONG = "1"
    FAINT = "2"
    GOOD = "32"
    BAD = "1;31"
    CALL = "36"


@dataclass(frozen=True)
class Cell:
    """A piece of a table."""

    text: str
    mark: Mark = Mark.PLAIN


@dataclass(frozen=True)
class Column:
    """The head of a table's column; numbers go to the right."""

    title: str
    right: bool = False


def colour_wanted(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Colour is for terminals, and for people who have not said NO_COLOR (no-color.org)."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


class Screen:
    """Where the demo is shown."""

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        self._stream = stream
        self._colour = colour
        self._steps = 0
        self._blank = True
        """Whether the last line was empty: there is never a second one."""

    def title(self, text: str) -> None:
        """The first line."""
        self._line(self._paint(text, Mark.STRONG))

    def step(self, title: str, call: str) -> None:
        """Begin a step: what is done, and by which call."""
        self._steps += 1
        head = f"{self._steps}. {title} "
        rule = "-" * (WIDTH - len(head) - len(call) - 1)
        self._space()
        self._line(f"{self._paint(head, Mark.STRONG)}{self._paint(rule, Mark.FAINT)} {self._paint(call, Mark.CALL)}")

    def say(self, text: str) -> None:
        """A paragraph."""
        self._wrap(text, _INDENT, _INDENT)

    def picture(self, text: str) -> None:
        """Text that is laid out already."""
        self._space()
        for line in text.splitlines():
            self._line(f"{_INDENT}{line}".rstrip())

    def command(self, line: str) -> None:
        """A command that is run now, as a person would type it."""
        self._space()
        self._line(_INDENT + self._paint(line, Mark.CALL))

    def output(self, text: str) -> None:
        """What a command has printed, as it is."""
        for line in text.splitlines():
            self._line(f"{_INDENT}{line}")
        self._space()

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
        """A table, as wide as what is in it."""
        head = [Cell(column.title, Mark.FAINT) for column in columns]
        lines = [head, *map(list, rows)]
        widths = [max(len(line[n].text) for line in lines) for n in range(len(columns))]
        self._space()
        for line in lines:
            cells = []
            for cell, column, width in zip(line, columns, widths, strict=True):
                padding = " " * (width - len(cell.text))
                text = self._paint(cell.text, cell.mark)
                cells.append(padding + text if column.right else text + padding)
            self._line(f"{_INDENT}{_GAP.join(cells)}".rstrip())
        self._space()

    def check(self, claim: str, problems: Sequence[str]) -> None:
        """Something that was checked: a claim, and what speaks against it."""
        label, mark = ("FAIL", Mark.BAD) if problems else ("ok", Mark.GOOD)
        self._wrap(claim, f"{_INDENT}{self._paint(label, mark)}{' ' * (6 - len(label))}", _INDENT + " " * 6, len(_INDENT) + 6)
        self._list(problems, _INDENT + " " * 6)

    def verdict(self, word: str, mark: Mark, text: str, details: Iterable[str] = ()) -> None:
        """The last line, and what belongs to it."""
        self._space()
        self._wrap(text, f"{self._paint(word, mark)}  ", " " * (len(word) + 2), len(word) + 2)
        self._list(details, " " * (len(word) + 2))

    def quote(self, who: str, lines: Iterable[str]) -> None:
        """What somebody else has said, as it is."""
        self._space()
        self.say(f"{who}:")
        for line in lines:
            self._line(f"{_INDENT}| {line}")

    def _list(self, items: Iterable[str], indent: str) -> None:
        for item in items:
            self._wrap(item, f"{indent}- ", f"{indent}  ")

    def _wrap(self, text: str, first: str, others: str, width: int | None = None) -> None:
        """Write a paragraph; `width` is that of `first` where colours make it look longer."""
        lead = len(first) if width is None else width
        lines = textwrap.wrap(text, WIDTH, initial_indent=" " * lead, subsequent_indent=others) or [""]
        self._line(first + lines[0][lead:])
        for line in lines[1:]:
            self._line(line)

    def _paint(self, text: str, mark: Mark) -> str:
        return f"\x1b[{mark.value}m{text}\x1b[0m" if self._colour and text and mark.value else text

    def _space(self) -> None:
        if not self._blank:
            self._line("")

    def _line(self, text: str) -> None:
        self._blank = not text
        print(text, file=self._stream, flush=True)


def silence_broken_pipe(stream: TextIO) -> None:
    """Let nobody complain at exit that whoever read us has gone."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
