"""Owns the request messages: what the arguments of both clients' methods become."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TypedDict, cast

from google.protobuf.duration_pb2 import Duration

from mcast.client.errors import ConfigurationError
from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t

_SECONDS_MAX = 315_576_000_000
"""The longest Duration, 10,000 years."""

CHUNK = 1000
"""Routes in one message of a stream."""

Routes = t.Route | Iterable[t.Route]
Patches = t.RoutePatch | Iterable[t.RoutePatch]
Keys = t.RouteKey | Iterable[t.RouteKey]
Joins = t.Join | Iterable[t.Join]
Kinds = sv.Kind | str | Iterable[sv.Kind | str]


class Options(TypedDict, total=False):
    """What every write can say; see WriteOptions of the contract."""

    owner: str
    """Act for this owner; empty = the owner that the daemon's configuration gives this caller."""
    epoch: int
    """Fencing number of the owner's leader."""
    validate_only: bool
    """Check and report; change nothing."""
    take_over: bool
    """Take over entries of other owners; needs admin access."""
    all_or_nothing: bool
    """Undo everything if one item fails."""
    if_revision: int
    """Refuse if what the owner asks for has changed since this `Owner.revision`."""


def put(routes: Routes, options: Options, *, return_changes: bool) -> rs.PutRoutesRequest:
    """PutRoutes."""
    many = [routes] if isinstance(routes, t.Route) else routes
    return rs.PutRoutesRequest(routes=many, options=rs.WriteOptions(**options), return_changes=return_changes)


def patch(patches: Patches, options: Options) -> rs.PatchRoutesRequest:
    """PatchRoutes."""
    many = [patches] if isinstance(patches, t.RoutePatch) else patches
    return rs.PatchRoutesRequest(patches=many, options=rs.WriteOptions(**options))


def delete(keys: Keys, selector: t.Selector | None, everything: bool, options: Options) -> rs.DeleteRoutesRequest:
    """DeleteRoutes."""
    many = [keys] if isinstance(keys, t.RouteKey) else keys
    return rs.DeleteRoutesRequest(keys=many, selector=selector, all=everything, options=rs.WriteOptions(**options))


def header(options: Options, cookie: str, max_deletions: int, *, allow_empty: bool, every: bool) -> rs.ReplaceRoutesRequest:
    """First message of ReplaceRoutes."""
    said = rs.ReplaceRoutesRequest.Header(
        options=rs.WriteOptions(**options),
        cookie=cookie,
        allow_empty=allow_empty,
        max_deletions=max_deletions,
        return_changes=every,
    )
    return rs.ReplaceRoutesRequest(header=said)


def replace(first: rs.ReplaceRoutesRequest, routes: Iterable[t.Route]) -> Iterator[rs.ReplaceRoutesRequest]:
    """Yield the messages of ReplaceRoutes."""
    yield first
    part: list[t.Route] = []
    for route in routes:
        part.append(route)
        if len(part) == CHUNK:
            yield _chunk(part)
            part = []
    if part:
        yield _chunk(part)


async def replace_async(first: rs.ReplaceRoutesRequest, routes: AsyncIterable[t.Route]) -> AsyncIterator[rs.ReplaceRoutesRequest]:
    """Yield the messages of ReplaceRoutes from an asynchronous source."""
    yield first
    part: list[t.Route] = []
    async for route in routes:
        part.append(route)
        if len(part) == CHUNK:
            yield _chunk(part)
            part = []
    if part:
        yield _chunk(part)


def list_routes(
    selector: t.Selector | None, counters: bool, max_age: float | None, limit: int, learned: bool
) -> rs.ListRoutesRequest:
    """ListRoutes."""
    age = None if max_age is None else duration(max_age)
    return rs.ListRoutesRequest(selector=selector, counters=counters, max_age=age, limit=limit, learned=learned)


def put_joins(joins: Joins, options: Options) -> sv.PutJoinsRequest:
    """PutJoins."""
    return sv.PutJoinsRequest(joins=[joins] if isinstance(joins, t.Join) else joins, options=rs.WriteOptions(**options))


def delete_joins(joins: Joins, options: Options) -> sv.DeleteJoinsRequest:
    """DeleteJoins."""
    return sv.DeleteJoinsRequest(joins=[joins] if isinstance(joins, t.Join) else joins, options=rs.WriteOptions(**options))


def set_interface(
    name: str,
    pinned: bool | None,
    ttl_threshold: int | None,
    router_discovery: bool | None,
    table: int,
    options: Options,
) -> sv.SetInterfaceRequest:
    """SetInterface; None = leave it as it is."""
    request = sv.SetInterfaceRequest(interface=name, table=table, options=rs.WriteOptions(**options))
    if pinned is not None:
        request.pinned = pinned
    if ttl_threshold is not None:
        request.ttl_threshold = ttl_threshold
    if router_discovery is not None:
        request.router_discovery = router_discovery
    return request


def watch(
    kinds: Kinds,
    selector: t.Selector | None,
    resume_token: str,
    changes_only: bool,
    sample_interval: float | None,
    heartbeat_interval: float | None,
) -> sv.WatchRequest:
    """Watch; intervals in seconds."""
    many = [kinds] if isinstance(kinds, (str, int)) else kinds
    return sv.WatchRequest(
        kinds=[_kind(one) for one in many],
        selector=selector,
        resume_token=resume_token,
        changes_only=changes_only,
        sample_interval=None if sample_interval is None else duration(sample_interval),
        heartbeat_interval=None if heartbeat_interval is None else duration(heartbeat_interval),
    )


def duration(seconds: float) -> Duration:
    """Seconds as the contract takes them; ConfigurationError for what is no such number."""
    if not abs(seconds) <= _SECONDS_MAX:  # also where it is no number at all
        raise ConfigurationError(f"{seconds} can't be used as seconds: give a number of at most {_SECONDS_MAX}")
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def _kind(said: sv.Kind | str) -> sv.Kind:
    if not isinstance(said, str):
        return said
    name = f"KIND_{said.upper()}"
    if name not in sv.Kind.keys():  # noqa: SIM118 - an enum wrapper, no mapping
        words = ", ".join(one.removeprefix("KIND_").lower() for one in sv.Kind.keys()[1:])
        raise ConfigurationError(f"kind {said!r} is unknown: choose from {words}")
    return cast("sv.Kind", sv.Kind.Value(name))


def _chunk(routes: list[t.Route]) -> rs.ReplaceRoutesRequest:
    return rs.ReplaceRoutesRequest(chunk=rs.ReplaceRoutesRequest.Chunk(routes=routes))
