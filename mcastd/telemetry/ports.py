"""What telemetry asks of the rest of the daemon: protocols that the runtime fulfils."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from mcastd.model.address import Family
from mcastd.model.event import AdoptedEntry
from mcastd.model.interface import VifCounters

Row = tuple[int, int, int, float, int, int, int, bytes]
"""An MFC entry: packets, octets, packets on the wrong interface, seconds idle (-1 = unknown), number of its paths, rtm_protocol,
whether it is unresolved (packets wait for it), key."""


class TableSample(Protocol):
    """What one table and family had counted."""

    @property
    def table(self) -> int:
        """Its number."""

    @property
    def family(self) -> Family:
        """Its family."""

    @property
    def taken(self) -> float:
        """When it was read, seconds since the epoch."""

    @property
    def iifs(self) -> Sequence[int]:
        """The ifindex of the iif by the number of a row's paths."""

    @property
    def unresolved(self) -> Sequence[int]:
        """Numbers of unresolved rows."""

    def __len__(self) -> int:
        """Rows."""

    def rows(self, first: int = 0, last: int | None = None) -> Iterator[Row]:
        """Rows from one number to before another."""

    def row(self, key: bytes) -> Row | None:
        """One resolved row; needs an index."""


class Sample(Protocol):
    """What the kernel had counted at one time; its tables are those of the engine that are open."""

    @property
    def tables(self) -> Sequence[TableSample]:
        """By table and family."""

    @property
    def time(self) -> float:
        """Seconds since the epoch."""

    @property
    def at(self) -> float:
        """The same by the monotonic clock, in seconds."""

    @property
    def previous(self) -> "Sample | None":
        """The one before."""

    def table(self, table: int, family: Family) -> TableSample | None:
        """One of the tables."""

    async def index(self) -> None:
        """Make it possible to look up rows, here and in the one before."""

    async def foreign(self, wanted: Mapping[bytes, object]) -> tuple[AdoptedEntry, ...]:
        """Entries that somebody else has put into the kernel and that are not in `wanted`."""


class Sampler(Protocol):
    """Where samples come from, which everybody shares."""

    async def sample(self, max_age: float) -> Sample:
        """One that is at most so many seconds old; McastdError if the kernel refuses it."""


class Daemon(Protocol):
    """What is asked of the daemon at a scrape."""

    def vif_counters(self, table: int, ipv6: bool, vif: int) -> VifCounters | None:
        """What one VIF has carried; None if the kernel has none of this number."""

    def store_refuses(self) -> bool:
        """Whether writes are refused, since they can't be stored."""

    def watchers(self) -> tuple[int, int, Mapping[str, int]]:
        """How many watch streams are open, how many objects wait for them, and how many could not just go on, by reason."""
