"""Between the contract's messages and the model: the one module where both meet.

Everything that comes in is checked here, whole, before anything is done. An error names the field as the client wrote it
(`routes[3].oifs[1].ttl_threshold`), the value, and what would be right.
"""

import socket
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from google.protobuf.duration_pb2 import Duration

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family, is_link_local_group, is_multicast, pack_address, table_prefix
from mcastd.model.errors import McastdError, Reason
from mcastd.model.interface import is_glob, name_problem
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.route import COOKIE_MAX, TTL_MAX, Fate, Oif, Paths, Route, RouteState
from mcastd.model.settings import DEFAULT_TABLE_NUMBERS, TABLE_MAX
from mcastd.model.write import Patch

OIFS_MAX = 64
"""Names and globs among the oifs of one route."""

GLOB_MAX = 64
"""Characters of a pattern."""

_COMMON_CACHED = 65_536

_COMMON_BYTES_MAX = 1024
"""What is remembered: unknown fields can make a message as large as a request."""

_VERBS = ("is ", "has ", "holds ", "excludes ", "differs ")

_SHOWN_MAX = 80
"""Characters of a value that an error quotes."""

_DURATION_MAX = 315_576_000_000
"""Seconds (google/protobuf/duration.proto): 10,000 years."""

_READ_ALREADY: tuple[Literal["group", "source", "cookie", "status"], ...] = ("group", "source", "cookie", "status")
"""Fields that a route shares with no other, and the one that is ignored."""

_DUBIOUS = frozenset({0, 127, *range(224, 256)})
"""First bytes of the sources that are looked at closely."""

_pton = socket.inet_pton
_WILDCARDS = frozenset(t.Wildcard.values())
_WILDCARD_NAMES = ", ".join(t.Wildcard.keys())


def invalid(reason: Reason, field: str, value: object, remedy: str) -> McastdError:
    """The error for a field, whose `remedy` is a predicate ("is empty: ...") or a sentence; in one form everywhere.

    A long value is cut: errors travel in trailers, where 8 KiB is the limit.
    """
    if isinstance(value, str) and len(value) > _SHOWN_MAX:
        value = value[:_SHOWN_MAX] + "..."
    between = " " if remedy.startswith(_VERBS) else ": "
    return McastdError(reason, f"{field} {value!r}{between}{remedy}", field=field, value=value)


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
        """Exact (S,G) routes; `first` is the position of the first one in the request. The messages are used up."""
        out = []
        known4, known6 = self._known[Family.IPV4], self._known[Family.IPV6]
        for at, message in enumerate(messages, first):
            group, source, cookie = message.group, message.source, message.cookie
            try:
                if ":" in group:
                    packed_group, packed_source = _pton(socket.AF_INET6, group), _pton(socket.AF_INET6, source)
                else:
                    packed_group, packed_source = _pton(socket.AF_INET, group), _pton(socket.AF_INET, source)
            except (OSError, ValueError):
                packed_group, packed_source = _addresses(group, source, f"routes[{at}]")
            if not is_multicast(packed_group) or is_link_local_group(packed_group):
                raise _group_error(packed_group, f"routes[{at}].group", group)
            if packed_source[0] in _DUBIOUS:
                _check_source(packed_source, f"routes[{at}].source", source)
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


def route_keys(messages: Iterable[t.RouteKey], field: str = "keys") -> list[bytes]:
    """Keys of exact (S,G) routes; the iif is ignored, as the contract says."""
    return [_route_key(message, f"{field}[{at}]") for at, message in enumerate(messages)]


def patches(messages: Iterable[t.RoutePatch]) -> list[Patch]:
    """Patches of exact (S,G) routes."""
    out = []
    for at, message in enumerate(messages):
        where = f"patches[{at}]"
        key = _route_key(message.key, f"{where}.key")
        family = Family.IPV4 if len(key) == 12 else Family.IPV6
        added = [(o.interface, o.ttl_threshold) for o in message.add_oifs]
        add = check_oifs(added, family, f"{where}.add_oifs")
        for n, name in enumerate(message.remove_oifs):
            check_pattern(name, f"{where}.remove_oifs[{n}]")
        both = {oif.interface for oif in add} & set(message.remove_oifs)
        if both:
            raise invalid(
                Reason.INVALID_INTERFACE, f"{where}.remove_oifs", min(both), "is also among add_oifs: say one of the two"
            )
        out.append(Patch(key, add, frozenset(message.remove_oifs)))
    return out


