"""The engine: events and writes go in, effects come out, their results go in again. The one place that knows everything.

    write    prepare(draft, write) ... the caller makes draft.intents durable ... commit(intent) -> Work
    event    links(event), adopt(...), lost(key), retry()
    effects  step = pull(now); carry out its effects in order and push(effect, result, now) each; until a step is empty

Nothing here waits, reads a clock or touches a socket. Between two calls all is consistent: a Route's fate says what the
plan will bring about, KernelTable.actual what the kernel has acknowledged.
"""

import errno
import os
from collections.abc import Generator, Iterable, Mapping, Sequence

from mcastd.core.adopt import adopt_entries
from mcastd.core.desired import Desired, Draft
from mcastd.core.linkbook import LinkBook
from mcastd.core.plan import Work, WorkQueue
from mcastd.core.shapes import Shape, World, release, resolve
from mcastd.core.tables import KernelTable
from mcastd.model.address import Family, exact_prefix, key_family, key_table, key_text
from mcastd.model.effect import BATCH, AddVif, DeleteMfc, DelVif, Effect, OpenTable, ProgramMfc, SetVifMap
from mcastd.model.errors import Problem, Reason
from mcastd.model.event import AdoptedEntry, AdoptedVif, LinkEvent
from mcastd.model.record import Intent, InterfaceSettings, Stored
from mcastd.model.route import Forwarding, Paths, Route

REVISION_BITS = 40
"""Revision = stored start count << 40 | counter, so that it never runs back (2^24 starts, 10^12 changes each)."""

Errnos = Sequence[int] | None
"""Result of a batch: one errno an entry, or None when all were done."""


