"""Plain values into messages: what a flag says and what a file of YAML or JSON holds, by the descriptors alone.

A plain value is what JSON has: text, number, truth, nothing, list, mapping. Text stands for everything that people write as text
(enums, durations, times, messages with a field for a bare string). Nothing (None) leaves a field as it is.
"""

import difflib
import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from mcastd.cli.ctl import values
from mcastd.cli.ctl.contract import descriptor_of, flag_of, table_of
from mcastd.cli.ctl.shape import Shape, enum_choices, enum_words, integer_range, message_shape, shape_of

Setter = Callable[[Message, Any], None]


class BadValueError(ValueError):
    """A value that a field does not take; `where` is the path to it, as routes[3].iif."""

    def __init__(self, text: str, where: str = "") -> None:
        """Say what is wrong, and where, as far as it is known yet."""
        super().__init__(text)
        self.text = text
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text

    def below(self, name: str) -> "BadValueError":
        """The same, one level up."""
        inner = self.where if not self.where or self.where.startswith("[") else "." + self.where
        return BadValueError(self.text, name + inner)


def fill(message: Message, value: object) -> None:
    """Set a message from a mapping, or from bare text where its options name a field for it; BadValueError if it can't be."""
    if isinstance(value, str):
        bare = table_of(descriptor_of(message)).scalar
        if not bare:
            raise BadValueError(f"{value!r} is no mapping: {descriptor_of(message).name} has {_names(descriptor_of(message))}")
        value = {bare: value}
    if not isinstance(value, Mapping):
        raise BadValueError(f"{_shown(value)} is no mapping: {descriptor_of(message).name} has {_names(descriptor_of(message))}")
    setters = _setters(descriptor_of(message))
    for name, one in value.items():
        setter = setters.get(name)
        if setter is None:
            raise BadValueError(_unknown(descriptor_of(message), name))
        if one is not None:
            setter(message, one)


def set_field(message: Message, field: FieldDescriptor, value: object) -> None:
    """Set one field, replacing what it has; BadValueError if the value does not fit."""
    message.ClearField(field.name)
    try:
        _setter(field)(message, value)
    except RecursionError as exc:  # of JSON on the command line, or of messages that hold themselves
        raise BadValueError("nested too deep", field.name) from exc


@cache
def _setters(message: Descriptor) -> dict[str, Setter]:
    """Setters by the names that a file may use: the contract's own, and JSON's lowerCamelCase."""
    found: dict[str, Setter] = {}
    for field in message.fields:
        # What no flag sets is output: a listed object can be put back as it is, also one that a newer daemon has listed.
        setter = _ignore if flag_of(field).skip else _setter(field)
        found[field.json_name] = found[field.name] = setter
    return found


def _ignore(_message: Message, _value: object) -> None:
    """Do nothing."""


@cache
def _setter(field: FieldDescriptor) -> Setter:
    """The function that sets a field from a plain value."""
    name = field.name
    if shape_of(field) is Shape.MAP:
        plain = _map_setter(field)
    elif field.is_repeated:
        plain = _list_setter(field)
    elif field.message_type is not None:
        plain = _message_setter(field)
    else:
        plain = _scalar_setter(field)

    def setter(message: Message, value: object) -> None:
        try:
            plain(message, value)
        except BadValueError as exc:
            raise exc.below(name) from exc
        except ValueError as exc:
            raise BadValueError(str(exc), name) from exc

    return setter


def _scalar_setter(field: FieldDescriptor) -> Setter:
    name, convert, oneof = field.name, scalar(field), field.containing_oneof

    def setter(message: Message, value: object) -> None:
        if oneof is not None and message.WhichOneof(oneof.name) not in {None, name}:
            raise BadValueError(f"{name} and {message.WhichOneof(oneof.name)} exclude each other")
        setattr(message, name, convert(value))

    return setter


def _message_setter(field: FieldDescriptor) -> Setter:
    name, put, oneof = field.name, _putter(field), field.containing_oneof

    def setter(message: Message, value: object) -> None:
        if oneof is not None and message.WhichOneof(oneof.name) not in {None, name}:
            raise BadValueError(f"{name} and {message.WhichOneof(oneof.name)} exclude each other")
        put(getattr(message, name), value)

    return setter


def _list_setter(field: FieldDescriptor) -> Setter:
    name = field.name
    put = _putter(field) if field.message_type is not None else None
    convert = scalar(field) if put is None else None

    def setter(message: Message, value: object) -> None:
        items = getattr(message, name)
        for index, one in enumerate(value if isinstance(value, list | tuple) else [value]):
            try:
                if put is not None:
                    put(items.add(), one)
                elif convert is not None:
                    items.append(convert(one))
            except BadValueError as exc:
                raise exc.below(f"[{index}]") from exc
            except ValueError as exc:
                raise BadValueError(str(exc), f"[{index}]") from exc

    return setter


