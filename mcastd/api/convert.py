"""Between the contract's messages and the model: with fields.py the place where both meet on the way in.

Everything that comes in is checked here, whole, before anything is done.
"""

import socket
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from mcastd.api.fields import (
    check_cookie,
    check_name,
    check_oifs,
    check_pattern,
    check_source,
    group_error,
    invalid,
    read_address,
    read_duration,
    read_table,
    seconds_text,
)
from mcastd.core.templates import Learned
from mcastd.model.address import Family, is_link_local_group, is_multicast, key_family, table_prefix
from mcastd.model.errors import McastdError, Reason
from mcastd.model.interface import is_glob
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.route import Fate, Oif, Paths, Route, RouteState, Template
from mcastd.model.template import TemplateKey, masked, prefix_text, unpack_template_key
from mcastd.model.write import Patch

IDLE_TIMEOUT_MAX = 86_400.0
"""Seconds."""

_COMMON_CACHED = 65_536

_COMMON_BYTES_MAX = 1024
"""What is remembered: unknown fields can make a message as large as a request."""

_READ_ALREADY: tuple[Literal["group", "source", "cookie", "status"], ...] = ("group", "source", "cookie", "status")
"""Fields that a route shares with no other, and the one that is ignored."""

_DUBIOUS = frozenset({0, 127, *range(224, 256)})
"""First bytes of the sources that are looked at closely."""

_pton = socket.inet_pton
_WILDCARDS = frozenset(t.Wildcard.values())
_WILDCARD_NAMES = ", ".join(t.Wildcard.keys())

Find = Callable[[TemplateKey], list[bytes]]
"""Keys of the templates that differ from this one in iif alone."""


class _Common(NamedTuple):
    """What routes that are alike but for group, source and cookie have in common, checked."""

    prefix: bytes
    """The table's part of the key."""
    paths: Paths
    monitored: bool


