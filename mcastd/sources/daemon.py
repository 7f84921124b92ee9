"""The daemon's own part of the file: [daemon], [[listen]] and what [[table]] says of unrouted traffic.

Read at the start, by the program that becomes the keeper, and again by the server at a reload: what can change then changes (the
limits), of the rest it is said that it waits for a restart.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from zlib import crc32

from mcastd.model.limits import Limits
from mcastd.model.router_discovery import INTERVAL_MAX, INTERVAL_MIN
from mcastd.model.settings import DEFAULT_TABLE_NUMBERS, LISTEN_OPTIONS, TABLE_MAX, TABLES_MAX
from mcastd.sources.document import Document, check_keys
from mcastd.sources.faults import Fault, Path

ROUTES_MAX_LIMIT = 100_000_000

DAEMON_KEYS: Mapping[str, type] = {
    "listen": list,
    "state_dir": str,
    "metrics": str,
    "user": str,
    "log_level": str,
    "audit": str,
    "action": str,
    "routes_max": int,
    "learned_max": int,
    "stops_max": int,
    "joins_max": int,
    "memberships_max": int,
    "idle_timeout": int,
    "router_discovery_interval": int,
    "unrouted": str,
    "tables": list,
}
METRICS_KEYS: Mapping[str, type] = {
    "address": list,
    "web_config": str,
    "flows_top": int,
    "flows_all": bool,
    "silent_after": int,
}
TABLE_KEYS: Mapping[str, type] = {"number": int, "unrouted": str, "rules": list}
PRINCIPAL_KEYS: Mapping[str, type] = {
    "name": str,
    "access": str,
    "owner": str,
    "routes_max": int,
    "streams_max": int,
    "requests_per_second": int,
}
LISTEN_KEYS: Mapping[str, type] = {"address": str, **dict.fromkeys(LISTEN_OPTIONS, str)}

SECTIONS: Mapping[str, type] = {
    "include": list,
    "daemon": dict,
    "listen": list,
    "principal": list,
    "metrics": dict,
    "table": list,
    "interface": dict,
    "route": list,
    "join": list,
}
"""All that a file may hold at its top."""

_FIRST_FILE_ALONE = ("daemon", "metrics", "listen")
"""Sections that no included file may hold: the keeper reads but the first one."""

_TABLES: tuple[tuple[str, Mapping[str, type], str, str], ...] = (
    ("table", TABLE_KEYS, "number", "say which table it is (0 = the default one)"),
    ("listen", LISTEN_KEYS, "address", 'add address = "unix:PATH"'),
    ("principal", PRINCIPAL_KEYS, "name", "say whom the certificate names: a SPIFFE id, URI, DNS name or common name"),
)
"""Sections of several tables: the keys of each, which of them it must have, and what to do where it has not."""

_POLICIES = {"stop": True, "ignore": False}

_COUNTS = ("routes_max", "learned_max", "stops_max", "joins_max", "memberships_max")
"""Limits that are plain numbers, named as they are in Limits."""

_RELOADED = frozenset({*_COUNTS, "idle_timeout", "router_discovery_interval", "unrouted"})
"""Keys of [daemon] that a reload puts in force; the others wait for a restart."""


def check_sections(document: Document, *, included: bool = False) -> list[Fault]:
    """What is wrong with the names and types at the top of a file, and in the sections that are the daemon's own."""
    faults = check_keys(document, (), document.content, SECTIONS)
    for name in _FIRST_FILE_ALONE if included else ():
        if name in document.content:
            faults.append(document.fault((name,), "is in an included file: write it into the one that mcastd is started with"))
    daemon = document.content.get("daemon", {})
    if isinstance(daemon, dict):
        faults += check_keys(document, ("daemon",), daemon, DAEMON_KEYS)
    metrics = document.content.get("metrics", {})
    if isinstance(metrics, dict):
        faults += check_keys(document, ("metrics",), metrics, METRICS_KEYS)
    for name, keys, needed, remedy in _TABLES:
        for path, one in tables_of(document, name):
            if not isinstance(one, dict):
                faults.append(document.bad(path, one, f"write each as a table of its own, under [[{name}]]"))
                continue
            faults += check_keys(document, path, one, keys)
            if needed not in one:
                faults.append(document.fault((*path, needed), f"is missing: {remedy}"))
    return faults


