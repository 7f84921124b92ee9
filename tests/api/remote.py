"""A daemon in the test's process that is offered over TLS on loopback too, and clients with certificates."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import grpc

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import route_service_pb2_grpc as rs_grpc
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from mcastd.model.principal import Principal
from mcastd.model.settings import Access, Remote
from tests.api.rig import Rig, running
from tests.pki import Credentials, Pki
from tests.testbed.daemon import route

LOOPBACK = {4: "127.0.0.1", 6: "::1"}


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody has at the moment."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Client:
    """Stubs on one connection of its own; use it as a context."""

    def __init__(self, remote: Remote, credentials: grpc.ChannelCredentials) -> None:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 200))
        self.channel = grpc.aio.secure_channel(remote.target, credentials, options=options)
        self.routes = rs_grpc.RouteServiceStub(self.channel)
        self.events = sv_grpc.EventServiceStub(self.channel)
        self.daemon = sv_grpc.DaemonServiceStub(self.channel)
        self.joins = sv_grpc.JoinServiceStub(self.channel)
        self.interfaces = sv_grpc.InterfaceServiceStub(self.channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close(None)

    async def status(self) -> sv.GetStatusResponse:
        """GetStatus."""
        answer: sv.GetStatusResponse = await self.daemon.GetStatus(sv.GetStatusRequest(), timeout=10)
        return answer

    async def put(self, *routes: t.Route, **options: object) -> rs.WriteResult:
        """PutRoutes."""
        request = rs.PutRoutesRequest(routes=routes, options=rs.WriteOptions(**options))  # type: ignore[arg-type]
        answer: rs.PutRoutesResponse = await self.routes.PutRoutes(request, timeout=10)
        return answer.result

    def watch(self) -> Any:
        """Follow routes from now on."""
        return self.events.Watch(sv.WatchRequest())

    def session(self) -> Any:
        """A session's stream, of which nothing is sent yet."""
        program: Any = self.routes.ProgramRoutes
        return program()


class Remotely:
    """The rig, its CA, and its address."""

    def __init__(self, directory: Path, family: int = 4) -> None:
        self.pki = Pki(directory / "tls")
        self.remote = self.pki.remote(free_port(LOOPBACK[family]), LOOPBACK[family])
        self.rig = Rig(directory, remotes=[self.remote])
        (self.certificates,) = self.rig.listeners._sockets.certificates

    def principals(self, **access: Access | Principal) -> None:
        """These and no others: by name, with an owner of that name."""
        self.rig.daemon.principals.replace(
            {name: one if isinstance(one, Principal) else Principal(name, one, name) for name, one in access.items()}
        )

    def client(self, who: str | Credentials | None, ca: Path | None = None) -> Client:
        """A client with a good certificate of this name, with the one given, or with none."""
        credentials = self.pki.named(who) if isinstance(who, str) else who
        return Client(self.remote, self.pki.credentials(credentials, ca))


@asynccontextmanager
async def remotely(directory: Path, family: int = 4) -> AsyncIterator[Remotely]:
    """Serve; principals are alice (write), eve (view) and root (admin)."""
    found = Remotely(directory, family)
    async with running(found.rig):
        found.principals(alice=Access.WRITE, eve=Access.VIEW, root=Access.ADMIN)
        yield found


def flow(number: int) -> t.Route:
    """A route by number."""
    return route(f"232.1.{number >> 8}.{number & 255}", "10.0.0.1", "up", "down1")
