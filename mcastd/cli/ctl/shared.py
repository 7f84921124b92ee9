"""Flags that every command has: where the daemon is, and what answers look like. Given before the command or after it."""

from collections.abc import Mapping
from typing import Any

import click

from mcastd.cli.ctl import values
from mcastd.cli.ctl.fieldtypes import FlagOption, ParamType
from mcastd.cli.ctl.output import FORMATS, Style
from mcastd.cli.ctl.transport import DEFAULT_ADDRESS, UNARY_SECONDS, Target, parse_address

CONNECTION = "Connection options"
OUTPUT = "Output options"

_CONNECTION_KEYS = ("address", "tls_ca", "tls_cert", "tls_key", "tls_server_name", "timeout")
_OUTPUT_KEYS = ("output", "json", "columns", "full")


class Seconds(ParamType):
    """A duration, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds of the text; click says which flag it was if it is no duration."""
        try:
            seconds = values.parse_duration(value) / values.NANOS
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        if seconds <= 0:
            self.fail(f"{value!r} leaves no time", param, ctx)
        return seconds


class _Address(ParamType):
    """An address."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return parse_address(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


def connection_options(*, root: bool) -> list[click.Option]:
    """The flags of the connection; below the root they are taken too, but not shown, and the environment has been read."""

    def option(name: str, text: str, kind: ParamType | None = None, metavar: str = "FILE", env: str = "") -> click.Option:
        given: dict[str, Any] = {"envvar": env, "show_envvar": True, "is_eager": True} if root and env else {"is_eager": root}
        return FlagOption([name], help=text, type=kind, metavar=metavar, hidden=not root, heading=CONNECTION, **given)

    where = f"Address of the daemon: unix:PATH, or HOST:PORT with TLS (default: {DEFAULT_ADDRESS})."
    return [
        option("--address", where, _Address(), "ADDRESS", "MCASTD_ADDRESS"),
        option("--tls-ca", "Certificates that the daemon's is checked by (default: those of the system).", env="MCASTD_TLS_CA"),
        option("--tls-cert", "Certificate of the caller.", env="MCASTD_TLS_CERT"),
        option("--tls-key", "Its private key.", env="MCASTD_TLS_KEY"),
        option("--tls-server-name", "Name that the daemon's certificate must have.", None, "NAME", "MCASTD_TLS_SERVER_NAME"),
        option(
            "--timeout",
            f"Longest wait for an answer, of a list for its beginning (default: {UNARY_SECONDS:g}s; none for watch and replace).",
            Seconds(),
            "DURATION",
        ),
    ]


def output_options() -> list[click.Option]:
    """The flags of the output."""
    return [
        FlagOption(["-o", "--output"], type=click.Choice(FORMATS), help="Format of the answer (default: table).", heading=OUTPUT),
        FlagOption(["-j", "--json"], is_flag=True, help="Same as -o json.", heading=OUTPUT),
        FlagOption(
            ["--columns"],
            metavar="A,B",
            multiple=True,
            help="Columns of the table, by title or field path (status.state).",
            heading=OUTPUT,
        ),
        FlagOption(["--full"], is_flag=True, help="With values that are zero (json, yaml, ndjson).", heading=OUTPUT),
    ]


def read_target(context: click.Context) -> Target:
    """Where the daemon is."""
    given = {key: value for key in _CONNECTION_KEYS if (value := _latest(context, key)) is not None}
    for pair in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if given.get(pair[0]) and not given.get(pair[1]):
            raise click.UsageError(f"--{pair[0].replace('_', '-')} needs --{pair[1].replace('_', '-')}.", context)
    return Target(**given)


def read_style(context: click.Context) -> Style:
    """What the output looks like."""
    form = "json" if _latest(context, "json") else _latest(context, "output") or "table"
    columns = tuple(name.strip() for text in _latest(context, "columns") or () for name in text.split(",") if name.strip())
    return Style(form, columns, bool(_latest(context, "full")))


def _latest(context: click.Context, key: str) -> Any:
    """The value of a flag: of the command, else of what comes before it."""
    at: click.Context | None = context
    while at is not None:
        params: Mapping[str, Any] = at.params
        if params.get(key):
            return params[key]
        at = at.parent
    return None
