"""Routes: what an owner wants (Route, Paths) and what the kernel is told (Forwarding).

A Route's intent never changes: an update makes a new Route. What has become of it (revision, installed_at, problem) does.
Bulk cost: a Route is 120 bytes beside its key; Paths, Fate and Forwarding are shared by all routes that are alike.
"""

from enum import IntEnum
from typing import NamedTuple

from mcastd.model.errors import Problem

COOKIE_MAX = 64
"""Bytes of UTF-8 in a route's cookie."""

TTL_MAX = 254
"""255 means "not an outgoing interface" to the kernel (ipmr_update_thresholds, net/ipv4/ipmr.c)."""


class RouteState(IntEnum):
    """What has become of a route; numbers of mcast.v1.RouteState."""

    PROGRAMMED = 1
    PARTIAL = 2
    PENDING = 3
    TEMPLATE = 4
    FAILED = 5


class Action(IntEnum):
    """What a write does to one route; numbers of mcast.v1.RouteChange.Action."""

    CREATE = 1
    UPDATE = 2
    DELETE = 3
    NONE = 4


class Oif(NamedTuple):
    """One outgoing interface as asked for: a name, a glob, or "!" and either; threshold 0 = the interface's own."""

    interface: str
    ttl_threshold: int = 0


class Paths:
    """Incoming and outgoing interfaces as asked for; equal by value, hashed once, shared by the routes that are alike."""

    __slots__ = ("_hash", "iif", "oifs")

    def __init__(self, iif: str, oifs: tuple[Oif, ...]) -> None:
        """Keep `oifs` as given: callers sort them, so that equal sets are equal values."""
        self.iif = iif
        self.oifs = oifs
        self._hash = hash((iif, oifs))

    def __hash__(self) -> int:
        """By value."""
        return self._hash

    def __eq__(self, other: object) -> bool:
        """By value."""
        return self is other or (isinstance(other, Paths) and self.iif == other.iif and self.oifs == other.oifs)

    def __repr__(self) -> str:
        """For logs and test failures."""
        return f"Paths({self.iif!r}, {self.oifs!r})"


class Forwarding:
    """What an MFC entry does: the parent VIF and, per VIF, what leaves there. One object per distinct value and table.

    `packed` is what the kernel adapter takes: the parent as u16 in the machine's order, then 32 bytes: for IPv4 a TTL
    threshold per VIF (255 = not an oif), for IPv6 the if_set (bit n of word n/32 in the machine's order).
    """

    __slots__ = ("entries", "packed", "vifs")

    def __init__(self, packed: bytes, vifs: int) -> None:
        """Bit n of `vifs` is set for each VIF number that the entry names, parent included."""
        self.packed = packed
        self.vifs = vifs
        self.entries = 0
        """MFC entries in the kernel that do this; while there are any, none of the numbers may be re-used."""

    def __repr__(self) -> str:
        """For logs and test failures."""
        return f"Forwarding({self.packed.hex()}, entries={self.entries})"


class Fate:
    """What has become of all routes of one table and family that ask for the same Paths."""

    __slots__ = ("forwarding", "installed_oifs", "missing", "problem", "revision", "state")

    def __init__(self) -> None:
        """Nothing yet."""
        self.forwarding: Forwarding | None = None
        """What their MFC entries should do; None = they should not be in the kernel."""
        self.state = RouteState.PENDING
        self.installed_oifs: tuple[str, ...] = ()
        """Names, globs resolved, in order."""
        self.missing: tuple[str, ...] = ()
        """Names asked for that do not exist, are down, or have no VIF."""
        self.problem: Problem | None = None
        self.revision = 0
        """Of the last change."""

    def in_force(self, key: bytes) -> bool:  # noqa: ARG002 - one that knows the kernel's entries looks there
        """Whether the entry of one of these routes does already what `forwarding` says."""
        return True


