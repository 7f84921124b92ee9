"""Shapes: all routes of one table and family that ask for the same Paths, resolved once for all of them.

A link event touches the shapes that name the interface, not their routes; only where the resolved Forwarding differs do the
routes' keys go to the plan.
"""

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mcastd.model.address import Family
from mcastd.model.errors import Problem, Reason
from mcastd.model.interface import VIFS_MAX, Link, glob_matcher, is_glob
from mcastd.model.route import Fate, Forwarding, Paths, RouteState

if TYPE_CHECKING:
    from mcastd.core.tables import KernelTable


class Shape(Fate):
    """The routes that are alike, by key, and what has become of them."""

    __slots__ = ("dropped", "globs", "held", "kernel", "members", "names", "paths", "starved")

    tree = False
    """Whether it is a shared tree, whose iif is among the oifs."""

    def __init__(self, kernel: "KernelTable", paths: Paths) -> None:
        """No members, not resolved."""
        super().__init__()
        self.kernel = kernel
        self.paths = paths
        self.members: dict[bytes, None] = {}
        self.held: dict[int, int] = {}
        """VIF numbers that it uses, by ifindex."""
        self.starved = False
        """Whether a VIF was wanting."""
        self.dropped = False
        """Whether it has no routes any more, and is not to be resolved again."""
        self.names, self.globs = interest(paths)

    def in_force(self, key: bytes) -> bool:
        """Whether the kernel has acknowledged an entry of this key that does what `forwarding` says."""
        have, want = self.kernel.actual.get(key), self.forwarding
        return have is want or (have is not None and want is not None and have.packed == want.packed)

    def cares_about(self, name: str) -> bool:
        """Whether a change of the interface of this name can change the resolution."""
        return name in self.names or any(glob_matcher(g).match(name) for g in self.globs)


def interest(paths: Paths) -> tuple[frozenset[str], tuple[str, ...]]:
    """The interfaces that the paths name, and their globs."""
    names, globs = set(), []
    if is_glob(paths.iif):
        globs.append(paths.iif)
    else:
        names.add(paths.iif)
    if not paths.iif:
        names, globs = set(), ["*"]  # A template without one looks at all of them.
    for oif in paths.oifs:
        if oif.interface.startswith("!"):
            continue  # It can only take away what a glob matches.
        if is_glob(oif.interface):
            globs.append(oif.interface)
        else:
            names.add(oif.interface)
    return frozenset(names), tuple(globs)


class World:
    """What a resolution depends on beside the paths: links by name, thresholds, and what the kernel has refused."""

    __slots__ = ("_matches", "by_index", "by_name", "discovery", "refused", "thresholds")

    def __init__(self) -> None:
        """An empty one."""
        self._matches: dict[str, dict[str, Link]] = {}
        self.by_name: dict[str, Link] = {}
        self.by_index: dict[int, Link] = {}
        self.thresholds: dict[str, int] = {}
        """Default TTL threshold of an interface, where it is not 1."""
        self.discovery: set[str] = set()
        """Interfaces where router discovery is wanted."""
        self.refused: dict[tuple[int, Family, int], Problem] = {}
        """By table, family and ifindex: why the kernel would not make a VIF; forgotten when the link changes."""

    def matching(self, pattern: str) -> dict[str, Link]:
        """Links whose name matches a pattern, by name; remembered until links change, since thousands of shapes ask."""
        found = self._matches.get(pattern)
        if found is None:
            match = glob_matcher(pattern).match
            found = self._matches[pattern] = {name: link for name, link in self.by_name.items() if match(name)}
        return found

    def forget_matches(self) -> None:
        """Links have changed."""
        self._matches = {}


class Wanted:
    """Oifs by ifindex with their thresholds, and what is missing."""

    __slots__ = ("missing", "named", "problem", "ttls")

    def __init__(self) -> None:
        """Nothing is wanted."""
        self.named: set[int] = set()
        """Those of the oifs that were named outright."""
        self.ttls: dict[int, int] = {}
        self.missing: list[str] = []
        self.problem: Problem | None = None

    def lacks(self, name: str, problem: Problem) -> None:
        """Take note of what is missing; the first problem is the one reported."""
        if name not in self.missing:
            self.missing.append(name)
        if self.problem is None:
            self.problem = problem


def resolve(shape: Shape, world: World) -> bool:
    """Resolve again: take and give back VIFs, set the shape's fate. Whether its Forwarding changed.

    The state says what holds once the plan is carried out; in a table that is not open (yet) nothing is taken. An interface
    that is down keeps its VIF and its place in the entry (so that nothing is lost when it comes up) and makes the route
    PARTIAL. Where anything changed, the shape's revision is set to -1, for the caller to give it the next.
    """
    vifs, wanted = shape.kernel.vifs, Wanted()
    before = shape.forwarding, shape.state, shape.installed_oifs, shape.missing, shape.problem
    old, shape.held, shape.starved = shape.held, {}, False
    iif = usable(shape.paths.iif, world, wanted)
    collect_oifs(shape, iif, world, wanted)
    if shape.tree and iif is not None:
        wanted.ttls.setdefault(iif.ifindex, world.thresholds.get(iif.name, 1))
    forwarding: Forwarding | None = None
    installed: list[str] = []
    if iif is not None and shape.kernel.opened:
        # Without the iif nothing is taken: numbers that come and go unused would feed the starved for ever, this shape too.
        acquire(shape, [iif.ifindex], world, wanted)
        parent = shape.held.get(iif.ifindex)
        if parent is not None:
            acquire(shape, wanted.ttls, world, wanted)
            ttls = {shape.held[i]: ttl for i, ttl in wanted.ttls.items() if i in shape.held}
            installed = [world.by_index[i].name for i in wanted.ttls if i in shape.held]
            forwarding = vifs.intern(*pack_forwarding(vifs.family, parent, ttls))
    for ifindex, number in old.items():
        vifs.release(ifindex, number)
    if shape.kernel.problem is not None:
        wanted.problem = shape.kernel.problem
    _set_fate(shape, forwarding, tuple(sorted(installed)), wanted)
    if before != (shape.forwarding, shape.state, shape.installed_oifs, shape.missing, shape.problem):
        shape.revision = -1
    return before[0] is not forwarding


