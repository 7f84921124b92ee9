"""Selectors: a message turned into a test of a route."""

from collections.abc import Callable

from mcast.v1 import types_pb2 as t
from mcastd.api.fields import check_name, invalid, read_prefix_length, read_table_of_both
from mcastd.model.address import key_table, pack_address
from mcastd.model.errors import Reason
from mcastd.model.interface import glob_matcher, is_glob
from mcastd.model.join import JoinRecord
from mcastd.model.route import Route, RouteState
from mcastd.model.template import masked, parts_of

_STATES = frozenset(int(state) for state in RouteState)

Test = Callable[[Route], bool]
JoinTest = Callable[[JoinRecord, list[str]], bool]
"""Of a join, and the names of the interfaces on which it is wanted."""


def is_empty(selector: t.Selector) -> bool:
    """Whether it matches everything."""
    return not selector.ListFields()


def matcher(selector: t.Selector) -> Test | None:
    """A test that holds for the routes that match; None = every route does."""
    tests: list[Test] = []
    if selector.owner:
        owner = selector.owner
        tests.append(lambda route: route.owner == owner)
    if selector.cookie:
        cookie = selector.cookie
        tests.append(lambda route: route.cookie == cookie)
    if selector.HasField("table"):
        number = read_table_of_both(selector.table, "selector.table")
        tests.append(lambda route: key_table(route.key) == number)
    for part, text in (("group", selector.group), ("source", selector.source)):
        if text:
            tests.append(_inside(*_prefix(text, f"selector.{part}"), part))
    if selector.interface:
        check_name(selector.interface, "selector.interface", glob=True)
        tests.append(_uses(selector.interface))
    if selector.states:
        tests.append(_in_states(list(selector.states)))
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda route: all(test(route) for test in tests)


def join_matcher(selector: t.Selector) -> JoinTest | None:
    """A test that holds for the joins that match; None = every join does. A join has no state and no table."""
    if selector.interface:
        check_name(selector.interface, "selector.interface", glob=True)
    named = _names_matcher(selector.interface)
    parts = [
        (part, *_prefix(text, f"selector.{part}"))
        for part, text in (("group", selector.group), ("source", selector.source))
        if text
    ]

    def test(record: JoinRecord, interfaces: list[str]) -> bool:
        key = record.key
        if selector.owner not in {"", key.owner} or selector.cookie not in {"", record.cookie}:
            return False
        if selector.interface and not (named(key.interface) or any(map(named, interfaces))):
            return False
        have = {"group": (key.group, key.group_length), "source": (key.source or bytes(len(key.group)), key.source_length)}
        return all(_is_inside(*have[part], packed, length) for part, packed, length in parts)

    wanted = (selector.interface, selector.owner, selector.cookie, selector.group, selector.source)
    return test if any(wanted) else None


def _is_inside(address: bytes, bits: int, packed: bytes, length: int) -> bool:
    """Whether an address or prefix is, whole, inside a prefix."""
    return len(address) == len(packed) and bits >= length and masked(address, length) == masked(packed, length)


def _prefix(text: str, field: str) -> tuple[bytes, int]:
    """Packed address and prefix length in bits."""
    address, slash, length = text.partition("/")
    reason = Reason.INVALID_GROUP if field.endswith("group") else Reason.INVALID_SOURCE
    try:
        packed = pack_address(address)
    except ValueError:
        raise invalid(reason, field, text, "is no IPv4 or IPv6 address or prefix") from None
    bits = 8 * len(packed)
    if not slash:
        return packed, bits
    return packed, read_prefix_length(length, bits, reason, field, text)


def _inside(packed: bytes, length: int, part: str) -> Test:
    """Whether a route's group or source (a template's prefix, whole) is inside a prefix; any source is inside none but /0."""

    def test(route: Route) -> bool:
        key = parts_of(route.key)
        address, bits = (key.group, key.group_length) if part == "group" else (key.source, key.source_length)
        return _is_inside(address, bits, packed, length)

    return test


def _uses(interface: str) -> Test:
    named = _names_matcher(interface)

    def test(route: Route) -> bool:
        return (
            named(route.paths.iif)
            or any(named(oif.interface) for oif in route.paths.oifs)
            or any(named(name) for name in route.fate.installed_oifs)
        )

    return test


def _names_matcher(interface: str) -> Callable[[str], bool]:
    """Whether a name is this one, or matches this glob."""
    match = glob_matcher(interface).match if is_glob(interface) else None
    return interface.__eq__ if match is None else lambda name: match(name) is not None


def _in_states(states: list[int]) -> Test:
    unknown = [s for s in states if s not in _STATES]
    if unknown:
        names = ", ".join(state.name.lower() for state in RouteState)
        raise invalid(
            Reason.INVALID_VALUE, "selector.states", unknown[0], f"is a state that this version does not know ({names})"
        )
    wanted = frozenset(states)
    return lambda route: int(route.state) in wanted