def _map_setter(field: FieldDescriptor) -> Setter:
    entry = field.message_type
    if entry is None:
        raise AssertionError("a map has entries")
    key = scalar(entry.fields_by_name["key"])
    of_value = entry.fields_by_name["value"]
    put = _putter(of_value) if of_value.message_type is not None else None
    convert = scalar(of_value) if put is None else None

    def setter(message: Message, value: object) -> None:
        if not isinstance(value, Mapping):
            raise BadValueError(f"{_shown(value)} is no mapping")
        entries = getattr(message, field.name)
        for name, one in value.items():
            if put is not None:
                put(entries[key(name)], one)
            elif convert is not None:
                entries[key(name)] = convert(one)

    return setter


def _putter(field: FieldDescriptor) -> Setter:
    """The function that sets a message which is a field's value, or one of them."""
    if field.message_type is None:
        raise AssertionError(f"{field.full_name} holds no message")
    return {
        Shape.DURATION: _put_duration,
        Shape.TIMESTAMP: _put_timestamp,
        Shape.WRAPPED: _put_wrapped,
        Shape.SPECIAL: _put_special,
        Shape.EMPTY: _put_empty,
    }.get(message_shape(field.message_type), _put_message)


def _put_message(message: Message, value: object) -> None:
    message.SetInParent()
    fill(message, _inline(value))


def _put_empty(message: Message, value: object) -> None:
    if _inline(value) not in ({}, True):
        raise BadValueError(f"{_shown(value)} is not {{}}: {descriptor_of(message).name} has no fields")
    message.SetInParent()


def _put_duration(message: Any, value: object) -> None:
    _put_nanos(message, values.parse_duration(_text(value)))


def _put_timestamp(message: Any, value: object) -> None:
    nanos = values.parse_timestamp(_text(value), time.time_ns())
    message.seconds, message.nanos = divmod(nanos, values.NANOS)
    message.SetInParent()


def _put_nanos(message: Any, nanos: int) -> None:
    sign = -1 if nanos < 0 else 1  # both fields of a Duration have the same sign
    message.seconds, message.nanos = (sign * part for part in divmod(abs(nanos), values.NANOS))
    message.SetInParent()


def _put_wrapped(message: Any, value: object) -> None:
    message.value = scalar(descriptor_of(message).fields_by_name["value"])(value)
    message.SetInParent()


def _put_special(message: Message, value: object) -> None:
    from google.protobuf import json_format  # noqa: PLC0415 - slow to load, and hardly any contract has these types

    try:
        json_format.ParseDict(_inline(value), message)  # type: ignore[arg-type] # not all of these are mappings
    except json_format.ParseError as exc:
        raise BadValueError(str(exc)) from exc
    message.SetInParent()


def _inline(value: object) -> object:
    """What a flag for a whole message says: JSON or YAML in braces (or brackets), otherwise bare text."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        from mcastd.cli.ctl.yamlread import parse_yaml  # noqa: PLC0415 - slow to load

        return parse_yaml(value)


@cache
def scalar(field: FieldDescriptor) -> Callable[[Any], Any]:
    """The function that converts a plain value for a scalar field; it raises ValueError."""
    shape = shape_of(field)
    if shape is Shape.TEXT:
        return _text
    if shape is Shape.INTEGER:
        return _integer(*integer_range(field))
    if shape is Shape.ENUM and field.enum_type is not None:
        return _enum(field.enum_type)
    return {Shape.BOOL: _bool, Shape.FLOAT: _float, Shape.BYTES: lambda value: values.parse_bytes(_text(value))}[shape]


def _text(value: object) -> str:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{_shown(value)} is no text")


def _bool(value: object) -> bool:
    return value if isinstance(value, bool) else values.parse_bool(_text(value))


def _float(value: object) -> float:
    return values.parse_float(_text(value))


def _integer(least: int, greatest: int) -> Callable[[object], int]:
    def convert(value: object) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON makes no difference between 3 and 3.0
        return values.parse_integer(_text(value), least, greatest)

    return convert


def _enum(enum: EnumDescriptor) -> Callable[[object], int]:
    numbers = {value.name.lower(): value.number for value in enum.values}
    short = {word.lower(): number for number, word in enum_words(enum).items()}
    known = numbers | short

    def convert(value: object) -> int:
        text = _text(value)
        number = known.get(text.lower().replace("-", "_"))
        if number is not None:
            return number
        if text.isdecimal():
            return values.parse_integer(text, 0, (1 << 31) - 1)
        raise ValueError(f"{text!r} is not one of {', '.join(enum_choices(enum))}")

    return convert


def _unknown(message: Descriptor, name: object) -> str:
    close = difflib.get_close_matches(str(name), [field.name for field in message.fields], 1)
    hint = f"did you mean {close[0]}?" if close else f"it has {_names(message)}"
    return f"{message.name} has no field {str(name)!r}; {hint}"


def _names(message: Descriptor) -> str:
    return ", ".join(field.name for field in message.fields if not flag_of(field).skip)


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else text[:37] + "..."
