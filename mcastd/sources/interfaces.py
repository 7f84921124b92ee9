"""[interface.NAME] and the rules of [[table]]: what the file says of interfaces and of the tables behind them."""

from collections.abc import Iterator, Mapping
from typing import Any

from mcastd.core.wishes import check_interface
from mcastd.model.address import Family
from mcastd.model.errors import McastdError
from mcastd.model.owner import CONFIG_OWNER
from mcastd.model.record import InterfaceSettings, Pin
from mcastd.model.route import TTL_MAX
from mcastd.model.rule import RULE_PRIORITY_MAX, Rule
from mcastd.model.settings import DEFAULT_TABLE_NUMBERS, TABLE_MAX
from mcastd.sources.daemon import tables_of
from mcastd.sources.document import Document, check_keys
from mcastd.sources.faults import Fault, Faults, Path

INTERFACE_KEYS: Mapping[str, type] = {"ttl_threshold": int, "pinned": object, "router_discovery": bool}
RULE_KEYS: Mapping[str, type] = {"iif": str, "priority": int, "family": str}

FAMILIES: Mapping[str, tuple[Family, ...]] = {
    "ipv4": (Family.IPV4,),
    "ipv6": (Family.IPV6,),
    "both": tuple(Family),
}


def read_interfaces(document: Document, faults: Faults) -> Iterator[tuple[Path, InterfaceSettings]]:
    """What a file says of each interface, and where."""
    section = document.content.get("interface", {})
    for name, values in section.items() if isinstance(section, dict) else ():
        path = ("interface", name)
        wrong = _check_name(document, path, name)
        if not isinstance(values, dict):
            wrong.append(document.bad(path, values, f"write it as a table: [interface.{name}]"))
        else:
            wrong += check_keys(document, path, values, INTERFACE_KEYS)
        if not wrong:
            said = _settings(document, path, name, values, wrong)
            if not wrong:
                yield path, said
        for fault in wrong:
            faults.add(fault)


def _settings(document: Document, path: Path, name: str, values: Mapping[str, Any], wrong: list[Fault]) -> InterfaceSettings:
    threshold = values.get("ttl_threshold")
    if threshold is not None and not 1 <= threshold <= TTL_MAX:
        wrong.append(document.bad((*path, "ttl_threshold"), threshold, f"choose 1 to {TTL_MAX}"))
    pins = _pins(document, (*path, "pinned"), values["pinned"], wrong) if "pinned" in values else ()
    return InterfaceSettings(name, CONFIG_OWNER, threshold, 0, pins, values.get("router_discovery"))


def _pins(document: Document, path: Path, value: object, wrong: list[Fault]) -> tuple[Pin, ...]:
    """True or false is about the default table; a list names all tables where it is pinned."""
    if isinstance(value, bool):
        return (Pin(0, value, 0),)
    if not isinstance(value, list):
        wrong.append(document.bad(path, value, "it must be true, false or a list of tables"))
        return ()
    tables = set()
    for at, table in enumerate(value):
        if type(table) is not int or not 0 <= table <= TABLE_MAX:
            wrong.append(document.bad((*path, at), table, f"a table is a number from 0 to {TABLE_MAX}"))
        else:
            tables.add(0 if table in DEFAULT_TABLE_NUMBERS else table)
    return tuple(Pin(table, True, 0) for table in sorted(tables))


def _check_name(document: Document, path: Path, name: str) -> list[Fault]:
    try:
        check_interface(name, "")
    except McastdError as exc:
        return [document.fault(path, str(exc).lstrip())]
    return []


def read_rules(document: Document, faults: Faults) -> Iterator[tuple[Path, Rule]]:
    """The policy rules of a file's tables, and where each stands; numbers of tables have been checked."""
    for at, one in tables_of(document, "table"):
        table, rules = (one.get("number"), one.get("rules")) if isinstance(one, dict) else (None, None)
        if type(table) is not int or not isinstance(rules, list):
            continue  # sources/daemon.py has said so
        for number, values in enumerate(rules):
            path = (*at, "rules", number)
            wrong = _check_rule(document, path, table, values)
            for fault in wrong:
                faults.add(fault)
            if not wrong:
                families = FAMILIES[values.get("family", "both")]
                yield path, Rule(table, values["iif"], values["priority"], families)


def _check_rule(document: Document, path: Path, table: int, values: Any) -> list[Fault]:
    if not isinstance(values, dict):
        return [document.bad(path, values, "write {iif = NAME, priority = NUMBER}")]
    wrong = check_keys(document, path, values, RULE_KEYS)
    for name, remedy in (("iif", "name the interface where the packets come in"), ("priority", f"1 to {RULE_PRIORITY_MAX}")):
        if name not in values:
            wrong.append(document.fault((*path, name), f"is missing: {remedy}"))
    if wrong:
        return wrong
    wrong = _check_name(document, (*path, "iif"), values["iif"])
    if not 1 <= values["priority"] <= RULE_PRIORITY_MAX:
        wrong.append(document.bad((*path, "priority"), values["priority"], f"choose 1 to {RULE_PRIORITY_MAX}"))
    if values.get("family", "both") not in FAMILIES:
        wrong.append(document.bad((*path, "family"), values["family"], f"choose {', '.join(FAMILIES)}"))
    if table in {0, *DEFAULT_TABLE_NUMBERS}:
        wrong.append(document.fault(path, "is of the default table, where all packets go that no rule takes: leave it out"))
    return wrong
