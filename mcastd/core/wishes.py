"""Wishes: what anybody may ask for, checked in one place for every way in (API, configuration file).

An error names the field as it was written (`routes[3].oifs[1].ttl_threshold`), the value, and what would be right.
"""

from collections.abc import Sequence
from typing import NamedTuple

from mcastd.model.address import Family, is_link_local_group, is_multicast, pack_address, table_prefix
from mcastd.model.errors import McastdError, Reason
from mcastd.model.interface import is_glob, name_problem
from mcastd.model.join import MEMBERSHIPS_MAX, JoinKey, route_join_key
from mcastd.model.route import COOKIE_MAX, TTL_MAX, Oif, Paths, Route, Template
from mcastd.model.settings import DEFAULT_TABLE_NUMBERS, TABLE_MAX
from mcastd.model.template import TemplateKey, masked, prefix_text

OIFS_MAX = 64
"""Names and globs among the oifs of one route."""

GLOB_MAX = 64
"""Characters of a pattern."""

IDLE_TIMEOUT_MAX = 86_400.0
"""Seconds."""

_VERBS = ("stands, ", "is ", "has ", "holds ", "excludes ", "differs ")

_SHOWN_MAX = 80
"""Characters of a value that an error quotes."""


def invalid(reason: Reason, field: str, value: object, remedy: str) -> McastdError:
    """The error for a field, whose `remedy` is a predicate ("is empty: ...") or a sentence; in one form everywhere.

    A long value is cut: errors travel in trailers, where 8 KiB is the limit.
    """
    if isinstance(value, str) and len(value) > _SHOWN_MAX:
        value = value[:_SHOWN_MAX] + "..."
    between = " " if remedy.startswith(_VERBS) else ": "
    return McastdError(reason, f"{field} {value!r}{between}{remedy}", field=field, value=value)


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


def check_interface(name: str, field: str) -> None:
    """Refuse what does not name one interface."""
    if problem := name_problem(name):
        raise invalid(Reason.INVALID_INTERFACE, field, name, f"{problem}: name it as 'ip link' shows it")
    if is_glob(name):
        raise invalid(Reason.INVALID_INTERFACE, field, name, "is a pattern: name one interface")


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


def read_address(text: str, field: str, reason: Reason, what: str) -> tuple[bytes, int]:
    """An address or prefix: packed, and the length of the prefix in bits."""
    if not text:
        raise invalid(reason, field, text, f"is empty: give {what}")
    address, slash, length = text.partition("/")
    try:
        packed = pack_address(address)
    except ValueError:
        raise invalid(reason, field, text, f"is no IPv4 or IPv6 address: give {what}") from None
    bits = 8 * len(packed)
    return packed, read_prefix_length(length, bits, reason, field, text) if slash else bits


def read_prefix_length(length: str, bits: int, reason: Reason, field: str, text: str) -> int:
    """The number after the slash of a prefix."""
    if not length.isascii() or not length.isdigit() or len(length) > 3 or int(length) > bits:
        raise invalid(reason, field, text, f"has no prefix length from 0 to {bits}")
    return int(length)


def group_error(packed: bytes, field: str, text: str) -> McastdError:
    """What is wrong with a group that can't be routed."""
    if not is_multicast(packed):
        return invalid(Reason.INVALID_GROUP, field, text, "is no multicast address: give one of 224.0.0.0/4 or ff00::/8")
    return invalid(
        Reason.LINK_LOCAL_GROUP,
        field,
        text,
        "is link-local (224.0.0.0/24, IPv6 scopes 0 to 2), which no router forwards: use a wider one",
    )


def check_source(packed: bytes, field: str, text: str) -> None:
    """Refuse what no packet to forward can come from."""
    first = packed[0]
    if first in {0, 127} or first >= 224:
        if is_multicast(packed):
            raise invalid(Reason.INVALID_SOURCE, field, text, "is a multicast address, which never sends: give the sender's own")
        unusable = not any(packed) or (first in {0, 127} if len(packed) == 4 else packed == b"\0" * 15 + b"\1")
        if unusable or packed == b"\xff" * 4:
            raise invalid(
                Reason.INVALID_SOURCE, field, text, "is no address that a packet to forward can come from: give the sender's own"
            )


def check_cookie(cookie: str, field: str) -> None:
    """Refuse one that is too long."""
    if len(cookie.encode()) > COOKIE_MAX:
        raise invalid(Reason.INVALID_VALUE, field, cookie, f"is longer than {COOKIE_MAX} bytes of UTF-8: shorten it")


def read_prefixes(group: str, source: str, where: str) -> TemplateKey:
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


def check_prefixes(key: TemplateKey, group: str, source: str, where: str) -> None:
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


class Wish(NamedTuple):
    """One route as it is asked for: nothing is checked yet but the types."""

    group: str
    source: str
    iif: str
    oifs: Sequence[tuple[str, int]]
    """Name, glob or exclusion, and TTL threshold; 0 = the interface's own."""
    cookie: str = ""
    monitored: bool = False
    table: int = 0
    idle_timeout: float | None = None
    """Seconds; None = it says nothing."""
    shared_tree: bool = False
    join: bool = False


