"""On which line each key of a TOML document stands: tomllib tells it of no value.

A scanner, not a second parser: it is given what tomllib has accepted (or the part before what it has not), so it looks for the
ends of values and for nothing else. Made when there is something to complain of, since it costs what reading the file costs.
"""

import contextlib
import re
from bisect import bisect_right

from mcastd.sources.faults import Path

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
"""Blanks, ends of lines and comments."""

_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_STRINGS = (
    re.compile(r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})', re.DOTALL),
    re.compile(r"'''.*?'''(?:'{0,2})", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)
_SCALAR = re.compile(r"[^,\]}#\n]*")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


class _End(Exception):  # noqa: N818 - not an error of anybody who calls
    """The text is not TOML from here on."""


class Lines:
    """The lines of a document's keys."""

    def __init__(self, text: str) -> None:
        """Read the document as far as it is one."""
        scanner = _Scanner(text)
        # What tomllib refuses ends here too; it is what comes before that is asked for.
        with contextlib.suppress(_End, IndexError, RecursionError):
            scanner.document()
        self._lines = scanner.lines

    def __getitem__(self, path: Path) -> int:
        """Line of a key, from 1; that of what it would be in, where there is no such key; 0 for the document."""
        for length in range(len(path), 0, -1):
            line = self._lines.get(path[:length])
            if line is not None:
                return line
        return 0

    def __contains__(self, path: object) -> bool:
        """Whether the document has just this key."""
        return path in self._lines

    def last_before(self, line: int) -> Path:
        """The last key that begins on this line or before it."""
        last: Path = ()
        for path, at in self._lines.items():
            if at <= line:
                last = path
        return last


class _Scanner:
    """One pass over a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._elements: dict[Path, int] = {}
        """How many elements each array of tables has so far."""
        self.lines: dict[Path, int] = {}

    def document(self) -> None:
        table: Path = ()
        while True:
            self._skip(_BLANK)
            if self._at >= len(self._text):
                return
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        array = self._text.startswith("[[", self._at)
        line = self._line()
        self._at += 2 if array else 1
        keys = self._keys()
        if not self._text.startswith("]]" if array else "]", self._at):
            raise _End
        self._at += 2 if array else 1
        path: Path = ()
        for key in keys[:-1] if array else keys:
            path = (*path, key)
            self.lines.setdefault(path, line)
            if path in self._elements:
                path = (*path, self._elements[path] - 1)
        if array:
            path = (*path, keys[-1])
            self.lines.setdefault(path, line)
            number = self._elements.get(path, 0)
            self._elements[path] = number + 1
            path = (*path, number)
            self.lines[path] = line
        return path

    def _pair(self, table: Path) -> None:
        line = self._line()
        path = table
        for key in self._keys():
            path = (*path, key)
            self.lines.setdefault(path, line)
        if self._text[self._at] != "=":
            raise _End
        self._at += 1
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: Path) -> None:
        first = self._text[self._at]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        elif first in "\"'":
            self._string()
        else:
            self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        self._at += 1
        number = 0
        while True:
            self._skip(_BLANK)
            if self._text[self._at] == "]":
                break
            self.lines[*path, number] = self._line()
            self._value((*path, number))
            number += 1
            self._skip(_BLANK)
            if self._text[self._at] == ",":
                self._at += 1
            elif self._text[self._at] != "]":
                raise _End
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while True:
            self._skip(_BLANK)  # TOML 1.1 has ends of lines here
            if self._text[self._at] == "}":
                break
            self._pair(path)
            self._skip(_BLANK)
            if self._text[self._at] == ",":
                self._at += 1
            elif self._text[self._at] != "}":
                raise _End
        self._at += 1

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_SPACE)
            match = _KEY.match(self._text, self._at)
            if match is None:
                raise _End
            self._at = match.end()
            keys.append(_key(match[0]))
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _string(self) -> None:
        for pattern in _STRINGS:
            match = pattern.match(self._text, self._at)
            if match is not None:
                self._at = match.end()
                return
        raise _End

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._at = match.end()

    def _line(self) -> int:
        return bisect_right(self._newlines, self._at - 1) + 1


def _key(token: str) -> str:
    if token[0] == '"':
        return _ESCAPE.sub(lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else _ESCAPES.get(m[3], m[3]), token[1:-1])
    return token[1:-1] if token[0] == "'" else token
