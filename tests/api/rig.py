"""The daemon within the test's own process: the real API, engine, writer, executor and store on a kernel in memory.

For what a real kernel cannot be made to do: refuse an entry, be slow, have little room.
"""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import route_service_pb2_grpc as rs_grpc
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from mcastd.api.listeners import Listeners
from mcastd.api.sockets import ApiSockets
from mcastd.core.engine import Engine
from mcastd.kernel.mroute import Mroute
from mcastd.model.address import Family
from mcastd.model.errors import KernelRefused, McastdError, Reason
from mcastd.model.event import LinkChanged, LinksResync
from mcastd.model.interface import Link, VifCounters
from mcastd.model.limits import Limits
from mcastd.model.settings import Access, Listen, Remote
from mcastd.model.template import TemplateChange
from mcastd.runtime.daemon import Daemon
from mcastd.runtime.keeper_client import KeeperClient
from mcastd.runtime.tasks import cancel, spawn
from mcastd.store.sqlite import Store
from mcastd.telemetry.metrics import Metrics
from tests.api.bench import Refusal, refusal, stream
from tests.fakejoins import FakePool
from tests.fakekernel import FakeKernel

INTERFACES = ("up", "down1", "down2")


class FakeMroute:
    """mcastd.kernel.mroute.Mroute on the kernel in memory; `gate` holds calls back that run in a thread."""

    def __init__(self, kernel: FakeKernel, family: Family) -> None:
        self.kernel = kernel
        self.where = (0, family)
        self.gate = threading.Event()
        self.gate.set()
        self.held_back = threading.Event()
        """A call is at the gate."""

    def close(self) -> None:
        """The keeper has another copy: nothing comes of it yet."""

    def add_vif(self, vif: int, ifindex: int) -> None:
        """MRT_ADD_VIF."""
        self._refuse("MRT_ADD_VIF", self.kernel.add_vif(self.where, vif, ifindex))

    def del_vif(self, vif: int) -> None:
        """MRT_DEL_VIF."""
        self._refuse("MRT_DEL_VIF", self.kernel.del_vif(self.where, vif))

    def vif_counters(self, vif: int) -> VifCounters | None:
        """SIOCGETVIFCNT."""
        return VifCounters(0, 0, 0, 0) if self.kernel.tables[self.where].vifs[vif] is not None else None

    def program(self, keys: Sequence[bytes], forwardings: Sequence[bytes]) -> Sequence[int] | None:
        """MRT_ADD_MFC."""
        if threading.current_thread() is not threading.main_thread():
            self.held_back.set()
            assert self.gate.wait(30)
        return self._batch([self.kernel.add_mfc(key, packed) for key, packed in zip(keys, forwardings, strict=True)])

    def delete(self, keys: Sequence[bytes]) -> Sequence[int] | None:
        """MRT_DEL_MFC."""
        return self._batch([self.kernel.del_mfc(key) for key in keys])

    def counters(self, keys: Sequence[bytes]) -> list[tuple[int, int, int] | None]:
        """SIOCGETSGCNT."""
        found = (self.kernel.entry(key) for key in keys)
        return [None if entry is None else (entry.packets, 0, entry.wrong_if) for entry in found]

    @staticmethod
    def _refuse(call: str, number: int) -> None:
        if number:
            raise KernelRefused(call, number, f"{call}: {number}")

    @staticmethod
    def _batch(errnos: list[int]) -> list[int] | None:
        return errnos if any(errnos) else None


class FakeKeeperClient:
    """What the daemon asks of its keeper."""

    def __init__(self) -> None:
        self.shutdown_requested = False
        self.maps: dict[tuple[int, Family], tuple[tuple[int, int, str], ...]] = {}
        self.templates: list[TemplateChange] = []
        """All that it was told of."""

    async def set_vif_map(self, table: int, family: Family, entries: tuple[tuple[int, int, str], ...]) -> None:
        """Remember it."""
        self.maps[table, family] = entries

    async def set_templates(self, _table: int, _family: Family, changes: list[TemplateChange], *, whole: bool) -> None:
        """Remember them."""
        self.templates += [] if whole and not changes else changes

    def set_learned(self, _table: int, _family: Family, _counts: list[tuple[bytes, int]]) -> None:
        """Nothing here counts."""

    async def open_table(self, table: int) -> dict[Family, socket.socket]:
        """There is the default table alone."""
        raise McastdError(Reason.MROUTE_SOCKET_BUSY, f"table {table} belongs to another program", table=table)

    def request_shutdown(self, *, keep_forwarding: bool) -> None:  # noqa: ARG002 - who ends is the daemon's business
        """Remember it."""
        self.shutdown_requested = True


