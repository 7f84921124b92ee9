"""Between the contract's messages and the model: with fields.py the place where both meet on the way in.

Everything that comes in is checked here, whole, before anything is done.
"""

import socket
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from mcastd.api.fields import read_duration
from mcastd.api.wire import Routes
from mcastd.core.templates import Learned
from mcastd.core.wishes import (
    Wish,
    alike_of,
    check_cookie,
    check_exact,
    check_name,
    check_oifs,
    check_pattern,
    check_prefixes,
    check_source,
    group_error,
    invalid,
    join_key_of,
    read_prefixes,
    read_table,
    template_of,
)
from mcastd.model.address import Family, family_of, is_link_local_group, is_multicast, key_family, table_prefix
from mcastd.model.errors import McastdError, Reason
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.route import Fate, Oif, Paths, Route, RouteState, Template
from mcastd.model.template import TemplateKey, unpack_template_key
from mcastd.model.write import Patch

_COMMON_CACHED = 65_536

_COMMON_BYTES_MAX = 1024
"""What is remembered: unknown fields can make a message as large as a request."""

_READ_ALREADY: tuple[Literal["group", "source", "cookie", "status"], ...] = ("group", "source", "cookie", "status")
"""Fields that a route shares with no other, and the one that is ignored."""

_RESTS_CACHED = 8192
"""Ends of routes, source included; a set whose every route has its own source makes as many."""

_LENGTH_MAX = 127
"""Characters of a field whose length is one byte."""

_GROUP, _SOURCE = 0x0A, 0x12
"""Tags of a route's first two fields."""

_FAMILIES = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}

_DUBIOUS = {Family.IPV4: frozenset({0, 127, *range(224, 256)}), Family.IPV6: frozenset({0, 0xFF})}
"""First bytes of the sources that are looked at closely."""

_USUAL = {
    # 224.0.0.0/24 is never forwarded (RFC 5771 section 4): all of 224.0.0.0/16 is looked at.
    Family.IPV4: frozenset(bytes((a, b)) for a in range(224, 240) for b in range(256)) - {b"\xe0\x00"},
    # Nor is a scope of 2 or less (RFC 4291 section 2.7).
    Family.IPV6: frozenset(bytes((0xFF, b)) for b in range(256) if b & 0x0F > 2),
}
"""First two bytes of the groups that are not."""

_COOKIES_CACHED = 4096
"""Of these, as many as may have a cookie: where each route has its own, remembering them is of no use."""

_DEFAULT_TABLE = table_prefix(0)

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
    join: bool


class _Alike(NamedTuple):
    """A `_Common` and a cookie."""

    prefix: bytes
    paths: Paths
    monitored: bool
    join: bool
    cookie: str


class _Rest(NamedTuple):
    """A `_Common`, a cookie and a source, and what the group must be like."""

    family: int
    """AF_INET or AF_INET6."""
    groups: frozenset[bytes]
    """First two bytes of the groups that need no closer look."""
    prefix: bytes
    source: bytes
    paths: Paths
    cookie: str
    monitored: bool
    join: bool


_NO_REST = _Rest(socket.AF_INET, frozenset(), b"", b"", Paths("", ()), "", False, False)
"""Of a route that needs a closer look."""


