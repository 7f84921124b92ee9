"""Messages into plain values: proto3 JSON with the contract's own field names. Fields that this image does not know are left out.

protobuf's json_format does the same five times slower, which shows in a list of 100,000 routes.
"""

import base64
import math
import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from mcastd.cli.ctl import values
from mcastd.cli.ctl.contract import descriptor_of
from mcastd.cli.ctl.shape import Shape, is_64_bits, message_shape, shape_of

Convert = Callable[[Any], Any]


class Plain:
    """A way of writing messages.

    `full` = with zero values, `exact` = with 64-bit numbers as numbers (YAML) rather than as text (JSON).
    """

    def __init__(self, *, full: bool = False, exact: bool = False) -> None:
        self._full = full
        self._exact = exact
        self._field = cache(self._make_field)

    def message(self, message: Message) -> Any:
        """A message as JSON has it: a mapping, or what a well-known type stands for."""
        known = _WELL_KNOWN.get(message_shape(descriptor_of(message)))
        if known is not None:
            return known(message)
        if message_shape(descriptor_of(message)) is Shape.WRAPPED:
            return self._field(descriptor_of(message).fields_by_name["value"])(message.value)  # type: ignore[attr-defined]
        if not self._full:
            return {field.name: self._field(field)(value) for field, value in message.ListFields()}
        return {
            field.name: self._field(field)(getattr(message, field.name))
            for field in descriptor_of(message).fields
            if not field.has_presence or message.HasField(field.name)
        }

    def _make_field(self, field: FieldDescriptor) -> Convert:
        if shape_of(field) is Shape.MAP and field.message_type is not None:
            key, one = (self._one(field.message_type.fields_by_name[name]) for name in ("key", "value"))
            return lambda entries: {_key(key(k)): one(entries[k]) for k in sorted(entries)}
        one = self._one(field)
        if one is _same:
            return list if field.is_repeated else _same
        return (lambda items: [one(item) for item in items]) if field.is_repeated else one

    def _one(self, field: FieldDescriptor) -> Convert:
        shape = shape_of(field)
        if field.message_type is not None:
            return self.message
        if shape is Shape.ENUM and field.enum_type is not None:
            return _enum_names(field.enum_type)
        if shape is Shape.INTEGER and is_64_bits(field) and not self._exact:
            return str
        if shape is Shape.FLOAT:
            return _single if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else _float
        return _base64 if shape is Shape.BYTES else _same


def _same(value: Any) -> Any:
    return value


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return int(value) if value.is_integer() and abs(value) < 1e15 else value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _single(value: float) -> float | str:
    """A 32-bit number with as many digits as it has, not those of the 64 bits that Python keeps it in."""
    return _float(next((short for short in _shorter(value) if _as_32_bits(short) == value), value))


def _shorter(value: float) -> Iterator[float]:
    return (float(f"{value:.{digits}g}") for digits in range(6, 10)) if math.isfinite(value) else iter(())


def _as_32_bits(value: float) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:  # rounded up beyond the largest
        return math.inf


def _enum_names(enum: EnumDescriptor) -> Convert:
    names = {number: value.name for number, value in enum.values_by_number.items()}
    return lambda number: names.get(number, number)


def nanos_of(message: Any) -> int:
    """Nanoseconds of a Duration, or since 1970 of a Timestamp."""
    return int(message.seconds) * values.NANOS + int(message.nanos)


def _timestamp(message: Message) -> str:
    return values.format_timestamp(nanos_of(message))


def _duration(message: Message) -> str:
    return values.format_duration_json(nanos_of(message))


def _special(message: Message) -> Any:
    from google.protobuf import json_format  # noqa: PLC0415 - slow to load, and hardly any contract has these types

    return json_format.MessageToDict(message, preserving_proto_field_name=True)


_WELL_KNOWN: dict[Shape, Convert] = {Shape.TIMESTAMP: _timestamp, Shape.DURATION: _duration, Shape.SPECIAL: _special}
