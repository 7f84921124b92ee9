"""`mcastd keeper` and `mcastd server`: keeper and server apart from each other, as in two containers.

The keeper has the capabilities and reads no file. The server has none, is started by whoever runs its container, and reads the
configuration; a process of its own stays above it, which starts it again to stand by when another has taken over.
"""

import argparse
import logging
import os
import pwd
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from mcastd.cli.addresses import bad, parse_listen
from mcastd.cli.flags import DEFAULT_CONFIG, Flags
from mcastd.cli.loading import load
from mcastd.keeper import privileges, reexec
from mcastd.keeper.channel import EX_HANDED_OVER
from mcastd.keeper.door import DoorAddress, make_directory
from mcastd.keeper.failure import EX_OSERR, EX_UNAVAILABLE, EX_USAGE, CannotRun
from mcastd.keeper.identity import Identity
from mcastd.keeper.keeper import Keeper
from mcastd.keeper.places import Places
from mcastd.model.settings import DEFAULT_SOCKET, DEFAULT_STATE_DIR, LOG_LEVELS, Listen, Settings
from mcastd.telemetry import logs

DEFAULT_CHANNEL = "/run/mcastd/keeper.sock"

UID_MAX = 2**32 - 2

PLACES_PATIENCE = 5.0
"""Seconds that directories may be taken: a server that its keeper has hung up on needs up to 3 to end its calls."""

_PLACES_RETRY = 0.02

_STAND_BY = -1

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_log = logging.getLogger(__name__)


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """The two commands of the command line."""
    _add_keeper(commands)
    _add_server(commands)


def _add_keeper(commands: "argparse._SubParsersAction[Any]") -> None:
    keeper = commands.add_parser(
        "keeper",
        help="run the keeper alone, which waits for servers",
        description="Hold the multicast routing sockets for a server in another container (`mcastd server`), let in by its user.",
        epilog="Exit codes: 64 command line, 69 socket or table in use, 71 refused by the system, 77 capability missing, "
        "78 configuration.",
        allow_abbrev=False,
    )
    keeper.add_argument(
        "--channel",
        metavar="PATH",
        help="socket at which servers come, PATH[,mode=0600][,group=NAME]; it is given to the server's user, which needs "
        f"CAP_CHOWN where that is not the keeper's own (default: {DEFAULT_CHANNEL}) [MCASTD_CHANNEL]",
    )
    keeper.add_argument("--user", metavar="NAME", help="user, or uid, of the only server let in (default: mcastd) [MCASTD_USER]")
    keeper.add_argument("--action", metavar="PATH", help="program run when packets have made an entry, and after a reload")
    keeper.add_argument("--log-level", metavar="LEVEL", help=f"{', '.join(LOG_LEVELS)} (default: info) [MCASTD_LOG_LEVEL]")


def _add_server(commands: "argparse._SubParsersAction[Any]") -> None:
    server = commands.add_parser(
        "server",
        help="run a server alone, for a keeper elsewhere",
        description="Serve for a keeper that runs elsewhere (`mcastd keeper`). A server that comes while another one serves "
        "takes over from it as soon as it is prepared; the other one then stands by.",
        epilog="Exit codes: 64 command line, 69 socket or state directory in use, 71 refused by the system, 75 try again, "
        "76 the keeper is of another version, 78 configuration.",
        allow_abbrev=False,
    )
    server.add_argument("--channel", metavar="PATH", help=f"the keeper's socket (default: {DEFAULT_CHANNEL}) [MCASTD_CHANNEL]")
    server.add_argument("--stand-by", action="store_true", help="take over only when no other server serves any more")
    server.add_argument("--config", metavar="FILE", help=f"as of `mcastd serve` (default: {DEFAULT_CONFIG}, where it exists)")
    where = f"as of `mcastd serve` (default: unix:{DEFAULT_SOCKET})"
    server.add_argument("--listen", metavar="ADDRESS", action="append", help=where)
    server.add_argument("--state-dir", metavar="DIR", help=f"directory of the durable state (default: {DEFAULT_STATE_DIR})")
    server.add_argument("--metrics", metavar="ADDRESS", help="HOST:PORT of the metrics, or off (default: off)")
    server.add_argument("--log-level", metavar="LEVEL", help=f"{', '.join(LOG_LEVELS)} (default: info)")


