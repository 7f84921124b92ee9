"""mcastd.api.binding and status: handlers for every method, and how a stream that breaks off is told from one that ends."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from mcast.v1 import route_service_pb2 as rs
from mcastd.api import binding, status
from mcastd.core.engine import Engine
from mcastd.model.errors import CODES, McastdError, Reason
from mcastd.model.limits import Limits
from mcastd.model.record import Stored
from tests.api.bench import Refusal, refusal
from tests.fakewatch import FakeDaemon

METHODS = {method.name: method for service in binding.services() for method in service.methods}


def test_every_public_coroutine_of_a_handler_is_a_method_of_the_contract() -> None:
    daemon: Any = FakeDaemon(Engine(1, Stored(), Limits()))
    objects = binding.handlers(daemon)
    for service in binding.services():
        handler = objects.get(service.name)
        known = {binding._snake(method.name) for method in service.methods}
        public = {name for name, _ in inspect.getmembers(handler, inspect.ismethod) if not name.startswith("_")}
        assert public <= known
        assert {binding._snake(m.name) for m in service.methods if binding.implemented(objects, m)} == public


@pytest.mark.parametrize(
    "name,snake", [("PutRoutes", "put_routes"), ("Watch", "watch"), ("ReloadConfiguration", "reload_configuration")]
)
def test_method_names(name: str, snake: str) -> None:
    assert binding._snake(name) == snake


class Context:
    """A call; `over` = it has ended, and sending on it fails."""

    def __init__(self, *, over: bool = False) -> None:
        self.over = over
        self.trailing: tuple[tuple[str, bytes], ...] = ()
        self.aborted: tuple[grpc.StatusCode, str] | None = None

    async def send_initial_metadata(self, _metadata: object) -> None:
        """Fails on a call that is over."""
        if self.over:
            raise grpc.aio.InternalError("execute_batch")

    def set_trailing_metadata(self, metadata: tuple[tuple[str, bytes], ...]) -> None:
        """For the end."""
        self.trailing = metadata

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        """End the call."""
        self.aborted = code, details
        raise grpc.aio.AbortError


async def stream(*messages: object) -> AsyncIterator[object]:
    """What grpc.aio gives a handler: it ends in the same way whether the client has closed or is gone."""
    for message in messages:
        yield message


async def test_a_stream_that_is_whole_ends() -> None:
    context: Any = Context()
    received = binding._messages(stream(1, 2), context, METHODS["ReplaceRoutes"])
    assert [one async for one in received] == [1, 2]


async def test_a_stream_that_broke_off_does_not_end() -> None:
    context: Any = Context(over=True)
    received = binding._messages(stream(1, 2), context, METHODS["ReplaceRoutes"])
    assert [await anext(received), await anext(received)] == [1, 2]
    with pytest.raises(asyncio.CancelledError):
        await anext(received)


async def test_a_message_in_between_that_is_none_is_refused() -> None:
    context: Any = Context()
    decode = binding._decoder(rs.ReplaceRoutesRequest)
    with pytest.raises(McastdError) as caught:
        async for _ in binding._messages(stream(decode(b""), decode(b"\xff")), context, METHODS["ReplaceRoutes"]):
            pass
    assert caught.value.problem.metadata == {"type": "mcast.v1.ReplaceRoutesRequest"}


class Failed(grpc.RpcError):
    """The error as the client has it."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def code(self) -> grpc.StatusCode:
        assert self._context.aborted
        return self._context.aborted[0]

    def details(self) -> str:
        assert self._context.aborted
        return self._context.aborted[1]

    def trailing_metadata(self) -> Any:
        return self._context.trailing


async def told(error: McastdError) -> Refusal:
    """How an error reaches the client."""
    context: Any = Context()
    with pytest.raises(grpc.aio.AbortError):
        await status.refuse(context, error)
    return refusal(Failed(context))


@pytest.mark.parametrize("reason", list(Reason))
async def test_every_reason_reaches_the_client(reason: Reason) -> None:
    found = await told(McastdError(reason, "why: what to do", owner="alice"))
    assert (found.code.value[0], found.message) == (CODES[reason], "why: what to do")
    assert (found.reason, found.domain, found.metadata) == (reason, "mcastd", {"owner": "alice"})
    assert found.fields == {}
    assert found.retry_seconds == (1 if reason in {Reason.STORE_UNAVAILABLE, Reason.RATE_LIMIT} else None)


async def test_a_refusal_that_says_when_to_come_again_says_it_in_retry_info() -> None:
    found = await told(McastdError(Reason.RATE_LIMIT, "too soon", limit=10, retry_after="0.250"))
    assert found.retry_seconds == 0.25


async def test_a_field_is_a_violation() -> None:
    found = await told(McastdError(Reason.INVALID_TTL, "too high", field="routes[3].oifs[1].ttl_threshold", value=255))
    assert found.fields == {"routes[3].oifs[1].ttl_threshold": "too high"}
    assert found.metadata == {"field": "routes[3].oifs[1].ttl_threshold", "value": "255"}


async def test_the_trailer_is_a_google_rpc_status() -> None:
    context: Any = Context()
    with pytest.raises(grpc.aio.AbortError):
        await status.refuse(context, McastdError(Reason.NOT_FOUND, "nothing there"))
    ((key, value),) = context.trailing
    assert key == "grpc-status-details-bin"
    assert status_pb2.Status.FromString(value).code == 5
