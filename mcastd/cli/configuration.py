"""Where settings come from: flags before environment before file before defaults, each value checked where it was written.

Every refusal names the place (file and key, flag or variable), the value and the remedy; the exit code is 78.
"""

import os
import stat
from collections.abc import Mapping
from typing import Any, NamedTuple

from mcastd.cli.addresses import bad, make_listen, parse_listen, split_addresses
from mcastd.cli.flags import DEFAULT_CONFIG, Flags, config_path
from mcastd.cli.metrics import exposition, metrics_addresses
from mcastd.keeper.failure import EX_CONFIG, CannotRun
from mcastd.keeper.identity import Identity, server_identity
from mcastd.model.settings import (
    AUDITS,
    DEFAULT_SOCKET,
    DEFAULT_STATE_DIR,
    DEFAULT_TABLE_NUMBERS,
    LOG_LEVELS,
    TABLE_MAX,
    TABLES_MAX,
    Listen,
    Remote,
    Settings,
)
from mcastd.sources.daemon import Wanted, check_sections, marks_of
from mcastd.sources.document import Document, read_document
from mcastd.sources.faults import BadConfiguration, Fault, Path, key_text

LISTENS_MAX = 64
"""Sockets of the API; with the other limits here, the settings fit into one message of the channel."""


class _Found(NamedTuple):
    """A value and where it was written."""

    origin: object
    value: str


class _File:
    """The configuration file, or that there is none."""

    def __init__(self, path: str | None) -> None:
        """Read it; CannotRun if it can't be read, or holds what can't be."""
        self.path = path
        self.content: Mapping[str, Any] = {}
        if path is None:
            return
        try:
            self._document = read_document(path)
        except BadConfiguration as exc:
            raise CannotRun(EX_CONFIG, str(exc.faults[0])) from exc
        self.content = self._document.content
        _refuse_first(check_sections(self._document))

    @property
    def daemon(self) -> Mapping[str, Any]:
        """Its section [daemon]."""
        return self.section("daemon")

    def section(self, name: str) -> Mapping[str, Any]:
        """One of its sections; empty where it has none."""
        section: Mapping[str, Any] = self.content.get(name, {})
        return section

    def limits(self) -> Wanted:
        """What it says of limits and tables; what included files say of tables the server adds."""
        wanted = Wanted()
        if self.path is not None:
            _refuse_first([*wanted.read_daemon(self._document), *wanted.read_tables(self._document)])
        return wanted

    def origin(self, *path: str | int) -> "_Origin":
        """Where a key of it stands."""
        return _Origin(self._document, path)


class _Origin(NamedTuple):
    """Place and name of a key of the file; the place costs something, so it is looked for when there is something to refuse."""

    document: Document
    path: Path

    def __str__(self) -> str:
        return f"{self.document.place(self.path)}: {key_text(self.path)}"


def load_settings(flags: Flags, environment: Mapping[str, str]) -> Settings:
    """Everything put together and checked; CannotRun if anything can't be."""
    file = _File(config_path(flags.config, environment))

    def find(name: str, default: str) -> _Found:
        flag: str | None = getattr(flags, name)
        if flag is not None:
            return _Found(f"--{name.replace('_', '-')}", flag)
        variable = f"MCASTD_{name.upper()}"
        if environment.get(variable):
            return _Found(variable, environment[variable])
        if name in file.daemon:
            return _Found(file.origin("daemon", name), file.daemon[name])
        return _Found("default", default)

    user = find("user", "")
    identity = _identity(user)
    listens, remotes = _listens(flags, environment, file, identity)
    if file.path is None and any(remote.cert for remote in remotes):
        text = "a listener with TLS lets in whom a [[principal]] names, and there is no configuration file: write one"
        raise CannotRun(EX_CONFIG, f"{text} ({DEFAULT_CONFIG}, or --config FILE)")
    return Settings(
        listens=listens,
        remotes=remotes,
        state_dir=_directory(find("state_dir", DEFAULT_STATE_DIR)),
        user=identity.user,
        uid=identity.uid,
        gid=identity.gid,
        change_user=identity.change,
        metrics=metrics_addresses(find("metrics", ""), file.section("metrics"), lambda *path: file.origin("metrics", *path)),
        exposition=exposition(file.section("metrics"), file.path, lambda *path: file.origin("metrics", *path)),
        log_level=_log_level(find("log_level", "info")),
        audit=_audit(file),
        limits=file.limits().all_limits(),
        tables=_tables(file),
        config=os.path.abspath(file.path) if file.path is not None else "",  # noqa: PTH100 - see mcastd/cli/flags.py
        action=_action(flags.action, file),
        marks=marks_of(file.content),
    )


def _refuse_first(faults: list[Fault]) -> None:
    if faults:
        raise CannotRun(EX_CONFIG, str(faults[0]))


