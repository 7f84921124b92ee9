"""Owns which channel is in use: a new one after a failure, with back-off, and when TLS files have changed. It waits for nothing.

A channel that failed is replaced rather than left to gRPC, whose own pauses are nearly the same for all clients of a daemon. gRPC
in Python cannot change the certificates of a channel: where the files have changed new calls get a new one, and streams go on.
"""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import grpc

from mcast.client.errors import ConfigurationError, McastError, Unavailable
from mcast.client.target import Backoff, Target

C = TypeVar("C")

log = logging.getLogger("mcast.client")

_LOOK_SECONDS = 1.0
"""TLS files are looked at for changes this often at most."""

_CAUSE = "last error: "

PROBE_SECONDS = 1.0
"""For the call that asks a channel that has failed why; it answers at once."""

LINK_REASONS = frozenset({"", "SHUTTING_DOWN"})
"""UNAVAILABLE for these reasons is said of the connection; another reason is said of the request."""


class Link(Generic[C]):
    """One channel, with its stubs and what is known of it."""

    def __init__(self, stubs: C) -> None:
        self.stubs = stubs
        self.users = 0
        """Calls that are under way."""
        self.ready = False
        """It has stood, and no call has failed since."""
        self.proven = False
        """A call was answered."""
        self.retired = False
        """Nobody begins a call here any more."""


class Links(Generic[C]):
    """The channel in use, and those that end."""

    def __init__(self, target: Target, backoff: Backoff, make: Callable[[grpc.ChannelCredentials | None], C]) -> None:
        self.target = target
        self.failure: Unavailable | None = None
        """Why there is no connection."""
        self.idle: list[Link[C]] = []
        """Channels to be closed."""
        self.closed = False
        self._backoff = backoff
        self._make = make
        self._said: set[str] = set()
        self._link: Link[C] | None = None
        self._pauses: Iterator[float] | None = None
        self._resume_at = 0.0
        self._credentials: grpc.ChannelCredentials | None = None
        self._stamp: object = None
        self._looked_at = 0.0

    def pause(self) -> float:
        """Return how many seconds to wait before another channel is made."""
        return 0.0 if self._link is not None else max(0.0, self._resume_at - time.monotonic())

    def current(self) -> Link[C]:
        """Return the channel that calls begin on, made if there is none; ConfigurationError if TLS files never were of use."""
        if self.closed:
            raise self.gone()
        if self._files_changed() and self._link is not None:
            self._retire(self._link)
        if self._link is None:
            self._link = Link(self._make(self._credentials))
        return self._link

    def failed(self, link: Link[C], error: McastError | None) -> None:
        """A connection attempt, or a call for want of a connection, has failed."""
        if link.retired:
            return
        if self._pauses is None or link.proven:
            self._pauses = self._backoff.pauses()
        self._resume_at = time.monotonic() + next(self._pauses)
        self._retire(link)
        if error is not None:
            self._say(error)

    def succeeded(self, link: Link[C]) -> None:
        """A call was answered."""
        if link.proven:
            return
        link.proven = True
        if self.failure is not None:
            log.info("%s: connected again", self.target.address)
            self.failure = None
            self._said.clear()

    def release(self, link: Link[C]) -> None:
        """A call has ended."""
        link.users -= 1
        if link.retired and not link.users:
            self.idle.append(link)

    def close(self) -> list[Link[C]]:
        """Take no more calls; return the channel to be closed, if there is one."""
        self.closed = True
        link, self._link = self._link, None
        return [] if link is None else [link]

    def gone(self) -> McastError:
        """Make the error of a client that is closed."""
        return McastError(grpc.StatusCode.FAILED_PRECONDITION, f"the client of {self.target.address} is closed: make another")

    def unreachable(self, said: str) -> Unavailable:
        """Make the error of a connection that does not come to stand, from gRPC's words."""
        cause = said.rpartition(_CAUSE)[2] or "no answer"
        return Unavailable(grpc.StatusCode.UNAVAILABLE, f"no daemon answers at {self.target.address}: {cause}")

    def _retire(self, link: Link[C]) -> None:
        link.retired = True
        link.ready = False
        if self._link is link:
            self._link = None
        if not link.users:
            self.idle.append(link)

    def _say(self, error: McastError) -> None:
        """Log each kind of failure once while there is no connection."""
        if error.message not in self._said:
            self._said.add(error.message)
            log.warning("%s: %s; connecting again", self.target.address, error)
        self.failure = Unavailable(error.code, error.message, reason=error.reason, metadata=error.metadata)

    def _files_changed(self) -> bool:
        """Whether TLS files are other ones since the last look, and of use; the last good ones stay in use where they are not."""
        if self.target.tls is None:
            return False
        now = time.monotonic()
        if self._credentials is not None and now < self._looked_at + _LOOK_SECONDS:
            return False
        self._looked_at = now
        stamp = self.target.stamp()
        if self._credentials is not None and stamp == self._stamp:
            return False
        try:
            self._credentials = self.target.credentials()
        except ConfigurationError as exc:
            if self._credentials is None:
                raise
            if stamp != self._stamp:
                log.warning("%s: %s; going on with the last good files", self.target.address, exc)
            return False
        finally:
            self._stamp = stamp
        return True


class Deadline:
    """How long one call may take, over all its attempts."""

    def __init__(self, seconds: float, *, again: bool) -> None:
        """`again`: an attempt for want of a connection is not the last one."""
        self._ends = time.monotonic() + seconds
        self._again = again

    @property
    def left(self) -> float:
        """Seconds until it; what gRPC is given is above 0 always."""
        return max(self._ends - time.monotonic(), 0.001)

    def failed(self, error: McastError) -> None:
        """An attempt has failed: raise its error, unless there is to be another one."""
        if not (self._again and concerns_link(error) and time.monotonic() < self._ends):
            raise error


def concerns_link(error: McastError) -> bool:
    """Whether an error says that the connection has failed, rather than the request."""
    return isinstance(error, Unavailable) and error.reason in LINK_REASONS
