"""The tree as click's commands: names, aliases, help. Each is made when it is asked for."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import click
from click.core import ParameterSource

from mcastd.cli.ctl import words
from mcastd.cli.ctl.completers import complete
from mcastd.cli.ctl.contract import Contract
from mcastd.cli.ctl.fieldtypes import FlagOption, help_text, make_parameter, plain_value
from mcastd.cli.ctl.guess import commands_meant, place_for
from mcastd.cli.ctl.handwritten import HEADING, Handwritten, handwritten
from mcastd.cli.ctl.identity import Identities
from mcastd.cli.ctl.request import Given
from mcastd.cli.ctl.run import Wish, run
from mcastd.cli.ctl.shape import enum_choices
from mcastd.cli.ctl.shared import CONNECTION, OUTPUT, connection_options, output_options, read_style, read_target
from mcastd.cli.ctl.tree import Command, Input, Place, Tree, build_tree

PROGRAM = "mcastctl"

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_GENERAL = "Options"


class Session:
    """What one run of the program knows: the contract's tree, and who completes names."""

    def __init__(self, contract: Callable[[], Contract]) -> None:
        """Build from a contract, once it is needed."""
        self._contract = contract

    @cached_property
    def contract(self) -> Contract:
        """The contract."""
        return self._contract()

    @cached_property
    def tree(self) -> Tree:
        """Its commands."""
        return build_tree(self.contract)

    @cached_property
    def identities(self) -> Identities:
        """How rows are called."""
        return Identities(self.tree.commands)

    def find(self, *path: str) -> Command | None:
        """A command by its words or those of an alias."""
        for command in self.tree.commands:
            if command.words == path or (command.words[:-1] == path[:-1] and path[-1] in command.aliases):
                return command
        return None


class Branch(click.Group):
    """Commands that begin with the same words; the root begins with none."""

    def __init__(self, session: Session, path: tuple[str, ...] = (), **more: Any) -> None:
        """Offer what a session's tree has below these words."""
        super().__init__(name=path[-1] if path else PROGRAM, context_settings=dict(SETTINGS), **more)
        self.session = session
        self.path = path

    def by_hand(self) -> list[Handwritten]:
        """The commands beside those of the contract."""
        return [] if self.path else list(handwritten(self.session.contract))

    def below(self) -> list[Command]:
        """The commands of the contract below."""
        return [one for one in self.session.tree.commands if one.words[: len(self.path)] == self.path and one.words != self.path]

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The next words."""
        return list(dict.fromkeys([*(one.words[len(self.path)] for one in self.below()), *(one.name for one in self.by_hand())]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command or branch of a next word."""
        path = (*self.path, cmd_name)
        for one in self.by_hand():
            if one.name == cmd_name:
                return one.make(self.session.contract, self.session.tree)
        found = self.session.find(*path)
        if found is not None:
            return Leaf(self.session, found)
        if any(one.words[: len(path)] == path for one in self.below()):
            return Branch(self.session, path, help=help_text(self.session.tree.groups.get(cmd_name, "")))
        return None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a guess at what was meant."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            meant = commands_meant(name, self.path, self.below(), [one.name for one in self.by_hand()])
            shown = " ".join((*self.path, name))
            guess = f" Did you mean {words.any_of([repr(one) for one in meant])}?" if meant else ""
            raise click.UsageError(f"No such command {shown!r}.{guess}", ctx)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, each with all its words, then the options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for command in self.below():
            heading = "Commands" if self.path else self._heading(command)
            summary = words.summary_and_details(command.comment)[0]
            sections.setdefault(heading, []).append((usage_of(command)[len(" ".join(self.path)) :].strip(), summary))
        for one in self.by_hand():
            sections.setdefault(HEADING, []).append((one.name, one.summary))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=40)
        format_flags(ctx, self.get_params(ctx), formatter)

    def _heading(self, command: Command) -> str:
        """What a command's service is for."""
        service = command.method.containing_service
        comment = words.summary_and_details(self.session.contract.comment(service))[0]
        return comment.rstrip(".") or words.title(service.name)