def tables_of(document: Document, name: str) -> Iterable[tuple[Path, Any]]:
    """The tables of a [[section]], each with its path; nothing where the section is no list."""
    section = document.content.get(name, [])
    if isinstance(section, list):
        for at, one in enumerate(section):
            yield (name, at), one


class Wanted:
    """Limits as they are put together from the files, each part checked."""

    def __init__(self) -> None:
        """Nothing is said yet: everything is as by default."""
        self.limits = Limits()
        self.tables: dict[int, tuple[Document, Path]] = {}
        """Tables of a [[table]], and where that is."""
        self._count = 0
        self._policies: dict[int, bool] = {}

    def read_daemon(self, document: Document) -> list[Fault]:
        """Take what [daemon] says of limits; its keys have been checked."""
        faults: list[Fault] = []
        section, default = document.content.get("daemon", {}), Limits()

        def number_of(name: str, default: int, high: int, low: int = 1) -> int:
            value = section.get(name, default)
            if type(value) is not int or low <= value <= high:
                return value if type(value) is int else default
            faults.append(document.bad(("daemon", name), value, f"choose {low} to {high}"))
            return default

        numbers: dict[str, Any] = {name: number_of(name, getattr(default, name), ROUTES_MAX_LIMIT) for name in _COUNTS}
        self.limits = Limits(
            **numbers,
            idle_timeout=float(number_of("idle_timeout", int(default.idle_timeout), 86_400)),
            router_discovery_interval=number_of(
                "router_discovery_interval", default.router_discovery_interval, INTERVAL_MAX, INTERVAL_MIN
            ),
            stop_unrouted=_policy(document, ("daemon", "unrouted"), section.get("unrouted", "stop"), faults),
        )
        return faults

    def read_tables(self, document: Document) -> list[Fault]:
        """Take what [[table]] says; each table may be said of once in all files."""
        faults: list[Fault] = []
        tables = list(tables_of(document, "table"))
        self._count += len(tables)
        if self._count > TABLES_MAX + 1:
            text = f"at most {TABLES_MAX} can be open beside the default one"
            faults.append(document.bad(("table",), f"{self._count} tables", text))
        for path, one in tables:
            if not isinstance(one, dict) or type(one.get("number")) is not int:
                continue  # check_sections has said so
            number = one["number"]
            if not 0 <= number <= TABLE_MAX:
                faults.append(document.bad((*path, "number"), number, f"a table is a number from 0 to {TABLE_MAX}"))
                continue
            if number in DEFAULT_TABLE_NUMBERS:
                faults.append(
                    document.bad((*path, "number"), number, "it is the default table of one family: write 0, which is of both")
                )
                continue
            if number in self.tables:
                other, where = self.tables[number]
                faults.append(document.bad((*path, "number"), number, f"it is described at {other.place(where)} already"))
                continue
            self.tables[number] = document, path
            if "unrouted" in one:
                self._policies[number] = _policy(document, (*path, "unrouted"), one["unrouted"], faults)
        return faults

    def all_limits(self) -> Limits:
        """The limits of all files together."""
        limits = self.limits
        other = frozenset(number for number, stop in self._policies.items() if stop != limits.stop_unrouted)
        return replace(limits, other_tables=other)


def _policy(document: Document, path: Path, value: object, faults: list[Fault]) -> bool:
    if type(value) is str and value not in _POLICIES:
        faults.append(document.bad(path, value, "choose stop (a stop filter) or ignore"))
    return _POLICIES.get(value, True) if isinstance(value, str) else True


def marks_of(content: Mapping[str, Any]) -> dict[str, int]:
    """What is compared at a reload: a checksum of each setting that waits for a restart, by its name."""
    settings: dict[str, Any] = {}
    for section in ("daemon", "metrics"):
        values = content.get(section)
        if isinstance(values, dict):
            settings.update((f"{section}.{name}", value) for name, value in values.items() if name not in _RELOADED)
    if "listen" in content:
        settings["listen"] = content["listen"]
    return {name: crc32(json.dumps(value, default=str).encode()) for name, value in settings.items()}
