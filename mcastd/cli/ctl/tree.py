"""The commands of a contract: every RPC with its arguments and flags, from descriptors alone. Pure; nothing is called or printed.

What the options get wrong (a clash of flags, a path that leads nowhere) never takes a command away: the flag gets a longer
name, and the tree says so in `problems`, which a test keeps empty for the contract of this repository.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from mcastd.cli.ctl import words
from mcastd.cli.ctl.contract import Contract, command_of, find_path, flag_of
from mcastd.cli.ctl.shape import Shape, shape_of

RESERVED = frozenset(
    {
        *("address", "timeout", "tls-ca", "tls-cert", "tls-key", "tls-server-name", "from-server"),
        *("output", "json", "columns", "full"),
        *("file", "yes", "exit-code", "help", "version"),
    }
)
"""Long names of flags that every command may have."""

RESERVED_SHORT = frozenset("fhjo")
"""Short names of flags that every command may have."""

FieldPath = tuple[FieldDescriptor, ...]


class Place(Enum):
    """How an input is given."""

    REQUIRED = auto()
    OPTIONAL = auto()
    REST = auto()
    FLAG = auto()


@dataclass(frozen=True, slots=True)
class Input:
    """One argument or flag, made from one field."""

    path: FieldPath
    """From the item, or from the request."""
    in_item: bool
    place: Place
    name: str
    """Long name of a flag, or the argument's name, without dashes and in lower case."""
    short: str = ""
    complete: str = ""
    """Who completes its values; empty = nobody."""
    group: str = ""
    """Heading in help; empty = with the command's own flags."""
    comment: str = ""

    @property
    def field(self) -> FieldDescriptor:
        """The field that it sets."""
        return self.path[-1]

    @property
    def choices(self) -> tuple[tuple[str, str], ...]:
        """The oneofs on the way to the field, each with the member it chooses."""
        return tuple((at.containing_oneof.full_name, at.name) for at in self.path if _real_oneof(at) and at.containing_oneof)


@dataclass(frozen=True, slots=True)
class Command:
    """One command, made from one RPC."""

    words: tuple[str, ...]
    aliases: tuple[str, ...]
    method: MethodDescriptor
    item: FieldPath | None
    """Where -f puts its items; () = each is a request of its own; None = there are no items."""
    rows: FieldPath
    """Where an answer holds its rows; () = the answer is the row."""
    inputs: tuple[Input, ...]
    examples: tuple[str, ...]
    confirm: bool
    comment: str

    @property
    def name(self) -> str:
        """The words together."""
        return " ".join(self.words)

    @property
    def item_type(self) -> Descriptor:
        """What one item is."""
        return _type_at(self.method.input_type, self.item or ())

    @property
    def row_type(self) -> Descriptor:
        """What one row is."""
        return _type_at(self.method.output_type, self.rows)

    @property
    def arguments(self) -> tuple[Input, ...]:
        """The positional ones."""
        return tuple(one for one in self.inputs if one.place is not Place.FLAG)

    @property
    def flags(self) -> tuple[Input, ...]:
        """The others."""
        return tuple(one for one in self.inputs if one.place is Place.FLAG)

    @property
    def dry_run(self) -> FieldPath:
        """The field that makes it a dry run (AIP-163); empty if it has none."""
        return next((one.path for one in self.inputs if not one.in_item and one.field.name == "validate_only"), ())


class Tree(NamedTuple):
    """All commands."""

    commands: tuple[Command, ...]
    groups: dict[str, str]
    """Comments of the services behind the first words."""
    problems: tuple[str, ...]


def build_tree(contract: Contract) -> Tree:
    """Every RPC that is not left out, in the contract's order."""
    commands: list[Command] = []
    groups: dict[str, str] = {}
    problems: list[str] = []
    for service in contract.services():
        for method in service.methods:
            if command_of(method).skip:
                continue
            command = _Builder(contract, method, problems).build()
            commands.append(command)
            if len(command.words) > 1:
                groups.setdefault(command.words[0], contract.comment(service))
    return Tree(tuple(_distinct(commands, problems)), groups, tuple(problems))


def _distinct(commands: Sequence[Command], problems: list[str]) -> Iterator[Command]:
    """The commands, none with the name or an alias of one before it."""
    names = {command.words for command in commands}
    taken: set[tuple[str, ...]] = set()
    for command in commands:
        words_ = command.words
        if words_ in taken:
            problems.append(f"{command.method.full_name}: another command is called {command.name!r}")
            words_ = _default_words(command.method)
        taken.add(words_)
        aliases = []
        for alias in command.aliases:
            full = (*words_[:-1], alias)
            if full in taken or full in names:
                problems.append(f"{command.method.full_name}: its alias {alias!r} is taken")
            else:
                aliases.append(alias)
                taken.add(full)
        yield replace(command, words=words_, aliases=tuple(aliases))


def _default_words(method: MethodDescriptor) -> tuple[str, ...]:
    return words.kebab(method.containing_service.name), words.kebab(method.name)


