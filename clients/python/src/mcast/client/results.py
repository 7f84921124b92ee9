"""Owns what calls return where the message alone would not do: items that failed, snapshots, progress of sessions."""

from dataclasses import dataclass
from typing import Self

from mcast.client.errors import ItemsFailed, McastError
from mcast.client.ids import RouteId
from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t

_WAITING = frozenset({"NO_SUCH_INTERFACE", "NOT_MULTICAST_CAPABLE"})


class WriteResult:
    """What has become of a write, in numbers, and of each route that is not in the kernel as asked."""

    __slots__ = ("message",)

    def __init__(self, message: rs.WriteResult) -> None:
        self.message = message
        """The contract's own."""

    @property
    def revision(self) -> int:
        """The daemon's revision after the write."""
        return self.message.revision

    @property
    def created(self) -> int:
        """Routes that are new."""
        return self.message.created

    @property
    def updated(self) -> int:
        """Routes that were there and differed."""
        return self.message.updated

    @property
    def deleted(self) -> int:
        """Routes that were there and are gone."""
        return self.message.deleted

    @property
    def unchanged(self) -> int:
        """Routes that were as asked."""
        return self.message.unchanged

    @property
    def failed(self) -> int:
        """Routes that were refused."""
        return self.message.failed

    @property
    def changes(self) -> list[rs.RouteChange]:
        """Routes that failed or are not PROGRAMMED; with `return_changes` all that have changed."""
        return list(self.message.changes)

    @property
    def failures(self) -> list[rs.RouteChange]:
        """Routes that were refused, by the daemon or the kernel, `error` says why; one that waits for an interface is none."""
        return [] if not self.message.failed else [change for change in self.message.changes if _failed(change)]

    def raise_for_failures(self) -> Self:
        """Raise ItemsFailed where a route was refused; return itself otherwise."""
        if self.message.failed:
            raise ItemsFailed(self.failures, self.message.failed)
        return self

    def __repr__(self) -> str:
        counts = ("revision", "created", "updated", "deleted", "unchanged", "failed")
        return f"WriteResult({', '.join(f'{name}={getattr(self, name)}' for name in counts)})"


@dataclass(frozen=True, slots=True)
class JoinResult:
    """What has become of joins."""

    revision: int
    failures: list[t.Join]
    """Those that are not joined, `error` says why: also those that wait for their interface."""

    def raise_for_failures(self) -> Self:
        """Raise ItemsFailed where a join was refused; return itself otherwise."""
        if failed := [one for one in self.failures if one.error.reason not in _WAITING]:
            raise ItemsFailed(failed, len(failed))
        return self


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All routes that match, as they were at one revision."""

    routes: list[t.Route]
    revision: int
    resume_token: str
    """For `watch`, which goes on from exactly here."""


@dataclass(frozen=True, slots=True)
class OpResult:
    """An operation of a session that was refused, or whose route is not PROGRAMMED."""

    id: int
    """What put, patch or delete returned, or an id below it."""
    key: RouteId
    state: t.RouteState
    """Of the route; UNSPECIFIED where it was refused."""
    error: McastError | None
    """Why; None for a template, which is as it should be."""
    route: t.Route
    """As it is now, with its status; empty where it was refused."""

    @property
    def refused(self) -> bool:
        """Whether nothing of it was done; otherwise the daemon has taken it, and `state` says what it waits for."""
        return self.state == t.ROUTE_STATE_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What a replay has brought about."""

    deleted: int
    """Routes that were not named, and are gone."""
    entries: int
    """Routes that the owner has now."""


def _failed(change: rs.RouteChange) -> bool:
    """Whether a change counts as failed: one that waits for an interface does not, and says so in its status alone."""
    return change.HasField("error")
