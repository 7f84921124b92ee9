"""[[route]] and [[join]]: from plain values to the model, by the same checks as the API's (core/wishes.py)."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mcastd.core.wishes import Wish, check_cookie, join_key_of, route_of
from mcastd.model.errors import McastdError
from mcastd.model.join import JoinRecord
from mcastd.model.owner import CONFIG_OWNER
from mcastd.model.route import Paths, Route
from mcastd.sources.daemon import tables_of
from mcastd.sources.document import Document, check_keys
from mcastd.sources.faults import Fault, Faults, Path

ROUTE_KEYS: Mapping[str, type] = {
    "group": str,
    "source": str,
    "iif": str,
    "oifs": list,
    "join": bool,
    "cookie": str,
    "idle_timeout": object,
    "table": int,
    "wildcard": str,
    "monitored": bool,
}
OIF_KEYS: Mapping[str, type] = {"interface": str, "ttl_threshold": int}
JOIN_KEYS: Mapping[str, type] = {"interface": str, "group": str, "source": str, "cookie": str}

WILDCARDS: Mapping[str, bool] = {"template": False, "shared-tree": True}
"""Words for how a (*,G) gets into the kernel: whether it is a shared tree."""

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_DURATION_CHARACTERS = 24

_COPIED = ("source", "iif", "cookie", "table", "monitored", "join")
"""Keys of a route that are fields of a Wish as they are."""


def read_routes(document: Document, faults: Faults) -> Iterator[tuple[Path, Route]]:
    """The routes of a file, and where each stands; what can't be used is among the faults."""
    known: dict[Paths, Paths] = {}
    for path, one in tables_of(document, "route"):
        if faults.full:
            return
        try:
            route = _route(document, path, one, faults)
        except McastdError as exc:
            faults.add(document.refused(exc))
            continue
        if route is not None:
            route.paths = known.setdefault(route.paths, route.paths)
            yield path, route


def _route(document: Document, path: Path, one: Any, faults: Faults) -> Route | None:
    wrong = _check(document, path, one, ROUTE_KEYS, "route")
    if _any(wrong, faults):
        return None
    oifs = _oifs(document, path, one.get("oifs", ()), wrong)
    timeout = _timeout(document, path, one.get("idle_timeout"), wrong)
    table, wildcard = one.get("table", 0), one.get("wildcard", "template")
    if table < 0:
        wrong.append(document.bad((*path, "table"), table, "a table is a number from 0 up"))
    if wildcard not in WILDCARDS:
        wrong.append(document.bad((*path, "wildcard"), wildcard, f"choose {' or '.join(WILDCARDS)}"))
    if _any(wrong, faults):
        return None
    copied = {name: one[name] for name in _COPIED if name in one}
    wish = Wish(
        **{"group": one.get("group", ""), "source": "", "iif": "", **copied},
        oifs=oifs,
        idle_timeout=timeout,
        shared_tree=WILDCARDS[wildcard],
    )
    return route_of(wish, CONFIG_OWNER, f"route[{path[1]}]")


def _oifs(document: Document, path: Path, values: list[Any], wrong: list[Fault]) -> list[tuple[str, int]]:
    oifs = []
    for at, value in enumerate(values):
        where = (*path, "oifs", at)
        if type(value) is str:
            oifs.append((value, 0))
        elif not isinstance(value, dict):
            wrong.append(document.bad(where, value, "write an interface's name, or {interface = NAME, ttl_threshold = NUMBER}"))
        elif faults := check_keys(document, where, value, OIF_KEYS):
            wrong += faults
        elif value.get("ttl_threshold", 0) < 0:
            wrong.append(document.bad((*where, "ttl_threshold"), value["ttl_threshold"], "it must be 0 or more"))
        else:
            oifs.append((value.get("interface", ""), value.get("ttl_threshold", 0)))
    return oifs


def _timeout(document: Document, path: Path, value: object, wrong: list[Fault]) -> float | None:
    """Seconds of "90s", "5m", "1h30m" or a number, as mcastctl reads them; None where nothing is said."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 1e12:
        return float(value)
    if isinstance(value, str) and 0 < len(value) <= _DURATION_CHARACTERS and (match := _DURATION.fullmatch(value)):
        hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return 3600 * hours + 60 * minutes + seconds
    wrong.append(document.bad((*path, "idle_timeout"), value, 'write a duration: "90s", "5m", "1h30m", or a number of seconds'))
    return None


def read_joins(document: Document, faults: Faults) -> Iterator[tuple[Path, JoinRecord]]:
    """The joins of a file, and where each stands."""
    for path, one in tables_of(document, "join"):
        if faults.full:
            return
        if _any(_check(document, path, one, JOIN_KEYS, "join"), faults):
            continue
        try:
            where, cookie = f"join[{path[1]}]", one.get("cookie", "")
            key = join_key_of(CONFIG_OWNER, one.get("interface", ""), one.get("group", ""), one.get("source", ""), where)
            check_cookie(cookie, f"{where}.cookie")
        except McastdError as exc:
            faults.add(document.refused(exc))
        else:
            yield path, JoinRecord(key, cookie)


def _check(document: Document, path: Path, one: Any, keys: Mapping[str, type], section: str) -> list[Fault]:
    if not isinstance(one, dict):
        return [document.bad(path, one, f"write each as a table of its own, under [[{section}]]")]
    return check_keys(document, path, one, keys)


def _any(wrong: list[Fault], faults: Faults) -> bool:
    """Whether anything is wrong; it is reported then."""
    for fault in wrong:
        faults.add(fault)
    return bool(wrong)