def run_keeper(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Run the keeper alone until it is ended; CannotRun."""
    identity = _peer(given.user or environment.get("MCASTD_USER") or "mcastd")
    settings = Settings(
        listens=(),
        state_dir="",
        user=identity.user,
        uid=identity.uid,
        gid=identity.gid,
        change_user=False,
        log_level=_log_level(given.log_level or environment.get("MCASTD_LOG_LEVEL") or "info"),
        action=_action(given.action) if given.action else "",
    )
    logs.configure("keeper", settings.log_level)
    address = _channel(given.channel or environment.get("MCASTD_CHANNEL") or DEFAULT_CHANNEL, identity)
    if reexec.trial_wanted(environment):
        return reexec.trial_verdict(environment)
    privileges.check()
    Keeper(settings, door=address).run()
    return 0


def run_server(given: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Run a server until it is ended, again and again where others take over from it; its exit code, or CannotRun."""
    channel = _path(given.channel or environment.get("MCASTD_CHANNEL") or DEFAULT_CHANNEL)
    flags = Flags(given.config, given.listen, given.state_dir, given.metrics, None, given.log_level)
    stand_by = given.stand_by
    while True:
        code = _run_child(channel, flags, environment, stand_by=stand_by)
        if code is None:
            return 0
        if code == _STAND_BY:
            stand_by = True
            _log.info("another server has taken over: this one stands by")
        elif not (stand_by and code == os.EX_TEMPFAIL):  # The keeper was started again: that is no reason to take over.
            return code


def _run_child(channel: str, flags: Flags, environment: Mapping[str, str], *, stand_by: bool) -> int | None:
    """One server; its exit code, _STAND_BY when another has taken over, None when it was ended by a signal that was passed on."""
    asked: list[int] = []
    child = os.fork()  # before anything of the server is imported: there are no threads
    if not child:
        _be_server(channel, flags, environment, stand_by=stand_by)

    def pass_on(number: int, _frame: object) -> None:
        asked.append(number)
        os.kill(child, signal.SIGTERM if number == signal.SIGINT else number)

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    try:
        _, status = os.waitpid(child, 0)
    finally:
        for passed, handler in before.items():
            signal.signal(passed, handler)
    ended = any(number != signal.SIGHUP for number in asked)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if ended and number == signal.SIGTERM:
            return None
        _log.error("the server has died", extra={"signal": signal.Signals(number).name})
        return 128 + number
    code = os.WEXITSTATUS(status)
    return None if ended else _STAND_BY if code == EX_HANDED_OVER else code


def _be_server(channel: str, flags: Flags, environment: Mapping[str, str], *, stand_by: bool) -> NoReturn:
    """The server's process, to its end."""
    code = EX_OSERR
    try:
        code = _serve(channel, flags, environment, stand_by=stand_by)
    except CannotRun as exc:
        _log.critical("%s", exc, extra={"exit_code": exc.exit_code})
        code = exc.exit_code
    finally:
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())
        logs.finish()
        os._exit(code)


def _serve(channel: str, flags: Flags, environment: Mapping[str, str], *, stand_by: bool) -> int:
    settings = load(flags, environment)
    logs.configure("server", settings.log_level)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # The file is read when it is this server's turn, in any case.
    for listen in settings.listens:
        make_directory(os.path.dirname(listen.path))  # noqa: PTH120 - see mcastd/cli/flags.py
    from mcastd.runtime import server  # noqa: PLC0415 - the process above has no use for it
    from mcastd.runtime.preparation import Own, connect  # noqa: PLC0415

    return server.main(lambda: connect(channel), Own(settings, stand_by, lambda: _places(settings)))


@contextmanager
def _places(settings: Settings) -> Iterator[None]:
    """Directories and locks, while this server serves; its sockets are left to its successor, if it has one."""
    before = os.umask(0o022)
    places = _take_places(settings)
    os.umask(before)
    places.keep()
    try:
        yield
    finally:
        places.let_go()


def _take_places(settings: Settings) -> Places:
    """Whoever served before has let go of them, or was killed a moment ago."""
    give_up_at = time.monotonic() + PLACES_PATIENCE
    while True:
        try:
            return Places(settings)
        except CannotRun as exc:
            if exc.exit_code != EX_UNAVAILABLE or time.monotonic() >= give_up_at:
                raise
        time.sleep(_PLACES_RETRY)


COMMANDS: Mapping[str, Callable[[argparse.Namespace, Mapping[str, str]], int]] = {"keeper": run_keeper, "server": run_server}
"""What the commands do; the exit code, or CannotRun."""


def _peer(user: str) -> Identity:
    if user.isascii() and user.isdigit() and int(user) <= UID_MAX:
        try:
            entry = pwd.getpwuid(int(user))
        except KeyError:
            return Identity(user, int(user), int(user), change=False)
        return Identity(user, entry.pw_uid, entry.pw_gid, change=False)
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise bad("--user", user, "there is no such user: create it, or write its number") from None
    return Identity(user, entry.pw_uid, entry.pw_gid, change=False)


def _channel(text: str, identity: Identity) -> DoorAddress:
    path, *options = text.split(",")
    for option in options:
        if option.partition("=")[0] not in {"mode", "group"}:
            raise bad("--channel", text, f"{option!r} is not mode= or group=")
    listen = parse_listen("--channel", ",".join([f"unix:{_path(path)}", *options]), identity)
    if not isinstance(listen, Listen):
        raise CannotRun(EX_USAGE, f"--channel: {text!r} can't be used: write the absolute path of a socket")
    return DoorAddress(listen.path, listen.mode, listen.gid)


def _path(text: str) -> str:
    if not text.startswith("/") or text.endswith("/") or not text.isprintable():
        raise bad("--channel", text, "write the absolute path of a socket")
    return text


def _log_level(text: str) -> str:
    if text not in LOG_LEVELS:
        raise bad("--log-level", text, f"choose {', '.join(LOG_LEVELS)}")
    return text


def _action(path: str) -> str:
    from mcastd.cli.configuration import check_action  # noqa: PLC0415 - a keeper without an action has no use for it

    return check_action("--action", path)
