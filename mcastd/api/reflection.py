"""Server reflection that keeps the comments: files come from the shipped descriptor image, which has them.

The stock servicer answers from the descriptor pool, where comments are stripped. Served as v1alpha and as v1, whose messages
are the same on the wire.
"""

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha import reflection_pb2 as pb

from mcast.image import descriptor_image

_IMAGE = descriptor_pb2.FileDescriptorSet.FromString(descriptor_image())
"""Read now: later the process may not be able to read the program's files."""

_NAMES = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")


class ReflectionServicer(reflection.aio.ReflectionServicer):  # type: ignore[misc, name-defined] # The stubs lack it.
    """Answers as the stock servicer does, with the files of the image where it holds them."""

    def __init__(self, service_names: Iterable[str]) -> None:
        """Name these services."""
        super().__init__([*service_names, *_NAMES])
        self._image = {file.name: file.SerializeToString() for file in _IMAGE.file}

    def _file_by_filename(self, request: pb.ServerReflectionRequest, filename: str) -> pb.ServerReflectionResponse:
        return self._with_comments(super()._file_by_filename(request, filename))

    def _file_containing_symbol(self, request: pb.ServerReflectionRequest, symbol: str) -> pb.ServerReflectionResponse:
        return self._with_comments(super()._file_containing_symbol(request, symbol))

    def _file_containing_extension(
        self, request: pb.ServerReflectionRequest, containing_type: str, number: int
    ) -> pb.ServerReflectionResponse:
        return self._with_comments(super()._file_containing_extension(request, containing_type, number))

    def _with_comments(self, response: pb.ServerReflectionResponse) -> pb.ServerReflectionResponse:
        files = response.file_descriptor_response.file_descriptor_proto
        for at, file in enumerate(files):
            name = descriptor_pb2.FileDescriptorProto.FromString(file).name
            files[at] = self._image.get(name, file)
        return response


def bind(service_names: Iterable[str]) -> list["grpc.GenericRpcHandler[Any, Any]"]:
    """The reflection service, under both of its names."""
    servicer = ReflectionServicer(service_names)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=pb.ServerReflectionRequest.FromString,
        response_serializer=pb.ServerReflectionResponse.SerializeToString,
    )
    return [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in _NAMES]
