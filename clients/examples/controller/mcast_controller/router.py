"""Owns one router as the controller sees it: what it tells (sources, interfaces, counters), and the session that programs it.

All that is known of mcast.client in the controller is here.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Protocol

from mcast.client import (
    Backoff,
    Client,
    ConfigurationError,
    Delete,
    Lease,
    McastError,
    OpResult,
    Put,
    Session,
    StaleEpoch,
    Superseded,
    Tls,
    View,
    route,
)
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcast_controller.order import Change
from mcast_controller.topology import Port, Router
from mcast_controller.trees import Entry, Flow

log = logging.getLogger("mcast_controller")

KINDS = ("interface", "source", "counters")
SAMPLE_SECONDS = 5.0
AGAIN_SECONDS = 5.0
"""After a refusal that only somebody else can heal, such as a certificate that is not trusted."""

WATCHED, LED = "cannot be watched", "takes no orders"
"""What may not go well."""


class Fenced(Exception):  # noqa: N818 - the name says what has happened
    """Another replica leads."""


class Ears(Protocol):
    """Who is told what a router says."""

    def source_seen(self, flow: Flow, port: Port) -> None:
        """Packets of a flow come in that no entry takes there."""

    def interfaces_changed(self) -> None:
        """An interface came, went, or changed."""

    def flow_active(self, flow: Flow, router: str) -> None:
        """Packets of a flow were counted."""

    def attached(self, router: str, entries: Mapping[Flow, Entry]) -> None:
        """A session stands; the router has these entries of ours."""

    def refused(self, router: str, flow: Flow, reason: str, message: str) -> None:
        """The router did not do what it was told."""


class Southbound:
    """One router."""

    def __init__(self, router: Router, owner: str, ears: Ears) -> None:
        self.name = router.name
        self._owner = owner
        self._ears = ears
        files = router.tls
        tls = Tls(files.ca, files.cert, files.key, files.server_name) if files is not None else None
        self._client = Client(router.address, tls, backoff=Backoff(0.05, 1.0))
        self._view: View | None = None
        self._told = False
        """All its interfaces were told once."""
        self._session: Session | None = None
        self._complaints: dict[str, Exception] = {}
        """What does not go well, and what the log was told of it."""
        self.late = False
        """Its last answer is still awaited, after others went on without it."""

    # --- what it tells -----------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Follow it, for ever."""
        while True:
            try:
                async with self._client.view(KINDS, on_event=self._event, sample_interval=SAMPLE_SECONDS) as view:
                    self._view = view
                    await view.ready()
                    self._told = True
                    self._complaints.pop(WATCHED, None)
                    self._ears.interfaces_changed()
                    while True:  # What ends the view is raised.
                        await view.changed(view.version)
            except (McastError, ConfigurationError) as exc:
                self._complain(WATCHED, exc)
            await asyncio.sleep(AGAIN_SECONDS)

    @property
    def connected(self) -> bool:
        """Whether it tells what happens."""
        return self._view is not None and self._view.synced

    def down(self, port: Port) -> bool:
        """Whether an interface is known not to work; what was never told counts as working."""
        if self._view is None or not self._told:
            return False
        interface = self._view.interfaces.get(port.interface)
        return interface is None or not interface.up

    def sources(self) -> Iterable[tuple[Flow, Port]]:
        """All that it has packets of and no fitting entry for, in the default table."""
        found = self._view.sources.values() if self._view is not None else ()
        return [(Flow(one.group, one.source), Port(self.name, one.interface)) for one in found if not one.table]

    def _event(self, event: Put | Delete) -> None:
        match event:
            case Put(object=t.Source() as source) if not source.table:
                self._ears.source_seen(Flow(source.group, source.source), Port(self.name, source.interface))
            case Put(object=sv.CounterSample() as sample):
                self._ears.flow_active(Flow(sample.key.group, sample.key.source), self.name)
            case Put(object=t.Interface()) | Delete(object=t.Interface()):
                self._ears.interfaces_changed()

    # --- what it is told ---------------------------------------------------------------------------------------------

    @property
    def attached(self) -> bool:
        """Whether it takes orders: a session was opened, which mends itself when it breaks."""
        return self._session is not None

    @property
    def pending(self) -> int:
        """Changes that it has not answered yet."""
        return self._session.pending if self._session is not None else 0

    async def lead(self, epoch: int, lease: Lease) -> None:
        """Hold a session with it until another replica leads (Fenced), waiting for the router as long as it takes.

        What it has of this owner is taken over as it is, by a replay that changes nothing: what ought to be otherwise is told
        afterwards, in the order that order.py sees to.
        """
        while True:
            try:
                await self._hold(epoch, lease)
            except (Superseded, StaleEpoch) as exc:
                raise Fenced(f"{self.name}: {exc}") from exc
            except (McastError, ConfigurationError) as exc:
                self._complain(LED, exc)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _hold(self, epoch: int, lease: Lease) -> None:
        try:
            async with self._client.program(owner=self._owner, epoch=epoch, lease=lease, on_exception=self._exception) as session:
                selector = t.Selector(owner=self._owner, table=0)
                routes = {entry[0]: (one, entry[1]) async for one in self._client.list(selector) if (entry := parse(one))}
                await session.sync([one for one, _ in routes.values()])
                self._session = session
                self._complaints.pop(LED, None)
                self._ears.attached(self.name, {flow: entry for flow, (_, entry) in routes.items()})
                raise await session.ended()
        finally:
            self._session = None

    async def tell(self, changes: Iterable[Change], timeout: float) -> bool:
        """Have it carry out changes; False where its answer is not there in time, it will do it as soon as it can."""
        session = self._session
        if session is None:
            return False
        try:
            for flow, entry in changes:
                if entry is None:
                    await session.delete(t.RouteKey(group=flow.group, source=flow.source))
                else:
                    await session.put(message(flow, entry))
            if not session.connected or (self.late and session.pending):
                return False
            async with asyncio.timeout(timeout):
                await session.flush()
        except TimeoutError:
            self.late = True
            return False
        except (McastError, ConfigurationError) as exc:
            log.info("%s: takes no orders just now: %s", self.name, exc)  # The session has ended: lead() deals with it.
            return False
        self.late = False
        return True

    def _exception(self, result: OpResult) -> None:
        flow = Flow(result.key.group, result.key.source)
        if result.refused and result.error is not None:
            self._ears.refused(self.name, flow, result.error.reason, result.error.message)
        else:
            log.info("%s: %s is %s: %s", self.name, flow, t.RouteState.Name(result.state), result.error)

    def _complain(self, what: str, why: Exception) -> None:
        """Tell the log, once for each reason until it goes well."""
        if str(why) != str(self._complaints.get(what, "")):
            self._complaints[what] = why
            log.error("%s: %s: %s", self.name, what, why)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._client.close()


def message(flow: Flow, entry: Entry) -> t.Route:
    """An entry as a route of the API; its cookie says where the source is."""
    return route(flow.group, flow.source, entry.iif, *sorted(entry.oifs), cookie=str(entry.root))


def parse(one: t.Route) -> tuple[Flow, Entry] | None:
    """A route of the API as an entry; None for one that this controller does not write."""
    router, slash, interface = one.cookie.partition("/")
    if not (slash and router and interface and one.source) or "/" in one.group or "/" in one.source:
        return None
    oifs = frozenset(oif.interface for oif in one.oifs)
    return Flow(one.group, one.source), Entry(one.iif, oifs, Port(router, interface))
