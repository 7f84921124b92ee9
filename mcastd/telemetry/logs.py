"""Log lines: one formatter for both processes, one line per message, on standard error.

Everything else logs through the standard library: `logging.getLogger(__name__).info("what happened", extra={"table": 0})`.
Whatever is in `extra` becomes a field of the line.
"""

import logging
import os
import re
import sys
import time
from enum import Enum
from types import TracebackType
from typing import Final, TextIO

from mcastd.model.settings import AUDIT_LOGGER

_STANDARD: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
"""Attributes that every record has; all others came by `extra`."""

_BARE = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""syslog(3): LOG_CRIT, LOG_ERR, LOG_WARNING, LOG_INFO; what is less is LOG_DEBUG."""
_DEBUG_PRIORITY = 7


class Style(Enum):
    """How lines look."""

    JOURNAL = "journal"
    """`<6>message key=value`: the prefix is sd-daemon(3)'s; the journal adds time and process itself."""
    LOGFMT = "logfmt"
    """`time=... level=info process=keeper msg="..." key=value`: for files and collectors."""
    TERMINAL = "terminal"
    """`12:30:59.123 INFO    keeper: message key=value`: for people."""


def configure(process: str, level: str, stream: TextIO | None = None) -> None:
    """Send all logging of this process ("keeper", "server") to standard error, in the style that fits it."""
    target = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(target)
    handler.setFormatter(LineFormatter(process, style_of(target)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library in ("grpc", "asyncio"):
        logging.getLogger(library).setLevel(max(root.level, logging.INFO))  # Their debug messages are about themselves.


def configure_audit(what: str) -> None:
    """Have the audit log tell all, refusals or nothing (model.settings.AUDITS), whatever the level of other lines."""
    level = {"all": logging.INFO, "refusals": logging.WARNING}.get(what, logging.CRITICAL)
    logging.getLogger(AUDIT_LOGGER).setLevel(level)


def finish() -> None:
    """Flush standard error, the last thing a process does; a reader that has gone is no reason for Python's exit code 120."""
    try:
        sys.stderr.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


def log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A sys.excepthook that logs: what ends a process is a line like any other."""
    logging.getLogger(__name__).critical("the process ends by a fault in itself: %s", error, exc_info=(kind, error, trace))


def style_of(stream: TextIO) -> Style:
    """What is at the other end of the stream: the journal, a person, or something else."""
    try:
        number = stream.fileno()
        found = os.fstat(number)
    except (OSError, ValueError):
        return Style.LOGFMT
    if os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}":
        return Style.JOURNAL
    return Style.TERMINAL if os.isatty(number) else Style.LOGFMT


class LineFormatter(logging.Formatter):
    """Makes one line of a record; an exception's traceback is a field, its line ends escaped (but not on a terminal)."""

    def __init__(self, process: str, style: Style) -> None:
        """Write for `process` in `style`."""
        super().__init__()
        self._process = process
        self._look = style

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        message = record.getMessage()
        values = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        traceback = self.formatException(record.exc_info) if record.exc_info else ""
        if self._look is Style.TERMINAL:
            at = f"{time.strftime('%H:%M:%S', time.localtime(record.created))}.{int(record.created % 1 * 1000):03}"
            line = f"{at} {record.levelname:<7} {self._process}: {_one_line(message)}{_fields(values)}"
            return f"{line}\n{traceback}" if traceback else line
        if traceback:
            values["exception"] = traceback
        if self._look is Style.JOURNAL:
            return f"<{_priority(record.levelno)}>{self._process}: {_one_line(message)}{_fields(values)}"
        at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.created % 1 * 1000):03}Z"
        first: dict[str, object] = {
            "level": record.levelname.lower(),
            "process": self._process,
            "msg": message,
            "logger": record.name,
        }
        return f"time={at}{_fields(first)}{_fields(values)}"


def _priority(level: int) -> int:
    return next((priority for at_least, priority in _PRIORITIES if level >= at_least), _DEBUG_PRIORITY)


def _fields(values: dict[str, object]) -> str:
    return "".join(f" {name}={_value(value)}" for name, value in values.items())


def _value(value: object) -> str:
    """The value bare where that is unambiguous, quoted and escaped otherwise."""
    text = str(value)
    if type(value) is int:
        return text
    return text if _BARE.fullmatch(text) and text.isprintable() else f'"{_escaped(text)}"'


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\u{ord(c):04x}") for c in text)
