"""Observing calls: begin, messages, end and status of each, told to an observer that counts them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import descriptor

from mcastd.api.ports import Context, MethodObserver

Behaviour = Callable[[Any, Context], Awaitable[Any]]

_KINDS = {
    (False, False): "unary",
    (False, True): "server_stream",
    (True, False): "client_stream",
    (True, True): "bidi_stream",
}

_NAMES = {
    code.value[0]: {"CANCELLED": "Canceled", "OK": "OK"}.get(code.name, code.name.title().replace("_", ""))
    for code in grpc.StatusCode
}
"""Go's names of the status codes, which the metrics of gRPC servers have everywhere."""


def kind_of(method: descriptor.MethodDescriptor) -> str:
    """The type of a method, in the words of those metrics."""
    return _KINDS[method.client_streaming, method.server_streaming]


def behaviour(inner: Behaviour, observer: MethodObserver) -> Behaviour:
    """The handler, observed."""

    async def observed(request: Any, context: Context) -> Any:
        began, code = observer.begin(), "Unknown"
        try:
            answer = await inner(request, context)
            code = "Canceled" if context.cancelled() else "OK"
        except asyncio.CancelledError:
            code = "Canceled"
            raise
        except grpc.aio.AbortError:
            code = _NAMES.get(_number(context.code()), "Unknown")
            raise
        finally:
            observer.end(began, code)
        return answer

    return observed


def decoder(inner: Callable[[bytes], Any], observer: MethodObserver) -> Callable[[bytes], Any]:
    """What reads messages, observed."""

    def observed(data: bytes) -> Any:
        observer.received()
        return inner(data)

    return observed


def encoder(inner: Callable[[Any], bytes], observer: MethodObserver) -> Callable[[Any], bytes]:
    """What writes messages, observed."""

    def observed(message: Any) -> bytes:
        observer.sent()
        return inner(message)

    return observed


def _number(code: Any) -> int:
    """The code of an aborted call: gRPC gives a number, its stubs say StatusCode."""
    return int(code.value[0] if isinstance(code, grpc.StatusCode) else code)