def _identity(user: _Found) -> Identity:
    if user.origin == "default":
        return server_identity(None)
    try:
        return server_identity(user.value)
    except CannotRun as exc:
        raise CannotRun(exc.exit_code, f"{user.origin}: {exc}") from exc


def _listens(
    flags: Flags, environment: Mapping[str, str], file: _File, identity: Identity
) -> tuple[tuple[Listen, ...], tuple[Remote, ...]]:
    """Sockets and TCP addresses; the default socket where nothing is said, or only TCP addresses are."""
    if flags.listen:
        listens = [parse_listen("--listen", text, identity) for text in flags.listen]
    elif environment.get("MCASTD_LISTEN"):
        listens = [parse_listen("MCASTD_LISTEN", text, identity) for text in split_addresses(environment["MCASTD_LISTEN"])]
    else:
        listens = _listens_of_file(file, identity)
    if not any(isinstance(one, Listen) for one in listens):
        listens = [Listen(DEFAULT_SOCKET), *listens]
    if len(listens) > LISTENS_MAX:
        raise CannotRun(EX_CONFIG, f"{len(listens)} sockets are to be listened on: at most {LISTENS_MAX} can be, leave some out")
    addresses = [one.path if isinstance(one, Listen) else _target(one) for one in listens]
    for address in addresses:
        if addresses.count(address) > 1:
            raise CannotRun(EX_CONFIG, f"the socket {address} is listened on twice: leave one")
    sockets = tuple(one for one in listens if isinstance(one, Listen))
    return sockets, tuple(one for one in listens if isinstance(one, Remote))


def _target(remote: Remote) -> str:
    """Address and port as gRPC listens on them: any address of one family means those of the other, too."""
    return f"[::]:{remote.port}" if remote.host == "0.0.0.0" else remote.target


def _listens_of_file(file: _File, identity: Identity) -> list[Listen | Remote]:
    listens = []
    for at, text in enumerate(file.daemon.get("listen", [])):
        origin = file.origin("daemon", "listen", at)
        if not isinstance(text, str):
            raise bad(origin, text, "it must be a list of strings")
        listens.append(parse_listen(origin, text, identity))
    for at, one in enumerate(file.content.get("listen", [])):
        options = {name: value for name, value in one.items() if name != "address"}
        listens.append(make_listen(file.origin("listen", at), one["address"], options, identity))
    return listens


def _directory(found: _Found) -> str:
    if not found.value.startswith("/") or not found.value.isprintable():
        raise bad(found.origin, found.value, "write the absolute path of a directory")
    return os.path.normpath(found.value)


def _log_level(found: _Found) -> str:
    if found.value not in LOG_LEVELS:
        raise bad(found.origin, found.value, f"choose {', '.join(LOG_LEVELS)}")
    return found.value


def _audit(file: _File) -> str:
    value: str = file.daemon.get("audit", AUDITS[0])
    if value not in AUDITS:
        raise bad(file.origin("daemon", "audit"), value, f"choose {', '.join(AUDITS)}")
    return value


def _action(flag: str | None, file: _File) -> str:
    """The script's path: from the command line or the file, never from the environment, and never from the server."""
    found = _Found("default", "")
    if flag is not None:
        found = _Found("--action", flag)
    elif "action" in file.daemon:
        found = _Found(file.origin("daemon", "action"), file.daemon["action"])
    return check_action(found.origin, found.value) if found.value else ""


def check_action(origin: object, path: str) -> str:
    """The path of a program that the keeper may run; CannotRun if it is none."""
    if not path.startswith("/") or not path.isprintable():
        raise bad(origin, path, "write the absolute path of a program")
    try:
        info = os.stat(path)  # noqa: PTH116 - see mcastd/cli/flags.py
    except OSError as exc:
        raise bad(origin, path, f"it can't be looked at: {exc.strerror}") from exc
    if not stat.S_ISREG(info.st_mode) or not os.access(path, os.X_OK):
        raise bad(origin, path, f"it is no program that can be executed: chmod +x {path}")
    if info.st_mode & stat.S_IWOTH:
        raise bad(origin, path, f"everybody may write it, and it is run with privileges: chmod o-w {path}")
    return path


def _tables(file: _File) -> tuple[int, ...]:
    values, tables = file.daemon.get("tables", []), []
    for at, value in enumerate(values):
        origin = file.origin("daemon", "tables", at)
        if type(value) is not int or not 1 <= value <= TABLE_MAX:
            raise bad(origin, value, f"a table is a number from 1 to {TABLE_MAX}; table 0 is always open")
        if value in DEFAULT_TABLE_NUMBERS:
            raise bad(origin, value, "that is the default table, which is always open: leave it out")
        tables.append(value)
    if len(tables) > TABLES_MAX:
        raise bad(file.origin("daemon", "tables"), f"{len(tables)} tables", f"at most {TABLES_MAX} can be open at once")
    return tuple(dict.fromkeys(tables))
