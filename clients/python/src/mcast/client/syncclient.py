"""Owns the client for threads: every RPC of the contract as a method, on gRPC's synchronous stack. aioclient.py has the same."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar, Unpack

from mcast.client import requests
from mcast.client.aioclient import STREAM_SECONDS, UNARY_SECONDS
from mcast.client.errors import McastError
from mcast.client.events import Delete, Put
from mcast.client.links import Deadline
from mcast.client.requests import Joins, Keys, Kinds, Options, Patches, Routes
from mcast.client.results import JoinResult, OpResult, Snapshot, WriteResult
from mcast.client.session import Lease, Settings, opening
from mcast.client.synclinks import Stubs, SyncLinks
from mcast.client.syncsession import SyncSession
from mcast.client.syncwatch import SyncView, SyncWatch
from mcast.client.target import DEFAULT_ADDRESS, Backoff, Keepalive, Target, Tls
from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t

A = TypeVar("A")

_Written = rs.PutRoutesResponse | rs.PatchRoutesResponse | rs.DeleteRoutesResponse | rs.ReplaceRoutesResponse
_Interfaces = list[t.Interface]
_Routes = list[t.Route]


class SyncClient:
    """A client of one daemon, for any number of threads; use it as a context.

    With `wait_for_ready` (the default) a call waits for the connection, until its deadline; watches and sessions wait for ever.
    Without it what finds no daemon fails at the first attempt. Calls that change nothing when repeated are repeated when the
    connection breaks, until their deadline: all but `shutdown` and writes with `if_revision`.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        tls: Tls | None = None,
        *,
        timeout: float = UNARY_SECONDS,
        wait_for_ready: bool = True,
        backoff: Backoff | None = None,
        keepalive: Keepalive | None = None,
    ) -> None:
        self._target = Target(address, tls, keepalive or Keepalive())
        self._timeout = timeout
        self._wait = wait_for_ready
        self._backoff = backoff or Backoff()
        self._calls = SyncLinks(self._target, self._backoff)
        self._watches = SyncLinks(self._target, self._backoff, watching=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Where the daemon is."""
        return self._target.address

    def close(self) -> None:
        """Hang up; calls that are under way fail."""
        self._calls.close()
        self._watches.close()

    # --- routes ------------------------------------------------------------------------------------------------------

    def put(
        self, routes: Routes, *, return_changes: bool = False, timeout: float | None = None, **options: Unpack[Options]
    ) -> WriteResult:
        """Create or replace routes, at most 10,000; answers when the kernel has taken each, or refused it."""
        request = requests.put(routes, options, return_changes=return_changes)
        return self._write_routes(lambda s, left: s.routes.PutRoutes(request, timeout=left), timeout, options)

    def patch(self, patches: Patches, *, timeout: float | None = None, **options: Unpack[Options]) -> WriteResult:
        """Add and remove outgoing interfaces of existing routes."""
        request = requests.patch(patches, options)
        return self._write_routes(lambda s, left: s.routes.PatchRoutes(request, timeout=left), timeout, options)

    def delete(
        self,
        keys: Keys = (),
        *,
        selector: t.Selector | None = None,
        all: bool = False,  # noqa: A002 - the contract's name
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> WriteResult:
        """Delete routes by key, by selector, or all; what does not exist is deleted well."""
        request = requests.delete(keys, selector, all, options)
        return self._write_routes(lambda s, left: s.routes.DeleteRoutes(request, timeout=left), timeout, options)

    def replace(
        self,
        routes: Iterable[t.Route],
        *,
        cookie: str = "",
        allow_empty: bool = False,
        max_deletions: int = 0,
        return_changes: bool = False,
        timeout: float = STREAM_SECONDS,
        **options: Unpack[Options],
    ) -> WriteResult:
        """Make the owner's routes (or those with a cookie) exactly these, any number of them; what is the same is not touched."""
        first = requests.header(options, cookie, max_deletions, allow_empty=allow_empty, every=return_changes)
        messages = list(requests.replace(first, routes))
        return self._write_routes(lambda s, left: s.routes.ReplaceRoutes(iter(messages), timeout=left), timeout, options)

    def list(
        self,
        selector: t.Selector | None = None,
        *,
        counters: bool = False,
        max_age: float | None = None,
        limit: int = 0,
        learned: bool = False,
        timeout: float = STREAM_SECONDS,
    ) -> Iterator[t.Route]:
        """Yield routes as they were at one revision; `max_age` in seconds."""
        request = requests.list_routes(selector, counters, max_age, limit, learned)
        for chunk in self._chunks(lambda s, left: s.routes.ListRoutes(request, timeout=left), timeout):
            yield from chunk.routes

    def snapshot(
        self,
        selector: t.Selector | None = None,
        *,
        counters: bool = False,
        max_age: float | None = None,
        learned: bool = False,
        timeout: float = STREAM_SECONDS,
    ) -> Snapshot:
        """List routes, with the token from which `watch` goes on without a gap."""
        request = requests.list_routes(selector, counters, max_age, 0, learned)
        routes: _Routes = []
        revision, token = 0, ""
        for chunk in self._chunks(lambda s, left: s.routes.ListRoutes(request, timeout=left), timeout):
            routes += chunk.routes
            revision, token = chunk.revision, chunk.resume_token or token
        return Snapshot(routes, revision, token)

    def flush_learned(self, selector: t.Selector | None = None, *, timeout: float | None = None) -> int:
        """Remove entries that templates have made; how many."""
        request = rs.FlushLearnedRequest(selector=selector)
        return (self._call(lambda s, left: s.routes.FlushLearned(request, timeout=left), timeout)).removed

    # --- joins, interfaces, sources, daemon --------------------------------------------------------------------------

    def put_joins(self, joins: Joins, *, timeout: float | None = None, **options: Unpack[Options]) -> JoinResult:
        """Join groups."""
        request = requests.put_joins(joins, options)
        answer = self._write(lambda s, left: s.joins.PutJoins(request, timeout=left), timeout, options)
        return JoinResult(answer.revision, [*answer.joins])

    def delete_joins(self, joins: Joins, *, timeout: float | None = None, **options: Unpack[Options]) -> int:
        """Leave groups; the revision after."""
        request = requests.delete_joins(joins, options)
        return (self._write(lambda s, left: s.joins.DeleteJoins(request, timeout=left), timeout, options)).revision

    def joins(self, selector: t.Selector | None = None, *, timeout: float = STREAM_SECONDS) -> Iterator[t.Join]:
        """Yield joins, those that routes make included."""
        request = sv.ListJoinsRequest(selector=selector)
        for chunk in self._chunks(lambda s, left: s.joins.ListJoins(request, timeout=left), timeout):
            yield from chunk.joins

    def interfaces(self, name: str = "", *, timeout: float | None = None) -> _Interfaces:
        """List interfaces, by name or glob; empty = all."""
        request = sv.ListInterfacesRequest(interface=name)
        return [*(self._call(lambda s, left: s.interfaces.ListInterfaces(request, timeout=left), timeout)).interfaces]

    def set_interface(
        self,
        name: str,
        *,
        pinned: bool | None = None,
        ttl_threshold: int | None = None,
        router_discovery: bool | None = None,
        table: int = 0,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> t.Interface:
        """Change an interface's settings; None = leave as it is."""
        request = requests.set_interface(name, pinned, ttl_threshold, router_discovery, table, options)
        return (self._write(lambda s, left: s.interfaces.SetInterface(request, timeout=left), timeout, options)).interface

    def sources(self, selector: t.Selector | None = None, *, timeout: float = STREAM_SECONDS) -> Iterator[t.Source]:
        """Yield traffic that no route forwards as it should."""
        request = sv.ListSourcesRequest(selector=selector)
        for chunk in self._chunks(lambda s, left: s.events.ListSources(request, timeout=left), timeout):
            yield from chunk.sources

    def status(self, *, timeout: float | None = None) -> sv.GetStatusResponse:
        """Version, limits, owners, subscribers."""
        return self._call(lambda s, left: s.daemon.GetStatus(sv.GetStatusRequest(), timeout=left), timeout)

    def reload(self, *, validate_only: bool = False, timeout: float | None = None) -> sv.ReloadConfigurationResponse:
        """Read the configuration file again."""
        request = sv.ReloadConfigurationRequest(validate_only=validate_only)
        return self._call(lambda s, left: s.daemon.ReloadConfiguration(request, timeout=left), timeout)

    def shutdown(self, *, keep_forwarding: bool = False, timeout: float | None = None) -> None:
        """End the daemon in order."""
        request = sv.ShutdownRequest(keep_forwarding=keep_forwarding)
        self._call(lambda s, left: s.daemon.Shutdown(request, timeout=left), timeout, again=False)

    # --- streams -----------------------------------------------------------------------------------------------------

    def watch(
        self,
        kinds: Kinds = (),
        selector: t.Selector | None = None,
        *,
        resume_token: str = "",
        changes_only: bool = False,
        sample_interval: float | None = None,
        heartbeat_interval: float | None = None,
    ) -> SyncWatch:
        """Follow what changes: an iterator of events that reconnects and resumes by itself.

        Kinds are words ("route", "source") or numbers of the contract; none = route, interface and source. Intervals in seconds.
        """
        request = requests.watch(kinds, selector, resume_token, changes_only, sample_interval, heartbeat_interval)
        return SyncWatch(self._watches, request, self._backoff, wait=self._wait)

    def view(
        self,
        kinds: Kinds = (),
        selector: t.Selector | None = None,
        *,
        sample_interval: float | None = None,
        on_event: Callable[[Put | Delete], None] | None = None,
    ) -> SyncView:
        """Keep what changes up to date in memory; `on_event` is called for each change of it, in a thread of its own."""
        return SyncView(self.watch(kinds, selector, sample_interval=sample_interval), on_event)

    def program(
        self,
        owner: str = "",
        epoch: int = 0,
        lease: Lease | None = None,
        *,
        keep: bool = True,
        on_exception: Callable[[OpResult], None] | None = None,
        close_timeout: float = UNARY_SECONDS,
    ) -> SyncSession:
        """Program routes over a session that carries ownership and liveness: a context.

        `keep`: what was put is remembered, and said again on each new stream. `on_exception` is called for each operation that
        was refused or whose route is not PROGRAMMED, in a thread of its own; without it `flush` returns them.
        """
        said = opening(owner, epoch, lease or Lease())
        settings = Settings(said, keep, on_exception, close_timeout, self._backoff, self._wait)
        return SyncSession(self._calls, settings)

    # --- calls -------------------------------------------------------------------------------------------------------

    def _write_routes(self, call: Callable[[Stubs, float], _Written], timeout: float | None, options: Options) -> WriteResult:
        return WriteResult(self._write(call, timeout, options).result)

    def _write(self, call: Callable[[Stubs, float], A], timeout: float | None, options: Options) -> A:
        return self._call(call, timeout, again=not options.get("if_revision"))

    def _call(self, call: Callable[[Stubs, float], A], timeout: float | None, *, again: bool = True) -> A:
        """Make a call, with the seconds that are left for it."""
        deadline = Deadline(self._timeout if timeout is None else timeout, again=again and self._wait)
        while True:
            try:
                with self._calls.use(deadline.left, wait=self._wait) as link:
                    answer = call(link.stubs, deadline.left)
                    self._calls.answered(link)
                    return answer
            except McastError as exc:
                deadline.failed(exc)

    def _chunks(self, call: Callable[[Stubs, float], Iterable[A]], timeout: float) -> Iterator[A]:
        """Make a call with answers in a stream; again as long as none has come."""
        deadline, begun = Deadline(timeout, again=self._wait), False
        while True:
            try:
                with self._calls.use(deadline.left, wait=self._wait) as link:
                    for answer in call(link.stubs, deadline.left):
                        self._calls.answered(link)
                        begun = True
                        yield answer
                    return
            except McastError as exc:
                if begun:
                    raise
                deadline.failed(exc)
