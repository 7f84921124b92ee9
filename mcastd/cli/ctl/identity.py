"""What a person would call a row: the fields that commands take to find it. From the tree alone."""

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from mcastd.cli.ctl.shape import Shape, shape_of
from mcastd.cli.ctl.tree import Command

Names = Callable[[Message], tuple[str, ...]]


class Identities:
    """Knows how rows are called."""

    def __init__(self, commands: Sequence[Command]) -> None:
        """Learn from arguments: what `route add GROUP SOURCE` takes is what a route is called."""
        self._known: dict[str, tuple[str, ...]] = {}
        for command in commands:
            inside = [one for one in command.arguments if one.in_item]
            if inside and all(len(one.path) == 1 for one in inside):
                self._known.setdefault(command.item_type.full_name, tuple(one.field.name for one in inside))

    def words(self, row: Descriptor) -> Names:
        """The function that names a row of a type, in the words that a command would take."""
        fields = self._fields(row)
        if fields:
            return lambda message: tuple(str(getattr(message, name)) for name in fields if getattr(message, name))
        inner = [
            (field.name, self.words(field.message_type))
            for field in row.fields
            if field.message_type is not None and not field.is_repeated and self._fields(field.message_type)
        ]

        def first_set(message: Message) -> tuple[str, ...]:
            return next((names(getattr(message, name)) for name, names in inner if message.HasField(name)), ())

        return first_set

    def key(self, row: Descriptor) -> Callable[[Message], tuple[Any, ...]]:
        """The function that tells rows of a type apart.

        A message called <Row>Key says which fields do. One that only matters for templates (RouteKey.iif, types.proto) is left
        out where the source is one address: an exact route may move to another interface and stays the same.
        """
        key = row.file.message_types_by_name.get(f"{row.name}Key")
        fields = tuple(name for name in key.fields_by_name if name in row.fields_by_name) if key else self._fields(row)
        if "table" in row.fields_by_name and "table" not in fields:
            fields = (*fields, "table")
        exact = tuple(name for name in fields if name != "iif") if key else fields

        def read(message: Message) -> tuple[Any, ...]:
            group, source = _get(message, "group"), _get(message, "source")
            template = not source or "/" in group + source
            return tuple(getattr(message, name) for name in (fields if template else exact))

        return read

    def _fields(self, row: Descriptor) -> tuple[str, ...]:
        if row.full_name in self._known:
            return self._known[row.full_name]
        if "name" in row.fields_by_name:
            return ("name",)
        texts = []
        for field in row.fields:
            if shape_of(field) is not Shape.TEXT or field.is_repeated:
                break
            texts.append(field.name)
        return tuple(texts)


def _get(message: Message, name: str) -> str:
    return str(getattr(message, name, ""))
