"""What API tests share: a real daemon in a namespace with a socket of each access level, and errors taken apart."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2_grpc

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import route_service_pb2_grpc as rs_grpc
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, route

DOMAIN = "mcastd"
MESSAGE_MAX = 4 << 20

GROUPS = {4: "239.1.{}.{}", 6: "ff3e::1:{:x}:{:x}"}
SOURCES = {4: "10.0.0.1", 6: "fd00::1"}


class Client:
    """Stubs of every service on one socket; answers over 4 MiB are errors here, as with gRPC's defaults."""

    def __init__(self, path: Path) -> None:
        # A pool of its own: channels to one address would share a connection otherwise.
        options = (("grpc.max_receive_message_length", MESSAGE_MAX), ("grpc.use_local_subchannel_pool", 1))
        self.channel = grpc.insecure_channel(f"unix:{path}", options=options)
        self.routes = rs_grpc.RouteServiceStub(self.channel)
        self.joins = sv_grpc.JoinServiceStub(self.channel)
        self.interfaces = sv_grpc.InterfaceServiceStub(self.channel)
        self.events = sv_grpc.EventServiceStub(self.channel)
        self.daemon = sv_grpc.DaemonServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def close(self) -> None:
        """Hang up."""
        self.channel.close()

    def put(self, *routes: t.Route, return_changes: bool = False, **options: Any) -> rs.WriteResult:
        """PutRoutes; `options` are those of WriteOptions."""
        request = rs.PutRoutesRequest(routes=routes, options=rs.WriteOptions(**options), return_changes=return_changes)
        return self.routes.PutRoutes(request, timeout=60).result

    def patch(self, *patches: t.RoutePatch, **options: Any) -> rs.WriteResult:
        """PatchRoutes."""
        request = rs.PatchRoutesRequest(patches=patches, options=rs.WriteOptions(**options))
        return self.routes.PatchRoutes(request, timeout=60).result

    def delete(self, *keys: t.RouteKey, **request: Any) -> rs.WriteResult:
        """DeleteRoutes."""
        return self.routes.DeleteRoutes(rs.DeleteRoutesRequest(keys=keys, **request), timeout=60).result

    def replace(self, routes: Iterable[t.Route], **header: Any) -> rs.WriteResult:
        """ReplaceRoutes in chunks of 1,000; `header` are the fields of its header."""
        return self.routes.ReplaceRoutes(stream(routes, **header), timeout=120).result

    def chunks(self, **request: Any) -> list[rs.ListRoutesResponse]:
        """ListRoutes."""
        return list(self.routes.ListRoutes(rs.ListRoutesRequest(**request), timeout=60))

    def listed(self, **request: Any) -> list[t.Route]:
        """ListRoutes, all chunks together."""
        return [one for chunk in self.chunks(**request) for one in chunk.routes]

    def status(self) -> sv.GetStatusResponse:
        """GetStatus."""
        return self.daemon.GetStatus(sv.GetStatusRequest(), timeout=10)


def stream(routes: Iterable[t.Route], chunk: int = 1000, **header: Any) -> Iterator[rs.ReplaceRoutesRequest]:
    """The messages of a ReplaceRoutes."""
    yield rs.ReplaceRoutesRequest(header=rs.ReplaceRoutesRequest.Header(**header))
    part = list(routes)
    for at in range(0, len(part), chunk):
        yield rs.ReplaceRoutesRequest(chunk=rs.ReplaceRoutesRequest.Chunk(routes=part[at : at + chunk]))


class Bench:
    """A daemon on a router of a star (up, down1, down2), and a client of each access level."""

    def __init__(self, bed: Testbed, directory: Path, *arguments: str) -> None:
        self.star = bed.star(receivers=2)
        self.router = self.star.router
        run = directory / "run"
        config = directory / "mcastd.toml"
        config.touch(0o644)
        self.daemon = McastdProcess(
            self.router,
            directory,
            *("--listen", f"unix:{run}/write.sock,access=write,owner=alice"),
            *("--listen", f"unix:{run}/view.sock,access=view,owner=eve"),
            *("--config", str(config)),
            *arguments,
        )
        self.admin = Client(self.daemon.socket)
        self.write = Client(run / "write.sock")
        self.view = Client(run / "view.sock")

    def close(self) -> None:
        """End the daemon."""
        for client in (self.admin, self.write, self.view):
            client.close()
        self.daemon.close()

    def clean(self) -> None:
        """Take every route away."""
        self.admin.delete(all=True, options=rs.WriteOptions(take_over=True))

    def snapshot(self) -> tuple[int, list[t.Route]]:
        """What must be equal before and after a request that changes nothing."""
        return self.admin.status().revision, self.admin.listed()


def bench_context(directory: AbstractContextManager[Path], *arguments: str) -> Iterator[Bench]:
    """A bench in a network of its own."""
    with ExitStack() as stack:
        bed = stack.enter_context(Testbed())
        bench = Bench(bed, stack.enter_context(directory), *arguments)
        stack.callback(bench.close)
        yield bench


# --- routes ----------------------------------------------------------------------------------------------------------


def group(number: int, family: int = 4) -> str:
    """A group by number, 1 to 65,535."""
    return GROUPS[family].format(number >> 8, number & 0xFF)


def good(number: int = 1, family: int = 4, *oifs: str, **fields: Any) -> t.Route:
    """A route that the bench's kernel takes."""
    return route(group(number, family), SOURCES[family], "up", *(oifs or ("down1",)), **fields)


def key_of(one: t.Route) -> t.RouteKey:
    """The key of a route."""
    return t.RouteKey(group=one.group, source=one.source, iif=one.iif, table=one.table)


def intents(routes: Iterable[t.Route]) -> list[t.Route]:
    """The routes without what is output only."""
    out = []
    for one in routes:
        copy = t.Route()
        copy.CopyFrom(one)
        copy.ClearField("status")
        out.append(copy)
    return out


# --- errors ----------------------------------------------------------------------------------------------------------


@dataclass
class Refusal:
    """A failed RPC, taken apart."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    domain: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    """google.rpc.BadRequest: descriptions by field."""
    retry_seconds: float | None = None


def refusal(error: grpc.RpcError) -> Refusal:
    """Take an error apart; the details in its trailer must say what the status says."""
    call: Any = error  # of either client: both have what grpc.Call has, in types of their own
    result = Refusal(call.code(), call.details() or "")
    for key, value in call.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        status = status_pb2.Status.FromString(value)
        assert (status.code, status.message) == (result.code.value[0], result.message)
        for detail in status.details:
            _read(detail, result)
    return result


def _read(detail: Any, result: Refusal) -> None:
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    if detail.Unpack(info):
        result.reason, result.domain, result.metadata = info.reason, info.domain, dict(info.metadata)
    elif detail.Unpack(bad):
        result.fields = {violation.field: violation.description for violation in bad.field_violations}
    elif detail.Unpack(retry):
        result.retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    else:
        raise AssertionError(f"an unknown detail: {detail.type_url}")


def refused(call: Callable[[], object]) -> Refusal:
    """Make a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return refusal(caught.value)
