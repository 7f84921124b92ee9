"""Inputs into requests: which message each argument, flag and item of a file goes to. Nothing is called."""

from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from mcastd.cli.ctl.contract import changes_state, message_class
from mcastd.cli.ctl.reader import BadValueError, fill, set_field
from mcastd.cli.ctl.tree import Command, FieldPath, Input, Place
from mcastd.cli.ctl.words import any_of

CHUNK = 1000
"""Items in one message of a client stream."""

ALLOW_EMPTY = "allow_empty"
"""Field by which a request says that no items are meant."""

Given = Mapping[Input, object]
"""Plain values of the inputs that were given."""


class BadUsageError(ValueError):
    """Inputs that do not go together."""


def make_requests(command: Command, given: Given, items: Sequence[object] | None) -> list[Message]:
    """The request, or those of a client stream; `items` are those of a file, None = no file.

    BadUsageError for inputs that do not go together, BadValueError for an item, with its place.
    """
    _check(command, given, with_file=items is not None)
    if items is None:
        _check_something(command, given)
    elif not items:
        _check_no_items(command, given)
    request = message_class(command.method.input_type)
    if command.item == ():
        return [_one_item(request(), given, item) for item in _planned(command, given, items)]
    outer = {one: value for one, value in given.items() if not one.in_item}
    if command.method.client_streaming and command.item:
        return list(_stream(command, outer, _planned(command, given, items), given))
    made = request()
    for one, value in outer.items():
        _set(made, one.path, value)
    if command.item:
        _add_items(made, command.item, _planned(command, given, items), given)
    return [made]


def _planned(command: Command, given: Given, items: Sequence[object] | None) -> Sequence[object]:
    """The items to be sent: those of the file, else one if anything was said of it (or everything is left out on purpose)."""
    if items is not None:
        return items
    wanted = any(one.in_item for one in given) or any(one.place is Place.REQUIRED and one.in_item for one in command.inputs)
    return [{}] if wanted or command.item == () else []


def _check(command: Command, given: Given, *, with_file: bool) -> None:
    for one in command.arguments:
        if one.place is Place.REQUIRED and one not in given and not (with_file and one.in_item):
            hint = ", or -f FILE" if one.in_item else ""
            raise BadUsageError(f"Missing argument {one.name.upper()}{hint}.")
        if with_file and one.in_item and one in given:
            raise BadUsageError(f"{one.name.upper()} and -f exclude each other: the file says which items.")
    chosen: dict[tuple[bool, str], tuple[str, Input]] = {}
    for one in given:
        for oneof, member in one.choices:
            before = chosen.setdefault((one.in_item, oneof), (member, one))
            if before[0] != member:
                raise BadUsageError(f"{label(before[1])} and {label(one)} exclude each other.")


def _check_no_items(command: Command, given: Given) -> None:
    """Have a file without items be an error, unless the command line says that this is meant."""
    allowing = [one for one in command.inputs if not one.in_item and one.field.name == ALLOW_EMPTY]
    if not any(given.get(one) for one in allowing):
        hint = f" ({label(allowing[0])} if that is meant)" if allowing else ""
        raise BadValueError(f"no items: there is nothing to do{hint}.")


def _check_something(command: Command, given: Given) -> None:
    """Have a command line that asks for nothing be an error, in its own words rather than in the contract's."""
    others = [one for one in command.inputs if not one.in_item and not one.group and one.place is Place.FLAG]
    if command.item and not command.method.client_streaming:
        # Where an item need not be named, something else says what is meant.
        positional = [one for one in command.arguments if one.in_item]
        nothing = not any(one.in_item or one in others for one in given)
        if positional and nothing:
            names = [*(label(one) for one in positional[:1]), "-f FILE", *map(label, others)]
            raise BadUsageError(f"Nothing to do: say {any_of(names)}.")
    if not command.item and command.arguments and changes_state(command.method):
        # Fields that may be left open are settings: without one, nothing is set.
        settings = [one for one in others if len(one.path) == 1 and _is_setting(one)]
        if settings and not any(one in given for one in settings):
            raise BadUsageError(f"Nothing to do: say {any_of(list(map(label, settings)))}.")


def _is_setting(one: Input) -> bool:
    return one.field.has_presence and one.field.message_type is None and not one.choices


def label(one: Input) -> str:
    """An input as a person writes it."""
    return f"--{one.name}" if one.place is Place.FLAG else one.name.upper()


def _add_items(request: Message, path: FieldPath, items: Sequence[object], given: Given, first: int = 0) -> None:
    if not items:
        return
    holder = _descend(request, path)
    holder.SetInParent()
    where = getattr(holder, path[-1].name)
    for at, item in enumerate(items, first):
        try:
            _one_item(where.add(), given, item)
        except BadValueError as exc:
            raise exc.below(f"{path[-1].name}[{at}]") if item else exc from exc


def _one_item(message: Message, given: Given, item: object) -> Message:
    """One item: what the file says, and over it what flags say."""
    if item != {}:
        fill(message, item)
    for one, value in given.items():
        if one.in_item:
            _set(message, one.path, value)
    return message


def _stream(command: Command, outer: Given, items: Sequence[object], given: Given) -> Iterator[Message]:
    """The messages of a client stream: what is said once first, then the items in chunks."""
    path = command.item or ()
    request = message_class(command.method.input_type)
    oneof = path[0].containing_oneof
    heads = [field for field in oneof.fields if field is not path[0]] if oneof is not None else []
    begun = request() if not heads else None
    for head in heads:
        below = {one: value for one, value in outer.items() if one.path[0] is head}
        # A header comes before the chunks in the contract too, and is sent even if it says nothing.
        if below or (head.index < path[0].index and head.message_type is not None):
            yield _head(request(), head, below)
    for one, value in outer.items():
        if one.path[0] not in heads:
            begun = begun if begun is not None else request()
            _set(begun, one.path, value)
    for first in range(0, len(items), CHUNK):
        message = begun if begun is not None else request()
        begun = None
        _add_items(message, path, items[first : first + CHUNK], given, first)
        yield message
    if begun is not None:
        yield begun


def _head(message: Message, head: FieldDescriptor, given: Given) -> Message:
    if head.message_type is not None:
        getattr(message, head.name).SetInParent()
    for one, value in given.items():
        _set(message, one.path, value)
    return message


def _set(message: Message, path: FieldPath, value: object) -> None:
    set_field(_descend(message, path), path[-1], value)


def _descend(message: Message, path: FieldPath) -> Message:
    for field in path[:-1]:
        message = getattr(message, field.name)
    return message
