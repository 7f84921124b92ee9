"""Faults of a configuration: each with file, line and key; and the error that carries all of them."""

import re
from typing import NamedTuple

from mcastd.model.errors import McastdError, Reason

Path = tuple[str | int, ...]
"""Where a value stands in a file: keys, and positions in arrays (from 0)."""

FAULTS_MAX = 20
"""Faults that are reported at once; one who has more reads on when these are gone."""

_TEXT_MAX = 3000
"""Weight of an error's text: it travels in a trailer, where 8 KiB is the limit, percent-encoded."""

_HEAVY = 9
"""What a character beyond ASCII weighs there at most: three bytes of three characters."""

_NAME_MAX = 80
"""Characters of one name in a key's text."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_FIELD_PART = re.compile(r"\[(\d+)\]|\.?([^.\[]+)")


class Fault(NamedTuple):
    """One thing that is wrong."""

    file: str
    line: int
    """From 1; 0 = the file as a whole."""
    key: str
    """As messages write it; empty = the file as a whole."""
    message: str
    """A sentence that names key, value and remedy."""

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def __str__(self) -> str:
        """Place and sentence."""
        return f"{self.place}: {self.message}"


class BadConfiguration(McastdError):  # noqa: N818 - the name says what was found
    """The configuration can't be used; nothing was changed."""

    def __init__(self, faults: list[Fault], more: int = 0) -> None:
        """All that is known to be wrong, the first of it in the metadata; `more` were found and left out."""
        first = faults[0]
        text, shown = "", 0
        for fault in faults:
            line = _cut(str(fault))
            if shown and _weight(text) + _weight(line) > _TEXT_MAX:
                break
            text += ("\n" if text else "") + line
            shown += 1
        left = len(faults) - shown + more
        if left:
            text += f"\nand {left} more"
        super().__init__(
            Reason.INVALID_VALUE,
            f"the configuration can't be used, nothing was changed: {text}",
            file=first.file,
            line=first.line,
            key=first.key,
            faults=len(faults) + more,
        )
        self.faults = tuple(faults)
        self.more = more


def _weight(text: str) -> int:
    return len(text) if text.isascii() else len(text) + (_HEAVY - 1) * sum(not c.isascii() for c in text)


def _cut(text: str) -> str:
    return text if _weight(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX // _HEAVY]}..."


class Faults:
    """Collects faults up to FAULTS_MAX."""

    def __init__(self) -> None:
        """There are none yet."""
        self.found: list[Fault] = []
        self.more = 0
        """Faults beyond those."""

    @property
    def full(self) -> bool:
        """Whether more need not be looked for."""
        return self.more > 0

    def add(self, fault: Fault) -> None:
        """One more."""
        if len(self.found) < FAULTS_MAX:
            self.found.append(fault)
        else:
            self.more += 1

    def check(self) -> None:
        """BadConfiguration if there are any."""
        if self.found:
            raise BadConfiguration(self.found, self.more)


def key_text(path: Path) -> str:
    """A path as messages write it: `route 3.oifs 2.interface` is the second oif of the third [[route]]."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f" {part + 1}"
        else:
            name = part if len(part) <= _NAME_MAX else f"{part[:_NAME_MAX]}..."
            text += ("." if text else "") + (name if _BARE.fullmatch(name) else f'"{name}"')
    return text


def field_path(field: str) -> Path:
    """The path of a field as the checks of core/wishes.py name it: `route[2].oifs[1].interface`."""
    return tuple(int(number) if number else name for number, name in _FIELD_PART.findall(field))
