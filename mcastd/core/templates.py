"""Templates in force: resolved to what the keeper needs to know, and the entries that they have made."""

from hashlib import blake2b
from typing import TYPE_CHECKING

from mcastd.core.shapes import Shape, Wanted, World, acquire, bits_of, collect_oifs, interest, pack_oifs, release, usable
from mcastd.model.errors import Reason
from mcastd.model.interface import glob_matcher, is_glob
from mcastd.model.route import RouteState, Template
from mcastd.model.template import ANY_VIF, TemplateAction, TemplateChange, unpack_template_key

if TYPE_CHECKING:
    from mcastd.core.tables import KernelTable


class Learned:
    """An (S,G) that is in the kernel because packets came: made by a template, or a stop filter."""

    __slots__ = ("ifindex", "moved_at", "moves", "shape", "since", "stop_wanted")

    def __init__(self, ifindex: int, since: float) -> None:
        """Its packets come in on this interface; `since` in seconds since the epoch, -1 = before this server started."""
        self.ifindex = ifindex
        self.since = since
        self.shape: TemplateShape | TreeShape | None = None
        """The template that covers it, or the tree of which it is a branch; None = it is not resolved yet, or a stop filter."""
        self.stop_wanted = False
        """Whether it is to be a stop filter where no template is meant."""
        self.moved_at = 0.0
        self.moves = 0


class TemplateShape(Shape):
    """One template, and what has become of it."""

    __slots__ = ("action", "children", "counted", "deleted", "key", "name", "route", "sent")

    def __init__(self, kernel: "KernelTable", route: Template) -> None:
        """Not resolved, not sent to the keeper."""
        super().__init__(kernel, route.paths)
        self.route = route
        self.key = unpack_template_key(route.key)
        self.name = template_name(route.key)
        self.action: TemplateAction | None = None
        """What its entries are to do; None = it makes none now."""
        self.sent: TemplateAction | None = None
        """What the keeper has acknowledged."""
        self.children = 0
        """Learned entries."""
        self.counted = 0
        """Learned entries that the keeper counts, as far as we have heard from it."""
        self.deleted = False

    def become(self, route: Template) -> None:
        """Take a new intent of the same key; its entries stay its entries."""
        self.route = route
        self.paths = route.paths
        self.names, self.globs = interest(route.paths)
        route.fate = self

    @property
    def allowed(self) -> int:
        """VIF numbers (bits) on which its packets come in."""
        return self.action.allowed if self.action is not None else 0

    def change(self, cap: int) -> TemplateChange:
        """As the keeper is to have it."""
        return TemplateChange(self.key, self.name, self.action, self.children, cap)


class TreeShape(Shape):
    """One shared tree: a kernel (*,G) entry, and a branch for each source that sends into it from below.

    The kernel forwards by a (*,G) entry what comes in on its parent VIF alone, unless a (*,*) entry has the other VIFs
    (ip_mr_forward, ip6_mr_forward; measured); and that would take the packets of all other groups as well, without an upcall. So
    a source on another VIF gets an (S,G) entry of its own, once the kernel has reported it.
    """

    __slots__ = ("children", "route")

    tree = True

    def __init__(self, kernel: "KernelTable", route: Template) -> None:
        """Not resolved."""
        super().__init__(kernel, route.paths)
        self.route = route
        self.children = 0
        """Learned entries: its branches."""
        self.members[tree_key(route.key)] = None

    def in_force(self, key: bytes) -> bool:
        """Whether the kernel has acknowledged the tree's entry as it is to be."""
        return super().in_force(tree_key(key))


def template_name(key: bytes) -> bytes:
    """8 bytes that stand for a packed key in upcall records; the same in every run of the server."""
    return blake2b(key, digest_size=8).digest()


def tree_key(route_key: bytes) -> bytes:
    """Key of the MFC entry of a shared tree: (*,G) has a source of zeros (ipmr_cache_find_any, net/ipv4/ipmr.c)."""
    key = unpack_template_key(route_key)
    return key.table.to_bytes(4, "big") + key.group + bytes(len(key.group))


def resolve_template(shape: TemplateShape, world: World) -> bool:
    """Resolve again, as core.shapes.resolve does for exact routes. Whether what its entries do changed."""
    kernel, wanted = shape.kernel, Wanted()
    before = shape.action, shape.state, shape.installed_oifs, shape.missing, shape.problem
    old, shape.held, shape.starved = shape.held, {}, False
    action: TemplateAction | None = None
    installed: list[str] = []
    incoming = _incoming(shape, world, wanted)
    collect_oifs(shape, None, world, wanted)
    if kernel.opened and incoming is not None:
        if shape.paths.iif:
            acquire(shape, incoming, world, wanted)
        allowed = bits_of(shape.held.values()) if shape.paths.iif else ANY_VIF
        if allowed or is_glob(shape.paths.iif):
            acquire(shape, wanted.ttls, world, wanted)
            if not shape.paths.iif:
                acquire(shape, incoming, world, Wanted())  # As far as there are any: the rest is not seen.
            ttls = {shape.held[i]: ttl for i, ttl in wanted.ttls.items() if i in shape.held}
            named = bits_of(shape.held[i] for i in wanted.named if i in shape.held)
            installed = [world.by_index[i].name for i in wanted.ttls if i in shape.held]
            action = TemplateAction(allowed, pack_oifs(kernel.family, ttls), named)
    for ifindex, number in old.items():
        kernel.vifs.release(ifindex, number)
    if kernel.problem is not None:
        wanted.problem = kernel.problem
    shape.action, shape.installed_oifs, shape.missing = action, tuple(sorted(installed)), tuple(wanted.missing)
    shape.problem, shape.state = wanted.problem, _state(action, wanted, failed=kernel.problem is not None)
    if before != (shape.action, shape.state, shape.installed_oifs, shape.missing, shape.problem):
        shape.revision = -1
    return before[0] != action


def release_template(shape: TemplateShape) -> None:
    """Give back its VIFs: it is deleted, and the keeper is to forget it."""
    release(shape)
    shape.action, shape.deleted = None, True


def _incoming(shape: TemplateShape, world: World, wanted: Wanted) -> list[int] | None:
    """Interfaces (ifindex) that must be VIFs for its packets to be seen; None = the one it names can't be."""
    iif = shape.paths.iif
    if not iif:
        # All of them, but never at the cost of a route that names its interfaces: that one comes before.
        return [] if shape.kernel.hungry() else [link.ifindex for link in world.by_name.values() if link.multicast]
    if is_glob(iif):
        match = glob_matcher(iif).match
        return [link.ifindex for name, link in world.by_name.items() if link.multicast and match(name)]
    link = usable(iif, world, wanted)
    return None if link is None else [link.ifindex]


def _state(action: TemplateAction | None, wanted: Wanted, *, failed: bool) -> RouteState:
    if action is None:
        refused = wanted.problem is not None and (failed or wanted.problem.reason is Reason.KERNEL_ERROR)
        return RouteState.FAILED if refused else RouteState.PENDING
    return RouteState.TEMPLATE if wanted.problem is None else RouteState.PARTIAL
