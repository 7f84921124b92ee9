"""Owns connecting with grpc.aio: waiting for a channel that stands, and closing those that nobody uses any more."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

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

    @contextlib.asynccontextmanager
    async def use(self, timeout: float | None, *, wait: bool = True) -> AsyncIterator[Link[Stubs]]:
        """Use a channel that stands, for one call; errors of gRPC become McastError.

        Unavailable if it does not come to stand within `timeout` seconds or, without `wait`, at the first attempt.
        """
        links = self._links
        link = links.current()
        if not link.ready:
            link = await self._ready(timeout, wait=wait)
        link.users += 1
        try:
            yield link
        except grpc.RpcError as exc:
            error = from_rpc(exc)
            if concerns_link(error):
                links.failed(link, error)
            raise error from exc
        except asyncio.CancelledError as exc:
            # Also what gRPC raises where it was the daemon that has cancelled the call, or the channel was closed.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise McastError(grpc.StatusCode.CANCELLED, "the call was cancelled by the daemon, or the client closed") from exc
        finally:
            links.release(link)
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
