"""`mcastd`: the daemon's own program. It becomes the keeper, so it imports little: no grpc, protobuf, pyroute2 or click."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import mcastd
from mcastd.cli import apart, tls
from mcastd.cli.flags import DEFAULT_CONFIG, Flags
from mcastd.cli.loading import FaultyConfiguration, load
from mcastd.keeper import privileges, reexec
from mcastd.keeper.failure import EX_OSERR, EX_USAGE, CannotRun
from mcastd.keeper.keeper import Keeper
from mcastd.keeper.process import SERVER_COMMAND
from mcastd.model.settings import DEFAULT_SOCKET, DEFAULT_STATE_DIR, LOG_LEVELS
from mcastd.telemetry import logs

_log = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    """Ends with the usual exit code for a wrong command line."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: error: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = _Parser(prog="mcastd", description="A multicast router for Linux that a program can drive.", allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"mcastd {mcastd.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="run the daemon in the foreground",
        description="Run the daemon in the foreground, logging to standard error.",
        epilog="A flag wins over the environment variable, which wins over the configuration file. "
        "Exit codes: 64 command line, 69 socket, state directory or table in use, 71 refused by the system, "
        "77 capability missing, 78 configuration.",
        allow_abbrev=False,
    )
    serve.add_argument(
        "--config", metavar="FILE", help=f"configuration file, TOML (default: {DEFAULT_CONFIG}, where it exists) [MCASTD_CONFIG]"
    )
    serve.add_argument(
        "--listen",
        metavar="ADDRESS",
        action="append",
        help="address of the API, may be repeated: unix:PATH[,mode=0660][,group=NAME][,access=view|write|admin][,owner=NAME], or "
        "with TLS tcp:ADDRESS:PORT,cert=FILE,key=FILE,ca=FILE "
        f"(default: unix:{DEFAULT_SOCKET}) [MCASTD_LISTEN, separated by spaces]",
    )
    serve.add_argument(
        "--state-dir", metavar="DIR", help=f"directory of the durable state (default: {DEFAULT_STATE_DIR}) [MCASTD_STATE_DIR]"
    )
    serve.add_argument("--metrics", metavar="ADDRESS", help="HOST:PORT of the metrics, or off (default: off) [MCASTD_METRICS]")
    serve.add_argument("--user", metavar="NAME", help="user of the server process (default: mcastd, else nobody) [MCASTD_USER]")
    serve.add_argument("--action", metavar="PATH", help="program run when packets have made an entry, and after a reload")
    serve.add_argument("--log-level", metavar="LEVEL", help=f"{', '.join(LOG_LEVELS)} (default: info) [MCASTD_LOG_LEVEL]")
    apart.add_commands(commands)
    _add_check(commands)
    tls.add_command(commands)
    return top


def _add_check(commands: "argparse._SubParsersAction[_Parser]") -> None:
    check = commands.add_parser(
        "check",
        help="check a configuration file",
        description="Print what a configuration file and all that it includes would put in force, or all that is wrong with it.",
        epilog="Exit codes: 0 it can be used, 64 command line, 78 it can't be used.",
        allow_abbrev=False,
    )
    check.add_argument("file", metavar="FILE", nargs="?", default=DEFAULT_CONFIG, help=f"the file (default: {DEFAULT_CONFIG})")
    check.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")


def _check(given: argparse.Namespace) -> int:
    from mcastd.cli.check import check  # noqa: PLC0415 - the keeper has no use for it

    return check(given.file, quiet=given.quiet)


def _tls(given: argparse.Namespace) -> int:
    from mcastd.cli.lab import run  # noqa: PLC0415 - of this command alone

    return run(given)


_ALONE = {"check": _check, "tls": _tls}
"""Commands that start no daemon."""


def main(arguments: Sequence[str] | None = None, *, server_command: Sequence[str] = SERVER_COMMAND) -> int:
    """Run the program and return its exit code; `server_command` is for tests of the keeper alone."""
    given = parser().parse_args(arguments)
    if given.command in _ALONE:
        return _ALONE[given.command](given)
    logs.configure("server" if given.command == "server" else "keeper", "info")
    sys.excepthook = logs.log_uncaught
    try:
        if given.command in apart.COMMANDS:
            return apart.COMMANDS[given.command](given, os.environ)
        flags = Flags(given.config, given.listen, given.state_dir, given.metrics, given.user, given.log_level, given.action)
        settings = load(flags, os.environ)
        logs.configure("keeper", settings.log_level)
        if reexec.trial_wanted(os.environ):
            return reexec.trial_verdict(os.environ)
        privileges.check()
        Keeper(settings, server_command).run()
    except CannotRun as exc:
        for fault in exc.faults if isinstance(exc, FaultyConfiguration) else ():
            _log.critical("%s", fault)
        _log.critical("%s", exc, extra={"exit_code": exc.exit_code})
        return exc.exit_code
    except OSError as exc:
        _log.critical("the system refused what it should not: %s", exc, exc_info=True, extra={"exit_code": EX_OSERR})
        return EX_OSERR
    finally:
        logs.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
