"""Owns what both kinds of watches have in common: what is asked for on each stream, and what its messages and its end mean.

It waits for nothing; aiowatch.py and syncwatch.py do.
"""

from collections.abc import Iterator

import grpc

from mcast.client.cache import Cache
from mcast.client.errors import ConfigurationError, McastError
from mcast.client.events import Event, Reader, Synced
from mcast.client.links import concerns_link
from mcast.client.target import Backoff
from mcast.v1 import services_pb2 as sv

FIRST_SECONDS = 10.0
"""For the first connection, where it is not waited for."""


class WatchState:
    """What a watch knows of its streams, one after the other."""

    def __init__(self, request: sv.WatchRequest, backoff: Backoff, *, wait: bool) -> None:
        self._reader = Reader(request)
        self._backoff = backoff
        self._pauses = backoff.pauses()
        self._waits = wait
        """Whether a connection is waited for: always, once one has stood."""

    @property
    def resume_token(self) -> str:
        """A token that covers all events that were handed out, for another watch of the same kinds."""
        return self._reader.token

    @property
    def _patience(self) -> float | None:
        """Seconds in which a connection must stand; None = it is waited for."""
        return None if self._waits else FIRST_SECONDS

    def _heard(self, message: sv.WatchResponse) -> Iterator[Event]:
        """Yield what a message says; once all was taken, the token covers it."""
        self._waits = True
        for event in self._reader.read(message):
            if isinstance(event, Synced):
                self._pauses = self._backoff.pauses()
            yield event

    def _broken(self, error: McastError) -> None:
        """A stream has broken: raise what no other stream would heal."""
        if not error.retryable or not self._waits:
            raise error

    def _pause_after(self, error: McastError) -> float:
        """Seconds to wait before the next stream; where the connection was lost, the next connection is what waits."""
        return 0.0 if concerns_link(error) else max(next(self._pauses), error.retry_after or 0.0)


class ViewState:
    """What a view knows."""

    _form = ""
    """How it is used, for who does not."""

    def __init__(self) -> None:
        self.error: McastError | ConfigurationError | None = None
        """What has ended it; what is read stays as it was."""
        self._cache = Cache()

    def _end(self) -> McastError | ConfigurationError:
        """What is raised to who waits for a view that has ended."""
        return self.error or McastError(grpc.StatusCode.FAILED_PRECONDITION, "the view is closed")

    @property
    def connected(self) -> bool:
        """Whether the stream stands."""
        return self._cache.connected

    @property
    def synced(self) -> bool:
        """Whether nothing is missing; while it is False what is read is the last that was known."""
        return self._cache.synced

    @property
    def version(self) -> int:
        """Grows with each change."""
        return self._cache.version
