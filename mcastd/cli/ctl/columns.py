"""Columns: from a row's message to the text of its cells, as the table options (or a user) ask for. Nothing is printed."""

import time
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from mcastd.cli.ctl import values
from mcastd.cli.ctl.contract import find_path, flag_of, table_of
from mcastd.cli.ctl.plain import nanos_of
from mcastd.cli.ctl.shape import Shape, enum_words, shape_of

UNSET = "-"

Parts = tuple[str, ...]
"""The text of a cell in the parts between which it may be wrapped; () = not set."""

_NUMBERS = {Shape.INTEGER, Shape.FLOAT}
_FORMATS = frozenset({"age", "count", "enum", "join", "rate", "si"})


class Column(NamedTuple):
    """One column."""

    title: str
    read: Callable[[Message], Parts]
    right: bool
    """Whether it holds numbers, which are aligned at their last digit."""
    path: str = ""
    """What the options call it; for messages."""


class BadColumnError(ValueError):
    """A column that a row does not have."""


def declared_columns(row: Descriptor, *, wide: bool, without: Container[str] = ()) -> list[Column]:
    """The columns that a message's options declare; where there are none, all of its own values.

    Columns of what is in the fields `without` are left out.
    """
    declared = [
        make_column(row, one.path, one.format, one.title)
        for one in table_of(row).columns
        if (wide or not one.wide) and not any(name in without for name in one.path.split("."))
    ]
    if declared:
        return declared
    return [make_column(row, field.name) for field in row.fields if field.message_type is None or shape_of(field) in _LEAVES]


def chosen_columns(row: Descriptor, names: Sequence[str]) -> list[Column]:
    """The columns that a user asks for, by title or by field path; BadColumnError for what is neither."""
    by_name = {name: one for one in table_of(row).columns for name in (one.title.lower(), one.path)}
    found = []
    for name in names:
        declared = by_name.get(name) or by_name.get(name.lower())
        try:
            if declared is not None:
                found.append(make_column(row, declared.path, declared.format, declared.title))
            else:
                found.append(make_column(row, name))
        except KeyError as exc:
            titles = ", ".join(one.title.lower() for one in table_of(row).columns)
            offer = f"choose from {titles}, or write" if titles else "write"
            raise BadColumnError(f"{name!r} is no column: {offer} the path of a field of {row.name}") from exc
    return found


def make_column(row: Descriptor, path: str, form: str = "", title: str = "") -> Column:
    """A column by path; several joined by "|" = the first that is set. KeyError if a path leads nowhere.

    Where what is (a list in an output field, as status.installed_oifs) is empty, what was asked for is shown with each part in
    brackets: it is not so.
    """
    choices = [find_path(row, one) for one in path.split("|")]
    last = choices[0][-1]
    form = form if form in _FORMATS else ""
    show = [_shower(one[-1], form) for one in choices]
    asked_only = _unmet(choices[0]) if len(choices) > 1 else None
    several = any(field.is_repeated for field in choices[0])

    def read(message: Message) -> Parts:
        for one, text in zip(choices, show, strict=True):
            found = _reach([message], one)
            if found and (len(found) > 1 or found[0] or one[-1].has_presence):
                bracketed = asked_only is not None and one is not choices[0] and asked_only(message)
                return tuple(f"({part})" for part in text(found)) if bracketed else text(found)
        # Not set anywhere; a zero is a value where the message that holds it is there.
        found = _reach([message], choices[-1])
        zero = shape_of(choices[-1][-1]) in {*_NUMBERS, Shape.BOOL} or form == "count"
        return show[-1](found) if zero and (found or form == "count") else ()

    right = form in {"si", "rate", "count"} or (not form and not several and shape_of(last) in _NUMBERS)
    return Column(title or last.name.replace("_", "-").upper(), read, right, path)


def _unmet(path: Sequence[FieldDescriptor]) -> Callable[[Message], bool] | None:
    """The function that says whether the output at the end of a path is there and empty; None if the path is none of output."""
    if len(path) < 2 or not flag_of(path[0]).skip or path[0].is_repeated or not path[-1].is_repeated:
        return None
    output = path[0]
    state = output.message_type.fields_by_name.get("state") if output.message_type is not None else None
    # A template has nothing of its own in the kernel: what was asked for is what it has.
    known = enum_words(state.enum_type) if state is not None and state.enum_type is not None else {}
    patterns = {number for number, word in known.items() if word in {"UNSPECIFIED", "TEMPLATE"}}

    def unmet(message: Message) -> bool:
        if not message.HasField(output.name):
            return False
        return not patterns or getattr(message, output.name).state not in patterns

    return unmet


def _reach(messages: Iterable[Any], path: Sequence[FieldDescriptor]) -> list[Any]:
    """The values at the end of a path, those of all messages of a repeated field on the way."""
    *way, last = path
    for field in way:
        if field.is_repeated:
            messages = [inner for message in messages for inner in getattr(message, field.name)]
        else:
            messages = [getattr(message, field.name) for message in messages if message.HasField(field.name)]
    if last.is_repeated:
        return [value for message in messages for value in getattr(message, last.name)]
    if last.has_presence:
        messages = [message for message in messages if message.HasField(last.name)]
    return [getattr(message, last.name) for message in messages]


def _shower(field: FieldDescriptor, form: str) -> Callable[[list[Any]], Parts]:
    """The function that writes the values of a field."""
    if form == "count":
        return lambda found: (str(len(found)),)
    if form in {"si", "rate"} and shape_of(field) in _NUMBERS:
        factor = 8 if form == "rate" else 1
        return lambda found: (values.format_si(sum(found) * factor),)
    if form == "age" and shape_of(field) is Shape.TIMESTAMP:
        return lambda found: tuple(values.format_age(time.time_ns() - nanos_of(one)) for one in found)
    one = text_of(field)
    return lambda found: tuple(map(one, found))


def text_of(field: FieldDescriptor) -> Callable[[Any], str]:
    """The function that writes one value of a field for people."""
    shape = shape_of(field)
    if shape is Shape.ENUM and field.enum_type is not None:
        known = enum_words(field.enum_type)
        return lambda number: UNSET if known.get(number) == "UNSPECIFIED" else known.get(number, str(number))
    return _LEAVES.get(shape, _compact)


def _compact(message: Any) -> str:
    """Something without a form of its own, as JSON on one line."""
    import json  # noqa: PLC0415 - tables of the usual messages do without

    from mcastd.cli.ctl.plain import Plain  # noqa: PLC0415 - see above

    if isinstance(message, Message):
        return json.dumps(Plain().message(message))
    return str(message)


def _clean(text: str) -> str:
    """Text without what a terminal would act on: free text comes from anybody who may write."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


_LEAVES: dict[Shape, Callable[[Any], str]] = {
    Shape.TEXT: _clean,
    Shape.BOOL: lambda value: "yes" if value else "no",
    Shape.INTEGER: str,
    Shape.FLOAT: lambda value: f"{value:.6g}",
    Shape.BYTES: lambda value: value.hex(),
    Shape.DURATION: lambda value: values.format_duration(nanos_of(value)),
    Shape.TIMESTAMP: lambda value: values.format_timestamp(nanos_of(value) // values.NANOS * values.NANOS),
    Shape.WRAPPED: lambda value: _clean(str(value.value)),
}
