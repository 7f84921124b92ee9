"""Health and reflection over TLS: open to whoever has a certificate, but within limits of their own.

The contract says nothing of them, so no principal is asked for, and none's limits count: who may read nothing can still ask
whether the daemon serves, and which methods it has. But each name only so often, since it costs the server something.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import grpc

from mcastd.api.drain import Behaviour
from mcastd.api.ports import Context
from mcastd.api.principals import principal_of
from mcastd.api.quotas import Quotas
from mcastd.api.status import refuse
from mcastd.model.errors import McastdError
from mcastd.model.principal import Quota

QUOTA = Quota(streams=32, requests=50)
"""Of each name in a certificate."""

WHERE = "fixed for health and reflection"
"""Where the limits stand, for who has reached one."""


class Openly:
    """Stands for a server where services are added to it, and adds them within limits."""

    def __init__(self, server: grpc.aio.Server, quotas: Quotas) -> None:
        """Add to this server; quotas are shared by all servers."""
        self._server = server
        self._quotas = quotas

    def add_generic_rpc_handlers(self, handlers: "Sequence[grpc.GenericRpcHandler[Any, Any]]") -> None:
        """Add services."""
        self._server.add_generic_rpc_handlers([_Limited(one, self._quotas) for one in handlers])

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Nothing: what generated code offers beside the generic handlers, asyncio's servers do not look at."""


class _Limited(grpc.GenericRpcHandler):  # type: ignore[type-arg] # not generic when it runs
    """The methods of some services, each call counted."""

    def __init__(self, inner: "grpc.GenericRpcHandler[Any, Any]", quotas: Quotas) -> None:
        self._inner = inner
        self._quotas = quotas

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        found: Any = self._inner.service(details)
        if found is None:
            return None
        make, behaviour = (
            (grpc.stream_stream_rpc_method_handler, found.stream_stream)
            if found.request_streaming
            else (grpc.unary_stream_rpc_method_handler, found.unary_stream)
            if found.response_streaming
            else (grpc.unary_unary_rpc_method_handler, found.unary_unary)
        )
        limited = self._limited(behaviour, stream=found.response_streaming)
        handler: grpc.RpcMethodHandler[Any, Any] = make(limited, found.request_deserializer, found.response_serializer)
        return handler

    def _limited(self, inner: Any, *, stream: bool) -> Behaviour:
        async def limited(request: Any, context: Context) -> Any:
            try:
                name = principal_of(context.auth_context())
                self._quotas.request(name)
                with self._quotas.stream(name) if stream else nullcontext():
                    answers = inner(request, context)
                    if not hasattr(answers, "__aiter__"):
                        return await answers
                    async for answer in answers:
                        await context.write(answer)
            except McastdError as exc:
                await refuse(context, exc)

        return limited
