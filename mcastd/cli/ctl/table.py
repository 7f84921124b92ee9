"""The layout of tables: columns as wide as their content, and what happens where a terminal is narrower. Knows no messages.

In a pipe nothing is ever cut or wrapped. On a terminal that is too narrow, columns of lists are wrapped between their parts
first; where that is not enough, each row is folded: the columns that do not fit go on an indented line below.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

from mcastd.cli.ctl.columns import UNSET, Column, Parts

Paint = Callable[[str, str], str]
"""Adds the colour of a text (the second argument) to how it is written (the first); on anything but a terminal none."""

HEADER = "\0header"
"""Stands for the text of all titles."""

SIGN = "\0"
"""Before the sign of an event, which is no cell of a table."""

_GAP = "  "
_INDENT = "    "


class Table:
    """A table written in blocks; columns get wider from block to block where they must, never narrower."""

    def __init__(self, columns: Sequence[Column], width: int | None, paint: Paint) -> None:
        """Write for so many characters a line; None = no limit."""
        self._columns = columns
        self._width = width
        self._paint = paint
        self._natural = [len(column.title) for column in columns]
        self._least = list(self._natural)
        self._folds: list[list[int]] = []

    def block(self, rows: Sequence[Sequence[Parts]]) -> Iterator[str]:
        """The lines of some rows, with titles above the first block and wherever the folds have moved."""
        self._measure(rows)
        widths = self._fit()
        folds = self._fold(widths)
        if folds != self._folds:
            self._folds = folds
            yield from self._lines([(column.title,) for column in self._columns], widths, header=True)
        for row in rows:
            yield from self._lines(row, widths, header=False)

    def _measure(self, rows: Sequence[Sequence[Parts]]) -> None:
        for row in rows:
            for at, parts in enumerate(row):
                if len(parts) > 1:
                    length = sum(map(len, parts)) + len(parts) - 1
                    longest = min(length, max(map(len, parts)) + 1)  # with its comma
                else:
                    length = longest = len(parts[0]) if parts else len(UNSET)
                self._natural[at] = max(self._natural[at], length)
                self._least[at] = max(self._least[at], longest)

    def _fit(self) -> list[int]:
        """The width of each column: natural, with the widest lists made narrower where that is all that is needed.

        Where it is not, rows will be folded, and a list may be as wide as a line.
        """
        widths = list(self._natural)
        if self._width is None:
            return widths
        excess = sum(widths) + len(_GAP) * (len(widths) - 1) - self._width
        while excess > 0:
            at = max(range(len(widths)), key=lambda i: widths[i] - self._least[i])
            cut = min(widths[at] - self._least[at], excess)
            if cut <= 0:
                line = self._width - len(_INDENT)
                return [max(least, min(wide, line)) for wide, least in zip(self._natural, self._least, strict=True)]
            widths[at] -= cut
            excess -= cut
        return widths

    def _fold(self, widths: Sequence[int]) -> list[list[int]]:
        """Which columns share a line."""
        folds: list[list[int]] = [[]]
        used = 0
        for at, width in enumerate(widths):
            needed = width + (len(_GAP) if folds[-1] else 0)
            if folds[-1] and self._width is not None and used + needed > self._width:
                folds.append([])
                used, needed = len(_INDENT), width
            folds[-1].append(at)
            used += needed
        return folds

    def _lines(self, row: Sequence[Parts], widths: Sequence[int], *, header: bool) -> Iterator[str]:
        for number, fold in enumerate(self._folds):
            indent = _INDENT if number else ""
            cells = [_wrap(row[at], widths[at]) for at in fold]
            for texts in zip_longest(*cells, fillvalue=""):
                padded = [self._cell(text, at, widths[at], header=header) for text, at in zip(texts, fold, strict=True)]
                yield (indent + _GAP.join(padded)).rstrip()

    def _cell(self, text: str, at: int, width: int, *, header: bool) -> str:
        padded = text.rjust(width) if self._columns[at].right else text.ljust(width)
        return self._paint(padded, HEADER if header else text)


def _wrap(parts: Parts, width: int) -> list[str]:
    """The lines of a cell."""
    if not parts:
        return [UNSET]
    text = ",".join(parts)
    if len(text) <= width:
        return [text]
    lines = [""]
    for at, part in enumerate(parts):
        piece = part + ("," if at + 1 < len(parts) else "")
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return lines
