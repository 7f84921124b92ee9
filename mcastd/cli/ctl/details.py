"""One message as names and values below each other, with tables of the messages it holds: `mcastctl status`."""

import textwrap
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from mcastd.cli.ctl.columns import Column, declared_columns, text_of
from mcastd.cli.ctl.contract import descriptor_of
from mcastd.cli.ctl.shape import Shape, shape_of
from mcastd.cli.ctl.table import HEADER, Paint, Table

_INDENT = "  "
_LEAST_WIDTH = 20


def detail_lines(message: Message, width: int | None, paint: Paint) -> Iterator[str]:
    """The lines of a message; what is not set is left out, as far as protobuf can tell."""
    plain, nested = [], []
    for field in descriptor_of(message).fields:
        value = getattr(message, field.name)
        if field.has_presence and not message.HasField(field.name):
            continue
        shape = shape_of(field)
        if shape in {Shape.MESSAGE, Shape.BARE} or (field.is_repeated and field.message_type is not None):
            nested.append((field, value))
        elif not field.is_repeated or value:
            plain.append((_label(field), _text(field, value)))
    longest = max((len(label) for label, _ in plain), default=0)
    for label, text in plain:
        first, *more = _wrapped(text, None if width is None else width - longest - 3)
        yield f"{paint(label + ':', HEADER)}{' ' * (longest - len(label))}  {first}".rstrip()
        yield from (" " * (longest + 3) + line for line in more)
    for field, value in nested:
        yield from _nested_lines(field, value, width, paint)


def _nested_lines(field: FieldDescriptor, value: Any, width: int | None, paint: Paint) -> Iterator[str]:
    if shape_of(field) is Shape.MAP:
        inner = [f"{key}: {value[key]}" for key in sorted(value)]
    elif not field.is_repeated:
        inner = list(detail_lines(value, _narrower(width), paint))
    elif field.message_type is not None and value:
        columns = _without_empty(declared_columns(field.message_type, wide=True), value)
        inner = list(Table(columns, _narrower(width), paint).block([[column.read(one) for column in columns] for one in value]))
    else:
        inner = []
    if inner:
        yield paint(_label(field) + ":", HEADER)
        yield from (_INDENT + line for line in inner)


def _without_empty(columns: list[Column], rows: Any) -> list[Column]:
    """The columns in which any row has something."""
    return [column for column in columns if any(column.read(row) for row in rows)] or columns


def _narrower(width: int | None) -> int | None:
    return None if width is None else width - len(_INDENT)


def _wrapped(text: str, width: int | None) -> list[str]:
    """Text in lines; a word that is longer than a line stays whole."""
    if width is None or len(text) <= width:
        return [text]
    return textwrap.wrap(text, max(width, _LEAST_WIDTH), break_long_words=False, break_on_hyphens=False)


def _label(field: FieldDescriptor) -> str:
    return field.name.replace("_", " ").capitalize()


def _text(field: FieldDescriptor, value: Any) -> str:
    one = text_of(field)
    return ", ".join(map(one, value)) if field.is_repeated else one(value)