class RouteReader:
    """Reads routes; remembers what it has checked, since thousands of routes are alike.

    What a route has beside its group is looked up by the end of its serialized form, in which the group comes first and the
    source next: reading its fields one by one takes twice as long.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._known: dict[Family, dict[bytes, _Common]] = {family: {} for family in Family}
        self._tails: dict[Family, dict[str, _Alike]] = {family: {} for family in Family}
        self._rests: dict[str, _Rest] = {}

    def read(self, messages: Iterable[t.Route], owner: str, first: int = 0) -> list[Route]:
        """Routes; `first` is the position of the first one in the request. The messages are used up."""
        out: list[Route] = []
        self.read_into(out, Routes.of(messages), owner, first, "routes[{}]")
        return out

    def read_into(self, out: list[Route], routes: Routes, owner: str, first: int, where: str) -> None:
        """Append routes; where one can't be, those before it have been. `where` names one by its position, "routes[{}]"."""
        data, text, rests, pton = routes.data, routes.text, self._rests, _pton
        last = ""
        family, groups, prefix, source, paths, cookie, monitored, join = _NO_REST
        for at, (begin, end) in enumerate(routes.spans):
            # Field number, length, and the characters of the group, which may have 127; then the source.
            source_at = begin + 2 + data[begin + 1] if end > begin + 1 and data[begin] == _GROUP else end
            rest = text[source_at:end]
            if rest != last:  # Mostly it is that of the one before.
                last = rest
                found = rests.get(rest) or self._rest(data, text, source_at, end) or _NO_REST
                family, groups, prefix, source, paths, cookie, monitored, join = found
            try:
                group = pton(family, text[begin + 2 : source_at])
            except (OSError, ValueError):
                group = b""
            if group[:2] in groups:
                out.append(Route(prefix + group + source, paths, owner, cookie, monitored, 0, join))
            else:
                out.append(self._read_one(routes.message(at), rest, owner, where.format(first + at)))
                last = ""  # By now more may be known of the next one.

    def _rest(self, data: bytes, text: str, begin: int, end: int) -> _Rest | None:
        """What a route has beside its group, of which only the source may be new; None = it needs a closer look."""
        if begin + 1 >= end or data[begin] != _SOURCE:
            return None
        tail_at = begin + 2 + data[begin + 1]
        tail, address = text[tail_at:end], text[begin + 2 : tail_at]
        family = Family.IPV6 if ":" in address else Family.IPV4
        alike = self._tails[family].get(tail)
        if alike is None:
            return None
        try:
            source = _pton(_FAMILIES[family], address)
        except (OSError, ValueError):
            return None
        if source[0] in _DUBIOUS[family]:
            return None
        prefix, paths, monitored, join, cookie = alike
        rest = _Rest(_FAMILIES[family], _USUAL[family], prefix, source, paths, cookie, monitored, join)
        if len(self._rests) >= _RESTS_CACHED:
            self._rests.clear()
        self._rests[text[begin:end]] = rest
        return rest

    def _read_one(self, message: t.Route, rest: str, owner: str, where: str) -> Route:
        """A route that is like none that was read before, or needs a closer look; `rest` = what follows its group."""
        group, source, cookie = message.group, message.source, message.cookie
        key = read_prefixes(group, source, where)
        if key.group_length < 8 * len(key.group) or key.source_length < 8 * len(key.source):
            return _read_template(message, key, owner, where)
        if not is_multicast(key.group) or is_link_local_group(key.group):
            raise group_error(key.group, f"{where}.group", group)
        check_source(key.source, f"{where}.source", source)
        if cookie:
            check_cookie(cookie, f"{where}.cookie")
        # Field number, length and characters of the source, and then what many have in common.
        begins = f"\x12{chr(len(source))}{source}" if 0 < len(source) <= _LENGTH_MAX else "no"
        to_remember = rest.startswith(begins) and not message.HasField("status")
        for field in _READ_ALREADY:
            message.ClearField(field)
        remainder = message.SerializeToString()
        family = family_of(key.group)
        common = self._known[family].get(remainder) or self._check(message, remainder, family, where)
        tail, tails = rest[len(begins) :], self._tails[family]
        if to_remember and len(tail) <= _COMMON_BYTES_MAX and (not cookie or len(tails) < _COOKIES_CACHED):
            if len(tails) >= _COMMON_CACHED:
                tails.clear()
            tails[tail] = _Alike(*common, cookie)
        return Route(common.prefix + key.group + key.source, common.paths, owner, cookie, common.monitored, 0, common.join)

    def _check(self, message: t.Route, rest: bytes, family: Family, where: str) -> _Common:
        _check_known(message, where)
        if message.HasField("idle_timeout"):
            check_exact(message.idle_timeout.seconds + message.idle_timeout.nanos / 1e9, where)
        wish = _wish(message, where)
        known = self._known[family]
        if len(known) >= _COMMON_CACHED:
            known.clear()
        common = _Common(*alike_of(wish, family, where), wish.monitored, wish.join)
        if len(rest) <= _COMMON_BYTES_MAX:
            known[rest] = common
        return common


def _read_template(message: t.Route, key: TemplateKey, owner: str, where: str) -> Template:
    """A route with a prefix or a wildcard in source or group."""
    _check_known(message, where)
    return template_of(_wish(message, where), key, owner, where)