class Leaf(click.Command):
    """A command that calls the daemon."""

    allow_extra_args = True
    """They are refused here, with a word on where they belong."""

    def __init__(self, session: Session, command: Command) -> None:
        """Offer a command of a session's tree."""
        summary, details = words.summary_and_details(command.comment)
        super().__init__(
            name=command.words[-1],
            help="\n\n".join([summary, *details]),
            short_help=summary,
            context_settings=dict(SETTINGS),
        )
        self.session = session
        self.command = command
        self._inputs = {f"input_{at}": one for at, one in enumerate(command.inputs)}
        self.params = [make_parameter(one, name, complete) for name, one in self._inputs.items()]
        self.params += [*_extra_options(command), *output_options(), *connection_options(root=False)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's."""
        given = list(args)
        rest = super().parse_args(ctx, args)
        if ctx.args and not ctx.resilient_parsing:
            text = f"Got unexpected extra argument{'s' if len(ctx.args) > 1 else ''} ({' '.join(ctx.args)})."
            raise click.UsageError(f"{text} {place_for(ctx.args, given, self.command)}".rstrip(), ctx)
        return rest

    def invoke(self, ctx: click.Context) -> int:
        """Run it; the exit code."""
        given = self.given(ctx)
        wish = self.wish(ctx)
        try:
            return run(self.command, given, wish, self.session.identities)
        except ValueError as exc:
            raise click.UsageError(str(exc), ctx) from exc

    def given(self, ctx: click.Context) -> Given:
        """The inputs that were given."""
        given: dict[Input, object] = {}
        for name, one in self._inputs.items():
            source = ctx.get_parameter_source(name)
            value = ctx.params.get(name)
            if source is ParameterSource.COMMANDLINE and value is not None and value != ():
                given[one] = plain_value(one, value)
        return given

    def wish(self, ctx: click.Context) -> Wish:
        """What was said beside the request."""
        params = ctx.params
        return Wish(
            target=read_target(ctx),
            style=read_style(ctx),
            file=params.get("file") or "",
            yes=bool(params.get("yes")),
            tell_changes=bool(params.get("exit_code")),
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write arguments and options under their headings, then examples."""
        rows = [(argument_name(one), argument_help(one)) for one in self.command.arguments]
        if rows:
            with formatter.section("Arguments"):
                formatter.write_dl(rows)
        format_flags(ctx, self.get_params(ctx), formatter)
        if self.command.examples:
            with formatter.section("Examples"):
                for example in self.command.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the other names, and where the rest of the options is."""
        aliases = [" ".join((*self.command.words[:-1], alias)) for alias in self.command.aliases]
        formatter.write_paragraph()
        formatter.write_text(
            (f"Also called {', '.join(aliases)}. " if aliases else "")
            + f"Connection options (--address, --tls-...): {PROGRAM} --help."
        )


def _extra_options(command: Command) -> Iterator[click.Option]:
    if command.item is not None:
        text = "Read items from YAML, JSON or NDJSON; - is standard input. Flags of an item then apply to each."
        yield FlagOption(["-f", "--file"], metavar="FILE", help=text, type=click.Path(dir_okay=False, allow_dash=True))
    if command.confirm:
        yield FlagOption(["--yes"], is_flag=True, help="Do not ask.")
    if command.dry_run:
        group = next(one.group for one in command.inputs if one.path == command.dry_run)
        name = next(one.name for one in command.inputs if one.path == command.dry_run)
        text = f"With --{name}: exit code 3 if there is anything to change."
        yield FlagOption(["--exit-code"], is_flag=True, help=text, heading=group)


def argument_name(one: Input) -> str:
    """An argument as usage shows it."""
    name = one.name.upper()
    return {Place.REQUIRED: name, Place.OPTIONAL: f"[{name}]", Place.REST: f"[{name}]..."}[one.place]


def argument_help(one: Input) -> str:
    """What an argument is, with the words that it takes where these are few."""
    enum = one.field.enum_type
    return help_text(one.comment) + (f" Any of {', '.join(enum_choices(enum))}." if enum is not None else "")


def usage_of(command: Command) -> str:
    """A command with its arguments."""
    return " ".join([command.name, *map(argument_name, command.arguments)])


def format_flags(ctx: click.Context, params: Sequence[click.Parameter], formatter: click.HelpFormatter) -> None:
    """Write options under their headings: the command's own first, then those of what it holds, then the shared ones."""
    for heading, rows in option_sections(ctx, params).items():
        with formatter.section(heading):
            formatter.write_dl(rows)


def option_sections(ctx: click.Context, params: Sequence[click.Parameter]) -> dict[str, list[tuple[str, str]]]:
    """Options by heading, as names and help."""
    found: dict[str, list[tuple[str, str]]] = {_GENERAL: []}
    for param in params:
        record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
        if record is not None:
            found.setdefault((isinstance(param, FlagOption) and param.heading) or _GENERAL, []).append(record)
    last = [OUTPUT, CONNECTION]
    ordered = [name for name in found if name not in last] + [name for name in last if name in found]
    return {name: found[name] for name in ordered if found[name]}


def show_error(error: click.ClickException) -> int:
    """Write what is wrong with a command line; the exit code."""
    error.show(sys.stderr)
    return error.exit_code
