"""Writes: what a caller asks to be changed, already validated, and what came of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mcastd.model.errors import Problem
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.record import Intent, InterfaceSettings, Lease
from mcastd.model.route import Action, Oif, Route

Matcher = Callable[[Route], bool]


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """What every write can say (mcast.v1.WriteOptions), with the owner resolved."""

    owner: str
    epoch: int = 0
    validate_only: bool = False
    take_over: bool = False
    all_or_nothing: bool = False
    if_revision: int = 0
    owner_routes_max: int = 0
    """Routes that the owner may have after it; 0 = as many as there may be."""


@dataclass(frozen=True, slots=True)
class PutRoutes:
    """Create or replace routes, in order."""

    options: WriteOptions
    routes: list[Route]


@dataclass(frozen=True, slots=True)
class Patch:
    """Oifs to add (one that is there is updated) and to remove, of one route."""

    key: bytes
    add: tuple[Oif, ...]
    remove: frozenset[str]


@dataclass(frozen=True, slots=True)
class PatchRoutes:
    """Add and remove oifs, in order."""

    options: WriteOptions
    patches: list[Patch]


@dataclass(frozen=True, slots=True)
class DeleteRoutes:
    """Delete by key, in order, or all routes within the caller's reach that match."""

    options: WriteOptions
    keys: list[bytes] | None = None
    matches: Matcher | None = None


@dataclass(frozen=True, slots=True)
class ReplaceRoutes:
    """Make the owner's routes (with this cookie, if one is given) exactly these; no key twice."""

    options: WriteOptions
    routes: dict[bytes, Route]
    cookie: str = ""
    allow_empty: bool = False
    max_deletions: int = 0


@dataclass(frozen=True, slots=True)
class SetInterface:
    """Set what is not None; `pinned` is about one table."""

    options: WriteOptions
    interface: str
    pinned: bool | None = None
    ttl_threshold: int | None = None
    table: int = 0
    router_discovery: bool | None = None


@dataclass(frozen=True, slots=True)
class Restore:
    """Undo a write that was to be all or nothing: put these back, delete those."""

    options: WriteOptions
    puts: list[Route]
    deletes: list[bytes]
    after: Mapping[bytes, Route | None] | None = None
    """What the write has left, by key: a key that holds anything else by now is let alone. None = whatever it holds."""


@dataclass(frozen=True, slots=True)
class PutJoins:
    """Join, or replace what is joined; in order."""

    options: WriteOptions
    joins: list[JoinRecord]


@dataclass(frozen=True, slots=True)
class DeleteJoins:
    """Leave what the owner has joined; what it has not is left already."""

    options: WriteOptions
    keys: list[JoinKey]


@dataclass(frozen=True, slots=True)
class RestoreJoins:
    """Undo a write of joins that was to be all or nothing; what somebody has written since is let alone."""

    options: WriteOptions
    changes: "list[JoinChange]"
    """One for each join."""


@dataclass(frozen=True, slots=True)
class Configure:
    """Make routes, joins and interface settings of the owner exactly these."""

    options: WriteOptions
    routes: dict[bytes, Route]
    joins: dict[JoinKey, JoinRecord]
    settings: dict[str, InterfaceSettings]
    """By interface; their revisions are ignored."""


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Begin a session of the owner; one that is up is superseded."""

    options: WriteOptions
    session: int
    """Unique in the life of the server, not 0."""
    lease: Lease


@dataclass(frozen=True, slots=True)
class Program:
    """Operations of a session, in order, each with its id: a route to put, a patch, or the key of a route to delete."""

    options: WriteOptions
    session: int
    ops: list[tuple[int, Route | Patch | bytes]]


@dataclass(frozen=True, slots=True)
class BeginSync:
    """A replay begins: what the owner's sessions have written is stale until it is refreshed."""

    options: WriteOptions
    session: int


@dataclass(frozen=True, slots=True)
class EndSync:
    """A replay ends: what is still stale is deleted, unless it is more than `max_deletions` (0 = no limit)."""

    options: WriteOptions
    session: int
    max_deletions: int = 0


@dataclass(frozen=True, slots=True)
class EndSession:
    """A session has ended, for whatever reason: the hold time begins. Nothing, if another one has taken over."""

    options: WriteOptions
    session: int
    """0 = that which was up when the last server ended."""
    now: float
    """Seconds since the epoch."""
    grace: float = 0.0
    """Seconds that it is held at least: where the daemon has ended it, which is no fault of its owner."""


@dataclass(frozen=True, slots=True)
class ExpireLease:
    """The hold time is over: what the owner's sessions have written is withdrawn if its lease says so."""

    options: WriteOptions


SessionWrite = OpenSession | Program | BeginSync | EndSync | EndSession | ExpireLease

Write = (
    Configure
    | PutRoutes
    | PatchRoutes
    | DeleteRoutes
    | ReplaceRoutes
    | SetInterface
    | Restore
    | PutJoins
    | DeleteJoins
    | RestoreJoins
    | SessionWrite
)


class JoinChange(NamedTuple):
    """What was (or would be) done about one join."""

    key: JoinKey
    before: JoinRecord | None
    after: JoinRecord | None


class Change(NamedTuple):
    """What was (or would be) done about one item."""

    action: Action
    id: int
    """Position in the request."""
    before: Route | None
    after: Route | None
    problem: Problem | None = None


@dataclass(slots=True)
class Outcome:
    """What a write comes to; in order, with unchanged items only where their route is not in the kernel as asked."""

    intent: Intent = field(default_factory=Intent)
    revision: int = 0
    changes: list[Change] = field(default_factory=list)
    """Created, updated, deleted and refused items."""
    kept: list[tuple[int, Route]] = field(default_factory=list)
    """Items that are already as asked: position and the route that is there."""
    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    refused: int = 0
    joins: list[JoinChange] = field(default_factory=list)
    """Joins that were put or deleted, and those that were put though they are there already (`before is after`)."""
    interfaces: int = 0
    """Interfaces of which something else is said now; only Configure counts them."""

    def refuse(self, index: int, problem: Problem, before: Route | None) -> None:
        """Take note of an item that can't be done."""
        self.refused += 1
        self.changes.append(Change(Action.NONE, index, before, None, problem))
