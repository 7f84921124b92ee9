"""The contract of a running daemon, asked for by server reflection. mcastd answers with its comments; others may lack them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb

from mcastd.cli.ctl.contract import Contract
from mcastd.cli.ctl.failure import CallError
from mcastd.cli.ctl.transport import UNARY_SECONDS, Connection, Target

_OWN = "grpc."
"""Services of gRPC itself."""


def contract_of(target: Target) -> Contract:
    """Everything that a daemon serves; CallError if it can't be asked."""
    limited = target if target.timeout is not None else replace(target, timeout=UNARY_SECONDS)
    with Connection(limited) as connection:
        (listed,) = _ask(connection, [pb.ServerReflectionRequest(list_services="*")])
        names = [one.name for one in listed.list_services_response.service if not one.name.startswith(_OWN)]
        found: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        requests = [pb.ServerReflectionRequest(file_containing_symbol=name) for name in names]
        while requests:
            for answer in _ask(connection, requests):
                for file in _files(answer):
                    found.setdefault(file.name, file)
            missing = {name for file in found.values() for name in file.dependency} - found.keys()
            requests = [pb.ServerReflectionRequest(file_by_filename=name) for name in sorted(missing)]
    return Contract(descriptor_pb2.FileDescriptorSet(file=found.values()))


def _ask(connection: Connection, requests: Iterable[Any]) -> Iterator[Any]:
    method = pb.DESCRIPTOR.services_by_name["ServerReflection"].methods_by_name["ServerReflectionInfo"]
    for answer in connection.call(method, list(requests), whole=True):
        if answer.HasField("error_response"):
            error = answer.error_response  # type: ignore[attr-defined] # the package has no types
            raise CallError(error.error_code, "REFLECTION", error.error_message)
        yield answer


def _files(answer: Any) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    for data in answer.file_descriptor_response.file_descriptor_proto:
        yield descriptor_pb2.FileDescriptorProto.FromString(data)