def check_name(name: str, field: str, *, glob: bool) -> None:
    """Refuse what can't be the name of an interface (or, where `glob`, a pattern)."""
    if is_glob(name):
        if not glob:
            raise invalid(Reason.INVALID_INTERFACE, field, name, "is a pattern: an exact (S,G) needs one interface by name")
        if len(name) > GLOB_MAX:
            raise invalid(Reason.INVALID_INTERFACE, field, name, f"is longer than {GLOB_MAX} characters: write a shorter pattern")
        if any(c in "/:" or c.isspace() or not c.isprintable() for c in name):
            raise invalid(Reason.INVALID_INTERFACE, field, name, "holds characters that no interface name has: write another")
    elif problem := name_problem(name):
        raise invalid(Reason.INVALID_INTERFACE, field, name, f"{problem}: name the interface as 'ip link' shows it")


def check_pattern(text: str, field: str) -> None:
    """Refuse what can't be a name, a pattern, or "!" and one of them."""
    if text == "!":
        raise invalid(Reason.INVALID_INTERFACE, field, text, "excludes nothing: write a name or a pattern after it")
    check_name(text.removeprefix("!"), field, glob=True)


def check_oifs(oifs: Sequence[tuple[str, int]], family: Family, field: str) -> tuple[Oif, ...]:
    """The oifs sorted, without repetitions."""
    if len(oifs) > OIFS_MAX:
        text = f"{field} has {len(oifs)} items, more than the {OIFS_MAX} allowed: use a glob"
        raise McastdError(Reason.TOO_MANY_ITEMS, text, field=field, max=OIFS_MAX)
    by_name: dict[str, int] = {}
    for at, (name, ttl) in enumerate(oifs):
        where = f"{field}[{at}]"
        check_pattern(name, f"{where}.interface")
        if ttl and family is Family.IPV6:
            raise invalid(Reason.INVALID_TTL, f"{where}.ttl_threshold", ttl, "IPv6 has no TTL thresholds: leave it 0")
        if ttl > TTL_MAX:
            raise invalid(
                Reason.INVALID_TTL,
                f"{where}.ttl_threshold",
                ttl,
                f"is out of range: 1 to {TTL_MAX}, or 0 for the interface's own",
            )
        if ttl and name.startswith("!"):
            raise invalid(Reason.INVALID_TTL, f"{where}.ttl_threshold", ttl, "an exclusion has no threshold: leave it 0")
        if by_name.setdefault(name, ttl) != ttl:
            raise invalid(
                Reason.INVALID_INTERFACE,
                f"{where}.interface",
                name,
                f"is there twice, with thresholds {by_name[name]} and {ttl}: leave one",
            )
        if f"!{name}" in by_name or (name.startswith("!") and name[1:] in by_name):
            raise invalid(Reason.INVALID_INTERFACE, f"{where}.interface", name, "is both named and excluded: say one of the two")
    return tuple(sorted(Oif(name, ttl) for name, ttl in by_name.items()))


def read_table(table: int, family: Family, where: str) -> int:
    """The table's number as it is kept: the default table is 0, also where the client says the kernel's number of it."""
    if not table:
        return 0
    if table > TABLE_MAX:
        raise invalid(Reason.INVALID_VALUE, f"{where}.table", table, f"is too large: the kernel's tables go to {TABLE_MAX}")
    if table not in DEFAULT_TABLE_NUMBERS:
        return table
    if (table == 253) != (family is Family.IPV4):
        other = "IPv6" if family is Family.IPV4 else "IPv4"
        raise invalid(Reason.INVALID_VALUE, f"{where}.table", table, f"is the default table of {other}: choose another, or 0")
    return 0


def read_table_of_both(table: int, field: str) -> int:
    """The table's number where both families are meant."""
    if table > TABLE_MAX:
        raise invalid(Reason.INVALID_VALUE, field, table, f"is too large: the kernel's tables go to {TABLE_MAX}")
    return 0 if table in DEFAULT_TABLE_NUMBERS else table


def read_duration(message: Duration, field: str) -> float:
    """Seconds, from 0 up."""
    seconds, nanos = message.seconds, message.nanos
    if not (0 <= seconds <= _DURATION_MAX and 0 <= nanos < 1_000_000_000):
        raise invalid(Reason.INVALID_VALUE, field, _seconds_text(message), "give a duration from 0s up")
    return seconds + nanos / 1e9


def _seconds_text(message: Duration) -> str:
    """A duration for people; the message's own method raises where it is out of range."""
    return f"{message.seconds + message.nanos / 1e9:.9g}s"


def too_many(count: int, limit: int, field: str) -> None:
    """Refuse more items than one request may hold."""
    if count > limit:
        text = f"{field} has {count} items, more than the {limit} allowed in a request: send several, or use ReplaceRoutes"
        raise McastdError(Reason.TOO_MANY_ITEMS, text, field=field, items=count, max=limit)


