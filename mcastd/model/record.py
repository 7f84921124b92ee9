"""What is made durable: the intent of one write, and the whole of what the store gives back at start."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.route import Route


class OnExpiry(IntEnum):
    """What becomes of an owner's session entries when it has not come back in time; numbers of mcast.v1.Lease.OnExpiry."""

    RETAIN = 1
    WITHDRAW = 2


class Lease(NamedTuple):
    """What becomes of what an owner's sessions have written once its session ends, for whatever reason."""

    hold_time: float
    """Seconds."""
    on_expiry: OnExpiry


@dataclass(slots=True)
class OwnerRecord:
    """An owner: what is stored of it, and what of its session lasts as long as the server. Replaced, never changed."""

    name: str
    epoch: int = 0
    """Highest fencing number seen."""
    revision: int = 0
    """Of the last change of what it asks for."""
    lease: Lease | None = None
    """None = it has had no session, or what its sessions wrote has been withdrawn."""
    hold_until: float = 0.0
    """When the hold time ends, or has ended, seconds since the epoch; 0 = its session is up, or was when the server ended."""
    syncing: bool = False
    """A replay has begun and not ended well: entries that it has not refreshed stay stale while the owner is connected."""
    session: int = 0
    """The session that is up; 0 = none. Not stored."""
    replaying: int = 0
    """The session whose replay is under way; 0 = none. Not stored."""
    generation: int = 1
    """Number of the last replay: entries of an earlier one are stale. Not stored; what is loaded is of generation 1."""


class Pin(NamedTuple):
    """Whether to keep an interface's VIFs in a table, and since which revision that is said."""

    table: int
    pinned: bool
    revision: int


@dataclass(frozen=True, slots=True)
class InterfaceSettings:
    """What one owner has said of one interface, each thing with the revision at which it was said last."""

    interface: str
    owner: str
    ttl_threshold: int | None = None
    """None = said nothing."""
    ttl_revision: int = 0
    pins: tuple[Pin, ...] = ()
    """At most one for each table, by table."""
    router_discovery: bool | None = None
    """None = said nothing."""
    discovery_revision: int = 0

    @property
    def silent(self) -> bool:
        """Whether nothing is said: then there is nothing to keep."""
        return self.ttl_threshold is None and not self.pins and self.router_discovery is None


class EffectiveSettings(NamedTuple):
    """What holds for an interface."""

    interface: str
    ttl_threshold: int | None
    pinned_tables: frozenset[int]
    router_discovery: bool = False


@dataclass(slots=True)
class Intent:
    """The durable part of one write; all of it is committed, or none."""

    puts: list[Route] = field(default_factory=list)
    """Created and updated routes, each with its owner and revision."""
    deletes: list[bytes] = field(default_factory=list)
    """Keys."""
    owners: list[OwnerRecord] = field(default_factory=list)
    settings: list[InterfaceSettings] = field(default_factory=list)
    """Replaces what the same owner has said of the same interface."""
    join_puts: list[JoinRecord] = field(default_factory=list)
    """Created and updated joins."""
    join_deletes: list[JoinKey] = field(default_factory=list)
    """None of them is among the puts."""
    refreshed: dict[bytes, int] = field(default_factory=dict)
    """Generation by key of routes that a session has put again as they are: they are not stale any more. Not stored."""

    def clear(self) -> None:
        """Forget all: the write was only to be checked."""
        self.puts, self.deletes, self.owners, self.settings = [], [], [], []
        self.join_puts, self.join_deletes = [], []
        self.refreshed = {}

    @property
    def changes(self) -> bool:
        """Whether anything is asked for that was not before."""
        return bool(self.puts or self.deletes or self.settings or self.join_puts or self.join_deletes)

    def __bool__(self) -> bool:
        """Whether there is anything to put in force."""
        return bool(self.changes or self.owners or self.refreshed)


@dataclass(slots=True)
class Stored:
    """Everything that was acknowledged, as the store gives it back."""

    routes: dict[bytes, Route] = field(default_factory=dict)
    owners: dict[str, OwnerRecord] = field(default_factory=dict)
    settings: dict[tuple[str, str], InterfaceSettings] = field(default_factory=dict)
    """By interface and owner."""
    joins: dict[JoinKey, JoinRecord] = field(default_factory=dict)
