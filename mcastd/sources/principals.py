"""[[principal]]: whom clients' certificates may name, and what each may do."""

from collections.abc import Iterator, Mapping
from typing import Any

from mcastd.model.owner import owner_problem
from mcastd.model.principal import ANYBODY, NAME_MAX, Principal, Quota
from mcastd.model.settings import Access
from mcastd.sources.daemon import ROUTES_MAX_LIMIT, tables_of
from mcastd.sources.document import Document
from mcastd.sources.faults import Fault, Faults, Path

PRINCIPALS_MAX = 10_000
"""In all files."""

_QUOTAS: tuple[tuple[str, int], ...] = (
    ("streams_max", 100_000),
    ("requests_per_second", 1_000_000),
    ("routes_max", ROUTES_MAX_LIMIT),
)
"""Keys in the order of Quota's attributes, and the most that each can be."""


def read_principals(document: Document, faults: Faults) -> Iterator[tuple[Path, Principal]]:
    """What a file says of each principal, and where; names and types of the keys have been checked."""
    for at, (path, values) in enumerate(tables_of(document, "principal")):
        if at >= PRINCIPALS_MAX:
            faults.add(
                document.bad(("principal",), f"more than {PRINCIPALS_MAX} principals", "use one with the name * for the rest")
            )
            return
        if not isinstance(values, dict) or any(type(values.get(name, "")) is not str for name in ("name", "access", "owner")):
            continue  # check_sections has said so
        wrong: list[Fault] = []
        name, access = values.get("name", ""), values.get("access", "view")
        if not 1 <= len(name.encode()) <= NAME_MAX or not name.isprintable():
            wrong.append(document.bad((*path, "name"), name, f"a name is 1 to {NAME_MAX} printable characters"))
        if access.upper() not in Access.__members__:
            wrong.append(document.bad((*path, "access"), access, f"choose {', '.join(one.name.lower() for one in Access)}"))
        owner = _owner(document, path, name, values, wrong)
        quota = Quota(*(_number(document, (*path, key), values.get(key, 0), most, wrong) for key, most in _QUOTAS))
        for fault in wrong:
            faults.add(fault)
        if not wrong:
            yield path, Principal(name, Access[access.upper()], owner, quota)


def _owner(document: Document, path: Path, name: str, values: Mapping[str, Any], wrong: list[Fault]) -> str:
    """The owner that is named, otherwise the principal's own name where that can be one."""
    owner: str = values.get("owner", name)
    problem = owner_problem(owner)
    if problem and "owner" in values:
        wrong.append(document.bad((*path, "owner"), owner, problem))
    elif problem and name != ANYBODY and name:
        wrong.append(document.fault((*path, "owner"), f"is missing, and {name!r} can't be one itself: {problem}"))
    elif name == ANYBODY and "owner" not in values:
        wrong.append(document.fault((*path, "owner"), "is missing: say who owns what they write"))
    return owner


def _number(document: Document, path: Path, value: object, most: int, wrong: list[Fault]) -> int:
    if type(value) is not int:
        return 0  # check_sections has said so
    if not 0 <= value <= most:
        wrong.append(document.bad(path, value, f"choose 1 to {most}, or 0 for no limit"))
    return value
