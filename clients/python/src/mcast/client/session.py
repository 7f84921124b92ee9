"""Owns what both kinds of sessions have in common: their settings, bounds, and the lease as programs write it."""

from collections.abc import Callable
from dataclasses import dataclass

import grpc

from mcast.client.errors import McastError
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


def closed() -> McastError:
    """Make the error of a session that is not used any more."""
    return McastError(grpc.StatusCode.FAILED_PRECONDITION, "the session is closed")


def opening(owner: str, epoch: int, lease: Lease) -> rs.ProgramRoutesRequest.Open:
    """Return the first message of each stream."""
    return rs.ProgramRoutesRequest.Open(owner=owner, epoch=epoch, lease=lease.message())
