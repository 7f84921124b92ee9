"""The contract as data: descriptors, the comments over them, and the options that say how they look on a command line.

Made from a FileDescriptorSet: the image that mcast-client ships, or what a daemon's reflection has told. The descriptors live in
a pool of their own, so that an image newer than the generated code is no conflict.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from mcast.cli.v1 import options_pb2

# Numbers of fields in descriptor.proto, of which paths in source_code_info are made.
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE = 4, 5, 6
_MESSAGE_FIELD, _MESSAGE_NESTED, _MESSAGE_ENUM, _MESSAGE_ONEOF = 2, 3, 4, 8
_ENUM_VALUE = 2
_SERVICE_METHOD = 2

_Path = tuple[int, ...]


class Contract:
    """Services with everything that hangs on them."""

    def __init__(self, files: descriptor_pb2.FileDescriptorSet) -> None:
        """Take files in any order; imports that are missing are an error of protobuf (TypeError)."""
        self._files = files.file
        self._pool = descriptor_pool.DescriptorPool()
        for file in _in_order(self._files):
            bare = descriptor_pb2.FileDescriptorProto()
            bare.CopyFrom(file)
            bare.ClearField("source_code_info")
            self._pool.AddSerializedFile(bare.SerializeToString())
        self._comments: dict[str, str] | None = None

    @classmethod
    def shipped(cls) -> "Contract":
        """The contract of the installed mcast-client."""
        from mcast.image import descriptor_image  # noqa: PLC0415 - a daemon's contract needs no image

        return cls(descriptor_pb2.FileDescriptorSet.FromString(descriptor_image()))

    def services(self) -> list[ServiceDescriptor]:
        """All services but those of gRPC itself (health, reflection), in an order that does not depend on that of the files."""
        files = [self._pool.FindFileByName(name) for name in sorted(file.name for file in self._files if file.service)]
        found = [service for file in files for service in file.services_by_name.values()]
        return [service for service in found if not service.full_name.startswith("grpc.")]

    def comment(self, named: Descriptor | EnumDescriptor | FieldDescriptor | MethodDescriptor | ServiceDescriptor | str) -> str:
        """The comment over something, by descriptor or full name; empty if there is none."""
        if self._comments is None:
            self._comments = {}
            for file in self._files:
                self._comments.update(_comments(file))
        return self._comments.get(named if isinstance(named, str) else named.full_name, "")


def command_of(method: MethodDescriptor) -> options_pb2.Command:
    """How an RPC becomes a command."""
    return cast("options_pb2.Command", _option(method, options_pb2.command))


def changes_state(method: MethodDescriptor) -> bool:
    """Whether an RPC does more than look; one that does not say is taken to."""
    return bool(_option(method, options_pb2.access) != options_pb2.ACCESS_VIEW)


def flag_of(field: FieldDescriptor) -> options_pb2.Flag:
    """How a field becomes a flag."""
    return cast("options_pb2.Flag", _option(field, options_pb2.flag))


def table_of(message: Descriptor) -> options_pb2.Table:
    """How a message becomes a row, and which field a bare string sets."""
    return cast("options_pb2.Table", _option(message, options_pb2.table))


def _option(described: MethodDescriptor | FieldDescriptor | Descriptor, extension: Any) -> Any:
    return described.GetOptions().Extensions[extension]


def descriptor_of(message: Message) -> Descriptor:
    """The descriptor of a message; its types name those of two implementations."""
    return cast("Descriptor", message.DESCRIPTOR)


def message_class(message: Descriptor) -> type[Message]:
    """The class of a message."""
    return message_factory.GetMessageClass(message)


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def find_path(message: Descriptor, path: str) -> tuple[FieldDescriptor, ...]:
    """The fields that a path such as "status.counters.packets" goes through; KeyError with the name that does not exist."""
    found: list[FieldDescriptor] = []
    at: Descriptor | None = message
    for name in path.split("."):
        if at is None or name not in at.fields_by_name:
            raise KeyError(name)
        found.append(at.fields_by_name[name])
        at = found[-1].message_type
    return tuple(found)


def _in_order(files: Sequence[descriptor_pb2.FileDescriptorProto]) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    """Each file after its imports."""
    by_name = {file.name: file for file in files}
    done: set[str] = set()

    def visit(name: str) -> Iterator[descriptor_pb2.FileDescriptorProto]:
        if name in done or name not in by_name:
            return
        done.add(name)
        for dependency in by_name[name].dependency:
            yield from visit(dependency)
        yield by_name[name]

    for name in by_name:
        yield from visit(name)


def _comments(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """The comments of a file by full name."""
    locations = {tuple(at.path): at.leading_comments for at in file.source_code_info.location if at.leading_comments}
    if not locations:
        return
    for name, path in _names(file):
        if path in locations:
            yield name, locations[path]


def _names(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, _Path]]:
    scope = file.package + "." if file.package else ""
    for i, message in enumerate(file.message_type):
        yield from _message_names(message, scope, (_FILE_MESSAGE, i))
    for i, enum in enumerate(file.enum_type):
        yield from _enum_names(enum, scope, (_FILE_ENUM, i))
    for i, service in enumerate(file.service):
        path: _Path = (_FILE_SERVICE, i)
        yield scope + service.name, path
        for j, method in enumerate(service.method):
            yield f"{scope}{service.name}.{method.name}", (*path, _SERVICE_METHOD, j)


def _message_names(message: descriptor_pb2.DescriptorProto, scope: str, path: _Path) -> Iterator[tuple[str, _Path]]:
    name = scope + message.name
    yield name, path
    for i, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*path, _MESSAGE_FIELD, i)
    for i, oneof in enumerate(message.oneof_decl):
        yield f"{name}.{oneof.name}", (*path, _MESSAGE_ONEOF, i)
    for i, nested in enumerate(message.nested_type):
        yield from _message_names(nested, name + ".", (*path, _MESSAGE_NESTED, i))
    for i, enum in enumerate(message.enum_type):
        yield from _enum_names(enum, name + ".", (*path, _MESSAGE_ENUM, i))


def _enum_names(enum: descriptor_pb2.EnumDescriptorProto, scope: str, path: _Path) -> Iterator[tuple[str, _Path]]:
    """An enum's values are named below the enum here, so that each name is one thing."""
    yield scope + enum.name, path
    for i, value in enumerate(enum.value):
        yield f"{scope}{enum.name}.{value.name}", (*path, _ENUM_VALUE, i)
