"""Watch without a network: the real service on an engine in memory, and clients that read as fast as a test lets them."""

import asyncio
import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any, cast

import grpc

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.api.interfaces import InterfaceService
from mcastd.api.joins import JoinService
from mcastd.api.ports import Caller, Context, CounterSample, DaemonPort, ServerInfo
from mcastd.api.routes import RouteService
from mcastd.api.watch import EventService
from mcastd.core.engine import Engine
from mcastd.model.route import Counters
from mcastd.model.settings import Access
from mcastd.runtime.tasks import cancel, spawn
from tests.e2e.view import View, key_of

CALLER = Caller(Access.VIEW, "eve")

_UNLIMITED = 1 << 60


class FakeDaemon:
    """What Watch and the lists ask of the daemon."""

    def __init__(self, engine: Engine) -> None:
        """An incarnation of its own."""
        self.engine = engine
        self.info = ServerInfo("1.0", str(uuid.uuid4()), 0.0)
        self.lost = 0
        self.writing = False
        self.counted: Mapping[bytes, Counters] = {}
        self.polls = 0

    async def steady(self) -> None:
        """Every write is whole here."""

    def busy(self) -> bool:
        """As the test says."""
        return self.writing

    def write_coming(self) -> None:
        """Nothing waits here."""

    async def counters(self, _max_age: float) -> CounterSample:
        """As the test says."""
        self.polls += 1
        return CounterSample(self.counted, 1000.0, {}, 0.0)

    def vif_counters(self, _table: int, _ipv6: bool, _vif: int) -> None:
        """Nothing is counted."""

    def upcalls_lost(self) -> int:
        """As the test says."""
        return self.lost

    def as_port(self) -> DaemonPort:
        """As the API sees it."""
        return cast("DaemonPort", self)


class FakeContext:
    """One call: what was written waits, as much as there is room for, until the client reads it."""

    def __init__(self, room: int = _UNLIMITED) -> None:
        """`room`: messages that a write need not wait for."""
        self.room = room
        self.written: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self.gone = False
        """The client has left: a write fails."""

    def peer(self) -> str:
        """Who calls."""
        return "unix:"

    async def write(self, message: bytes) -> None:
        """Wait for room."""
        while len(self.written) >= self.room and not self.gone:
            self._changed.clear()
            await self._changed.wait()
        if self.gone:
            raise grpc.aio.UsageError("the call is over")
        self.written.append(message)

    def read(self) -> sv.WatchResponse | None:
        """The next message, if there is one."""
        self._changed.set()
        return sv.WatchResponse.FromString(self.written.popleft()) if self.written else None

    def hang_up(self) -> None:
        """The client leaves."""
        self.gone = True
        self._changed.set()

    def as_context(self) -> Context:
        """As the API sees it."""
        return cast("Context", self)


class Server:
    """The services of one incarnation."""

    def __init__(self, engine: Engine) -> None:
        """Serve an engine."""
        self.daemon = FakeDaemon(engine)
        self.events = EventService(self.daemon.as_port())
        self.routes = RouteService(self.daemon.as_port())
        self.interfaces = InterfaceService(self.daemon.as_port())
        self.joins = JoinService(self.daemon.as_port())

    async def listed(self, kind: str, selector: t.Selector) -> dict[tuple[str, ...], Any]:
        """What the list of a kind says, by what identifies an object in a view."""
        context = FakeContext().as_context()
        found: list[sv.Event] = []
        match kind:
            case "route":
                async for routes in self.routes.list_routes(rs.ListRoutesRequest(selector=selector), context, CALLER):
                    found += [sv.Event(route=one) for one in routes.routes]
            case "source":
                async for sources in self.events.list_sources(sv.ListSourcesRequest(selector=selector), context, CALLER):
                    found += [sv.Event(source=one) for one in sources.sources]
            case "interface":
                request = sv.ListInterfacesRequest(interface=selector.interface)
                answer = await self.interfaces.list_interfaces(request, context, CALLER)
                found += [sv.Event(interface=one) for one in answer.interfaces]
            case "join":
                about = t.Selector()
                about.CopyFrom(selector)
                about.ClearField("table")  # Joins belong to none: a list refuses it, Watch leaves it to the other kinds.
                async for joins in self.joins.list_joins(sv.ListJoinsRequest(selector=about), context, CALLER):
                    found += [sv.Event(join=one) for one in joins.joins]
            case _:
                raise AssertionError(kind)
        return {key_of(one)[1:]: getattr(one, kind) for one in found}


class Client:
    """A client that watches, goes away, and comes back with its last token; what it knows is built from events alone."""

    def __init__(self, **request: Any) -> None:
        """Watch nothing yet; `request` are fields of WatchRequest."""
        self.request = sv.WatchRequest(**request)
        self.view = View()
        self.context = FakeContext()
        self.task: asyncio.Task[None] | None = None

    def connect(self, server: Server, room: int = _UNLIMITED) -> None:
        """Call, with the last token if there is one."""
        request = sv.WatchRequest()
        request.CopyFrom(self.request)
        if self.view.token:
            request.resume_token = self.view.token
        self.context = FakeContext(room)
        self.view.synced = False
        self.task = spawn(server.events.watch(request, self.context.as_context(), CALLER), "watch")

    @property
    def connected(self) -> bool:
        """Whether the call is under way."""
        return self.task is not None and not self.task.done()

    async def disconnect(self) -> None:
        """End the call; what was not read is lost."""
        task, self.task = self.task, None
        if task is not None:
            await cancel(task)
        self.context.written.clear()

    def read(self, count: int = _UNLIMITED) -> int:
        """Read as many messages; how many there were."""
        for done in range(count):
            message = self.context.read()
            if message is None:
                return done
            self.view.take(message)
        return count


async def turns(count: int) -> None:
    """Let everything else run so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def rest(*clients: Client) -> None:
    """Let all read until nobody has anything more to tell."""
    idle = 0
    while idle < 20:
        await asyncio.sleep(0)
        idle = 0 if sum(client.read() for client in clients) else idle + 1
