"""Where settings come from: flags before environment before file before defaults, each value checked where it was written.

Every refusal names the place (file and key, flag or variable), the value and the remedy; the exit code is 78.
"""

import os
import tomllib
from collections.abc import Mapping
from typing import Any, NamedTuple

from mcastd.cli.addresses import OPTIONS, bad, make_listen, parse_listen, split_addresses
from mcastd.keeper.failure import EX_CONFIG, CannotRun
from mcastd.keeper.identity import Identity, server_identity
from mcastd.model.limits import Limits
from mcastd.model.settings import (
    DEFAULT_SOCKET,
    DEFAULT_STATE_DIR,
    DEFAULT_TABLE_NUMBERS,
    LOG_LEVELS,
    TABLE_MAX,
    TABLES_MAX,
    Listen,
    Settings,
    metrics_host_port,
)

ROUTES_MAX_LIMIT = 100_000_000

LISTENS_MAX = 64
"""Sockets of the API; with the other limits here, the settings fit into one message of the channel."""

_METRICS_MAX = 300
"""Characters of HOST:PORT: a host name has at most 253."""

_DAEMON_KEYS: Mapping[str, type] = {
    "listen": list,
    "state_dir": str,
    "metrics": str,
    "user": str,
    "log_level": str,
    "routes_max": int,
    "learned_max": int,
    "stops_max": int,
    "idle_timeout": int,
    "unrouted": str,
    "tables": list,
}
_TABLE_KEYS: Mapping[str, type] = {"number": int, "unrouted": str}
_LISTEN_KEYS: Mapping[str, type] = {"address": str, **dict.fromkeys(OPTIONS, str)}
_SECTIONS: Mapping[str, type] = {"daemon": dict, "listen": list, "table": list}
_POLICIES = {"stop": True, "ignore": False}

_TYPE_NAMES: Mapping[type, str] = {str: "a string", int: "a number", list: "a list", dict: "a table"}


class Flags(NamedTuple):
    """The command line of `mcastd serve`; None = not given."""

    config: str | None = None
    listen: list[str] | None = None
    state_dir: str | None = None
    metrics: str | None = None
    user: str | None = None
    log_level: str | None = None


class _Found(NamedTuple):
    """A value and where it was written."""

    origin: str
    value: str


def load_settings(flags: Flags, environment: Mapping[str, str]) -> Settings:
    """Everything put together and checked; CannotRun if anything can't be."""
    config = flags.config if flags.config is not None else environment.get("MCASTD_CONFIG") or None
    content = _read_file(config) if config is not None else {}
    daemon: dict[str, Any] = content.get("daemon", {})

    def find(name: str, default: str) -> _Found:
        flag: str | None = getattr(flags, name)
        if flag is not None:
            return _Found(f"--{name.replace('_', '-')}", flag)
        variable = f"MCASTD_{name.upper()}"
        if environment.get(variable):
            return _Found(variable, environment[variable])
        if name in daemon:
            return _Found(f"{config}: daemon.{name}", daemon[name])
        return _Found("default", default)

    user = find("user", "")
    identity = _identity(user)
    return Settings(
        listens=_listens(flags, environment, config, content, identity),
        state_dir=_directory(find("state_dir", DEFAULT_STATE_DIR)),
        user=identity.user,
        uid=identity.uid,
        gid=identity.gid,
        change_user=identity.change,
        metrics=_metrics(find("metrics", "off")),
        log_level=_log_level(find("log_level", "info")),
        limits=_limits(config, content),
        tables=_tables(f"{config}: daemon.tables", daemon.get("tables", [])),
        config=os.path.abspath(config) if config is not None else "",  # noqa: PTH100 - see _read_file
    )


