"""A client of Watch as the contract describes it: what it knows is built from events alone, and compared with the lists."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import grpc

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from tests.testbed.daemon import McastdProcess, wait_until

OPTIONS = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)


def key_of(event: sv.Event) -> tuple[str, ...]:
    """What identifies the object of an event."""
    kind = event.WhichOneof("object")
    match kind:
        case "route":
            one = event.route
            exact = "/" not in one.group and one.source and "/" not in one.source
            return kind, str(one.table), one.group, one.source, "" if exact else one.iif
        case "interface":
            return kind, event.interface.name
        case "source":
            seen = event.source
            return kind, str(seen.table), seen.group, seen.source, seen.interface
        case "join":
            join = event.join
            return kind, join.interface, join.group, join.source, join.owner
    raise AssertionError(f"an event without an object that has a state: {event}")


class View:
    """What one client knows."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.objects: dict[tuple[str, ...], Any] = {}
        self.token = ""
        self.synced = False
        self.messages = 0
        self.events = 0
        self.resets = 0
        self.lost = 0
        self.skipped = 0
        self.coalesced = 0
        self.upcalls: list[t.Upcall] = []
        self.samples: list[sv.CounterSample] = []

    def take(self, message: sv.WatchResponse) -> None:
        """Apply one message, in the order of the contract's example."""
        self.messages += 1
        self.lost += message.kernel_upcalls_lost
        self.skipped += message.upcalls_skipped
        if message.reset:
            self.objects.clear()
            self.resets += 1
            self.synced = False
        for event in message.events:
            self.apply(event)
        if message.resume_token:
            self.token = message.resume_token
        self.synced = self.synced or message.synced

    def apply(self, event: sv.Event) -> None:
        """Apply one event."""
        self.events += 1
        self.coalesced += event.coalesced
        kind = event.WhichOneof("object")
        assert event.type in {sv.Event.TYPE_PUT, sv.Event.TYPE_DELETE}
        assert event.HasField("time")
        if kind == "upcall":
            self.upcalls.append(event.upcall)
        elif kind == "counters":
            self.samples.append(event.counters)
        elif event.type == sv.Event.TYPE_PUT:
            self.objects[key_of(event)] = getattr(event, kind or "")
        else:
            self.objects.pop(key_of(event), None)

    def of(self, kind: str) -> dict[tuple[str, ...], Any]:
        """The objects of one kind."""
        return {key[1:]: one for key, one in self.objects.items() if key[0] == kind}


class Watching:
    """A call of Watch in a thread, with its view; it ends with the call, or when told to."""

    def __init__(self, daemon: McastdProcess, view: View | None = None, *, pause: float = 0.0, **request: Any) -> None:
        """Begin; `request` are the fields of WatchRequest, `pause` seconds to wait after each message."""
        self.view = view or View()
        self.error: grpc.RpcError | None = None
        self.arrived: dict[tuple[str, ...], float] = {}
        """When an object was first heard of, by the monotonic clock."""
        self._channel = grpc.insecure_channel(f"unix:{daemon.socket}", options=OPTIONS)
        self._call = sv_grpc.EventServiceStub(self._channel).Watch(sv.WatchRequest(**request))
        self._pause = pause
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for message in self._call:
                now = time.monotonic()
                for event in message.events:
                    if event.WhichOneof("object") in {"route", "interface", "source", "join"}:
                        self.arrived.setdefault(key_of(event), now)
                self.view.take(message)
                if self._pause:
                    time.sleep(self._pause)
        except grpc.RpcError as exc:
            self.error = exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def until(self, condition: Callable[[View], bool], seconds: float = 10.0) -> float:
        """Wait until the view is such; seconds it took."""
        return wait_until(lambda: condition(self.view), seconds, lambda: f"the view: {list(self.view.objects)[:20]} {self.error}")

    def ended(self, seconds: float = 10.0) -> grpc.StatusCode:
        """Wait for the end of the call; its code."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the stream has not ended"
        return self._call.code()

    def details(self) -> str:
        """The message that the call ended with."""
        return str(self._call.details())

    def close(self) -> None:
        """Hang up."""
        self._call.cancel()  # type: ignore[no-untyped-call] # The stubs lack its type.
        self._channel.close()
        self._thread.join(10)


def listed(daemon: McastdProcess, **request: Any) -> dict[tuple[str, ...], t.Route]:
    """ListRoutes, by what identifies a route in a view."""
    return {key_of(sv.Event(route=one))[1:]: one for one in daemon.list_routes(**request)}


def sources(daemon: McastdProcess, **selector: Any) -> dict[tuple[str, ...], t.Source]:
    """ListSources, likewise."""
    request = sv.ListSourcesRequest(selector=t.Selector(**selector))
    found = (one for chunk in daemon.events.ListSources(request, timeout=10) for one in chunk.sources)
    return {key_of(sv.Event(source=one))[1:]: one for one in found}


def chunks(daemon: McastdProcess, **request: Any) -> Iterator[rs.ListRoutesResponse]:
    """ListRoutes, chunk by chunk."""
    yield from daemon.routes.ListRoutes(rs.ListRoutesRequest(**request), timeout=60)
