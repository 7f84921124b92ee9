"""The configuration file with all that it includes, read and checked whole: what owner "config" wants."""

from dataclasses import dataclass, field
from typing import Any

from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.limits import Limits
from mcastd.model.owner import CONFIG_OWNER
from mcastd.model.principal import Principal
from mcastd.model.record import InterfaceSettings
from mcastd.model.route import Route
from mcastd.model.rule import Rule
from mcastd.model.template import key_text
from mcastd.model.write import Configure, WriteOptions
from mcastd.sources.daemon import Wanted, check_sections, marks_of
from mcastd.sources.document import Document
from mcastd.sources.faults import Faults, Path
from mcastd.sources.includes import read_files
from mcastd.sources.interfaces import read_interfaces, read_rules
from mcastd.sources.items import read_joins, read_routes
from mcastd.sources.principals import read_principals

Place = tuple[Document, Path]


@dataclass(slots=True)
class Configuration:
    """What a file and those that it includes say."""

    files: list[str] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    tables: frozenset[int] = frozenset()
    """Numbers of the [[table]]s."""
    marks: dict[str, int] = field(default_factory=dict)
    """See model.settings.Settings.marks."""
    routes: dict[bytes, Route] = field(default_factory=dict)
    joins: dict[JoinKey, JoinRecord] = field(default_factory=dict)
    settings: dict[str, InterfaceSettings] = field(default_factory=dict)
    """By interface."""
    rules: list[Rule] = field(default_factory=list)
    principals: dict[str, Principal] = field(default_factory=dict)
    """By name."""
    places: dict[object, Place] = field(default_factory=dict)
    """Where each route, join, interface and rule stands, by what tells it from others."""

    def write(self, *, validate_only: bool = False) -> Configure:
        """The write that puts routes, joins and interface settings in force."""
        options = WriteOptions(CONFIG_OWNER, validate_only=validate_only)
        return Configure(options, self.routes, self.joins, self.settings)

    def place(self, key: object) -> str:
        """File and line of a route, join or interface."""
        document, path = self.places[key]
        return document.place(path)


def read_configuration(path: str, reader: str = "") -> Configuration:
    """Read and check everything; BadConfiguration with all that is wrong. `reader`: name of the user who reads."""
    faults, found, wanted = Faults(), Configuration(), Wanted()
    for document in read_files(path, faults, reader):
        first = not found.files
        found.files.append(document.path)
        for fault in check_sections(document, included=not first):
            faults.add(fault)
        if first:
            _read_daemon(document, found, wanted, faults)
        for fault in wanted.read_tables(document):
            faults.add(fault)
        _read_items(document, found, faults)
        if faults.full:
            break
    faults.check()
    found.limits, found.tables = wanted.all_limits(), frozenset(wanted.tables)
    return found


def _read_daemon(document: Document, found: Configuration, wanted: Wanted, faults: Faults) -> None:
    content: dict[str, Any] = document.content
    if isinstance(content.get("daemon", {}), dict):
        for fault in wanted.read_daemon(document):
            faults.add(fault)
    found.marks = marks_of(content)


def _read_items(document: Document, found: Configuration, faults: Faults) -> None:
    for path, route in read_routes(document, faults):
        if _first(document, path, route.key, f"the route {key_text(route.key)}", found, faults):
            found.routes[route.key] = route
    for path, join in read_joins(document, faults):
        if _first(document, path, join.key, f"the join {join.key}", found, faults):
            found.joins[join.key] = join
    for path, said in read_interfaces(document, faults):
        if _first(document, path, said.interface, f"interface {said.interface}", found, faults):
            found.settings[said.interface] = said
    _read_rules(document, found, faults)
    for path, principal in read_principals(document, faults):
        if _first(document, path, ("principal", principal.name), f"principal {principal.name}", found, faults):
            found.principals[principal.name] = principal


def _read_rules(document: Document, found: Configuration, faults: Faults) -> None:
    for path, rule in read_rules(document, faults):
        what = f"a rule of {rule.iif} with priority {rule.priority}"
        if all(_first(document, path, (rule.iif, rule.priority, one), what, found, faults) for one in rule.families):
            found.rules.append(rule)


def _first(document: Document, path: Path, key: object, what: str, found: Configuration, faults: Faults) -> bool:
    """Whether nothing else says this already; then it is remembered where it stands."""
    other = found.places.setdefault(key, (document, path))
    if other[1] is path:
        return True
    faults.add(document.fault(path, f"says again what {other[0].place(other[1])} says: {what} may be there once"))
    return False