class _Builder:
    """Makes one command."""

    def __init__(self, contract: Contract, method: MethodDescriptor, problems: list[str]) -> None:
        self._contract = contract
        self._method = method
        self._options = command_of(method)
        self._problems = problems

    def build(self) -> Command:
        """The command."""
        item = self._item()
        arguments = list(self._arguments(item))
        flags = self._named(list(self._flags(item, {(one.in_item, one.path) for one in arguments})))
        comment = self._comment(self._method.full_name)
        return Command(
            words=tuple(self._options.name.split()) or _default_words(self._method),
            aliases=tuple(self._options.aliases),
            method=self._method,
            item=item,
            rows=self._path(self._method.output_type, self._options.rows) if self._options.rows else (),
            inputs=(*arguments, *flags),
            examples=tuple(self._options.examples),
            confirm=self._options.confirm,
            comment=comment,
        )

    def _problem(self, text: str) -> None:
        self._problems.append(f"{self._method.full_name}: {text}")

    def _comment(self, name: str) -> str:
        comment = self._contract.comment(name)
        if not comment:
            self._problem(f"{name} has no comment")
        return comment

    def _path(self, message: Descriptor, path: str) -> FieldPath:
        try:
            return find_path(message, path)
        except KeyError as exc:
            self._problem(f"the path {path!r} leads nowhere: {message.full_name} has no {exc}")
            return ()

    def _item(self) -> FieldPath | None:
        request = self._method.input_type
        if not self._options.item:
            return () if self._method.client_streaming else None
        path = self._path(request, self._options.item)
        if path and path[-1].is_repeated and path[-1].message_type is not None:
            return path
        self._problem(f"the item {self._options.item!r} is no repeated message")
        return () if self._method.client_streaming else None

    def _arguments(self, item: FieldPath | None) -> Iterator[Input]:
        for text in self._options.args:
            name = text.rstrip("?.")
            path = self._path(self._method.input_type, name)
            if not path:
                continue
            place = {"...": Place.REST, "?": Place.OPTIONAL}.get(text.removeprefix(name), Place.REQUIRED)
            inside = item is not None and path[: len(item)] == item
            made = self._input(path[len(item or ()) :] if inside else path, inside, "")
            yield replace(made, place=place, name=words.kebab(path[-1].name), short="")

    def _flags(self, item: FieldPath | None, taken: set[tuple[bool, FieldPath]]) -> Iterator[Input]:
        request = self._method.input_type
        if item:
            yield from self._below(_type_at(request, item), (), "", taken, in_item=True)
        for one in self._below(request, (), "", taken, in_item=item == ()):
            if not item or one.path[: len(item)] != item[: len(one.path)]:
                yield one

    def _below(
        self, message: Descriptor, path: FieldPath, group: str, taken: set[tuple[bool, FieldPath]], *, in_item: bool
    ) -> Iterator[Input]:
        """The flags of a message's fields, those of messages in it by their own names."""
        for field in message.fields:
            here = (*path, field)
            inner = field.message_type
            if flag_of(field).skip or (in_item, here) in taken:
                continue
            # A message that holds itself can be flattened only so far.
            nested = inner is not None and not field.is_repeated and shape_of(field) is Shape.MESSAGE
            if nested and inner is not None and all(inner is not at.message_type for at in path) and inner is not message:
                heading = words.title(inner.name) if inner.name.endswith("Options") else group
                yield from self._below(inner, here, heading, taken, in_item=in_item)
            else:
                yield self._input(here, in_item, group)

    def _input(self, path: FieldPath, in_item: bool, group: str) -> Input:
        field = path[-1]
        flag = flag_of(field)
        return Input(
            path=path,
            in_item=in_item,
            place=Place.FLAG,
            name=flag.name or words.kebab(field.name),
            short=flag.short,
            complete=flag.complete or (field.name if shape_of(field) is Shape.TEXT else ""),
            group=group,
            comment=self._comment(field.full_name),
        )

    def _named(self, flags: list[Input]) -> list[Input]:
        """The flags with names of their own: of two alike the first keeps its name."""
        long, short = set(RESERVED), set(RESERVED_SHORT)
        named = []
        for flag in flags:
            name, letter = flag.name, flag.short
            if name in long:
                self._problem(f"the flag --{name} of {flag.field.full_name} is taken")
                name = "-".join(words.kebab(field.name) for field in flag.path)
                name = next(one for one in (name, *(f"{name}-{n}" for n in range(2, 1000))) if one not in long)
            if letter in short:
                self._problem(f"the flag -{letter} of {flag.field.full_name} is taken")
                letter = ""
            long.update({name, f"no-{name}"} if is_switch(flag.field) else {name})
            short.update(letter)
            named.append(replace(flag, name=name, short=letter))
        return named


def is_switch(field: FieldDescriptor) -> bool:
    """Whether a flag has a yes and a no: truth that may also be left open."""
    return shape_of(field) is Shape.BOOL and field.has_presence and not field.is_repeated


def _real_oneof(field: FieldDescriptor) -> bool:
    """Whether a field is in a oneof that somebody wrote; `optional` makes one of its own for each field."""
    return field.containing_oneof is not None and len(field.containing_oneof.fields) > 1


def _type_at(message: Descriptor, path: FieldPath) -> Descriptor:
    """The message at the end of a path; the one before where that is no message."""
    for field in path:
        message = field.message_type or message
    return message
