"""Filters: which objects a follower wants, and what it is to be told of one that changed."""

from collections.abc import Hashable
from enum import Enum

from mcast.v1 import types_pb2 as t
from mcastd.api.fields import check_name
from mcastd.api.select import Test, join_matcher, matcher
from mcastd.model.interface import glob_matcher, is_glob
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.route import Paths, Route


class Tell(Enum):
    """What a follower is told of an object that has changed."""

    PUT = "put"
    DELETE = "delete"
    NOTHING = "nothing"


class _Told:
    """Which objects a follower has been told of: for selectors that objects may come to match, and cease to."""

    def __init__(self, *, resumed: bool) -> None:
        """`resumed`: the follower knows objects of which nobody here has seen it told."""
        self._resumed = resumed
        self._keys: set[Hashable] = set()
        """What the follower has; where it has resumed: what is there, and of which it knows that it does not match any more."""

    def verdict(self, key: Hashable, *, there: bool, matches: bool) -> Tell:
        """What to tell of an object that matches now, or does not, or is not `there` any more."""
        if self._resumed:
            return self._after_resume(key, there=there, matches=matches)
        if matches:
            self._keys.add(key)
            return Tell.PUT
        if key in self._keys:
            self._keys.discard(key)
            return Tell.DELETE
        return Tell.NOTHING

    def _after_resume(self, key: Hashable, *, there: bool, matches: bool) -> Tell:
        """The follower may have any object: it is told once that one is not (any more) among those that match."""
        if matches:
            self._keys.discard(key)
            return Tell.PUT
        known = key in self._keys
        if there:
            self._keys.add(key)
        else:
            self._keys.discard(key)  # Or all that ever was would be kept.
        return Tell.NOTHING if known else Tell.DELETE


class RouteFilter:
    """A selector for routes."""

    def __init__(self, selector: t.Selector, *, resumed: bool) -> None:
        """`resumed`: the follower knows routes of which this filter has not seen it told."""
        self._test = matcher(selector)
        self.everything = self._test is None
        """Whether all are wanted."""
        by_key = t.Selector(group=selector.group, source=selector.source)
        if selector.HasField("table"):
            by_key.table = selector.table
        self._by_key = matcher(by_key)
        self._fixed = selector == by_key
        """Whether the key alone decides: then it decides once and for all."""
        self._told = _Told(resumed=resumed)

    def verdict(self, key: bytes, route: Route | None) -> Tell:
        """What to tell of the route of this key; None = it is gone."""
        there = Tell.PUT if route is not None else Tell.DELETE
        if self._test is None:
            return there
        if self._by_key is not None and not self._by_key(route or Route(key, _NO_PATHS, "")):
            return Tell.NOTHING
        if self._fixed:
            return there
        return self._told.verdict(key, there=route is not None, matches=route is not None and self._test(route))


class JoinFilter:
    """A selector for joins: its fields states and table are about routes."""

    def __init__(self, selector: t.Selector, *, resumed: bool) -> None:
        """`resumed` as for RouteFilter."""
        self._test = join_matcher(selector)
        self.everything = self._test is None
        """Whether all are wanted."""
        self._told = _Told(resumed=resumed)

    def verdict(self, key: JoinKey, record: JoinRecord | None, interfaces: list[str]) -> Tell:
        """What to tell of a join (None = it is gone) that is held on these interfaces."""
        if self._test is None:
            return Tell.PUT if record is not None else Tell.DELETE
        matches = record is not None and self._test(record, interfaces)
        return self._told.verdict(key, there=record is not None, matches=matches)


class InterfaceFilter:
    """A selector for interfaces: of its fields only `interface` is about them."""

    def __init__(self, selector: t.Selector) -> None:
        """Read it."""
        self._name = selector.interface
        self.everything = not self._name
        """Whether all are wanted."""
        if self._name:
            check_name(self._name, "selector.interface", glob=True)
        self._match = glob_matcher(self._name).match if is_glob(self._name) else None

    def matches(self, name: str) -> bool:
        """Whether an interface of this name is wanted."""
        if self._match is not None:
            return self._match(name) is not None
        return not self._name or name == self._name


class FlowFilter:
    """A selector for traffic on an interface; its fields owner, cookie and states are about routes."""

    def __init__(self, selector: t.Selector) -> None:
        """Read it."""
        about = t.Selector()
        about.CopyFrom(selector)
        for field in ("owner", "cookie", "states"):
            about.ClearField(field)
        self._test: Test | None = matcher(about)
        self.everything = self._test is None
        """Whether all are wanted."""

    def matches(self, key: bytes, interface: str) -> bool:
        """Whether the (S,G) on the interface is wanted."""
        return self._test is None or self._test(Route(key, Paths(interface, ()), KERNEL_OWNER))


_NO_PATHS = Paths("", ())
