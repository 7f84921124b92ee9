"""The audit log: who has written, or was refused, and what came of it; one line for each call, for sessions one now and then.

Lines go where all others go, from the logger `mcastd.audit`; their field `audit` says of what kind they are. What reads alone is
told of where it is refused for who the caller is. A call that goes on for long, a session, is told of when it opens, while it
writes, and when it ends, with totals. Who is refused again and again fills no disk: beyond a number of lines a second those of
one kind are counted.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from mcastd.api.ports import Caller
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import AUDIT_LOGGER

SESSION_SECONDS = 10.0
"""While a session writes, between two lines."""

BURST = 20
"""Refusals of one kind (principal, method, reason) in a second that have lines of their own."""

KINDS_MAX = 1_000
"""Kinds of refusals that are told apart in a second; beyond it what was counted is told early."""

_log = logging.getLogger(AUDIT_LOGGER)


@dataclass(slots=True)
class _Refusals:
    """Of one kind, in the second that has begun."""

    lines: int = 0
    counted: int = 0
    last: dict[str, object] = field(default_factory=dict)
    """Fields of the last that was counted."""


class Audit:
    """The log of one server; needs the running loop where something is refused, or is a session."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing was told yet."""
        self.clock = clock
        self._refusals: dict[tuple[str, str, Reason], _Refusals] = {}
        self._timer: asyncio.TimerHandle | None = None

    def done(self, caller: Caller, method: str, began: float) -> None:
        """A call that may write has ended as it should."""
        if caller.entry.session:
            self.tell("a session has ended", "session-ended", caller, method, began)
        elif caller.entry.dry_run:
            self.tell("a write was tried", "dry-run", caller, method, began)
        else:
            self.tell("a write was carried out", "write", caller, method, began)

    def unfinished(self, caller: Caller, method: str, began: float, reason: str) -> None:
        """The caller has left before the answer, or the server itself has failed: what was begun may go on."""
        kind = "session-ended" if caller.entry.session else "unfinished"
        self.tell("a call has ended without an answer", kind, caller, method, began, reason=reason)

    def refused(self, caller: Caller, method: str, began: float, error: McastdError) -> None:
        """A call was refused, or ended; beyond BURST a second of the same kind they are counted."""
        why = {"reason": error.reason.value, "error": str(error)}
        if caller.entry.session:
            level = logging.WARNING if error.reason is Reason.NOT_ALLOWED else logging.INFO
            self.tell("a session has ended", "session-ended", caller, method, began, level, **why)
            return
        if not _log.isEnabledFor(logging.WARNING):
            return
        fields = self._fields("refused", caller, method, began) | why
        found = self._of_kind((caller.principal, method, error.reason))
        if found.lines < BURST:
            found.lines += 1
            _emit(logging.WARNING, "a call was refused", fields)
        else:
            found.counted += 1
            found.last = fields

    @contextmanager
    def follow(self, caller: Caller, method: str, began: float) -> Iterator[None]:
        """Tell of a session when it opens, and while it writes."""
        followed = _Followed(self, caller, method, began)
        caller.entry.on_write = followed.wrote
        try:
            yield
        finally:
            caller.entry.on_write = None
            followed.end()

    def tell(
        self, message: str, kind: str, caller: Caller, method: str, began: float, level: int = logging.INFO, **more: object
    ) -> None:
        """One line about what was done."""
        if _log.isEnabledFor(level):
            _emit(level, message, self._fields(kind, caller, method, began) | more)

    def _of_kind(self, kind: tuple[str, str, Reason]) -> _Refusals:
        if kind not in self._refusals:
            if len(self._refusals) >= KINDS_MAX:
                self._tell_counted()
            self._refusals[kind] = _Refusals()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1.0, self._tell_counted)
        return self._refusals[kind]

    def _tell_counted(self) -> None:
        """What was only counted in the second that is over; another one begins."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        refusals, self._refusals = self._refusals, {}
        for one in refusals.values():
            if one.counted:
                _emit(logging.WARNING, "more calls were refused, this one the last of them", one.last | {"times": one.counted})

    def _fields(self, kind: str, caller: Caller, method: str, began: float) -> dict[str, object]:
        entry = caller.entry
        fields: dict[str, object] = {"audit": kind, "principal": caller.principal}
        if caller.peer:
            fields["peer"] = caller.peer
        fields["method"] = method
        fields |= {name: value for name in ("owner", "epoch", "take_over", "session") if (value := getattr(entry, name))}
        if entry.revision or entry.failed or entry.deleted:
            fields |= {
                "added": entry.created,  # a LogRecord has a `created` of its own
                "updated": entry.updated,
                "deleted": entry.deleted,
                "unchanged": entry.unchanged,
                "failed": entry.failed,
                "revision": entry.revision,
            }
        if entry.reason:
            fields["reason"] = entry.reason
        fields["seconds"] = f"{self.clock() - began:.6f}"
        return fields


def _emit(level: int, message: str, fields: Mapping[str, object]) -> None:
    """A line; looking for the place in the program that logs, as the logger does, would cost as much again."""
    record = logging.LogRecord(AUDIT_LOGGER, level, "", 0, message, (), None)
    vars(record).update(fields)
    _log.handle(record)


class _Followed:
    """A session that goes on."""

    def __init__(self, audit: Audit, caller: Caller, method: str, began: float) -> None:
        self._audit = audit
        self._what = (caller, method, began)
        self._opened = False
        self._timer: asyncio.TimerHandle | None = None

    def wrote(self) -> None:
        """It has opened, or has written: that is told of soon, with what it writes meanwhile."""
        if not self._opened:
            self._opened = True
            self._audit.tell("a session has opened", "session-opened", *self._what)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SESSION_SECONDS, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._audit.tell("a session writes", "session", *self._what)

    def end(self) -> None:
        """No more is told."""
        if self._timer is not None:
            self._timer.cancel()