def _wish(message: t.Route, where: str) -> Wish:
    return Wish(
        group=message.group,
        source=message.source,
        iif=message.iif,
        oifs=[(o.interface, o.ttl_threshold) for o in message.oifs],
        cookie=message.cookie,
        monitored=message.monitored,
        table=message.table,
        idle_timeout=read_duration(message.idle_timeout, f"{where}.idle_timeout") if message.HasField("idle_timeout") else None,
        shared_tree=message.wildcard == t.WILDCARD_SHARED_TREE,
        join=message.join,
    )


def _check_known(message: t.Route, where: str) -> None:
    if message.wildcard not in _WILDCARDS:
        text = f"is unknown to this version: choose from {_WILDCARD_NAMES}"
        raise invalid(Reason.INVALID_VALUE, f"{where}.wildcard", message.wildcard, text)


def route_keys(messages: Iterable[t.RouteKey], find: Find, field: str = "keys") -> list[bytes]:
    """Keys of routes; an exact (S,G) has no iif in its key, and a template that is alone with its prefixes need not say its."""
    return [read_key(message, f"{field}[{at}]", find) for at, message in enumerate(messages)]


def patches(messages: Iterable[t.RoutePatch], find: Find) -> list[Patch]:
    """Patches of routes."""
    return [read_patch(message, f"patches[{at}]", find) for at, message in enumerate(messages)]


def read_patch(message: t.RoutePatch, where: str, find: Find) -> Patch:
    """A patch of a route; `where` is its field."""
    key = read_key(message.key, f"{where}.key", find)
    added = [(o.interface, o.ttl_threshold) for o in message.add_oifs]
    add = check_oifs(added, key_family(key), f"{where}.add_oifs")
    for n, name in enumerate(message.remove_oifs):
        check_pattern(name, f"{where}.remove_oifs[{n}]")
    both = {oif.interface for oif in add} & set(message.remove_oifs)
    if both:
        text = "is also among add_oifs: say one of the two"
        raise invalid(Reason.INVALID_INTERFACE, f"{where}.remove_oifs", min(both), text)
    return Patch(key, add, frozenset(message.remove_oifs))


def read_key(message: t.RouteKey, where: str, find: Find) -> bytes:
    """The key of a route; `where` is its field."""
    exact = _exact_key(message)
    if exact is not None:
        return exact
    key = read_prefixes(message.group, message.source, where)
    table = read_table(message.table, key.family, where)
    if key.group_length == key.source_length == 8 * len(key.group):
        if not is_multicast(key.group):
            raise group_error(key.group, f"{where}.group", message.group)
        return table_prefix(table) + key.group + key.source
    check_prefixes(key, message.group, message.source, where)
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


def _exact_key(message: t.RouteKey) -> bytes | None:
    """The key of an (S,G) of the default table in plain text, as most are; None = it needs a closer look."""
    family = socket.AF_INET6 if ":" in message.group else socket.AF_INET
    try:
        group, source = _pton(family, message.group), _pton(family, message.source)
    except (OSError, ValueError):
        return None
    return _DEFAULT_TABLE + group + source if is_multicast(group) and not message.table else None


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


def joins(messages: Iterable[t.Join], owner: str, first: int = 0) -> list[JoinRecord]:
    """Joins, of which the first has this position in the request; what is output only is not read."""
    return [_join(message, owner, f"joins[{at}]") for at, message in enumerate(messages, first)]


def _join(message: t.Join, owner: str, where: str) -> JoinRecord:
    if message.cookie:
        check_cookie(message.cookie, f"{where}.cookie")
    return JoinRecord(join_key_of(owner, message.interface, message.group, message.source, where), message.cookie)


def join_keys(messages: Iterable[t.Join], owner: str, first: int = 0) -> list[JoinKey]:
    """Keys of joins: interface, group and source."""
    return [
        join_key_of(owner, message.interface, message.group, message.source, f"joins[{at}]")
        for at, message in enumerate(messages, first)
    ]


def replace_header(request: rs.ReplaceRoutesRequest | None) -> rs.ReplaceRoutesRequest.Header:
    """The header, which must be the stream's first message."""
    part = request.WhichOneof("part") if request is not None else None
    if request is None or part != "header":
        raise invalid(Reason.INVALID_VALUE, "part", part or "nothing", "send a header first, then chunks, then close")
    return request.header
