"""What the API asks of the daemon behind it, and who is calling."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import grpc

from mcastd.api.entry import Entry
from mcastd.core.engine import Engine
from mcastd.model.errors import McastdError
from mcastd.model.event import AdoptedEntry
from mcastd.model.interface import VifCounters
from mcastd.model.principal import NO_QUOTA, Quota
from mcastd.model.route import Counters
from mcastd.model.settings import Access
from mcastd.model.write import Outcome, Write

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the socket he came through says, or his certificate."""

    access: Access
    owner: str
    principal: str = ""
    """Name in his certificate, or the address of the socket."""
    peer: str = ""
    """Where he calls from, as gRPC writes it; empty through a Unix socket."""
    quota: Quota = NO_QUOTA
    entry: Entry = field(default_factory=Entry, compare=False)
    """What this call asks for, for the audit log."""


class Callers(Protocol):
    """Those who come through one listener."""

    limited: bool
    """Whether there may be limits for them; a reload can bring some for streams that are open."""

    def identify(self, context: Context) -> Caller:
        """Who calls; McastdError NOT_ALLOWED if he is nobody."""

    def request(self, caller: Caller) -> None:
        """He makes one more request; McastdError RATE_LIMIT if it comes too soon after others."""

    async def message(self, caller: Caller) -> None:
        """One more message of a stream of his: wait until it may come."""

    def under_way(self, caller: Caller, access: Access) -> AbstractContextManager[None]:
        """A stream of this caller, which needs this access, is open.

        McastdError STREAM_LIMIT if he has too many, NOT_ALLOWED when he may not have it any more.
        """


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


class MethodObserver(Protocol):
    """Counts the calls of one method."""

    def begin(self) -> float:
        """A call begins; what `end` wants to know."""

    def end(self, began: float, code: str) -> None:
        """It has ended, with this status (OK, NotFound)."""

    def received(self) -> None:
        """A message of the client has come."""

    def sent(self) -> None:
        """A message goes to the client."""


class RpcObserver(Protocol):
    """Counts calls; it is not the API's to know where."""

    def method(self, kind: str, service: str, method: str) -> MethodObserver:
        """Of one method; `kind` as mcastd.api.observed.kind_of says it."""


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

    @property
    def principals(self) -> Callers:
        """Those who come with a certificate."""

    async def write(self, write: Write) -> Outcome:
        """Carry out a write; returns when it is durable and the kernel has answered for each of its routes.

        One that is to be all or nothing is undone, and refused, where the kernel refuses an item.
        """

    def session_ended(self, owner: str, session: int) -> None:
        """A session has ended, for whatever reason: it will be written down, and the hold time begins."""

    def store_refusal(self) -> McastdError | None:
        """Why writes can't be stored now, and are refused; None = they can."""

    async def reload(self, *, validate_only: bool) -> Outcome:
        """Read the configuration again and put the difference in force; McastdError if it can't be used: nothing is changed."""

    async def steady(self) -> None:
        """Wait until no write is half in force, so that what is read is of one revision."""

    def busy(self) -> bool:
        """Whether a write is being carried out, or on its way in: what can wait should."""

    def write_coming(self) -> None:
        """A part of a write has come in."""

    def writing(self) -> AbstractContextManager[None]:
        """While this is entered a write is being carried out: until its answer is made."""

    async def counters(self, max_age: float) -> CounterSample:
        """Counters not older than `max_age` seconds; one dump serves all who ask meanwhile."""

    async def flush(self, keys: AbstractSet[bytes]) -> int:
        """Remove these learned entries; how many there were."""

    def vif_counters(self, table: int, ipv6: bool, vif: int) -> VifCounters | None:
        """What one VIF has carried; None if the kernel has none of this number."""

    def upcalls_lost(self) -> int:
        """Upcalls that the kernel dropped since the daemon started."""

    def request_shutdown(self, *, keep_forwarding: bool) -> None:
        """End the daemon in order, soon."""