class RouteReader:
    """Reads routes; remembers what it has checked, since thousands of routes are alike.

    What a route has beside group, source and cookie is looked up by its serialized form, whole: reading its fields one by one
    takes three times as long.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._known: dict[Family, dict[bytes, _Common]] = {family: {} for family in Family}

    def read(self, messages: Iterable[t.Route], owner: str, first: int = 0) -> list[Route]:
        """Routes; `first` is the position of the first one in the request. The messages are used up."""
        out: list[Route] = []
        known4, known6 = self._known[Family.IPV4], self._known[Family.IPV6]
        for at, message in enumerate(messages, first):
            group, source, cookie = message.group, message.source, message.cookie
            try:
                if ":" in group:
                    packed_group, packed_source = _pton(socket.AF_INET6, group), _pton(socket.AF_INET6, source)
                else:
                    packed_group, packed_source = _pton(socket.AF_INET, group), _pton(socket.AF_INET, source)
            except (OSError, ValueError):
                key = _prefixes(group, source, f"routes[{at}]")
                if key.group_length < 8 * len(key.group) or key.source_length < 8 * len(key.source):
                    out.append(_read_template(message, key, owner, f"routes[{at}]"))
                    continue
                packed_group, packed_source = key.group, key.source
            if not is_multicast(packed_group) or is_link_local_group(packed_group):
                raise group_error(packed_group, f"routes[{at}].group", group)
            if packed_source[0] in _DUBIOUS:
                check_source(packed_source, f"routes[{at}].source", source)
            if cookie:
                check_cookie(cookie, f"routes[{at}].cookie")
            for field in _READ_ALREADY:
                message.ClearField(field)
            rest = message.SerializeToString()
            common = (known4 if len(packed_group) == 4 else known6).get(rest)
            if common is None:
                common = self._check(message, rest, Family.IPV4 if len(packed_group) == 4 else Family.IPV6, f"routes[{at}]")
            out.append(Route(common.prefix + packed_group + packed_source, common.paths, owner, cookie, common.monitored))
        return out

    def _check(self, message: t.Route, rest: bytes, family: Family, where: str) -> _Common:
        _check_rest(message, where)
        table = read_table(message.table, family, where)
        check_name(message.iif, f"{where}.iif", glob=False)
        oifs = [(o.interface, o.ttl_threshold) for o in message.oifs]
        paths = Paths(message.iif, check_oifs(oifs, family, f"{where}.oifs"))
        known = self._known[family]
        if len(known) >= _COMMON_CACHED:
            known.clear()
        common = _Common(table_prefix(table), paths, message.monitored)
        if len(rest) <= _COMMON_BYTES_MAX:
            known[rest] = common
        return common


def _prefixes(group: str, source: str, where: str) -> TemplateKey:
    """Group and source the slow way, which knows prefixes and says what is wrong; no table and no iif yet."""
    packed_group, group_length = read_address(group, f"{where}.group", Reason.INVALID_GROUP, "a multicast address or prefix")
    size = len(packed_group)
    packed_source, source_length = bytes(size), 0
    if source:
        packed_source, source_length = read_address(source, f"{where}.source", Reason.INVALID_SOURCE, "the address of the sender")
    if len(packed_source) != size:
        remedy = f"is of another family than group {group!r}: use one family in a route"
        raise invalid(Reason.FAMILY_MISMATCH, f"{where}.source", source, remedy)
    family = Family.IPV4 if size == 4 else Family.IPV6
    return TemplateKey(0, family, packed_group, group_length, packed_source, source_length, "")


def _check_prefixes(key: TemplateKey, group: str, source: str, where: str) -> None:
    """Refuse prefixes that no packet to forward can be inside, or that have bits beyond their length."""
    shortest = 4 if key.family is Family.IPV4 else 8
    if not is_multicast(key.group) or key.group_length < shortest:
        raise group_error(bytes(len(key.group)), f"{where}.group", group)
    if is_link_local_group(key.group) and key.group_length >= (24 if key.family is Family.IPV4 else 16):
        raise group_error(key.group, f"{where}.group", group)
    if key.source_length == 8 * len(key.source):
        check_source(key.source, f"{where}.source", source)
    for part, address, length, text, reason in (
        ("group", key.group, key.group_length, group, Reason.INVALID_GROUP),
        ("source", key.source, key.source_length, source, Reason.INVALID_SOURCE),
    ):
        drop = 8 * len(address) - length
        clean = (masked(address, length) << drop).to_bytes(len(address), "big")
        if clean != address:
            raise invalid(reason, f"{where}.{part}", text, f"has bits beyond its length: write {prefix_text(clean, length)}")


def _read_template(message: t.Route, key: TemplateKey, owner: str, where: str) -> Template:
    """A route with a prefix or a wildcard in source or group."""
    _check_prefixes(key, message.group, message.source, where)
    _check_known(message, where)
    iif = message.iif
    if iif:
        check_name(iif, f"{where}.iif", glob=True)
    oifs = check_oifs([(o.interface, o.ttl_threshold) for o in message.oifs], key.family, f"{where}.oifs")
    shared_tree = message.wildcard == t.WILDCARD_SHARED_TREE
    if shared_tree:
        _check_shared_tree(message, key, where)
    if message.cookie:
        check_cookie(message.cookie, f"{where}.cookie")
    timeout = 0.0
    if message.HasField("idle_timeout"):
        timeout = read_duration(message.idle_timeout, f"{where}.idle_timeout")
        if not 1.0 <= timeout <= IDLE_TIMEOUT_MAX:
            text = seconds_text(message.idle_timeout)
            raise invalid(
                Reason.INVALID_VALUE, f"{where}.idle_timeout", text, f"give 1s to {IDLE_TIMEOUT_MAX:g}s, or leave it unset"
            )
    full = key._replace(table=read_table(message.table, key.family, where), iif=iif)
    return Template(full.pack(), Paths(iif, oifs), owner, message.cookie, message.monitored, 0, timeout, shared_tree)


def _check_shared_tree(message: t.Route, key: TemplateKey, where: str) -> None:
    if key.source_length or key.group_length < 8 * len(key.group):
        text = "is for a (*,G): give one group address and no source"
        raise invalid(Reason.INVALID_VALUE, f"{where}.wildcard", "WILDCARD_SHARED_TREE", text)
    if not message.iif or is_glob(message.iif):
        raise invalid(Reason.INVALID_INTERFACE, f"{where}.iif", message.iif, "a shared tree needs one iif by name")
    if message.HasField("idle_timeout"):
        text = "a shared tree learns nothing that could be idle: leave it unset"
        raise invalid(Reason.INVALID_VALUE, f"{where}.idle_timeout", seconds_text(message.idle_timeout), text)


def _check_known(message: t.Route, where: str) -> None:
    if message.join:
        text = f"{where}.join: this version of mcastd holds no group memberships: leave it unset and join by another program"
        raise McastdError(Reason.NOT_IMPLEMENTED, text, field=f"{where}.join", feature="joins")
    if message.wildcard not in _WILDCARDS:
        text = f"is unknown to this version: choose from {_WILDCARD_NAMES}"
        raise invalid(Reason.INVALID_VALUE, f"{where}.wildcard", message.wildcard, text)


def _check_rest(message: t.Route, where: str) -> None:
    _check_known(message, where)
    if message.HasField("idle_timeout"):
        text = "is for templates: an exact (S,G) stays until it is deleted"
        raise invalid(Reason.INVALID_VALUE, f"{where}.idle_timeout", seconds_text(message.idle_timeout), text)


def route_keys(messages: Iterable[t.RouteKey], find: Find, field: str = "keys") -> list[bytes]:
    """Keys of routes; an exact (S,G) has no iif in its key, and a template that is alone with its prefixes need not say its."""
    return [_route_key(message, f"{field}[{at}]", find) for at, message in enumerate(messages)]


def patches(messages: Iterable[t.RoutePatch], find: Find) -> list[Patch]:
    """Patches of routes."""
    out = []
    for at, message in enumerate(messages):
        where = f"patches[{at}]"
        key = _route_key(message.key, f"{where}.key", find)
        added = [(o.interface, o.ttl_threshold) for o in message.add_oifs]
        add = check_oifs(added, key_family(key), f"{where}.add_oifs")
        for n, name in enumerate(message.remove_oifs):
            check_pattern(name, f"{where}.remove_oifs[{n}]")
        both = {oif.interface for oif in add} & set(message.remove_oifs)
        if both:
            raise invalid(
                Reason.INVALID_INTERFACE, f"{where}.remove_oifs", min(both), "is also among add_oifs: say one of the two"
            )
        out.append(Patch(key, add, frozenset(message.remove_oifs)))
    return out


def _route_key(message: t.RouteKey, where: str, find: Find) -> bytes:
    key = _prefixes(message.group, message.source, where)
    table = read_table(message.table, key.family, where)
    if key.group_length == key.source_length == 8 * len(key.group):
        if not is_multicast(key.group):
            raise group_error(key.group, f"{where}.group", message.group)
        return table_prefix(table) + key.group + key.source
    _check_prefixes(key, message.group, message.source, where)
    if message.iif:
        check_name(message.iif, f"{where}.iif", glob=True)
    full = key._replace(table=table, iif=message.iif)
    if message.iif:
        return full.pack()
    found = find(full)
    if len(found) > 1 and full.pack() not in found:
        iifs = ", ".join(sorted(unpack_template_key(one).iif or "any" for one in found))
        text = f"{where}: there are {len(found)} templates of this group and source: say the iif ({iifs})"
        raise McastdError(Reason.AMBIGUOUS, text, field=f"{where}.iif", iifs=iifs)
    return found[0] if len(found) == 1 else full.pack()


def foreign_route(key: bytes, iif: str, oifs: Iterable[tuple[str, int]]) -> Route:
    """An entry that nobody asked for, as a route: so that selectors apply to it."""
    route = Route(key, Paths(iif, tuple(Oif(name, ttl) for name, ttl in oifs)), KERNEL_OWNER)
    route.fate = Fate()
    route.fate.state = RouteState.PROGRAMMED
    return route


class LearnedRoute(Route):
    """A learned entry or stop filter as a route, to be selected and presented."""

    __slots__ = ("template",)

    def __init__(self, key: bytes, learned: Learned, iif: str) -> None:
        """As it stands now."""
        shape = learned.shape
        template = shape.route if shape is not None else None
        oifs = template.paths.oifs if template is not None else ()
        owner, cookie = (template.owner, template.cookie) if template is not None else (KERNEL_OWNER, "")
        super().__init__(key, Paths(iif, oifs), owner, cookie, bool(template and template.monitored))
        self.template = template
        self.revision = shape.revision if shape is not None else 0
        self.installed_at = learned.since
        self.fate = Fate()
        self.fate.state = RouteState.PROGRAMMED if shape is None or not shape.missing else RouteState.PARTIAL
        if shape is not None:
            self.fate.problem, self.fate.missing = shape.problem, shape.missing
            named = {oif.interface for oif in oifs}
            back = iif in named and not shape.tree  # From a tree's branch nothing goes back where it came in.
            self.fate.installed_oifs = tuple(name for name in shape.installed_oifs if name != iif or back)


def learned_route(key: bytes, learned: Learned, iif: str) -> LearnedRoute:
    """A learned entry as a route."""
    return LearnedRoute(key, learned, iif)


def replace_header(request: rs.ReplaceRoutesRequest | None) -> rs.ReplaceRoutesRequest.Header:
    """The header, which must be the stream's first message."""
    part = request.WhichOneof("part") if request is not None else None
    if request is None or part != "header":
        raise invalid(Reason.INVALID_VALUE, "part", part or "nothing", "send a header first, then chunks, then close")
    return request.header
