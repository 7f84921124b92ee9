"""Binds handlers to the contract's RPCs: every method of every service answers, with its access level checked.

A method without a handler here answers UNIMPLEMENTED with a text that says so. A caller who lacks the access that a method
needs, by his socket or his certificate, is refused before his request is looked at.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf import descriptor, message_factory
from google.protobuf.message import DecodeError, Message

from mcast.v1 import route_service_pb2, services_pb2
from mcastd.api import observed
from mcastd.api.admission import Admission
from mcastd.api.audit import Audit
from mcastd.api.daemon import DaemonService
from mcastd.api.drain import Drain
from mcastd.api.interfaces import InterfaceService
from mcastd.api.joins import JoinService
from mcastd.api.ports import Caller, Callers, Context, DaemonPort, RpcObserver
from mcastd.api.routes import RouteService
from mcastd.api.status import refuse
from mcastd.api.watch import EventService
from mcastd.model.errors import McastdError, Reason

UNARY_SECONDS_MAX = 30.0
"""How long a call without streams may take, whatever deadline its client has set."""

_FILES = (route_service_pb2.DESCRIPTOR, services_pb2.DESCRIPTOR)

Handler = Callable[[Any, Context, Caller], Any]


def services() -> list[descriptor.ServiceDescriptor]:
    """The contract's services."""
    return [service for file in _FILES for service in file.services_by_name.values()]


def handlers(daemon: DaemonPort) -> dict[str, object]:
    """The objects whose methods answer, by the name of their service."""
    events = EventService(daemon)
    return {
        "RouteService": RouteService(daemon),
        "JoinService": JoinService(daemon),
        "InterfaceService": InterfaceService(daemon),
        "EventService": events,
        "DaemonService": DaemonService(daemon, events.hub),
    }


def bind(
    objects: dict[str, object],
    callers: Callers,
    observer: RpcObserver | None = None,
    drain: Drain | None = None,
    audit: Audit | None = None,
) -> list["grpc.GenericRpcHandler[Any, Any]"]:
    """Handlers of all services for the callers of one listener; the observer, if any, is told of each call."""
    bound, log = [], audit or Audit()
    for service in services():
        methods = {}
        for method in service.methods:
            handler = getattr(objects.get(service.name), _snake(method.name), None)
            way_in = Admission(method, callers, log)
            methods[method.name] = _method(method, handler or _missing(method), way_in, observer, drain)
        bound.append(grpc.method_handlers_generic_handler(service.full_name, methods))
    return bound


def implemented(objects: dict[str, object], method: descriptor.MethodDescriptor) -> bool:
    """Whether a method has a handler."""
    return hasattr(objects.get(method.containing_service.name), _snake(method.name))


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _missing(method: descriptor.MethodDescriptor) -> Handler:
    async def missing(_request: object, _context: Context, _caller: Caller) -> None:
        name = f"{method.containing_service.full_name}/{method.name}"
        text = f"{name} comes with a later version of mcastd; GetStatus.features says what this one has"
        raise McastdError(Reason.NOT_IMPLEMENTED, text, method=method.name)

    return missing


class _Undecodable:
    """Stands for a message that is none of its type; gRPC itself would answer UNKNOWN and log a traceback."""


def _method(
    method: descriptor.MethodDescriptor, handler: Handler, way_in: Admission, observer: RpcObserver | None, drain: Drain | None
) -> "grpc.RpcMethodHandler[Any, Any]":
    received = _receiver(method, way_in)

    async def checked(request: object, context: Context) -> Any:
        try:
            with way_in.call(context) as caller:
                call = handler(received(request, context, caller), context, caller)
                return await (call if method.client_streaming else _in_time(call))
        except McastdError as exc:
            await refuse(context, exc)

    async def checked_stream(request: object, context: Context) -> None:
        try:
            with way_in.call(context) as caller:
                answers = handler(received(request, context, caller), context, caller)
                if isinstance(answers, Awaitable):
                    await answers
                    return
                async with aclosing(answers):
                    async for answer in answers:
                        if not await _sent(answer, context):
                            return
        except McastdError as exc:
            await refuse(context, exc)

    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    kind = kinds[method.client_streaming, method.server_streaming]
    behaviour = _counted(checked_stream if method.server_streaming else checked, drain)
    decode = _decoder(message_factory.GetMessageClass(method.input_type))
    encode: Callable[[Any], bytes] = _serialize
    if observer is not None:
        one = observer.method(observed.kind_of(method), method.containing_service.full_name, method.name)
        behaviour = observed.behaviour(behaviour, one)
        decode, encode = observed.decoder(decode, one), observed.encoder(encode, one)
    return kind(behaviour, request_deserializer=decode, response_serializer=encode)


def _receiver(method: descriptor.MethodDescriptor, way_in: Admission) -> Callable[[Any, Context, Caller], Any]:
    """What makes the handler's argument of what gRPC gives."""

    def one(request: object, _context: Context, _caller: Caller) -> object:
        return _message(request, method)

    def many(requests: AsyncIterator[object], context: Context, caller: Caller) -> AsyncIterator[object]:
        return way_in.messages(_messages(requests, context, method), caller)

    return many if method.client_streaming else one


def _counted(behaviour: observed.Behaviour, drain: Drain | None) -> observed.Behaviour:
    return behaviour if drain is None else drain.counted(behaviour)


def _serialize(message: Message | bytes) -> bytes:
    """A message, or one that its handler has serialized itself."""
    return message if isinstance(message, bytes) else message.SerializeToString()


def _decoder(kind: type[Message]) -> Callable[[bytes], object]:
    def decode(data: bytes) -> object:
        try:
            return kind.FromString(data)
        except DecodeError:
            return _Undecodable()

    return decode


def _message(request: object, method: descriptor.MethodDescriptor) -> object:
    if isinstance(request, _Undecodable):
        text = f"the request is no {method.input_type.full_name}: send what code generated from the contract's proto files makes"
        raise McastdError(Reason.INVALID_VALUE, text, type=method.input_type.full_name)
    return request


async def _messages(
    requests: AsyncIterator[object], context: Context, method: descriptor.MethodDescriptor
) -> AsyncIterator[object]:
    """The client's messages; ends only where the client has closed its half, not where the client is gone.

    grpc.aio tells a reader of both in the same way, before it cancels the handler: half a set would be taken for the whole.
    Sending the initial metadata tells them apart, since it fails (or lets the cancellation in) on a call that is over.
    """
    async for request in requests:
        yield _message(request, method)
    if method.server_streaming:
        return
    try:
        await context.send_initial_metadata(())
    except grpc.aio.InternalError as exc:
        raise asyncio.CancelledError("the client is gone") from exc


async def _sent(answer: object, context: Context) -> bool:
    """Whether an answer is on its way; not where the client has left, of which grpc.aio would log a traceback."""
    try:
        await context.write(answer)
    except grpc.aio.BaseError:
        return False
    return True


async def _in_time(call: Awaitable[object]) -> object:
    """Wait for a unary handler, but not for ever."""
    limit = asyncio.timeout(UNARY_SECONDS_MAX)
    try:
        async with limit:
            return await call
    except TimeoutError:
        if not limit.expired():
            raise
    text = f"there was no answer within {UNARY_SECONDS_MAX:g} s; what was begun goes on: list the routes to see what came of it"
    raise McastdError(Reason.TIMEOUT, text, seconds=f"{UNARY_SECONDS_MAX:g}")
