"""Binds handlers to the contract's RPCs: every method of every service answers, with its access level checked.

A method without a handler here answers UNIMPLEMENTED with a text that says so. A caller whose socket does not give the access
that a method needs finds a handler that refuses: nothing has to be looked up when a call comes.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import descriptor, message_factory

from mcast.v1 import route_service_pb2, services_pb2
from mcastd.api import auth
from mcastd.api.daemon import DaemonService
from mcastd.api.interfaces import InterfaceService
from mcastd.api.ports import Caller, Context, DaemonPort
from mcastd.api.routes import RouteService
from mcastd.api.status import refuse
from mcastd.model.errors import McastdError, Reason

_FILES = (route_service_pb2.DESCRIPTOR, services_pb2.DESCRIPTOR)

Handler = Callable[[Any, Context, Caller], Any]


def services() -> list[descriptor.ServiceDescriptor]:
    """The contract's services."""
    return [service for file in _FILES for service in file.services_by_name.values()]


def handlers(daemon: DaemonPort) -> dict[str, object]:
    """The objects whose methods answer, by the name of their service."""
    return {
        "RouteService": RouteService(daemon),
        "InterfaceService": InterfaceService(daemon),
        "DaemonService": DaemonService(daemon),
    }


def bind(objects: dict[str, object], caller: Caller) -> list["grpc.GenericRpcHandler[Any, Any]"]:
    """Handlers of all services for the callers of one socket."""
    bound = []
    for service in services():
        methods = {}
        for method in service.methods:
            handler = getattr(objects.get(service.name), _snake(method.name), None)
            methods[method.name] = _method(method, handler or _missing(method), caller)
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


def _method(method: descriptor.MethodDescriptor, handler: Handler, caller: Caller) -> "grpc.RpcMethodHandler[Any, Any]":
    access = auth.needed(method)

    async def checked(request: object, context: Context) -> Any:
        try:
            auth.check(caller, access, method.name)
            return await handler(request, context, caller)
        except McastdError as exc:
            await refuse(context, exc)

    async def checked_stream(request: object, context: Context) -> AsyncIterator[Any]:
        try:
            auth.check(caller, access, method.name)
            answers = handler(request, context, caller)
            if isinstance(answers, Awaitable):
                await answers
                return
            async for answer in answers:
                yield answer
        except McastdError as exc:
            await refuse(context, exc)

    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    kind = kinds[method.client_streaming, method.server_streaming]
    return kind(
        checked_stream if method.server_streaming else checked,
        request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
        response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
    )
