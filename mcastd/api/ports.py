"""What the API asks of the daemon behind it, and who is calling."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import grpc

from mcastd.core.engine import Engine
from mcastd.model.event import AdoptedEntry
from mcastd.model.interface import VifCounters
from mcastd.model.route import Counters
from mcastd.model.settings import Access
from mcastd.model.write import Outcome, Write

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the socket he came through says."""

    access: Access
    owner: str


@dataclass(frozen=True, slots=True)
class CounterSample:
    """Counters of all MFC entries, from one dump each."""

    counters: Mapping[bytes, Counters]
    time: float
    """Seconds since the epoch."""
    previous: Mapping[bytes, Counters]
    """The sample before, for rates; empty when there is none."""
    interval: float
    """Seconds between the two; 0 when there is but one."""
    foreign: tuple[AdoptedEntry, ...] = ()
    """Entries that somebody else has put into the kernel, and that no owner asks for."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What does not change while the server runs."""

    version: str
    instance_id: str
    start_time: float
    """Seconds since the epoch."""


class DaemonPort(Protocol):
    """The daemon as its API sees it. The engine is for reading; every change goes through `write`."""

    engine: Engine
    info: ServerInfo

    async def write(self, write: Write) -> Outcome:
        """Carry out a write; returns when it is durable and the kernel has answered for each of its routes.

        One that is to be all or nothing is undone, and refused, where the kernel refuses an item.
        """

    async def steady(self) -> None:
        """Wait until no write is half in force, so that what is read is of one revision."""

    async def counters(self, max_age: float) -> CounterSample:
        """Counters not older than `max_age` seconds; one dump serves all who ask meanwhile."""

    async def flush(self, keys: AbstractSet[bytes]) -> int:
        """Remove these learned entries; how many there were."""

    def vif_counters(self, table: int, ipv6: bool, vif: int) -> VifCounters | None:
        """What one VIF has carried; None if the kernel has none of this number."""

    def upcalls_lost(self) -> int:
        """Upcalls that the kernel dropped since the daemon started."""

    def request_shutdown(self) -> None:
        """End the daemon in order, soon."""
