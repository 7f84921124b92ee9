"""The gRPC servers: one for each socket, all serving the same daemon, each with its callers' access and owner."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from mcastd.api import binding, reflection
from mcastd.api.ports import Caller, DaemonPort, RpcObserver
from mcastd.api.watch import EventService
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import Listen

RECEIVE_MAX = 4 * 1024 * 1024
"""Bytes of one request message; beyond it gRPC itself answers RESOURCE_EXHAUSTED."""

OPTIONS = (
    ("grpc.so_reuseport", 0),  # Two servers on one address must be an error.
    ("grpc.max_receive_message_length", RECEIVE_MAX),
    # Half-open connections are found within 15 s, and clients may ping every 5 s (the defaults are 2 hours and 5 minutes).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)


class Listeners:
    """All sockets on which the API is offered."""

    def __init__(self, daemon: DaemonPort, listens: Sequence[Listen], observer: RpcObserver | None = None) -> None:
        """Bind nothing yet; the observer, if any, is told of each call."""
        self._listens = listens
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined] # The stubs lack it.
        names = [service.full_name for service in binding.services()]
        objects = binding.handlers(daemon)
        self._events = objects["EventService"]
        self._names = ["", *names]
        self._served = ["", *(service.full_name for service in binding.services() if service.name in objects)]
        reflected = reflection.bind([*names, health.SERVICE_NAME])
        self._servers: list[grpc.aio.Server] = []
        for listen in listens:
            server = grpc.aio.server(options=OPTIONS)
            server.add_generic_rpc_handlers((*binding.bind(objects, Caller(listen.access, listen.owner), observer), *reflected))
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            self._servers.append(server)

    async def start(self) -> None:
        """Bind the sockets and serve; health says NOT_SERVING until `serving`. The keeper's lock has made sure of the paths."""
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        for server, listen in zip(self._servers, self._listens, strict=True):
            _bind(server, listen)
            await server.start()

    def watchers(self) -> tuple[int, int, Mapping[str, int]]:
        """How many watch streams are open, how many objects wait for them, and how many could not just go on, by reason."""
        if not isinstance(self._events, EventService):
            return 0, 0, {}
        hub = self._events.hub
        return len(hub), sum(one.pending for one in hub.subscribers()), {why.value: n for why, n in hub.resyncs.items()}

    async def serving(self) -> None:
        """All is ready, but for the services of which this version has nothing."""
        for name in self._served:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace: float) -> None:
        """Health first; watchers get their last token; then no new calls, and those under way have `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        if isinstance(self._events, EventService):
            self._events.hub.end()
        await asyncio.gather(*(server.stop(grace) for server in self._servers))


def _bind(server: grpc.aio.Server, listen: Listen) -> None:
    """Make the socket with its mode and group from the start: nobody can connect in between who may not."""
    before = os.umask(0o777)
    try:
        server.add_insecure_port(listen.address)
    except RuntimeError as exc:
        text = f"{listen.address} can't be bound: {exc}; does its directory exist, and may the server's user write there?"
        raise McastdError(Reason.NOT_ALLOWED, text, address=listen.address) from exc
    finally:
        os.umask(before)
    path = Path(listen.path)
    if listen.gid is not None:
        os.chown(path, -1, listen.gid)
    path.chmod(listen.mode)