def _addresses(group: str, source: str, where: str) -> tuple[bytes, bytes]:
    """The slow way, which says what is wrong."""
    packed_group = _address(group, f"{where}.group", Reason.INVALID_GROUP, "a multicast address")
    packed_source = _address(source, f"{where}.source", Reason.INVALID_SOURCE, "the address of the sender")
    if len(packed_group) != len(packed_source):
        raise invalid(
            Reason.FAMILY_MISMATCH,
            f"{where}.source",
            source,
            f"is of another family than group {group!r}: use one family in a route",
        )
    return packed_group, packed_source


def _address(text: str, field: str, reason: Reason, what: str) -> bytes:
    if not text and reason is Reason.INVALID_SOURCE:
        raise _template(field, text, "is empty")
    if not text:
        raise invalid(reason, field, text, f"is empty: give {what}")
    address, slash, length = text.partition("/")
    try:
        packed = pack_address(address)
    except ValueError:
        raise invalid(reason, field, text, f"is no IPv4 or IPv6 address: give {what}") from None
    if slash and read_prefix_length(length, 8 * len(packed), reason, field, text) < 8 * len(packed):
        raise _template(field, text, "is a prefix")
    return packed


def read_prefix_length(length: str, bits: int, reason: Reason, field: str, text: str) -> int:
    """The number after the slash of a prefix."""
    if not length.isascii() or not length.isdigit() or len(length) > 3 or int(length) > bits:
        raise invalid(reason, field, text, f"has no prefix length from 0 to {bits}")
    return int(length)


def _template(field: str, value: str, what: str) -> McastdError:
    text = f"{field} {value!r} {what}, so the route is a template: this version of mcastd has none, give one source and one group"
    return McastdError(Reason.NOT_IMPLEMENTED, text, field=field, value=value, feature="templates")


def _group_error(packed: bytes, field: str, text: str) -> McastdError:
    if not is_multicast(packed):
        return invalid(Reason.INVALID_GROUP, field, text, "is no multicast address: give one of 224.0.0.0/4 or ff00::/8")
    return invalid(
        Reason.LINK_LOCAL_GROUP,
        field,
        text,
        "is link-local (224.0.0.0/24, IPv6 scopes 0 to 2), which no router forwards: use a wider one",
    )


def _check_source(packed: bytes, field: str, text: str) -> None:
    first = packed[0]
    if first in {0, 127} or first >= 224:
        if is_multicast(packed):
            raise invalid(Reason.INVALID_SOURCE, field, text, "is a multicast address, which never sends: give the sender's own")
        unusable = not any(packed) or (first in {0, 127} if len(packed) == 4 else packed == b"\0" * 15 + b"\1")
        if unusable or packed == b"\xff" * 4:
            raise invalid(
                Reason.INVALID_SOURCE, field, text, "is no address that a packet to forward can come from: give the sender's own"
            )


def _check_rest(message: t.Route, where: str) -> None:
    if message.join:
        text = f"{where}.join: this version of mcastd holds no group memberships: leave it unset and join by another program"
        raise McastdError(Reason.NOT_IMPLEMENTED, text, field=f"{where}.join", feature="joins")
    if message.wildcard not in _WILDCARDS:
        raise invalid(
            Reason.INVALID_VALUE,
            f"{where}.wildcard",
            message.wildcard,
            f"is unknown to this version: choose from {_WILDCARD_NAMES}",
        )
    if message.HasField("idle_timeout"):
        text = "is for templates: an exact (S,G) stays until it is deleted"
        raise invalid(Reason.INVALID_VALUE, f"{where}.idle_timeout", _seconds_text(message.idle_timeout), text)


def _route_key(message: t.RouteKey, where: str) -> bytes:
    group, source = _addresses(message.group, message.source, where)
    if not is_multicast(group):
        raise _group_error(group, f"{where}.group", message.group)
    family = Family.IPV4 if len(group) == 4 else Family.IPV6
    return table_prefix(read_table(message.table, family, where)) + group + source


def check_cookie(cookie: str, field: str) -> None:
    """Refuse one that is too long."""
    if len(cookie.encode()) > COOKIE_MAX:
        raise invalid(Reason.INVALID_VALUE, field, cookie, f"is longer than {COOKIE_MAX} bytes of UTF-8: shorten it")


def foreign_route(key: bytes, iif: str, oifs: Iterable[tuple[str, int]]) -> Route:
    """An entry that nobody asked for, as a route: so that selectors apply to it."""
    route = Route(key, Paths(iif, tuple(Oif(name, ttl) for name, ttl in oifs)), KERNEL_OWNER)
    route.fate = Fate()
    route.fate.state = RouteState.PROGRAMMED
    return route


def replace_header(request: rs.ReplaceRoutesRequest | None) -> rs.ReplaceRoutesRequest.Header:
    """The header, which must be the stream's first message."""
    part = request.WhichOneof("part") if request is not None else None
    if request is None or part != "header":
        raise invalid(Reason.INVALID_VALUE, "part", part or "nothing", "send a header first, then chunks, then close")
    return request.header
