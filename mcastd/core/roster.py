"""The roster: which routes live under which shape, shapes resolved anew, and what is said of interfaces."""

from collections.abc import Callable

from mcastd.core.feed import Feed
from mcastd.core.learning import forget, under
from mcastd.core.linkbook import LinkBook
from mcastd.core.plan import Work
from mcastd.core.shapes import Shape, World, release, resolve
from mcastd.core.tables import KernelTable
from mcastd.core.templates import Learned, TemplateShape, TreeShape, release_template, resolve_template, tree_key
from mcastd.model.address import Family, exact_prefix, key_family, key_table
from mcastd.model.record import EffectiveSettings
from mcastd.model.route import Paths, Route, Template
from mcastd.model.template import unpack_template_key


class Roster:
    """Tables, the shapes in them, and the links they depend on."""

    def __init__(self, next_revision: Callable[[], int], feed: Feed) -> None:
        """Nothing lives here; `next_revision` hands out one for each change of a shape, of which the feed is told."""
        self._feed = feed
        self.world = World()
        self.book = LinkBook(self.world)
        self.tables: dict[tuple[int, Family], KernelTable] = {}
        self._crowd: dict[Shape, None] = {}
        """Shapes that routes have joined or left since interfaces were touched last."""
        self._by_key: dict[tuple[bytes, int], KernelTable] = {}
        """The same tables by the first 4 bytes and the length of their routes' keys."""
        self._next_revision = next_revision

    def kernel(self, table: int, family: Family) -> KernelTable:
        """A table and family, made if there is none."""
        kernel = self.tables.get((table, family))
        if kernel is None:
            kernel = self.tables[table, family] = KernelTable(table, family)
            self._by_key[exact_prefix(table, family)] = kernel
        return kernel

    def renew(self, table: int, family: Family) -> None:
        """Forget all that is known of a table and family in which nothing lives: its sockets are being closed."""
        if self.tables.pop((table, family), None) is not None:
            self.kernel(table, family)
            self.world.refused = {k: p for k, p in self.world.refused.items() if k[:2] != (table, family)}

    def kernel_of(self, key: bytes) -> KernelTable | None:
        """The table that a key belongs to, if there is one."""
        return self._by_key.get((key[:4], len(key)))

    def join(self, route: Route) -> None:
        """Put a route under its shape, which is made and resolved if it is the first one."""
        if isinstance(route, Template):
            self._join_template(route)
            return
        key = route.key
        shape = self._shape(key, route.paths)
        route.fate = shape
        route.paths = shape.paths
        shape.members[key] = None
        self._crowd[shape] = None
        if shape.kernel.learned:
            forget(shape.kernel, key)

    def _shape(self, key: bytes, paths: Paths) -> Shape:
        """The shape of an exact route, which is made and resolved if there is none."""
        kernel = self.kernel_of(key) or self.kernel(key_table(key), key_family(key))
        shape = kernel.shapes.get(paths)
        if shape is None:
            shape = kernel.shapes[paths] = Shape(kernel, paths)
            self.book.register(shape)
            self.resolve(shape, None)
        return shape

    def join_all(self, keys: list[bytes], routes: list[Route], olds: list[Route | None]) -> None:
        """Put exact routes, each with its key, where others were or none: new shapes first, so that no VIF is freed between."""
        shape: Shape | None = None
        paths: Paths | None = None
        prefix, size = b"", 0
        members: dict[bytes, None] = {}
        learned: dict[bytes, Learned] = {}
        left: list[tuple[bytes, Shape]] = []
        for key, route, old in zip(keys, routes, olds, strict=True):
            # Mostly it goes with the one before.
            if shape is None or route.paths is not paths or len(key) != size or not key.startswith(prefix):
                prefix, size, paths = key[:4], len(key), route.paths
                shape = self._shape(key, paths)
                members, learned = shape.members, shape.kernel.learned
            route.fate = shape
            route.paths = shape.paths
            if old is None:
                route.installed_at, route.problem = 0.0, None  # A route that is restored had another life.
            else:
                route.installed_at = old.installed_at
                if old.fate is shape:
                    continue
                left.append((key, old.fate))  # type: ignore[arg-type] # Routes in force have a Shape.
            members[key] = None
            self._crowd[shape] = None
            if key in learned:
                forget(shape.kernel, key)
        for key, old_shape in left:
            del old_shape.members[key]
        for old_shape in dict.fromkeys([one for _, one in left]):
            self._crowd[old_shape] = None
            self._drop_if_empty(old_shape)

    def _join_template(self, route: Template) -> None:
        kernel = self.kernel(key_table(route.key), key_family(route.key))
        shape: TemplateShape | TreeShape
        if route.shared_tree:
            shape = kernel.trees[tree_key(route.key)] = TreeShape(kernel, route)
        else:
            shape = kernel.templates[route.key] = TemplateShape(kernel, route)
            kernel.by_name[shape.name] = shape
            kernel.index.put(shape.key, shape)
        route.fate = shape
        self.book.register(shape)
        shape.revision = -1  # It may come to just what a new one is; but before a restart it was something else.
        self.resolve(shape, None)

    def touch_interfaces(self) -> None:
        """Tell the feed of the interfaces that other numbers of routes use by now."""
        crowd, self._crowd = self._crowd, {}
        for shape in crowd:
            self._feed.touch((*shape.names, *shape.installed_oifs))
        self._feed.flush_touched()

    def _leave_template(self, route: Template) -> None:
        shape = route.fate
        if isinstance(shape, Shape):
            self._crowd[shape] = None
        if isinstance(shape, TreeShape):
            release(shape)
            if shape.kernel.trees[tree_key(route.key)] is shape:  # Not if the group's tree has another iif now.
                del shape.kernel.trees[tree_key(route.key)]
        elif isinstance(shape, TemplateShape):
            release_template(shape)
            shape.kernel.index.remove(shape.key)
            del shape.kernel.templates[route.key]
            shape.kernel.unsent[shape] = None
        else:
            return
        shape.kernel.starved.pop(shape, None)
        self.book.unregister(shape)
        shape.dropped = True

    def leave(self, route: Route) -> None:
        """Take a route away from its shape, which goes with its last one."""
        if isinstance(route, Template):
            self._leave_template(route)
            return
        shape: Shape = route.fate  # type: ignore[assignment]
        self._crowd[shape] = None
        del shape.members[route.key]
        self._drop_if_empty(shape)

    def _drop_if_empty(self, shape: Shape) -> None:
        if not shape.members:
            release(shape)
            shape.kernel.starved.pop(shape, None)
            self.book.unregister(shape)
            shape.dropped = True
            del shape.kernel.shapes[shape.paths]

    def hand_over(self, route: Route) -> None:
        """An exact route is deleted: if a template is meant for its packets, that takes the entry over as it stands."""
        kernel, link = self.kernel_of(route.key), self.world.by_name.get(route.paths.iif)
        if kernel is not None and kernel.templates and route.key in kernel.actual and link is not None:
            kernel.learned[route.key] = Learned(link.ifindex, route.installed_at)

    def leave_for(self, route: Route, old: Route) -> None:
        """Put a route where another one of its key was: the new shape first, so that a VIF both use is not freed between."""
        if isinstance(route, Template):
            shape = old.fate
            if isinstance(shape, TemplateShape) and not route.shared_tree:
                self.book.unregister(shape)
                self._feed.touch((*shape.names, *shape.installed_oifs))
                shape.become(route)
                self.book.register(shape)
                self.resolve(shape, None)
            else:
                self.leave(old)
                self.join(route)
        elif old.paths == route.paths:
            route.fate, route.paths = old.fate, old.paths
        else:
            self.join(route)
            self.leave(old)

    def resolve(self, shape: Shape, work: Work | None) -> None:
        """Resolve a shape again; its routes' keys go into the work if their entries are to change."""
        if shape.dropped:
            return
        installed = shape.installed_oifs
        if isinstance(shape, TemplateShape):
            changed = resolve_template(shape, self.world)
            if changed:
                shape.kernel.unsent[shape] = None
        else:
            changed = resolve(shape, self.world)
        if shape.revision < 0:
            shape.revision = self._next_revision()
            self._crowd[shape] = None
            if installed != shape.installed_oifs:
                self._feed.touch(installed)
            self._feed.routes((shape.route.key,) if isinstance(shape, TemplateShape | TreeShape) else shape.members)
        self._note_starved(shape)
        if changed and work is not None:
            work.add(shape.members)
            if isinstance(shape, TreeShape):
                work.add(under(shape.kernel, [unpack_template_key(shape.route.key)]))

    def _note_starved(self, shape: Shape) -> None:
        """Keep the list of those who lack a VIF; templates that would have all of them stand back for it, and come again."""
        kernel = shape.kernel
        before = kernel.hungry()
        if shape.starved:
            kernel.starved[shape] = None
        else:
            kernel.starved.pop(shape, None)
        if shape.paths.iif and kernel.hungry() != before:
            for template in [one for one in kernel.templates.values() if not one.paths.iif]:
                self.resolve(template, None)

    def feed_starved(self, kernel: KernelTable) -> Work:
        """Numbers are free again: resolve those who waited for one, in the order in which they came."""
        work = Work()
        for shape in list(kernel.starved):
            self.resolve(shape, work)
        return work

    def apply_settings(self, said: EffectiveSettings, work: Work) -> None:
        """Bring pins and thresholds in line with what is said of an interface."""
        interface = said.interface
        if said.ttl_threshold is None:
            self.world.thresholds.pop(interface, None)
        else:
            self.world.thresholds[interface] = said.ttl_threshold
        if said.router_discovery:
            self.world.discovery.add(interface)
        else:
            self.world.discovery.discard(interface)
        self._apply_pins(interface, said)
        for shape in self.book.interested({interface: None}):
            self.resolve(shape, work)

    def _apply_pins(self, interface: str, said: EffectiveSettings) -> None:
        tables = said.pinned_tables
        for kernel in list(self.tables.values()):
            pin = kernel.pins.get(interface)
            if pin is not None and kernel.table not in tables:
                release(pin)
                self.book.unregister(pin)
                pin.dropped = True
                kernel.starved.pop(pin, None)
                del kernel.pins[interface]
        for table in sorted(tables):
            for family in Family:
                kernel = self.kernel(table, family)
                if interface not in kernel.pins:
                    pin = kernel.pins[interface] = Shape(kernel, Paths(interface, ()))
                    self.book.register(pin)
                    self.resolve(pin, None)
