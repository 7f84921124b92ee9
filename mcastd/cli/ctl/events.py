"""Events as lines: a sign, the time, what it is, and the columns of the object that it carries."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message

from mcastd.cli.ctl import words
from mcastd.cli.ctl.columns import UNSET, Column, declared_columns
from mcastd.cli.ctl.contract import table_of
from mcastd.cli.ctl.identity import Identities
from mcastd.cli.ctl.shape import Shape, enum_words, shape_of
from mcastd.cli.ctl.table import SIGN, Paint

NEW, CHANGED, GONE = "+", "~", "-"


def is_event(row: Descriptor) -> bool:
    """Whether a row carries one of several kinds of objects."""
    return not table_of(row).columns and _union(row) is not None


class EventLines:
    """Writes events; remembers which objects there are, to tell new ones from changed ones (some 200 bytes for each)."""

    def __init__(self, row: Descriptor, identities: Identities, paint: Paint, *, wide: bool) -> None:
        union = _union(row)
        if union is None:
            raise AssertionError(f"{row.full_name} is no event")
        self._union = union
        self._paint = paint
        self._time = next((field for field in row.fields if shape_of(field) is Shape.TIMESTAMP), None)
        self._gone = _deletion(row)
        self._known: set[tuple[Any, ...]] = set()
        self._kinds = {field.name: _Kind(field, identities, wide=wide) for field in union.fields}
        self._widest = max(len(kind.title) for kind in self._kinds.values())

    def forget(self) -> None:
        """Everything comes anew."""
        self._known.clear()

    def line(self, event: Message) -> str:
        """The line of an event."""
        name = event.WhichOneof(self._union.name)
        kind = self._kinds.get(name) if name else None
        if kind is None:
            return f"? {self._clock(event)}something that this mcastctl does not know: see -o json"
        thing = getattr(event, kind.field.name)
        sign = self._sign(event, (name, *kind.key(thing)))
        return f"{self._paint(sign, SIGN + sign)} {self._clock(event)}{kind.title.ljust(self._widest)}  {kind.text(thing)}"

    def _sign(self, event: Message, key: tuple[Any, ...]) -> str:
        if self._gone(event):
            self._known.discard(key)
            return GONE
        if len(key) == 1:
            return NEW  # nothing tells such objects apart: each is news
        known = key in self._known
        self._known.add(key)
        return CHANGED if known else NEW

    def _clock(self, event: Message) -> str:
        """The time of day here, as a person compares it with a watch."""
        if self._time is None or not event.HasField(self._time.name):
            return ""
        seconds = getattr(event, self._time.name).seconds
        return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%H:%M:%S  ")


class _Kind:
    """One kind of object."""

    def __init__(self, field: FieldDescriptor, identities: Identities, *, wide: bool) -> None:
        row = field.message_type
        if row is None:
            raise AssertionError(f"{field.full_name} holds no message")
        self.field = field
        self.title = words.kebab(field.name)
        self.key = identities.key(row)
        self._columns = _event_columns(row, wide=wide)
        self._widths = [0] * len(self._columns)

    def text(self, thing: Message) -> str:
        """The columns, as wide as they have been so far; what is not set at the end is left out."""
        cells = [",".join(column.read(thing)) or UNSET for column in self._columns]
        while cells and cells[-1] == UNSET:
            cells.pop()
        self._widths = [
            max(width, len(cell)) for width, cell in zip(self._widths, [*cells, *[""] * len(self._widths)], strict=False)
        ]
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, self._widths, strict=False)).rstrip()


def _event_columns(row: Descriptor, *, wide: bool) -> list[Column]:
    """The columns of a table; of a message without any its own values, and those of messages in it that have them."""
    if table_of(row).columns:
        return declared_columns(row, wide=wide)
    columns = declared_columns(row, wide=wide)
    for field in row.fields:
        if field.message_type is not None and shape_of(field) is Shape.MESSAGE and not field.is_repeated:
            columns += [_nested(field, column) for column in declared_columns(field.message_type, wide=wide)]
    return columns


def _nested(field: FieldDescriptor, column: Column) -> Column:
    def read(message: Message) -> tuple[str, ...]:
        return column.read(getattr(message, field.name)) if message.HasField(field.name) else ()

    return column._replace(read=read)


def _union(row: Descriptor) -> OneofDescriptor | None:
    """The oneof of several messages in a row."""
    found = [one for one in row.oneofs if len(one.fields) > 1 and all(field.message_type is not None for field in one.fields)]
    return found[0] if len(found) == 1 else None


def _deletion(row: Descriptor) -> Callable[[Message], bool]:
    """The function that says whether an event is the end of its object."""
    for field in row.fields:
        if field.enum_type is not None and not field.is_repeated:
            gone = {number for number, word in enum_words(field.enum_type).items() if word == "DELETE"}
            if gone:
                name = field.name
                return lambda event: getattr(event, name) in gone
    return lambda _: False
