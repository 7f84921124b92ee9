"""Fields as click's parameters: how each is offered, checked and completed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from mcastd.cli.ctl import words
from mcastd.cli.ctl.contract import flag_of, message_class, table_of
from mcastd.cli.ctl.reader import BadValueError, set_field
from mcastd.cli.ctl.shape import Shape, enum_choices, shape_of
from mcastd.cli.ctl.tree import Input, Place, is_switch

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic for type checkers only, in the oldest click that we take

_BRACE = "{"
"""Begins a message, in which commas mean something else."""

Completer = Callable[[str, click.Context], list[str]]
"""Offers values by the name of a completer."""

_METAVARS = {
    Shape.BOOL: "BOOLEAN",
    Shape.INTEGER: "NUMBER",
    Shape.FLOAT: "NUMBER",
    Shape.BYTES: "BASE64",
    Shape.DURATION: "DURATION",
    Shape.TIMESTAMP: "TIME",
    Shape.MESSAGE: "JSON",
    Shape.SPECIAL: "JSON",
    Shape.MAP: "KEY=VALUE",
}


class FieldType(ParamType):
    """One value of a field, checked as soon as it is read."""

    name = "value"

    def __init__(self, one: Input, complete: Completer) -> None:
        """Take values for an input's field."""
        self._field = one.field
        self._completer = one.complete
        self._complete = complete
        self._enum = one.field.enum_type
        self._several = takes_list(one)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002 - click's signature
        """What help shows for the value."""
        field = self._field
        if self._enum is not None:
            return f"[{'|'.join(enum_choices(self._enum))}]"
        shape = shape_of(field)
        if shape is Shape.BARE and field.message_type is not None:
            return table_of(field.message_type).scalar.upper()
        if shape is Shape.TEXT and flag_of(field).complete:
            return flag_of(field).complete.upper()
        return _METAVARS.get(shape, "TEXT")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """The plain value, of an input that takes lists a list; click says which flag it was if it is none."""
        if not self._several:
            return self._convert_one(value, param, ctx)
        parts = [value] if not isinstance(value, str) or value.startswith(_BRACE) else [part.strip() for part in value.split(",")]
        if len(parts) > 1 and not all(parts):
            self.fail(f"{value!r} has a comma with nothing before or after it", param, ctx)
        return [self._convert_one(part, param, ctx) for part in parts]

    def _convert_one(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        field = self._field
        plain: object = value
        if shape_of(field) is Shape.MAP:
            key, equals, rest = str(value).partition("=")
            if not equals:
                self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
            plain = {key: rest}
        owner = field.containing_type
        if owner is None:
            raise AssertionError(f"{field.full_name} is in no message")
        try:
            set_field(message_class(owner)(), field, plain)
        except BadValueError as exc:
            inner = exc.where.partition("." if "." in exc.where else "\0")[2]
            self.fail(f"{inner}: {exc.text}" if inner else exc.text, param, ctx)
        return plain

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 - click's signature
        """Words of an enum, or what the daemon has."""
        offered = enum_choices(self._enum) if self._enum is not None else self._complete(self._completer, ctx)
        before, comma, last = incomplete.rpartition(",") if self._several else ("", "", incomplete)
        return [CompletionItem(before + comma + word) for word in offered if word.startswith(last)]


class FlagOption(click.Option):
    """An option under a heading."""

    def __init__(self, *args: Any, heading: str = "", **more: Any) -> None:
        """As click's, with the heading of help ("" = the command's own)."""
        super().__init__(*args, **more)
        self.heading = heading


def make_parameter(one: Input, name: str, complete: Completer) -> click.Parameter:
    """The parameter of an input, called `name` among the command's."""
    kind = FieldType(one, complete)
    if one.place is not Place.FLAG:
        rest = one.place is Place.REST
        shown = one.name.upper()
        metavar = f"[{shown}]..." if rest else shown if one.place is Place.REQUIRED else f"[{shown}]"
        # Never required of click: with -f they are not, and what is missing otherwise is said in one place (request).
        return click.Argument([name], type=kind, required=False, nargs=-1 if rest else 1, metavar=metavar)
    words_ = [name, f"--{one.name}", *([f"-{one.short}"] if one.short else [])]
    text = help_text(one.comment)
    shape = shape_of(one.field)
    if is_switch(one.field):
        words_[1] = f"--{one.name}/--no-{one.name}"
        return FlagOption(words_, help=text, heading=one.group, default=None)
    if not one.field.is_repeated and shape in {Shape.BOOL, Shape.EMPTY}:
        return FlagOption(words_, help=text, heading=one.group, is_flag=True)
    multiple = one.field.is_repeated or shape is Shape.MAP
    if multiple:
        text = f"{text} May be repeated{', or several with commas' if takes_list(one) else ''}.".strip()
    return FlagOption(words_, help=text, heading=one.group, type=kind, multiple=multiple)


def help_text(comment: str) -> str:
    """A comment on one line."""
    return " ".join(words.paragraphs(comment))


def plain_value(one: Input, value: Any) -> object:
    """What click has collected for an input, as a plain value."""
    if shape_of(one.field) is Shape.MAP:
        merged: dict[str, object] = {}
        for part in value:
            merged.update(part)
        return merged
    if takes_list(one):
        return [part for parts in value for part in parts]
    return list(value) if isinstance(value, tuple) else value


def takes_list(one: Input) -> bool:
    """Whether several values may be written as one, with commas between them: names, words, numbers."""
    return one.field.is_repeated and shape_of(one.field) in {Shape.TEXT, Shape.ENUM, Shape.INTEGER, Shape.BARE}