def route_of(wish: Wish, owner: str, where: str) -> Route:
    """The route, or template, that is asked for; `where` is what the fields' names begin with."""
    key = read_prefixes(wish.group, wish.source, where)
    if key.group_length < 8 * len(key.group) or key.source_length < 8 * len(key.source):
        return template_of(wish, key, owner, where)
    if not is_multicast(key.group) or is_link_local_group(key.group):
        raise group_error(key.group, f"{where}.group", wish.group)
    check_source(key.source, f"{where}.source", wish.source)
    check_cookie(wish.cookie, f"{where}.cookie")
    check_exact(wish.idle_timeout, where)
    prefix, paths = alike_of(wish, key.family, where)
    return Route(prefix + key.group + key.source, paths, owner, wish.cookie, wish.monitored, 0, wish.join)


def alike_of(wish: Wish, family: Family, where: str) -> tuple[bytes, Paths]:
    """What an exact (S,G) shares with others: the table's part of the key, and the interfaces."""
    table = read_table(wish.table, family, where)
    check_name(wish.iif, f"{where}.iif", glob=False)
    return table_prefix(table), Paths(wish.iif, check_oifs(wish.oifs, family, f"{where}.oifs"))


def check_exact(idle_timeout: float | None, where: str) -> None:
    """Refuse what an exact (S,G) can't have."""
    if idle_timeout is not None:
        text = "is for templates: an exact (S,G) stays until it is deleted"
        raise invalid(Reason.INVALID_VALUE, f"{where}.idle_timeout", duration_text(idle_timeout), text)


def template_of(wish: Wish, key: TemplateKey, owner: str, where: str) -> Template:
    """A route with a prefix or a wildcard in source or group (`key` is what read_prefixes has made of them)."""
    check_prefixes(key, wish.group, wish.source, where)
    if wish.iif:
        check_name(wish.iif, f"{where}.iif", glob=True)
    oifs = check_oifs(wish.oifs, key.family, f"{where}.oifs")
    if wish.shared_tree:
        _check_shared_tree(wish, key, where)
    check_cookie(wish.cookie, f"{where}.cookie")
    timeout = wish.idle_timeout
    if timeout is not None and not 1.0 <= timeout <= IDLE_TIMEOUT_MAX:
        remedy = f"give 1s to {IDLE_TIMEOUT_MAX:g}s, or leave it unset"
        raise invalid(Reason.INVALID_VALUE, f"{where}.idle_timeout", duration_text(timeout), remedy)
    full = key._replace(table=read_table(wish.table, key.family, where), iif=wish.iif)
    made = Template(
        full.pack(), Paths(wish.iif, oifs), owner, wish.cookie, wish.monitored, 0, timeout or 0.0, wish.shared_tree, wish.join
    )
    if wish.join:
        _check_route_join(made, wish, where)
    return made


def _check_route_join(template: Template, wish: Wish, where: str) -> None:
    """Refuse a template that can't be joined as it is."""
    if not wish.iif:
        text = "is empty, so there is no interface to join on (join): name one, or a pattern, or unset join"
        raise invalid(Reason.INVALID_INTERFACE, f"{where}.iif", wish.iif, text)
    _check_memberships(route_join_key(template), f"{where}.group", wish.group)


def _check_memberships(key: JoinKey, field: str, text: str) -> None:
    if key.size > MEMBERSHIPS_MAX:
        remedy = f"stands, with the source, for {key.size} memberships, more than {MEMBERSHIPS_MAX}: join fewer"
        raise invalid(Reason.INVALID_VALUE, field, text, remedy)


def join_key_of(owner: str, interface: str, group: str, source: str, where: str) -> JoinKey:
    """The key of a join: an interface or pattern, group and source as addresses or prefixes; no source = any."""
    check_name(interface, f"{where}.interface", glob=True)
    parts = read_prefixes(group, source, where)
    check_prefixes(parts, group, source, where)
    packed = parts.source if parts.source_length else b""
    if packed:
        check_source(packed, f"{where}.source", source)
    key = JoinKey(owner, interface, parts.group, parts.group_length, packed, parts.source_length)
    _check_memberships(key, f"{where}.group", group)
    return key


def _check_shared_tree(wish: Wish, key: TemplateKey, where: str) -> None:
    if key.source_length or key.group_length < 8 * len(key.group):
        text = "is for a (*,G): give one group address and no source"
        raise invalid(Reason.INVALID_VALUE, f"{where}.wildcard", "WILDCARD_SHARED_TREE", text)
    if not wish.iif or is_glob(wish.iif):
        raise invalid(Reason.INVALID_INTERFACE, f"{where}.iif", wish.iif, "a shared tree needs one iif by name")
    if wish.idle_timeout is not None:
        text = "a shared tree learns nothing that could be idle: leave it unset"
        raise invalid(Reason.INVALID_VALUE, f"{where}.idle_timeout", duration_text(wish.idle_timeout), text)


def duration_text(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds:.9g}s"
