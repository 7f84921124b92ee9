"""The gRPC servers: one for each socket, all serving the same daemon, each with its callers' access and owner."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from mcastd.api import binding, openly, reflection
from mcastd.api.audit import Audit
from mcastd.api.drain import Drain
from mcastd.api.openly import Openly
from mcastd.api.ports import Callers, DaemonPort, RpcObserver
from mcastd.api.principals import SocketCallers
from mcastd.api.quotas import Quotas
from mcastd.api.routes import RouteService
from mcastd.api.sockets import ApiSockets
from mcastd.api.watch import EventService
from mcastd.model.errors import McastdError
from mcastd.model.settings import Listen, Remote

_log = logging.getLogger(__name__)


class Listeners:
    """All sockets on which the API is offered."""

    def __init__(self, daemon: DaemonPort, listens: Sequence[Listen] | ApiSockets, observer: RpcObserver | None = None) -> None:
        """Serve on these sockets, which may be bound already; the observer, if any, is told of each call."""
        self._sockets = listens if isinstance(listens, ApiSockets) else ApiSockets(listens)
        self._drain = Drain()
        self._serving = False
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined] # The stubs lack it.
        names = [service.full_name for service in binding.services()]
        objects = binding.handlers(daemon)
        self._events = objects["EventService"]
        self._routes = objects["RouteService"]
        self._names = ["", *names]
        self._served = ["", *(service.full_name for service in binding.services() if service.name in objects)]
        reflected = reflection.bind([*names, health.SERVICE_NAME])
        audit = Audit()
        open_to_all = Quotas(lambda _: openly.QUOTA, settings=(openly.WHERE, openly.WHERE))
        for server, listen in self._sockets:
            callers = self._callers(daemon, listen)
            server.add_generic_rpc_handlers(binding.bind(objects, callers, observer, self._drain, audit))
            others = Openly(server, open_to_all) if callers.limited else server
            others.add_generic_rpc_handlers(reflected)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, others)

    async def start(self) -> None:
        """Put the sockets in their places, which the keeper's lock has made sure of; health says NOT_SERVING until `serving`."""
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._sockets.publish()
        for server, listen in self._sockets:
            if isinstance(listen, Listen):
                await server.start()

    @staticmethod
    def _callers(daemon: DaemonPort, listen: Listen | Remote) -> Callers:
        return daemon.principals if isinstance(listen, Remote) and listen.cert else SocketCallers(listen)

    def watchers(self) -> tuple[int, int, Mapping[str, int]]:
        """How many watch streams are open, how many objects wait for them, and how many could not just go on, by reason."""
        if not isinstance(self._events, EventService):
            return 0, 0, {}
        hub = self._events.hub
        return len(hub), sum(one.pending for one in hub.subscribers()), {why.value: n for why, n in hub.resyncs.items()}

    def sessions(self) -> int:
        """How many sessions are up."""
        return len(self._routes.sessions) if isinstance(self._routes, RouteService) else 0

    async def serving(self) -> None:
        """All is ready, but for services of which this version has nothing. TCP clients wait till now: principals are known."""
        for name in self._served:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._serving = True
        for server, listen in self._sockets:
            if isinstance(listen, Remote) and self._sockets.bound(listen):
                await server.start()

    async def start_late(self) -> None:
        """Serve at TCP addresses whose certificates have become good since; nothing before the others serve."""
        if not self._serving:
            return
        try:
            servers = self._sockets.bind_remotes()
        except McastdError as exc:
            _log.error("an address can't be served", extra={"reason": exc.reason.value, "error": str(exc)})
            return
        for server in servers:
            await server.start()

    async def hand_over(self, seat: int, grace: float) -> None:
        """Let the server in this seat have the paths, end streams as `stop` does, and refuse new calls. No stop comes after it.

        Calls under way have `grace` seconds; connections are left for the process's end to close.
        """
        self._serving = False
        self._sockets.hand_over(seat)
        await self._end_streams()
        self._drain.close()
        if not await self._drain.drained(grace):
            _log.warning("calls under way are cut off", extra={"seconds": grace})

    async def stop(self, grace: float) -> None:
        """Health first; watchers get their last token, sessions their last acks; then calls under way have `grace` seconds."""
        self._serving = False
        await self._end_streams()
        await asyncio.gather(*(server.stop(grace) for server, _ in self._sockets))

    async def _end_streams(self) -> None:
        await self._health.enter_graceful_shutdown()
        if isinstance(self._events, EventService):
            self._events.hub.end()
        if isinstance(self._routes, RouteService):
            self._routes.sessions.end()