def _read_file(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - see keeper: pathlib costs the small process memory
            content = tomllib.load(file)
    except OSError as exc:
        raise CannotRun(EX_CONFIG, f"the configuration file {path} can't be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise CannotRun(EX_CONFIG, f"the configuration file {path} is not UTF-8: {exc.reason} at byte {exc.start}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise CannotRun(EX_CONFIG, f"the configuration file {path} is not TOML: {exc}") from exc
    _check_keys(f"{path}: ", content, _SECTIONS)
    _check_keys(f"{path}: daemon.", content.get("daemon", {}), _DAEMON_KEYS)
    for number, one in enumerate(content.get("table", []), 1):
        if not isinstance(one, dict):
            raise bad(f"{path}: table", one, "write each as a table of its own, under [[table]]")
        _check_keys(f"{path}: table {number}.", one, _TABLE_KEYS)
    for number, one in enumerate(content.get("listen", []), 1):
        if not isinstance(one, dict):
            raise bad(f"{path}: listen", one, "write each as a table of its own, under [[listen]]")
        _check_keys(f"{path}: listen {number}.", one, _LISTEN_KEYS)
        if "address" not in one:
            raise CannotRun(EX_CONFIG, f'{path}: listen {number} has no address: add address = "unix:PATH"')
    return content


def _check_keys(prefix: str, table: Mapping[str, object], known: Mapping[str, type]) -> None:
    for name, value in table.items():
        if name not in known:
            raise CannotRun(EX_CONFIG, f"{prefix}{name} is unknown (value {value!r}): the keys here are {', '.join(known)}")
        if type(value) is not known[name]:
            raise bad(f"{prefix}{name}", value, f"it must be {_TYPE_NAMES[known[name]]}")


def _identity(user: _Found) -> Identity:
    if user.origin == "default":
        return server_identity(None)
    try:
        return server_identity(user.value)
    except CannotRun as exc:
        raise CannotRun(exc.exit_code, f"{user.origin}: {exc}") from exc


def _listens(
    flags: Flags, environment: Mapping[str, str], config: str | None, content: Mapping[str, Any], identity: Identity
) -> tuple[Listen, ...]:
    if flags.listen:
        listens = [parse_listen("--listen", text, identity) for text in flags.listen]
    elif environment.get("MCASTD_LISTEN"):
        listens = [parse_listen("MCASTD_LISTEN", text, identity) for text in split_addresses(environment["MCASTD_LISTEN"])]
    else:
        listens = _listens_of_file(config, content, identity)
    if not listens:
        listens = [Listen(DEFAULT_SOCKET)]
    if len(listens) > LISTENS_MAX:
        raise CannotRun(EX_CONFIG, f"{len(listens)} sockets are to be listened on: at most {LISTENS_MAX} can be, leave some out")
    paths = [listen.path for listen in listens]
    for path in paths:
        if paths.count(path) > 1:
            raise CannotRun(EX_CONFIG, f"the socket {path} is listened on twice: leave one")
    return tuple(listens)


def _listens_of_file(config: str | None, content: Mapping[str, Any], identity: Identity) -> list[Listen]:
    listens = []
    for text in content.get("daemon", {}).get("listen", []):
        origin = f"{config}: daemon.listen"
        if not isinstance(text, str):
            raise bad(origin, text, "it must be a list of strings")
        listens.append(parse_listen(origin, text, identity))
    for number, one in enumerate(content.get("listen", []), 1):
        options = {name: value for name, value in one.items() if name != "address"}
        listens.append(make_listen(f"{config}: listen {number}", one["address"], options, identity))
    return listens


def _directory(found: _Found) -> str:
    if not found.value.startswith("/") or not found.value.isprintable():
        raise bad(found.origin, found.value, "write the absolute path of a directory")
    return os.path.normpath(found.value)


def _metrics(found: _Found) -> str:
    if found.value == "off":
        return ""
    if len(found.value) > _METRICS_MAX:
        raise bad(found.origin, f"{found.value[:32]}...", f"HOST:PORT has at most {_METRICS_MAX} characters")
    try:
        metrics_host_port(found.value)
    except ValueError:
        raise bad(found.origin, found.value, "write HOST:PORT, [IPV6]:PORT or off") from None
    return found.value


def _log_level(found: _Found) -> str:
    if found.value not in LOG_LEVELS:
        raise bad(found.origin, found.value, f"choose {', '.join(LOG_LEVELS)}")
    return found.value


def _limits(config: str | None, content: Mapping[str, Any]) -> Limits:
    daemon, default = content.get("daemon", {}), Limits()
    stop = _policy(f"{config}: daemon.unrouted", daemon.get("unrouted", "stop"))
    if (count := len(content.get("table", []))) > TABLES_MAX + 1:
        raise bad(f"{config}: table", f"{count} tables", f"at most {TABLES_MAX} can be open beside the default one")
    other = set()
    for number, one in enumerate(content.get("table", []), 1):
        origin = f"{config}: table {number}."
        if "number" not in one:
            raise CannotRun(EX_CONFIG, f"{origin}number is missing: say which table it is (0 = the default one)")
        if not 0 <= one["number"] <= TABLE_MAX:
            raise bad(f"{origin}number", one["number"], f"a table is a number from 0 to {TABLE_MAX}")
        if "unrouted" in one and _policy(f"{origin}unrouted", one["unrouted"]) != stop:
            other.add(one["number"])

    def number_of(name: str, default: int, high: int, low: int = 1) -> int:
        value: int = daemon.get(name, default)
        if not low <= value <= high:
            raise bad(f"{config}: daemon.{name}", value, f"choose {low} to {high}")
        return value

    return Limits(
        routes_max=number_of("routes_max", default.routes_max, ROUTES_MAX_LIMIT),
        learned_max=number_of("learned_max", default.learned_max, ROUTES_MAX_LIMIT),
        stops_max=number_of("stops_max", default.stops_max, ROUTES_MAX_LIMIT),
        idle_timeout=float(number_of("idle_timeout", int(default.idle_timeout), 86_400)),
        stop_unrouted=stop,
        other_tables=frozenset(other),
    )


def _policy(origin: str, value: str) -> bool:
    if value not in _POLICIES:
        raise bad(origin, value, "choose stop (a stop filter) or ignore")
    return _POLICIES[value]


def _tables(origin: str, values: list[object]) -> tuple[int, ...]:
    tables = []
    for value in values:
        if type(value) is not int or not 1 <= value <= TABLE_MAX:
            raise bad(origin, value, f"a table is a number from 1 to {TABLE_MAX}; table 0 is always open")
        if value in DEFAULT_TABLE_NUMBERS:
            raise bad(origin, value, "that is the default table, which is always open: leave it out")
        tables.append(value)
    if len(tables) > TABLES_MAX:
        raise bad(origin, f"{len(tables)} tables", f"at most {TABLES_MAX} can be open at once")
    return tuple(dict.fromkeys(tables))
