"""Limits of the engine, and the policy on traffic that no route wants."""

from dataclasses import dataclass

from mcastd.model.router_discovery import INTERVAL

LEARNED_MAX = 16_384
STOPS_MAX = 16_384
IDLE_TIMEOUT = 60.0
ROUTES_MAX = 1_000_000
JOINS_MAX = 100_000
MEMBERSHIPS_TOTAL_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What there may be at most."""

    routes_max: int = ROUTES_MAX
    """Routes of all owners."""
    learned_max: int = LEARNED_MAX
    """Learned entries of one template."""
    stops_max: int = STOPS_MAX
    """Stop filters of one table and family."""
    idle_timeout: float = IDLE_TIMEOUT
    """Seconds without a packet after which a learned entry or a stop filter goes, where its template says nothing else."""
    stop_unrouted: bool = True
    """Whether unrouted traffic gets a stop filter."""
    other_tables: frozenset[int] = frozenset()
    """Tables where it is the other way round."""
    router_discovery_interval: int = INTERVAL
    """Seconds between the advertisements of router discovery on an interface."""
    joins_max: int = JOINS_MAX
    """Joins of all owners; those of routes do not count."""
    memberships_max: int = MEMBERSHIPS_TOTAL_MAX
    """Memberships on all interfaces, those of routes included."""

    def stops(self, table: int) -> bool:
        """Whether unrouted traffic of a table gets stop filters."""
        return self.stop_unrouted != (table in self.other_tables)
