"""What the demo asks of mcastd, and nothing else in the demo speaks gRPC: routes go in and come out as plain values."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from google.protobuf.duration_pb2 import Duration

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from tests.testbed.daemon import McastdProcess
from tests.testbed.daemon import route as route_message

DEADLINE = 10.0
"""Seconds that mcastd has for an answer."""

PUT = "RouteService.PutRoutes"
PATCH = "RouteService.PatchRoutes"
LIST = "RouteService.ListRoutes"
SHUTDOWN = "DaemonService.Shutdown"


class CallError(Exception):
    """mcastd did not answer, or refused."""


@dataclass(frozen=True)
class Route:
    """A route: what is asked for, and what mcastd says of it."""

    group: str
    source: str
    iif: str
    oifs: tuple[str, ...]
    state: str = ""
    """PROGRAMMED, PARTIAL, PENDING or FAILED; empty = not asked yet."""
    reason: str = ""
    """Why it is not PROGRAMMED."""
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Written:
    """What came of a write."""

    created: int
    updated: int
    exceptions: tuple[str, ...]
    """Routes that the kernel does not forward exactly as asked, each with its reason."""


class Controller:
    """A program that drives mcastd."""

    def __init__(self, mcastd: McastdProcess) -> None:
        self._mcastd = mcastd

    def put(self, routes: Sequence[Route]) -> Written:
        """Create or replace routes."""
        messages = [route_message(route.group, route.source, route.iif, *route.oifs) for route in routes]
        with _named(PUT):
            return _written(self._mcastd.routes.PutRoutes(rs.PutRoutesRequest(routes=messages), timeout=DEADLINE).result)

    def remove_oif(self, route: Route, oif: str) -> Written:
        """Take one outgoing interface off a route, whatever the others are."""
        patch = t.RoutePatch(key=t.RouteKey(group=route.group, source=route.source), remove_oifs=[oif])
        with _named(PATCH):
            return _written(self._mcastd.routes.PatchRoutes(rs.PatchRoutesRequest(patches=[patch]), timeout=DEADLINE).result)

    def routes(self) -> list[Route]:
        """All routes, with what the kernel has counted by now."""
        request = rs.ListRoutesRequest(counters=True, max_age=Duration())
        with _named(LIST):
            answers = list(self._mcastd.routes.ListRoutes(request, timeout=DEADLINE))
        return [_route(message) for answer in answers for message in answer.routes]

    def shutdown(self) -> None:
        """End mcastd in order."""
        with _named(SHUTDOWN):
            self._mcastd.daemon.Shutdown(sv.ShutdownRequest(), timeout=DEADLINE)


@contextmanager
def _named(method: str) -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as exc:
        said = f"{exc.code().name}: {exc.details()}" if hasattr(exc, "code") and hasattr(exc, "details") else str(exc)
        raise CallError(f"{method}: {said}") from exc


def _written(result: rs.WriteResult) -> Written:
    exceptions = (f"{(one.after.group or one.before.group)}: {one.error.reason} {one.error.message}" for one in result.changes)
    return Written(result.created, result.updated, tuple(exceptions))


def _route(message: t.Route) -> Route:
    status = message.status
    return Route(
        group=message.group,
        source=message.source,
        iif=message.iif,
        oifs=tuple(sorted(status.installed_oifs)),
        state=t.RouteState.Name(status.state).removeprefix("ROUTE_STATE_"),
        reason=status.last_error.reason,
        packets=status.counters.packets,
        bytes=status.counters.bytes,
    )
