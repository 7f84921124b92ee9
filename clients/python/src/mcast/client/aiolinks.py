"""Owns connecting with grpc.aio: waiting for a channel that stands, and closing those that nobody uses any more."""

import asyncio
from types import TracebackType

import grpc

from mcast.client.errors import McastError, from_rpc
from mcast.client.links import PROBE_SECONDS, Link, Links, concerns_link
from mcast.client.target import Backoff, Target
from mcast.v1 import route_service_pb2_grpc as rs_grpc
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc

_FAILED = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


class Stubs:
    """A channel, and the services on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.routes = rs_grpc.RouteServiceStub(channel)
        self.joins = sv_grpc.JoinServiceStub(channel)
        self.interfaces = sv_grpc.InterfaceServiceStub(channel)
        self.events = sv_grpc.EventServiceStub(channel)
        self.daemon = sv_grpc.DaemonServiceStub(channel)


class AioLinks:
    """Channels of grpc.aio to one daemon, of which one is in use."""

    def __init__(self, target: Target, backoff: Backoff, *, watching: bool = False) -> None:
        self._options = target.options(watching=watching)
        self._links = Links(target, backoff, self._make)
        self._connecting: asyncio.Lock | None = None

    def _make(self, credentials: grpc.ChannelCredentials | None) -> Stubs:
        address = self._links.target.address
        if credentials is None:
            return Stubs(grpc.aio.insecure_channel(address, options=self._options))
        return Stubs(grpc.aio.secure_channel(address, credentials, options=self._options))

    def use(self, timeout: float | None, *, wait: bool = True) -> "_Use":
        """Use a channel that stands, for one call, as an asynchronous context; errors of gRPC become McastError.

        Unavailable if it does not come to stand within `timeout` seconds or, without `wait`, at the first attempt.
        """
        return _Use(self, timeout, wait=wait)

    async def begin(self, timeout: float | None, *, wait: bool) -> Link[Stubs]:
        """Wait for a channel that stands, and count as a user of it."""
        link = self._links.current()
        if not link.ready:
            link = await self._ready(timeout, wait=wait)
        link.users += 1
        return link

    async def end(self, link: Link[Stubs], exc: BaseException | None) -> None:
        """Use it no longer; raise what it means that the call has ended with `exc`."""
        try:
            if isinstance(exc, grpc.RpcError):
                error = from_rpc(exc)
                if concerns_link(error):
                    self._links.failed(link, error)
                raise error from exc
            if isinstance(exc, grpc.aio.UsageError):
                self._raise_if_closed(exc)
            if isinstance(exc, asyncio.CancelledError):
                # Also what gRPC raises where it was the daemon that has cancelled the call, or the channel was closed.
                task = asyncio.current_task()
                if task is not None and not task.cancelling():
                    text = "the call was cancelled by the daemon, or the client closed"
                    raise McastError(grpc.StatusCode.CANCELLED, text) from exc
        finally:
            self._links.release(link)
            await self._close_idle()

    def answered(self, link: Link[Stubs]) -> None:
        """A call on this channel was answered."""
        if not link.proven:
            self._links.succeeded(link)

    async def close(self) -> None:
        """Close all; calls that are under way are cancelled."""
        for link in self._links.close():
            await link.stubs.channel.close(None)
        await self._close_idle()

    async def _close_idle(self) -> None:
        while self._links.idle:
            await self._links.idle.pop().stubs.channel.close(None)

    async def _ready(self, timeout: float | None, *, wait: bool) -> Link[Stubs]:
        self._connecting = self._connecting or asyncio.Lock()
        try:
            async with asyncio.timeout(timeout), self._connecting:
                while True:
                    await asyncio.sleep(self._links.pause())
                    link = self._links.current()
                    if link.ready or await self._connect(link):
                        return link
                    if not wait and self._links.failure is not None:
                        raise self._links.failure
        except TimeoutError:
            raise self._links.failure or self._links.unreachable("") from None
        except grpc.aio.UsageError as exc:
            self._raise_if_closed(exc)
            raise

    def _raise_if_closed(self, exc: grpc.aio.UsageError) -> None:
        """Say in our own words that the client was closed between a look and a call."""
        if self._links.closed:
            raise self._links.gone() from exc

    async def _connect(self, link: Link[Stubs]) -> bool:
        """Whether this attempt succeeds."""
        channel = link.stubs.channel
        while (state := channel.get_state(try_to_connect=True)) not in _FAILED:
            if state is grpc.ChannelConnectivity.READY:
                link.ready = True
                return True
            await channel.wait_for_state_change(state)
        self._links.failed(link, await self._why(link.stubs))
        await self._close_idle()
        return False

    async def _why(self, stubs: Stubs) -> McastError | None:
        """Ask for the cause, which only a call is told."""
        try:
            await stubs.daemon.GetStatus(sv.GetStatusRequest(), timeout=PROBE_SECONDS)
        except grpc.RpcError as exc:
            return self._links.unreachable(from_rpc(exc).message)
        return None


class _Use:
    """One use of a channel. No generator: when a loop ends it closes all of those at once, also one that another waits for."""

    def __init__(self, links: AioLinks, timeout: float | None, *, wait: bool) -> None:
        self._links = links
        self._timeout = timeout
        self._wait = wait
        self._link: Link[Stubs] | None = None

    async def __aenter__(self) -> Link[Stubs]:
        self._link = await self._links.begin(self._timeout, wait=self._wait)
        return self._link

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        if self._link is not None:
            await self._links.end(self._link, exc)
