"""The root of the program: its own flags, where the contract comes from, and how errors of the command line end."""

import os
import sys
from collections.abc import Sequence

import click

from mcastd import __version__
from mcastd.cli.ctl.commands import PROGRAM, Branch, Session, show_error
from mcastd.cli.ctl.contract import Contract
from mcastd.cli.ctl.failure import CallError
from mcastd.cli.ctl.screen import complain
from mcastd.cli.ctl.shared import connection_options, output_options, read_target

COMPLETE_VARIABLE = "_MCASTCTL_COMPLETE"
SHELLS = ("bash", "zsh", "fish")

_HELP = "Drive mcastd, the multicast router daemon."

_EXIT_CODES = (
    "Exit codes: 0 done, 1 some items failed, 2 usage or local input/output error, 3 a dry run found changes (--exit-code), "
    "64 + N the call failed with gRPC status N."
)


def program(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code."""
    root = make_root()
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        from mcastd.cli.ctl.completion import answer_shell  # noqa: PLC0415 - shells alone need it

        return answer_shell(root, instruction)
    return run_root(root, sys.argv[1:] if arguments is None else arguments)


def run_root(root: click.Group, arguments: Sequence[str]) -> int:
    """Run a command line below a root and return the exit code."""
    try:
        # Not root.main(), which has an exit code of its own for a closed pipe.
        with root.make_context(PROGRAM, list(arguments)) as context:
            result: object = root.invoke(context)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.ClickException as exc:
        return show_error(exc)
    except CallError as exc:  # of --from-server
        complain(exc.line())
        return exc.exit_code
    return result if isinstance(result, int) else 0


class Root(Branch):
    """The program itself."""

    def __init__(self, session: Session | None = None) -> None:
        """Build from a session's tree; None = from the contract that was shipped, or the daemon's."""
        super().__init__(session or Session(Contract.shipped), help=_HELP)
        self.params = [*_root_options(), *output_options(), *connection_options(root=True)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's; the session is told where its daemon is before anything is looked up."""
        ctx.obj = self.session
        return super().parse_args(ctx, args)

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """As click's, but after the flags of the connection, since commands to be shown may come from the daemon."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.is_eager = False
        return option

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the exit codes."""
        formatter.write_paragraph()
        formatter.write_text(_EXIT_CODES)


def make_root(session: Session | None = None) -> Root:
    """The command line."""
    return Root(session)


def _root_options() -> list[click.Option]:
    return [
        click.Option(
            ["--from-server"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_from_server,
            help="Build the commands from the daemon's own contract (by reflection).",
        ),
        click.Option(
            ["--completion"],
            type=click.Choice(SHELLS),
            expose_value=False,
            callback=_print_completion,
            is_eager=True,
            help="Print the completion script of a shell.",
        ),
        click.Option(
            ["--dump-docs"],
            type=click.Choice(["md", "man"]),
            expose_value=False,
            callback=_print_docs,
            help="Print the reference of all commands, as Markdown or as a manual page.",
        ),
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
        ),
    ]


def _from_server(ctx: click.Context, _param: click.Parameter, value: object) -> None:
    if value and isinstance(ctx.command, Root) and not ctx.resilient_parsing:
        from mcastd.cli.ctl.reflection import contract_of  # noqa: PLC0415 - loads grpc

        # Where the daemon is, is known once all flags have been read.
        ctx.command.session = Session(lambda: contract_of(read_target(ctx)))


def _print_completion(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value and not ctx.resilient_parsing:
        from mcastd.cli.ctl.completion import script  # noqa: PLC0415 - shells alone need it

        click.echo(script(value), nl=False)
        ctx.exit()


def _print_docs(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value and not ctx.resilient_parsing:
        from mcastd.cli.ctl.docs import man_page, markdown  # noqa: PLC0415 - rarely needed

        click.echo(markdown(ctx) if value == "md" else man_page(ctx), nl=False)
        ctx.exit()


def _print_version(ctx: click.Context, _param: click.Parameter, value: object) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"{PROGRAM} {__version__}")
        ctx.exit()