class Engine:
    """Desired state, the kernel as known, and the plan between them."""

    def __init__(self, start_count: int, stored: Stored, routes_max: int) -> None:
        """Take the durable state; nothing is known of the kernel yet, so nothing is planned."""
        self.revision = start_count << REVISION_BITS
        self.routes_max = routes_max
        self.desired = Desired()
        self.desired.load(stored)
        self.world = World()
        self.book = LinkBook(self.world)
        self.tables: dict[tuple[int, Family], KernelTable] = {}
        self._by_key: dict[tuple[bytes, int], KernelTable] = {}
        """The same tables by the first 4 bytes and the length of their routes' keys."""
        self.failed: dict[bytes, None] = {}
        """Keys whose last effect the kernel refused."""
        self._queue = WorkQueue()
        self._visible: int | None = None
        self._turn: Work | None = None
        self._unanswered = 0
        for route in stored.routes.values():
            self._join(route)
        for interface in {name for name, _ in stored.settings}:
            self._apply_settings(interface, Work())

    # --- writes ------------------------------------------------------------------------------------------------------

    def next_revision(self) -> int:
        """A revision that nothing has yet."""
        self.revision += 1
        return self.revision

    @property
    def visible_revision(self) -> int:
        """Revision up to which everything is in force: that of a snapshot. Writes on their way to disk have later ones."""
        return self.revision if self._visible is None else self._visible

    def draft(self) -> Draft:
        """A draft on top of what is desired now; one at a time, committed or dropped, and `settled`, before the next."""
        self._visible = self.revision
        return Draft(self.desired, self.revision, self.next_revision)

    def settled(self, revision: int | None = None) -> None:
        """The writes of the draft up to this revision are in force; None = the draft is done with."""
        self._visible = revision

    def commit(self, intent: Intent) -> Generator[None, None, Work]:
        """Put a durable intent in force; yields between slices of BATCH routes, returns the work that programs it."""
        work = Work()
        desired = self.desired
        desired.owners.update((o.name, o) for o in intent.owners)
        for said in intent.settings:
            desired.settings[said.interface, said.owner] = said
            self._apply_settings(said.interface, work)
        puts, deletes = intent.puts, intent.deletes
        for at in range(0, len(puts), BATCH):
            part = puts[at : at + BATCH]
            for route in part:
                old = desired.put(route)
                if old is None:
                    route.installed_at, route.problem = 0.0, None  # A route that is restored had another life.
                    self._join(route)
                else:
                    route.installed_at = old.installed_at
                    self._leave_for(route, old)
            work.add(route.key for route in part)
            yield
        for at in range(0, len(deletes), BATCH):
            part_keys = deletes[at : at + BATCH]
            for key in part_keys:
                gone = desired.delete(key)
                if gone is not None:
                    self._leave(gone)
            work.add(part_keys)
            yield
        self.enqueue(work)
        return work

    def enqueue(self, work: Work) -> None:
        """Let the plan carry it out; once done it is among `finished`."""
        self._queue.push(work)

    # --- events ------------------------------------------------------------------------------------------------------

    def links(self, event: LinkEvent) -> None:
        """Take note of interfaces that came, went, changed or were renamed."""
        note = self.book.note(event)
        if not note.names:
            return
        changed = {link.ifindex for link in note.changed}.union(note.gone)
        self.world.refused = {k: p for k, p in self.world.refused.items() if k[2] not in changed}
        for kernel in self.tables.values():
            for ifindex in note.gone:
                kernel.vifs.link_gone(ifindex)
            for link in note.changed:
                kernel.vifs.rename(link.ifindex, link.name)
        work = Work(self.failed)
        for shape in self.book.interested(note.names):
            self._resolve(shape, work)
        self.enqueue(work)

    def vifs_gone(self, table: int, family: Family, numbers: Iterable[int]) -> None:
        """The kernel has these VIFs no more though their links are there (which went and came back unheard): make them anew."""
        kernel = self._kernel(table, family)
        gone = {slot.ifindex for number in numbers if (slot := kernel.vifs.slots[number]) is not None}
        for ifindex in gone:
            kernel.vifs.link_gone(ifindex)
        work = Work()
        for shape in [*kernel.shapes.values(), *kernel.pins.values()]:
            if not gone.isdisjoint(shape.held):
                self._resolve(shape, work)
        self.enqueue(work)

    def opened(self, table: int, families: Mapping[Family, Problem | None]) -> None:
        """The sockets of a table are open, or why not."""
        work = Work()
        for family, problem in families.items():
            kernel = self._kernel(table, family)
            if kernel.opened:
                continue
            kernel.opened, kernel.problem = problem is None, problem
            for shape in [*kernel.shapes.values(), *kernel.pins.values()]:
                self._resolve(shape, work)
        self.enqueue(work)

    def adopt(self, table: int, family: Family, vifs: Iterable[AdoptedVif], entries: Iterable[AdoptedEntry]) -> None:
        """Take over an open table: the keeper's VIF map and what the kernel holds; plan the difference. Links come before."""
        kernel = self._kernel(table, family)
        kernel.opened, kernel.problem = True, None
        suspect = False
        for vif in vifs:
            link = self.world.by_index.get(vif.ifindex)
            present = vif.present and link is not None and vif.ifindex not in kernel.vifs.by_ifindex
            suspect = suspect or not present
            kernel.vifs.adopt(vif.vif, vif.ifindex, vif.name, present=present)
            if link is not None:
                kernel.vifs.rename(vif.ifindex, link.name)
        for shape in [*kernel.shapes.values(), *kernel.pins.values()]:
            self._resolve(shape, Work())
        self.enqueue(adopt_entries(kernel, self.desired.routes, entries, suspect=suspect))

    def lost(self, key: bytes) -> bool:
        """The kernel says, by an upcall, that it has no such entry although we put it there: put it back. Whether we did."""
        kernel = self._kernel_of(key)
        if kernel is None or key not in kernel.actual:
            return False
        kernel.doubt(key)
        route = self.desired.routes.get(key)
        if route is not None:
            route.installed_at = 0.0
        self.enqueue(Work((key,)))
        return True

    def retry(self) -> None:
        """Try again what the kernel refused: entries, VIFs, tables."""
        work = Work(self.failed)
        refused, self.world.refused = self.world.refused, {}
        for table, family, _ in refused:
            kernel = self.tables[table, family]
            for shape in [*kernel.shapes.values(), *kernel.pins.values()]:
                self._resolve(shape, work)
        for kernel in self.tables.values():
            kernel.problem = None
        self.enqueue(work)

    @property
    def troubled(self) -> bool:
        """Whether there is anything for `retry`."""
        return bool(self.failed or self.world.refused or any(k.problem and k.wanted for k in self.tables.values()))

    # --- effects -----------------------------------------------------------------------------------------------------

    def pull(self, now: float) -> list[Effect]:
        """The next step: effects to carry out in order, each answered by `push` before the next pull; empty = all is done."""
        for kernel in self.tables.values():
            if kernel.opened:
                if step := self._vif_step(kernel):
                    return step
            elif kernel.problem is None and kernel.wanted:
                return [OpenTable(kernel.table)]
        while (turn := self._queue.next()) is not None:
            work, keys = turn
            if step := self._mfc_step(keys, now):
                self._turn, self._unanswered = work, len(step)
                return step
            self._queue.took(work)
        return []

    def push(self, effect: Effect, result: object, now: float) -> None:
        """What came of an effect (see mcastd.model.effect); `now` in seconds since the epoch."""
        match effect:
            case ProgramMfc():
                self._programmed(effect, result, now)  # type: ignore[arg-type] # Each effect has a result type of its own.
                self._answered()
            case DeleteMfc():
                self._deleted(effect, result)  # type: ignore[arg-type]
                self._answered()
            case AddVif():
                self._vif_added(effect, result)  # type: ignore[arg-type]
            case DelVif():
                self.tables[effect.table, effect.family].vifs.deleted(effect.vif)
            case SetVifMap():
                kernel = self.tables[effect.table, effect.family]
                if kernel.vifs.map_acknowledged(frozenset(entry[0] for entry in effect.entries)):
                    self._feed_starved(kernel)
            case OpenTable():
                self.opened(effect.table, result)  # type: ignore[arg-type]

    def finished(self) -> list[Work]:
        """Works that were done since the last call."""
        out, self._queue.finished = self._queue.finished, []
        return out

    def _vif_step(self, kernel: KernelTable) -> list[Effect]:
        vifs, table, family = kernel.vifs, kernel.table, kernel.family
        retired, added = vifs.to_delete(), vifs.to_add()
        step: list[Effect] = []
        if vifs.map_stale:
            vifs.map_stale = False
            step.append(SetVifMap(table, family, vifs.map_entries()))
        for number in added:
            slot = vifs.slots[number]
            if slot is not None:
                step.append(AddVif(table, family, number, slot.ifindex, slot.name))
        step.extend(DelVif(table, family, number) for number in retired)
        return step

    def _mfc_step(self, keys: list[bytes], now: float) -> list[Effect]:
        """Compare what is wanted with what the kernel has, for these keys: creations and changes, then deletions."""
        routes = self.desired.routes
        programs: dict[KernelTable, tuple[list[bytes], list[Forwarding]]] = {}
        deletes: dict[KernelTable, list[bytes]] = {}
        for key in keys:
            route = routes.get(key)
            if route is None:
                kernel = self._kernel_of(key)
                want = None
            else:
                shape: Shape = route.fate  # type: ignore[assignment] # Routes in force have a Shape.
                kernel, want = shape.kernel, shape.forwarding
            if kernel is None:
                continue
            have = kernel.actual.get(key)
            if want is None:
                if have is not None:
                    deletes.setdefault(kernel, []).append(key)
                elif key in self.failed:
                    self._recovered(key, route)
            elif have is want or (have is not None and have.packed == want.packed):
                self._in_force(key, route, now)
            else:
                batch = programs.get(kernel)
                if batch is None:
                    batch = programs[kernel] = ([], [])
                batch[0].append(key)
                batch[1].append(want)
        step: list[Effect] = [ProgramMfc(k.table, k.family, *batch) for k, batch in programs.items()]
        step.extend(DeleteMfc(k.table, k.family, batch) for k, batch in deletes.items())
        return step

    def _programmed(self, effect: ProgramMfc, errnos: Errnos, now: float) -> None:
        kernel, routes = self.tables[effect.table, effect.family], self.desired.routes
        for at, (key, forwarding) in enumerate(zip(effect.keys, effect.forwardings, strict=True)):
            route = routes.get(key)
            if errnos is not None and errnos[at]:
                self._refused(key, route, "MRT_ADD_MFC", errnos[at])
                continue
            kernel.programmed(key, forwarding)
            self._in_force(key, route, now)

    def _deleted(self, effect: DeleteMfc, errnos: Errnos) -> None:
        kernel, routes = self.tables[effect.table, effect.family], self.desired.routes
        for at, key in enumerate(effect.keys):
            route = routes.get(key)
            if errnos is not None and errnos[at] not in {0, errno.ENOENT}:
                self._refused(key, route, "MRT_DEL_MFC", errnos[at])
                continue
            kernel.deleted(key)
            if route is not None:
                route.installed_at = 0.0
            if key in self.failed:
                self._recovered(key, route)

    def _in_force(self, key: bytes, route: Route | None, now: float) -> None:
        """The kernel has the route's entry."""
        if route is not None and not route.installed_at:
            route.installed_at = now
        if key in self.failed:
            self._recovered(key, route)

    def _recovered(self, key: bytes, route: Route | None) -> None:
        """What the kernel refused last is done, or not wanted any more."""
        del self.failed[key]
        if route is not None and route.problem is not None:
            route.problem = None
            route.revision = self.next_revision()

    def _refused(self, key: bytes, route: Route | None, call: str, number: int) -> None:
        self.failed[key] = None
        if route is not None:
            text = (
                f"the kernel refused {call} of {key_text(key)}: {os.strerror(number)}; it is tried again when interfaces change"
            )
            route.problem = Problem(Reason.KERNEL_ERROR, text, {"errno": str(number), "call": call})
            route.revision = self.next_revision()

    def _vif_added(self, effect: AddVif, number: int) -> None:
        kernel = self.tables[effect.table, effect.family]
        if not kernel.vifs.added(effect.vif, number):
            return
        text = f"the kernel made no VIF of {effect.name} in table {effect.table}: {os.strerror(number)}"
        problem = Problem(Reason.KERNEL_ERROR, text, {"interface": effect.name, "errno": str(number), "call": "MRT_ADD_VIF"})
        self.world.refused[effect.table, effect.family, effect.ifindex] = problem
        work = Work()
        for shape in [*kernel.shapes.values(), *kernel.pins.values()]:
            if effect.ifindex in shape.held:
                self._resolve(shape, work)
        self.enqueue(work)

    def _answered(self) -> None:
        self._unanswered -= 1
        if not self._unanswered and self._turn is not None:
            self._queue.took(self._turn)
            self._turn = None

    # --- shapes ------------------------------------------------------------------------------------------------------

    def _kernel(self, table: int, family: Family) -> KernelTable:
        kernel = self.tables.get((table, family))
        if kernel is None:
            kernel = self.tables[table, family] = KernelTable(table, family)
            self._by_key[exact_prefix(table, family)] = kernel
        return kernel

    def _kernel_of(self, key: bytes) -> KernelTable | None:
        """The table that a key belongs to, if there is one."""
        return self._by_key.get((key[:4], len(key)))

    def _join(self, route: Route) -> None:
        """Put a route under its shape, which is made and resolved if it is the first one."""
        key, paths = route.key, route.paths
        kernel = self._kernel_of(key) or self._kernel(key_table(key), key_family(key))
        shape = kernel.shapes.get(paths)
        if shape is None:
            shape = kernel.shapes[paths] = Shape(kernel, paths)
            self.book.register(shape)
            self._resolve(shape, None)
        route.fate = shape
        route.paths = shape.paths
        shape.members[key] = None

    def _leave(self, route: Route) -> None:
        """Take a route away from its shape, which goes with its last one."""
        shape: Shape = route.fate  # type: ignore[assignment]
        del shape.members[route.key]
        if not shape.members:
            release(shape)
            shape.kernel.starved.pop(shape, None)
            self.book.unregister(shape)
            del shape.kernel.shapes[shape.paths]

    def _leave_for(self, route: Route, old: Route) -> None:
        """Put a route where another one of its key was: the new shape first, so that a VIF both use is not freed between."""
        if old.paths == route.paths:
            route.fate, route.paths = old.fate, old.paths
        else:
            self._join(route)
            self._leave(old)

    def _resolve(self, shape: Shape, work: Work | None) -> None:
        """Resolve a shape again; its routes' keys go into the work if their entries are to change."""
        changed = resolve(shape, self.world)
        if shape.revision < 0:
            shape.revision = self.next_revision()
        if shape.starved:
            shape.kernel.starved[shape] = None
        else:
            shape.kernel.starved.pop(shape, None)
        if changed and work is not None:
            work.add(shape.members)

    def _feed_starved(self, kernel: KernelTable) -> None:
        """Numbers are free again: those who waited for one, in the order in which they came."""
        work = Work()
        for shape in list(kernel.starved):
            self._resolve(shape, work)
        self.enqueue(work)

    # --- interface settings ------------------------------------------------------------------------------------------

    def _apply_settings(self, interface: str, work: Work) -> None:
        """Bring pins and thresholds in line with what is said of an interface."""
        said = self.desired.effective_settings(interface)
        if said.ttl_threshold is None:
            self.world.thresholds.pop(interface, None)
        else:
            self.world.thresholds[interface] = said.ttl_threshold
        self._apply_pins(interface, said)
        for shape in self.book.interested({interface: None}):
            self._resolve(shape, work)

    def _apply_pins(self, interface: str, said: InterfaceSettings) -> None:
        tables = said.pinned_tables or frozenset()
        for kernel in list(self.tables.values()):
            pin = kernel.pins.get(interface)
            if pin is not None and kernel.table not in tables:
                release(pin)
                self.book.unregister(pin)
                kernel.starved.pop(pin, None)
                del kernel.pins[interface]
        for table in sorted(tables):
            for family in Family:
                kernel = self._kernel(table, family)
                if interface not in kernel.pins:
                    pin = kernel.pins[interface] = Shape(kernel, Paths(interface, ()))
                    self.book.register(pin)
                    self._resolve(pin, None)