class Rig:
    """A daemon that serves on a socket, and a client."""

    def __init__(
        self,
        directory: Path,
        routes_max: int = 1000,
        access: Access = Access.ADMIN,
        remotes: Sequence[Remote] = (),
        **limits: Any,
    ) -> None:
        self.kernel = FakeKernel()
        for family in Family:
            self.kernel.init((0, family))
        for ifindex, name in enumerate(INTERFACES, 1):
            self.kernel.set_link(Link(ifindex, name, up=True, multicast=True))
        self.state_dir = directory / "state"
        self.store = Store.open(self.state_dir)
        engine = Engine(self.store.begin(), self.store.load(), Limits(routes_max=routes_max, **limits))
        engine.links(LinksResync(tuple(self.kernel.links.values())))
        self.mroutes = {family: FakeMroute(self.kernel, family) for family in Family}
        for family in Family:
            engine.adopt(0, family, [], [])
        self.keeper = FakeKeeperClient()
        self.ended = asyncio.Event()
        tables = cast("dict[tuple[int, Family], Mroute]", {(0, family): mroute for family, mroute in self.mroutes.items()})
        self.pool = FakePool()
        keeper = cast("KeeperClient", self.keeper)
        self.daemon = Daemon(engine, self.store, keeper, tables, Metrics(), lambda _keep: self.ended.set(), self.pool)
        path = directory / "rig.sock"
        self.listeners = Listeners(self.daemon, ApiSockets([Listen(str(path), access=access)], remotes=remotes))
        self.channel = grpc.aio.insecure_channel(f"unix:{path}", options=(("grpc.use_local_subchannel_pool", 1),))
        self.routes = rs_grpc.RouteServiceStub(self.channel)
        self.status = sv_grpc.DaemonServiceStub(self.channel)
        self.interfaces = sv_grpc.InterfaceServiceStub(self.channel)
        self.joins = sv_grpc.JoinServiceStub(self.channel)

    @property
    def engine(self) -> Engine:
        """The engine, for looking."""
        return self.daemon.engine

    def link(self, ifindex: int, name: str, *, up: bool = True) -> None:
        """Make an interface, or change it."""
        link = Link(ifindex, name, up=up, multicast=True)
        self.kernel.set_link(link)
        self.engine.links(LinkChanged(link))
        self.daemon.executor.wake()
        self.daemon.joiner.wake()

    async def put(self, *routes: t.Route, return_changes: bool = False, timeout: float = 10, **options: Any) -> rs.WriteResult:
        """PutRoutes."""
        request = rs.PutRoutesRequest(routes=routes, options=rs.WriteOptions(**options), return_changes=return_changes)
        answer: rs.PutRoutesResponse = await self.routes.PutRoutes(request, timeout=timeout)
        return answer.result

    async def replace(self, routes: Sequence[t.Route], **header: Any) -> rs.WriteResult:
        """ReplaceRoutes."""
        answer: rs.ReplaceRoutesResponse = await self.routes.ReplaceRoutes(stream(routes, **header), timeout=30)
        return answer.result

    async def listed(self, **request: Any) -> list[t.Route]:
        """ListRoutes."""
        return [one async for chunk in self.routes.ListRoutes(rs.ListRoutesRequest(**request)) for one in chunk.routes]

    async def snapshot(self) -> tuple[int, list[t.Route]]:
        """Revision and routes."""
        status: sv.GetStatusResponse = await self.status.GetStatus(sv.GetStatusRequest())
        return status.revision, await self.listed()

    def entries(self) -> dict[bytes, Any]:
        """What the kernel does, by key."""
        return {key: self.kernel.paths(key) for table in self.kernel.tables.values() for key in table.entries}


async def refused(call: Awaitable[object]) -> Refusal:
    """Await a call that must fail."""
    try:
        await call
    except grpc.RpcError as exc:
        return refusal(exc)
    raise AssertionError("it was not refused")


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    """Serve, with the writer and the executor at work."""
    daemon = rig.daemon
    tasks = [
        spawn(daemon.executor.run(), "executor"),
        spawn(daemon.joiner.run(), "joiner"),
        spawn(daemon.writer.run(), "writer"),
        spawn(daemon.leases.run(), "leases"),
    ]
    await rig.listeners.start()
    await rig.listeners.serving()
    try:
        yield rig
    finally:
        for mroute in rig.mroutes.values():
            mroute.gate.set()
        await rig.channel.close(None)
        await rig.listeners.stop(0)
        await cancel(*reversed(tasks))
        rig.store.close()
