"""The command itself: its flags (those of `route list` that choose routes, and its own), and which of its two forms runs."""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from mcastd.cli.ctl.commands import SETTINGS, format_flags
from mcastd.cli.ctl.completers import complete
from mcastd.cli.ctl.contract import Contract
from mcastd.cli.ctl.failure import CallError
from mcastd.cli.ctl.fieldtypes import FlagOption, make_parameter, plain_value
from mcastd.cli.ctl.request import make_requests
from mcastd.cli.ctl.run import tell_failure
from mcastd.cli.ctl.screen import Screen, complain
from mcastd.cli.ctl.shared import OUTPUT, Seconds, connection_options, read_style, read_target
from mcastd.cli.ctl.top.flows import SORTS, arrange
from mcastd.cli.ctl.top.live import run_live
from mcastd.cli.ctl.top.plain import json_lines, table_lines
from mcastd.cli.ctl.top.poll import PASSING, ROUTES, Methods, Poller, Source
from mcastd.cli.ctl.top.terminal import Terminal
from mcastd.cli.ctl.top.view import Picture, View
from mcastd.cli.ctl.transport import Connection
from mcastd.cli.ctl.tree import Input, Tree

FORMATS = ("table", "json", "ndjson")

_HELP = """Show flows by rate, live.

On a terminal a view of the whole screen, redrawn every interval: press h for its keys. Elsewhere, with --count and with -o, a
table (or JSON) for each interval, of the time since the one before. It goes on while the daemon restarts.

Flows that are not as they should be are marked: "!" packets arrive on a wrong interface, "-" nothing is forwarded although there
was traffic or the route is monitored, "?" the kernel does not forward as asked.
"""

DEFAULT_INTERVAL = 1.0
"""Seconds; the daemon reads the kernel's counters no more often."""


class Wish(NamedTuple):
    """What the command line asks for."""

    interval: float
    tables: int | None
    """Tables to write; None = no end."""
    rows: int | None
    form: str
    """One of FORMATS; empty = not said."""
    view: View


class Top(click.Command):
    """`mcastctl top`."""

    def __init__(self, contract: Contract, tree: Tree) -> None:
        """Offer it with the flags of the command that lists routes."""
        super().__init__(
            name="top",
            help=_HELP,
            short_help="Show flows by rate, live.",
            context_settings=dict(SETTINGS),
        )
        self._methods = Methods.of(contract)
        self._list = next(one for one in tree.commands if one.method.full_name == ROUTES)
        chosen = [one for one in self._list.inputs if one.path[0].name == "selector"]
        self._inputs = {f"input_{at}": one for at, one in enumerate(chosen)}
        self.params = [make_parameter(one, name, complete) for name, one in self._inputs.items()]
        self.params += [*_options(), *connection_options(root=False)]

    def invoke(self, ctx: click.Context) -> int:
        """Run it; the exit code."""
        wish = _wish(ctx)
        selector = self._selector(ctx)
        with Connection(read_target(ctx)) as connection:
            source = Source(connection, self._methods, selector, wish.interval)
            live = not wish.form and wish.tables is None and sys.stdin.isatty() and sys.stdout.isatty()
            try:
                if live:
                    _live(source, wish)
                else:
                    write_tables(source.ask, wish, Screen())
            except KeyboardInterrupt:
                return 0  # there is no other way to end it in a pipe
            except CallError as exc:
                return tell_failure(exc, read_style(ctx))
        return 0

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        format_flags(ctx, self.get_params(ctx), formatter)

    def _selector(self, ctx: click.Context) -> Any:
        given: dict[Input, object] = {}
        for name, one in self._inputs.items():
            value = ctx.params.get(name)
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE and value is not None and value != ():
                given[one] = plain_value(one, value)
        request: Any = make_requests(self._list, given, None)[0]
        return request.selector if request.HasField("selector") else None


def _live(source: Source, wish: Wish) -> None:
    first = source.ask()  # before the terminal is taken: what is refused is said on the screen as it was
    with Terminal(sys.stdin.fileno(), sys.stdout.fileno()) as terminal:
        poller = Poller(source, first, wish.interval, terminal.wake)
        try:
            run_live(terminal, poller.picture, wish.view)
        finally:
            poller.end()


def write_tables(ask: Callable[[], Picture], wish: Wish, screen: Screen, sleep: Callable[[float], None] = time.sleep) -> None:
    """Write a table for each interval; CallError if the daemon refuses, or did not answer the first time."""
    ask()  # counters to begin with
    written, silent = 0, False
    while wish.tables is None or written < wish.tables:
        sleep(wish.interval)
        try:
            picture = ask()
        except CallError as exc:
            if exc.status not in PASSING:
                raise
            if not silent:
                complain(exc.line() + "; trying again")
            silent = True
            continue
        if silent:
            complain("mcastctl: connected again")
            silent = False
        view = wish.view
        flows = arrange(picture.flows, view.sort, view.filter.lower().split(), reverse=view.reverse, marked=view.marked)[
            : wish.rows
        ]
        if wish.form in {"json", "ndjson"}:
            screen.lines(json_lines(flows, picture.time, whole=wish.form == "json"))
        else:
            screen.lines([*([""] if written else []), *table_lines(flows)])
        written += 1


def _options() -> list[click.Option]:
    orders = [one.name for one in SORTS]
    return [
        FlagOption(
            ["--interval"], type=Seconds(), metavar="DURATION", help="Time between two looks (default: 1s).", default=None
        ),
        FlagOption(["-n", "--count"], type=click.IntRange(1), metavar="NUMBER", help="Write so many tables, then end."),
        FlagOption(["-s", "--sort"], type=click.Choice(orders), help="Order of the flows (default: bits)."),
        FlagOption(["-r", "--reverse"], is_flag=True, help="The other way round."),
        FlagOption(["--filter"], metavar="TEXT", help="Only flows in which every word of this occurs, whatever the column."),
        FlagOption(["--marked"], is_flag=True, help="Only flows that are marked."),
        FlagOption(["--rows"], type=click.IntRange(1), metavar="NUMBER", help="At most so many flows in a table."),
        FlagOption(["-o", "--output"], type=click.Choice(FORMATS), help="Format of the tables (default: table).", heading=OUTPUT),
        FlagOption(["-j", "--json"], is_flag=True, help="Same as -o json: an array on one line for each table.", heading=OUTPUT),
    ]


def _wish(ctx: click.Context) -> Wish:
    style = read_style(ctx)
    if style.format not in FORMATS:
        raise click.UsageError(f"top writes {', '.join(FORMATS)}, not {style.format}.", ctx)
    if style.columns or style.full:
        raise click.UsageError("top has columns of its own: leave --columns and --full out.", ctx)
    params = ctx.params
    sort = next(one for one in SORTS if one.name == (params["sort"] or "bits"))
    said = style.format != "table" or params["output"] is not None
    return Wish(
        interval=params["interval"] or DEFAULT_INTERVAL,
        tables=params["count"],
        rows=params["rows"],
        form=style.format if said else "",
        view=View(sort, params["reverse"], params["filter"] or "", params["marked"]),
    )
