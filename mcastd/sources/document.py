"""One TOML file: read, parsed, and asked for the line of a key when there is something to say of it."""

import encodings.utf_8_sig  # noqa: F401 - decoding imports it for the first file, when it may not be readable any more
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from mcastd.model.errors import McastdError
from mcastd.sources.faults import BadConfiguration, Fault, Path, field_path, key_text
from mcastd.sources.lines import Lines

FILE_MAX = 64 << 20
"""Bytes of one file: some 500,000 routes."""

_SHOWN_MAX = 80
"""Characters of a value that a fault quotes."""

_NESTED_MAX = 16
"""Levels of one file; settings have three, and what is nested by the thousand can't even be shown."""

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
"""TOML's whole numbers (1.0.0, Integer): tomllib takes any, and Python shows none of more than 4,300 digits."""

_DIGITS = re.compile(r"[0-9_]{4300,}")
_LINE = re.compile(r" \(at line (\d+), column \d+\)$")
_TOO_LONG = "Exceeds the limit"
"""Begins what int() says of too many digits (CPython, Objects/longobject.c); tomllib passes it on without the line."""

_END = " (at end of document)"


class Document:
    """What a file says, and where."""

    def __init__(self, path: str, text: str) -> None:
        """Parse the text; BadConfiguration if it is not TOML."""
        self.path = path
        self._text = text.replace("\r\n", "\n")
        try:
            self.content: dict[str, Any] = tomllib.loads(self._text)
        except RecursionError:
            raise self._too_deep() from None
        except ValueError as exc:
            raise BadConfiguration([self._syntax(str(exc))]) from exc
        self._check_values()

    @cached_property
    def _lines(self) -> Lines:
        return Lines(self._text)

    def fault(self, path: Path, message: str) -> Fault:
        """Something that is wrong with a key, in a sentence that follows its name ("is unknown: ...", ": 'x' can't be used")."""
        key = key_text(path)
        return Fault(self.path, self._lines[path], key, f"{key}{'' if message.startswith(':') else ' '}{message}")

    def bad(self, path: Path, value: object, remedy: str) -> Fault:
        """A value that can't be used."""
        return self.fault(path, f": {shown(value)} can't be used: {remedy}")

    def refused(self, error: McastdError) -> Fault:
        """What a check of core/wishes.py says of a field."""
        field = error.problem.metadata.get("field", "")
        path, message = field_path(field), error.problem.message
        key = key_text(path)
        return Fault(self.path, self._lines[path], key, key + message[len(field) :] if message.startswith(field) else message)

    def place(self, path: Path) -> str:
        """File and line of a key."""
        return f"{self.path}:{self._lines[path]}"

    def _check_values(self) -> None:
        """Refuse what tomllib takes and nobody could use, nor quote: numbers beyond 64 bits, and thousands of levels."""
        containers: list[tuple[Path, Any]] = [((), self.content)]
        while containers:
            path, one = containers.pop()
            for name, value in one.items() if type(one) is dict else enumerate(one):
                if type(value) is int:
                    if not _INT_MIN <= value <= _INT_MAX:
                        text = "is a number of more than 64 bits, which TOML does not have: write a smaller one"
                        raise BadConfiguration([self.fault((*path, name), text)])
                elif type(value) is dict or type(value) is list:
                    if len(path) >= _NESTED_MAX:
                        raise self._too_deep()
                    containers.append(((*path, name), value))

    def _too_deep(self) -> BadConfiguration:
        return BadConfiguration([Fault(self.path, 0, "", "the file is nested too deeply: no setting has more than three levels")])

    def _syntax(self, message: str) -> Fault:
        """Where the text stops being TOML, and after which key."""
        at = _LINE.search(message)
        line = int(at[1]) if at else self._text.count("\n") + 1 if message.endswith(_END) else 0
        if message.startswith(_TOO_LONG) and (digits := _DIGITS.search(self._text)):
            line, message = self._text.count("\n", 0, digits.start()) + 1, "a number of thousands of digits"
        key = key_text(self._lines.last_before(line)) if line else ""
        after = f", at or after {key}" if key else ""
        return Fault(self.path, line, key, f"the file is not TOML{after}: {message[:200]}")


def shown(value: object) -> str:
    """A value as a fault quotes it."""
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."


def read_document(path: str, reader: str = "") -> Document:
    """Read a file; BadConfiguration if it can't be read or is not TOML. `reader`: name of the user who reads, for the remedy."""
    try:
        data = _bytes(path)
    except PermissionError as exc:
        who = f"user {reader}" if reader else "the server's user"
        chgrp = f"chgrp mcastd {path}" if reader in {"", "mcastd"} else "chgrp to a group of that user's"
        remedy = f"let {who} read it ({chgrp}; chmod 640 {path}) and enter the directories above it"
        raise BadConfiguration([Fault(path, 0, "", f"the file can't be read by {who}: {exc.strerror}; {remedy}")]) from exc
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise BadConfiguration([Fault(path, 0, "", f"the file can't be read: {why}")]) from exc
    try:
        text = data.decode("utf-8-sig")  # Some editors begin a file with a byte order mark.
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise BadConfiguration([Fault(path, line, "", f"the file is not UTF-8: {exc.reason} at byte {exc.start}")]) from exc
    return Document(path, text)


def _bytes(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # A pipe without a writer must not hold us up.
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise ValueError("it is a directory: name a file")
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file, which could be read again at a reload: write a file")
        if status.st_size > FILE_MAX:
            raise ValueError(f"it has {status.st_size} bytes, more than the {FILE_MAX} allowed: split it (include)")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(FILE_MAX) or b""  # None where the kernel has a file that is not ready.
    finally:
        os.close(descriptor)


def check_type(document: Document, path: Path, value: object, kind: type) -> Fault | None:
    """What is wrong with the type of a value; true is no number."""
    return None if type(value) is kind else document.bad(path, value, f"it must be {_TYPE_NAMES[kind]}")


def check_keys(document: Document, path: Path, table: Mapping[str, object], known: Mapping[str, type]) -> list[Fault]:
    """Keys that are unknown, and values of the wrong type."""
    faults = []
    for name, value in table.items():
        if name not in known:
            text = f"is unknown (value {shown(value)}): the keys here are {', '.join(known)}"
            faults.append(document.fault((*path, name), text))
        elif known[name] is not object and (fault := check_type(document, (*path, name), value, known[name])) is not None:
            faults.append(fault)
    return faults


_TYPE_NAMES: Mapping[type, str] = {str: "a string", int: "a number", bool: "true or false", list: "a list", dict: "a table"}
