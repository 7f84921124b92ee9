"""Owns what both kinds of sessions have in common: their settings, bounds and state, and what an answer or a break means.

It waits for nothing; aiosession.py and syncsession.py do.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import grpc

from mcast.client.errors import ConfigurationError, DeadlineExceeded, McastError, misused
from mcast.client.links import concerns_link
from mcast.client.program import Program, Response
from mcast.client.requests import duration
from mcast.client.results import OpResult
from mcast.client.target import Backoff
from mcast.v1 import route_service_pb2 as rs

BUFFERED = 32_768
"""Operations that may wait for their acknowledgement; who puts more waits. The daemon reads up to 64,000 ahead."""

EXCEPTIONS_KEPT = 100_000
"""Exceptions that are kept for the next flush, where no callback takes them; beyond it the oldest are dropped."""

OPEN_SECONDS = 30.0
"""For the daemon's answer to an Open, after which the stream is given up."""

SLICE = 1000
"""Operations after which others have their turn."""

log = logging.getLogger("mcast.client")


@dataclass(frozen=True, slots=True)
class Lease:
    """What becomes of a session's routes when it ends, for whatever reason."""

    hold: float = 120.0
    """Seconds that they are kept, marked stale, while the owner is away."""
    withdraw: bool = True
    """Then they are deleted; otherwise they stay for ever."""

    def message(self) -> rs.Lease:
        """Return it as the contract says it."""
        then = rs.Lease.ON_EXPIRY_WITHDRAW if self.withdraw else rs.Lease.ON_EXPIRY_RETAIN
        return rs.Lease(hold_time=duration(self.hold), on_expiry=then)


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one session."""

    open: rs.ProgramRoutesRequest.Open
    keep: bool
    on_exception: Callable[[OpResult], None] | None
    close_timeout: float
    backoff: Backoff
    wait: bool
    """Whether the first connection is waited for."""


class SessionState:
    """What a session knows of its streams, one after the other, and of what was said over them."""

    _form = ""
    """How it is used, for who does not."""

    def __init__(self, settings: Settings) -> None:
        self.error: McastError | ConfigurationError | None = None
        """What has ended it for good."""
        self.opened: Response.Opened = Response.Opened()
        """What the daemon said when the stream that stands, or stood last, was opened."""
        self.connected = False
        self._settings = settings
        self._program = Program(keep=settings.keep)
        self._exceptions: deque[OpResult] = deque(maxlen=EXCEPTIONS_KEPT)
        self._stream: object = None
        self._entered = False
        self._closing = False
        self._pauses = settings.backoff.pauses()
        self._stood_at: float | None = None
        """When the stream that stands, or has just broken, was opened."""

    @property
    def replay_error(self) -> McastError | None:
        """Why the replay after the last reconnect has deleted nothing, as TooManyDeletions; None = it was carried out."""
        return self._program.replay_error

    @property
    def pending(self) -> int:
        """Operations that are not acknowledged."""
        return self._program.pending

    def _check(self) -> None:
        """Raise what has ended it, or that it has not begun."""
        if self.error is not None:
            raise self.error
        if not self._entered:
            raise misused("session", self._form)

    def _waits(self) -> bool:
        """Whether a connection is waited for: always, once one has stood."""
        return self._settings.wait or self.opened.instance_id != ""

    def _stands(self, opened: Response.Opened) -> None:
        """A stream was opened."""
        self.opened = opened
        self._program.begin()
        self.connected = True
        self._stood_at = time.monotonic()

    def _heard(self, answer: Response) -> list[OpResult]:
        """Take an answer; the exceptions in it, which are kept for the next flush where there is no callback."""
        found = self._program.take(answer)
        if self._settings.on_exception is None:
            self._exceptions.extend(found)
        return found

    def _report(self, found: Iterable[OpResult]) -> None:
        """Tell the callback, where there is one."""
        if self._settings.on_exception is not None:
            for one in found:
                self._settings.on_exception(one)

    def _judge(self, answer: Response) -> None:
        """Raise what has become of a replay, where the next stream may do better."""
        error = self._program.replay_error
        if error is not None and answer.HasField("synced"):
            log.warning("owner %s: the replay has deleted nothing: %s", self.opened.owner, error)
            if error.retryable:
                raise error  # The stream begins anew, and the replay with it.

    def _pause_after(self, error: McastError) -> float | None:
        """Seconds to wait after a stream has broken; None where no other stream would do better."""
        if not (error.retryable and self._waits()):
            return None
        log.info("owner %s: the session has broken: %s", self._settings.open.owner or "(own)", error)
        if concerns_link(error):
            return 0.0  # The next connection is what waits.
        if self._stood_at is not None and time.monotonic() - self._stood_at > self._settings.backoff.longest:
            self._pauses = self._settings.backoff.pauses()
        self._stood_at = None
        return max(next(self._pauses), error.retry_after or 0.0)

    def _late(self) -> DeadlineExceeded:
        """Make the error of an end that was not in order."""
        text = f"{self._program.pending} operations are not acknowledged after {self._settings.close_timeout:g} s"
        return DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, text)


def closed(cause: BaseException | None = None) -> McastError:
    """Make the error of a session that is not used any more; `cause`: what a callback has raised, where that has ended it."""
    error = McastError(grpc.StatusCode.FAILED_PRECONDITION, "the session is closed")
    error.__cause__ = cause if isinstance(cause, Exception) else None  # who cancels is no cause
    return error


def opening(owner: str, epoch: int, lease: Lease) -> rs.ProgramRoutesRequest.Open:
    """Return the first message of each stream."""
    return rs.ProgramRoutesRequest.Open(owner=owner, epoch=epoch, lease=lease.message())