NO_FATE = Fate()
"""Of a route that is not in force (yet, or any more)."""


class Route:
    """One exact (S,G) that an owner wants."""

    __slots__ = ("cookie", "fate", "installed_at", "join", "key", "monitored", "owner", "paths", "problem", "revision", "session")

    def __init__(
        self,
        key: bytes,
        paths: Paths,
        owner: str,
        cookie: str = "",
        monitored: bool = False,
        revision: int = 0,
        join: bool = False,
        session: int = 0,
    ) -> None:
        """Make the intent; nothing has become of it yet."""
        self.key = key
        self.paths = paths
        self.owner = owner
        self.cookie = cookie
        self.monitored = monitored
        self.revision = revision
        """Of the last change of the intent, or of this route's own state."""
        self.join = join
        """Whether group and source are joined on the iif while the route is wanted."""
        self.session = session
        """Generation of its owner (OwnerRecord) in which a session has written or refreshed it; 0 = a unary call wrote it."""
        self.installed_at = 0.0
        """Seconds since the epoch when it last entered the kernel; 0 = it is not there; -1 = before this server started."""
        self.problem: Problem | None = None
        """What the kernel refused about this route alone."""
        self.fate: Fate = NO_FATE

    @property
    def state(self) -> RouteState:
        """Where it stands now: an entry that is still to be changed is not what was asked, so not PROGRAMMED yet."""
        if self.problem is not None:
            return RouteState.FAILED
        fate = self.fate
        if fate.forwarding is not None:
            if not self.installed_at:
                return RouteState.PENDING
            if fate.state is RouteState.PROGRAMMED and not fate.in_force(self.key):
                return RouteState.PARTIAL
        return fate.state

    def copy(self) -> "Route":
        """The same intent, of which nothing has become yet."""
        return Route(self.key, self.paths, self.owner, self.cookie, self.monitored, self.revision, self.join, self.session)

    def same_intent(self, other: "Route") -> bool:
        """Whether both ask for the same."""
        return (
            (self.paths is other.paths or self.paths == other.paths)
            and self.cookie == other.cookie
            and self.monitored == other.monitored
            and self.join == other.join
            and self.owner == other.owner
        )

    def __repr__(self) -> str:
        """For logs and test failures."""
        return f"Route({self.key.hex()}, {self.paths!r}, {self.owner!r}, cookie={self.cookie!r})"


class Template(Route):
    """A route with a prefix or a wildcard in source or group: it makes (S,G) entries when packets come, or is a shared tree."""

    __slots__ = ("idle_timeout", "shared_tree")

    def __init__(
        self,
        key: bytes,
        paths: Paths,
        owner: str,
        cookie: str = "",
        monitored: bool = False,
        revision: int = 0,
        idle_timeout: float = 0.0,
        shared_tree: bool = False,
        join: bool = False,
        session: int = 0,
    ) -> None:
        """Make the intent; `idle_timeout` in seconds, 0 = the daemon's own."""
        super().__init__(key, paths, owner, cookie, monitored, revision, join, session)
        self.idle_timeout = idle_timeout
        self.shared_tree = shared_tree

    def copy(self) -> "Template":
        """The same intent, of which nothing has become yet."""
        return Template(
            self.key,
            self.paths,
            self.owner,
            self.cookie,
            self.monitored,
            self.revision,
            self.idle_timeout,
            self.shared_tree,
            self.join,
            self.session,
        )

    def same_intent(self, other: Route) -> bool:
        """Whether both ask for the same."""
        return (
            isinstance(other, Template)
            and self.idle_timeout == other.idle_timeout
            and self.shared_tree == other.shared_tree
            and super().same_intent(other)
        )


class Counters(NamedTuple):
    """Kernel counters of one MFC entry (struct rta_mfc_stats)."""

    packets: int
    bytes: int
    wrong_if: int
    last_used: float
    """Seconds since the epoch; 0 = never."""
