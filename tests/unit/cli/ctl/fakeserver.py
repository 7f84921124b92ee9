"""A gRPC server for any contract: what a method answers is a function of the test."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2

from mcastd.cli.ctl.contract import Contract, message_class

Handler = Callable[[Any, grpc.ServicerContext], Any]
"""Takes the request (a list of them, of a client stream) and the context; returns the answer, or yields answers."""


@contextmanager
def serve(contract: Contract, address: str, handlers: Mapping[str, Handler], credentials: Any = None) -> Iterator[str]:
    """Serve methods by name; the address, with the port that was chosen for port 0."""
    server = grpc.server(ThreadPoolExecutor(4))
    for service in contract.services():
        methods = {
            name: _method(service.methods_by_name[name], handlers[name]) for name in handlers.keys() & service.methods_by_name
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, methods),))
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield address.replace(":0", f":{port}")
    finally:
        server.stop(None).wait()


def refuse(context: grpc.ServicerContext, code: grpc.StatusCode, message: str, reason: str = "", **metadata: str) -> None:
    """End a call as mcastd does."""
    if reason:
        packed = any_pb2.Any()
        packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="mcastd", metadata=metadata))
        status = status_pb2.Status(code=code.value[0], message=message, details=[packed])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


def _method(method: MethodDescriptor, handler: Handler) -> "grpc.RpcMethodHandler[Any, Any]":
    def call(request: Any, context: grpc.ServicerContext) -> Any:
        return handler(list(request) if method.client_streaming else request, context)

    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    made: grpc.RpcMethodHandler[Any, Any] = make(
        call,
        request_deserializer=message_class(method.input_type).FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
    return made