def release(shape: Shape) -> None:
    """Give back the shape's VIFs."""
    for ifindex, number in shape.held.items():
        shape.kernel.vifs.release(ifindex, number)
    shape.held = {}
    shape.forwarding = None


def pack_forwarding(family: Family, parent: int, ttls: Mapping[int, int]) -> tuple[bytes, int]:
    """The kernel adapter's form of an entry, and the bits of the numbers it names; `ttls` by VIF number."""
    return parent.to_bytes(2, sys.byteorder) + pack_oifs(family, ttls), 1 << parent | bits_of(ttls)


def pack_oifs(family: Family, ttls: Mapping[int, int]) -> bytes:
    """The part of it that says what leaves where."""
    if family is Family.IPV6:
        # if_set is an array of 32-bit words (linux/mroute6.h); MIFs fit into the first.
        return bits_of(ttls).to_bytes(4, sys.byteorder) + bytes(VIFS_MAX - 4)
    body = bytearray(b"\xff" * VIFS_MAX)
    for number, ttl in ttls.items():
        body[number] = ttl
    return bytes(body)


def bits_of(numbers: Iterable[int]) -> int:
    """Bit n set for each number."""
    bits = 0
    for number in numbers:
        bits |= 1 << number
    return bits


def _set_fate(shape: Shape, forwarding: Forwarding | None, installed: tuple[str, ...], wanted: Wanted) -> None:
    shape.forwarding = forwarding
    shape.installed_oifs = installed
    shape.missing = tuple(wanted.missing)
    shape.problem = wanted.problem
    if forwarding is None:
        refused = wanted.problem is not None and wanted.problem.reason is Reason.KERNEL_ERROR
        shape.state = RouteState.FAILED if refused or shape.kernel.problem is not None else RouteState.PENDING
    else:
        shape.state = RouteState.PROGRAMMED if wanted.problem is None else RouteState.PARTIAL


def usable(name: str, world: World, wanted: Wanted) -> Link | None:
    """The link of this name if it can carry multicast; a link that is down is usable, and noted."""
    link = world.by_name.get(name)
    if link is None:
        # As SMCRoute writes its patterns; a name may end so, too.
        hint = f": if a pattern is meant, write {name[:-1]}*" if name.endswith("+") else ""
        wanted.lacks(name, Problem(Reason.NO_SUCH_INTERFACE, f"interface {name} does not exist (yet){hint}", {"interface": name}))
        return None
    if not link.multicast:
        text = f"interface {name} cannot carry multicast (no MULTICAST flag: 'ip link set {name} multicast on')"
        wanted.lacks(name, Problem(Reason.NOT_MULTICAST_CAPABLE, text, {"interface": name}))
        return None
    if not link.up:
        wanted.lacks(name, Problem(Reason.INTERFACE_DOWN, f"interface {name} is down", {"interface": name}))
    return link


def collect_oifs(shape: Shape, iif: Link | None, world: World, wanted: Wanted) -> None:
    """Fill `wanted` from the paths: names said outright win over globs; a glob never takes the iif (None = there is not one)."""
    globs: list[tuple[str, int]] = []
    excluded: set[str] = set()
    for name, ttl in shape.paths.oifs:
        if name.startswith("!"):
            excluded.update(world.matching(name[1:]))
        elif is_glob(name):
            globs.append((name, ttl))
        elif (link := usable(name, world, wanted)) is not None:
            wanted.ttls[link.ifindex] = ttl or world.thresholds.get(name, 1)
            wanted.named.add(link.ifindex)
    for pattern, ttl in globs:
        for name, link in world.matching(pattern).items():
            if link.ifindex not in wanted.ttls and link is not iif and link.multicast and name not in excluded:
                wanted.ttls[link.ifindex] = ttl or world.thresholds.get(name, 1)


def acquire(shape: Shape, ifindexes: Iterable[int], world: World, wanted: Wanted) -> None:
    """Take the interfaces' VIFs, as far as there are any, into `shape.held`."""
    vifs = shape.kernel.vifs
    for ifindex in ifindexes:
        if ifindex in shape.held:
            continue
        name = world.by_index[ifindex].name
        refused = world.refused.get((vifs.table, vifs.family, ifindex))
        number = None if refused else vifs.acquire(ifindex, name)
        if number is not None:
            shape.held[ifindex] = number
            continue
        if refused is None:
            shape.starved = True
            text = f"no free VIF for {name} in table {vifs.table} ({vifs.used} of {VIFS_MAX} used): delete routes that use others"
            refused = Problem(Reason.VIF_TABLE_FULL, text, {"interface": name, "used": str(vifs.used), "max": str(VIFS_MAX)})
        wanted.lacks(name, refused)
        wanted.problem = refused  # Outranks a name that is missing or down: that is not why the kernel lacks it.
