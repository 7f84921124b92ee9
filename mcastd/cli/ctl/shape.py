"""What kind of value a field takes, as far as a command line cares: one word for each of the many types of protobuf."""

from enum import Enum, auto

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from mcastd.cli.ctl import words
from mcastd.cli.ctl.contract import is_map, table_of

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}

_WELL_KNOWN = "google.protobuf."
_WRAPPED = {
    f"{_WELL_KNOWN}{name}Value" for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}
# Their JSON has a form of its own, which protobuf's json_format knows.
_SPECIAL = {f"{_WELL_KNOWN}{name}" for name in ("Any", "FieldMask", "ListValue", "Struct", "Value")}


class Shape(Enum):
    """How the value of a field (one of them, if it is repeated) is written."""

    TEXT = auto()
    BOOL = auto()
    INTEGER = auto()
    FLOAT = auto()
    BYTES = auto()
    ENUM = auto()
    DURATION = auto()
    TIMESTAMP = auto()
    WRAPPED = auto()
    """A scalar in a message of its own, google.protobuf.StringValue and the like."""
    BARE = auto()
    """A message with a field that a bare string sets."""
    EMPTY = auto()
    """A message without fields: it is there or not."""
    MESSAGE = auto()
    """Any other message."""
    SPECIAL = auto()
    """A well-known type with a JSON form of its own."""
    MAP = auto()


def shape_of(field: FieldDescriptor) -> Shape:
    """The shape of a field."""
    if field.message_type is not None:
        return Shape.MAP if is_map(field) else message_shape(field.message_type)
    if field.enum_type is not None:
        return Shape.ENUM
    if field.cpp_type in _INTEGERS:
        return Shape.INTEGER
    if field.cpp_type in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
        return Shape.FLOAT
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return Shape.BOOL
    return Shape.BYTES if field.type == FieldDescriptor.TYPE_BYTES else Shape.TEXT


def message_shape(message: Descriptor) -> Shape:
    """The shape of a message."""
    name = message.full_name
    if name == "google.protobuf.Duration":
        return Shape.DURATION
    if name == "google.protobuf.Timestamp":
        return Shape.TIMESTAMP
    if name in _WRAPPED:
        return Shape.WRAPPED
    if name in _SPECIAL:
        return Shape.SPECIAL
    if not message.fields:
        return Shape.EMPTY
    return Shape.BARE if table_of(message).scalar in message.fields_by_name else Shape.MESSAGE


def integer_range(field: FieldDescriptor) -> tuple[int, int]:
    """The least and the greatest value of an integer field."""
    return _INTEGERS[field.cpp_type]


def is_64_bits(field: FieldDescriptor) -> bool:
    """Whether JSON writes the number as a string."""
    return field.cpp_type in {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}


def enum_words(enum: EnumDescriptor) -> dict[int, str]:
    """The values of an enum by number, without their prefix (PROGRAMMED); of aliases the first."""
    prefix = words.value_prefix(enum.name, [value.name for value in enum.values])
    found: dict[int, str] = {}
    for value in enum.values:
        found.setdefault(value.number, value.name.removeprefix(prefix))
    return found


def enum_choices(enum: EnumDescriptor) -> list[str]:
    """The words offered for an enum: lower case, without prefix, without the value that stands for "not set"."""
    return [word.lower() for number, word in enum_words(enum).items() if number or word != "UNSPECIFIED"]
