"""Single fields of the contract's messages, checked: names, addresses, numbers.

An error names the field as the client wrote it (`routes[3].oifs[1].ttl_threshold`), the value, and what would be right.
"""

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from mcastd.model.address import Family, is_multicast, pack_address
from mcastd.model.errors import McastdError, Reason
from mcastd.model.interface import is_glob, name_problem
from mcastd.model.route import COOKIE_MAX, TTL_MAX, Oif
from mcastd.model.settings import DEFAULT_TABLE_NUMBERS, TABLE_MAX

OIFS_MAX = 64
"""Names and globs among the oifs of one route."""

GLOB_MAX = 64
"""Characters of a pattern."""

_VERBS = ("is ", "has ", "holds ", "excludes ", "differs ")

_SHOWN_MAX = 80
"""Characters of a value that an error quotes."""

_DURATION_MAX = 315_576_000_000
"""Seconds (google/protobuf/duration.proto): 10,000 years."""


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
        raise invalid(Reason.INVALID_VALUE, field, seconds_text(message), "give a duration from 0s up")
    return seconds + nanos / 1e9


def seconds_text(message: Duration) -> str:
    """A duration for people; the message's own method raises where it is out of range."""
    return f"{message.seconds + message.nanos / 1e9:.9g}s"


def too_many(count: int, limit: int, field: str) -> None:
    """Refuse more items than one request may hold."""
    if count > limit:
        text = f"{field} has {count} items, more than the {limit} allowed in a request: send several, or use ReplaceRoutes"
        raise McastdError(Reason.TOO_MANY_ITEMS, text, field=field, items=count, max=limit)


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
