"""Owns connecting with gRPC's synchronous stack: waiting for a channel that stands, and closing those that nobody uses any more.

grpc.aio would need an event loop of its own in each process, and takes no other beside it.
"""

import contextlib
import threading
import time
from collections.abc import Iterator

import grpc

from mcast.client.errors import McastError, from_rpc
from mcast.client.links import PROBE_SECONDS, Link, Links, concerns_link
from mcast.client.target import Backoff, Target
from mcast.v1 import route_service_pb2_grpc as rs_grpc
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc

_FAILED = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


_LOOK_SECONDS = 0.5
"""While a connection is waited for it is looked this often whether somebody still wants it."""


class Stubs:
    """A channel, and the services on it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.routes = rs_grpc.RouteServiceStub(channel)
        self.joins = sv_grpc.JoinServiceStub(channel)
        self.interfaces = sv_grpc.InterfaceServiceStub(channel)
        self.events = sv_grpc.EventServiceStub(channel)
        self.daemon = sv_grpc.DaemonServiceStub(channel)


class _Attempt:
    """One attempt to connect, told of by a thread of gRPC's."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._over = threading.Event()
        self._stands = False

    def wait(self, seconds: float) -> bool | None:
        """Whether the channel stands; None = that is not known in time."""
        self._channel.subscribe(self._hear, try_to_connect=True)
        try:
            return self._stands if self._over.wait(seconds) else None
        finally:
            self._channel.unsubscribe(self._hear)

    def _hear(self, state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY or state in _FAILED:
            self._stands = state is grpc.ChannelConnectivity.READY
            self._over.set()


class SyncLinks:
    """Channels to one daemon, of which one is in use; for any number of threads."""

    def __init__(self, target: Target, backoff: Backoff, *, watching: bool = False) -> None:
        self._options = target.options(watching=watching)
        self._links = Links(target, backoff, self._make)
        self._lock = threading.Lock()
        """Of what is known of the channels; never held while something is waited for."""
        self._connecting = threading.Lock()
        self._closed = threading.Event()

    def _make(self, credentials: grpc.ChannelCredentials | None) -> Stubs:
        address = self._links.target.address
        if credentials is None:
            return Stubs(grpc.insecure_channel(address, options=self._options))
        return Stubs(grpc.secure_channel(address, credentials, options=self._options))

    @contextlib.contextmanager
    def use(self, timeout: float | None, *, wait: bool = True, until: threading.Event | None = None) -> Iterator[Link[Stubs]]:
        """Use a channel that stands, for one call; errors of gRPC become McastError.

        Unavailable if it does not stand within `timeout` seconds, before `until` or, without `wait`, at the first attempt.
        """
        with self._unless_closed():
            link = self._take(timeout, wait=wait, until=until)
        try:
            with self._unless_closed():
                yield link
        except grpc.RpcError as exc:
            error = from_rpc(exc)
            if concerns_link(error):
                with self._lock:
                    self._links.failed(link, error)
            raise error from exc
        finally:
            with self._lock:
                self._links.release(link)
            self._close_idle()

    @contextlib.contextmanager
    def _unless_closed(self) -> Iterator[None]:
        """What gRPC says of a channel that another thread closes just now is a ValueError."""
        try:
            yield
        except ValueError as exc:
            if self._closed.is_set():
                raise self._links.gone() from exc
            raise

    def _take(self, timeout: float | None, *, wait: bool, until: threading.Event | None) -> Link[Stubs]:
        """Wait for a channel that stands, and count as a user of it."""
        while True:
            with self._lock:
                link = self._links.current()
                if link.ready:
                    link.users += 1
                    return link
            self._ready(timeout, wait=wait, until=until)

    def answered(self, link: Link[Stubs]) -> None:
        """A call on this channel was answered."""
        if not link.proven:
            with self._lock:
                self._links.succeeded(link)

    def close(self) -> None:
        """Close all; calls that are under way are cancelled."""
        self._closed.set()
        with self._lock:
            open_still = self._links.close()
        for link in open_still:
            link.stubs.channel.close()
        self._close_idle()

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._links.idle = self._links.idle, []
        for link in idle:
            link.stubs.channel.close()

    def _ready(self, timeout: float | None, *, wait: bool, until: threading.Event | None) -> None:
        ends = time.monotonic() + timeout if timeout is not None else float("inf")

        def left(most: float) -> float:
            """Seconds to wait before it is looked whether this is still wanted."""
            return max(0.0, min(most, ends - time.monotonic(), _LOOK_SECONDS))

        while time.monotonic() < ends and not (until is not None and until.is_set()):
            if not self._connecting.acquire(timeout=left(_LOOK_SECONDS)):
                continue
            try:
                with self._lock:
                    pause = self._links.pause()
                self._closed.wait(left(pause))
                with self._lock:
                    if self._links.pause():
                        continue
                    link = self._links.current()
                if link.ready or self._connect(link, left(_LOOK_SECONDS)):
                    return
            finally:
                self._connecting.release()
            if not wait and self._links.failure is not None:
                break
        raise self._links.failure or self._links.unreachable("")

    def _connect(self, link: Link[Stubs], seconds: float) -> bool:
        """Whether this attempt succeeds in so many seconds; it may go on after them."""
        stands = _Attempt(link.stubs.channel).wait(seconds)
        if stands:
            link.ready = True
        elif stands is False:
            error = self._why(link.stubs)
            with self._lock:
                self._links.failed(link, error)
            self._close_idle()
        return bool(stands)

    def _why(self, stubs: Stubs) -> McastError | None:
        """Ask for the cause, which only a call is told."""
        try:
            stubs.daemon.GetStatus(sv.GetStatusRequest(), timeout=PROBE_SECONDS)
        except grpc.RpcError as exc:
            return self._links.unreachable(from_rpc(exc).message)
        return None
