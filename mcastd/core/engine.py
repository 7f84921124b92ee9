"""The engine: events and writes go in, effects come out, their results go in again. The one place that knows everything.

    write    prepare(draft, write) ... the caller makes draft.intents durable ... commit(intent) -> Work
    event    links(event), adopt(...), lost(key), retry()
    effects  step = pull(now); carry out its effects in order and push(effect, result, now) each; until a step is empty

Nothing here waits, reads a clock or touches a socket. Between two calls all is consistent: a Route's fate says what the
plan will bring about, KernelTable.actual what the kernel has acknowledged.
"""

import os
from collections.abc import Container, Generator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from mcastd.core.adopt import adopt_entries
from mcastd.core.commits import Commits
from mcastd.core.desired import Desired, Draft
from mcastd.core.entries import Entries
from mcastd.core.feed import Feed, UpcallNote
from mcastd.core.joins import JoinBook
from mcastd.core.learning import Caps, covered, forget, learn, move, next_templates, sweep, tally, templates_set
from mcastd.core.plan import Work, WorkQueue
from mcastd.core.roster import Roster
from mcastd.core.sources import QUIET_SECONDS, Sources
from mcastd.core.tables import KernelTable
from mcastd.core.unused import UnusedTables
from mcastd.model.address import Family, split_key
from mcastd.model.effect import (
    AddVif,
    CloseTable,
    DeleteMfc,
    DelVif,
    Effect,
    OpenTable,
    ProgramMfc,
    SetTemplates,
    SetVifMap,
)
from mcastd.model.errors import Problem, Reason
from mcastd.model.event import AdoptedEntry, AdoptedVif, Answer, LinkEvent, UpcallKind
from mcastd.model.join import JoinKey
from mcastd.model.limits import Limits
from mcastd.model.record import Intent, Stored

SHAPES_AT_ONCE = 100
"""Shapes that are resolved between two yields: some 5 ms."""

REVISION_BITS = 40
"""Revision = stored start count << 40 | counter, so that it never runs back (2^24 starts, 10^12 changes each)."""

SWEEPS_AFTER_LOSS = 3
"""One may be under way when records are lost, the next one finds what was not heard of, and one more makes sure of it."""

Errnos = Sequence[int] | None
"""Result of a batch: one errno an entry, or None when all were done."""


class Engine:
    """Desired state, the kernel as known, and the plan between them."""

    def __init__(self, start_count: int, stored: Stored, limits: Limits, counter: int = 0) -> None:
        """Take the durable state; nothing is known of the kernel yet, so nothing is planned. Revisions go on from `counter`."""
        self.limits = limits
        self.revision = start_count << REVISION_BITS | counter
        self.routes_max = limits.routes_max
        self.desired = Desired()
        self.desired.load(stored)
        self.feed = Feed()
        self.sources = Sources(self.feed)
        self.roster = Roster(self.next_revision, self.feed)
        self.world, self.tables = self.roster.world, self.roster.tables
        self.joins = JoinBook(self.world, limits.memberships_max, self._joins_changed)
        self.entries = Entries(self.desired, self.roster, self.sources, self.feed, self.next_revision)
        self.unused = UnusedTables(self.roster)
        self._queue = WorkQueue()
        self._commits = Commits(self.desired, self.roster, self.joins, self.sources, self.feed, self._queue)
        self._visible: int | None = None
        self._turn: Work | None = None
        self._unanswered = 0
        self._step: list[ProgramMfc | DeleteMfc] = []
        for route in stored.routes.values():
            self.roster.join(route)
        for interface in {name for name, _ in stored.settings}:
            self.roster.apply_settings(self.desired.effective_settings(interface), Work())
        self.joins.load(stored.joins.values(), (route for route in stored.routes.values() if route.join))

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
        return self._commits.commit(intent)

    def _joins_changed(self, keys: list[JoinKey]) -> None:
        """Tell the feed of joins, and of the routes that make them: their error is another."""
        self.feed.joins(keys)
        wishes = (self.joins.wishes.get(key) for key in keys)
        self.feed.routes([key for wish in wishes if wish is not None for key in wish.routes])

    @property
    def failed(self) -> dict[bytes, None]:
        """Keys whose last effect the kernel refused."""
        return self.entries.failed

    def enqueue(self, work: Work) -> None:
        """Let the plan carry it out; once done it is among `finished`."""
        self._queue.push(work)

    # --- events ------------------------------------------------------------------------------------------------------

    def links(self, event: LinkEvent) -> None:
        """Take note of interfaces that came, went, changed or were renamed, at one go."""
        for _ in self.links_in_slices(event):
            pass

    def links_in_slices(self, event: LinkEvent) -> Generator[None, None, None]:
        """Do as `links` does, but yield between slices of shapes: where each route has oifs of its own they are many.

        Shapes that are not resolved yet may name numbers of links that have gone: those are not used again before all are.
        """
        note = self.roster.book.note(event)
        if not note.names:
            return
        self.feed.interfaces(note.names)
        self.sources.links_gone(self.world.by_name.__contains__)
        changed = {link.ifindex for link in note.changed}.union(note.gone)
        self.world.refused = {k: p for k, p in self.world.refused.items() if k[2] not in changed}
        for kernel in self.tables.values():
            for ifindex in note.gone:
                kernel.vifs.link_gone(ifindex)
            for link in note.changed:
                kernel.vifs.rename(link.ifindex, link.name)
        work = Work(self.entries.failed)
        self._look_at_learned(note.gone, work)
        for at, shape in enumerate(self.roster.book.interested(note.names), 1):
            self.roster.resolve(shape, work)
            if at % SHAPES_AT_ONCE == 0:
                self.enqueue(work)
                work = Work()
                yield
        self.enqueue(work)
        yield from self.joins.links(note.names, note.gone, changed)

    def put_back(self, kernel: KernelTable, keys: list[bytes]) -> Work:
        """Entries of ours that somebody else has removed or changed: they are written again, in place where they are there."""
        doubtful: list[bytes] = []
        for key in keys:
            kernel.doubt(key)
            route = self.entries.route_of(kernel, key)
            if route is not None:
                route.installed_at = 0.0  # Until it is written again it is not PROGRAMMED.
                doubtful.append(route.key)
        self.feed.routes(doubtful)
        work = Work(keys)
        self.enqueue(work)
        return work

    def has(self, key: bytes) -> bool:
        """Whether somebody wants an entry of this key, or it is ours in the kernel: then it is nobody else's."""
        kernel = self.roster.kernel_of(key)
        return key in self.desired.routes or (kernel is not None and key in kernel.actual)

    def backlog(self) -> int:
        """Keys that have not been compared with the kernel since they, or what they stand for, have changed; an estimate."""
        under_way = self._turn.remaining + len(self.being_written()) if self._turn is not None and self._unanswered else 0
        return self._queue.keys + under_way

    def being_written(self) -> set[bytes]:
        """Keys of the step under way: what the kernel has of them may be newer than `KernelTable.actual`."""
        return set().union(*(effect.keys for effect in self._step)) if self._unanswered else set()

    def being_deleted(self) -> set[bytes]:
        """Those of them that are deleted."""
        return set().union(*(one.keys for one in self._step if isinstance(one, DeleteMfc))) if self._unanswered else set()

    def vifs_gone(self, table: int, family: Family, numbers: Iterable[int]) -> None:
        """The kernel has these VIFs no more though their links are there (which went and came back unheard): make them anew."""
        kernel = self.roster.kernel(table, family)
        gone = {slot.ifindex for number in numbers if (slot := kernel.vifs.slots[number]) is not None}
        for ifindex in gone:
            kernel.vifs.link_gone(ifindex)
        work = Work()
        self._look_at_learned(gone, work)
        for shape in kernel.all_shapes():
            if not gone.isdisjoint(shape.held):
                self.roster.resolve(shape, work)
        self.enqueue(work)

    def _look_at_learned(self, gone: Container[int], work: Work) -> None:
        """What came in on an interface (ifindex) whose VIF has gone: a template that takes any may be just as before."""
        for kernel in self.tables.values():
            work.add([key for key, learned in kernel.learned.items() if learned.ifindex in gone])

    def opened(self, table: int, families: Mapping[Family, Problem | None]) -> None:
        """The sockets of a table are open, or why not."""
        work = Work()
        for family, problem in families.items():
            kernel = self.roster.kernel(table, family)
            if kernel.opened:
                continue
            kernel.opened, kernel.problem = problem is None, problem
            for shape in kernel.all_shapes():
                self.roster.resolve(shape, work)
        self.enqueue(work)

    def adopt(
        self, table: int, family: Family, vifs: Iterable[AdoptedVif], entries: Iterable[AdoptedEntry], dumped_at: float = 0.0
    ) -> None:
        """Take over an open table: the keeper's VIF map and what the kernel holds; plan the difference. Links come before.

        `dumped_at`: when the entries were read, seconds since the epoch.
        """
        kernel = self.roster.kernel(table, family)
        kernel.opened, kernel.problem, kernel.dumped_at = True, None, dumped_at
        suspect = False
        for vif in vifs:
            link = self.world.by_index.get(vif.ifindex)
            present = vif.present and link is not None and vif.ifindex not in kernel.vifs.by_ifindex
            suspect = suspect or not present
            kernel.vifs.adopt(vif.vif, vif.ifindex, vif.name, present=present)
            if link is not None:
                kernel.vifs.rename(vif.ifindex, link.name)
        for shape in kernel.all_shapes():
            self.roster.resolve(shape, Work())
        self.enqueue(adopt_entries(kernel, self.desired.routes, entries, suspect=suspect, stops_max=self._caps(kernel).stops))

    def lost(self, key: bytes) -> bool:
        """The kernel says, by an upcall, that it has no such entry although we put it there: put it back. Whether we did."""
        kernel = self.roster.kernel_of(key)
        have = kernel.actual.get(key) if kernel is not None else None
        if kernel is None or have is None or not have.packed:  # The last: it is about to be written anyway.
            return False
        self.put_back(kernel, [key])
        return True

    def upcall(self, key: bytes, kind: UpcallKind, vif: int, answer: Answer, template: bytes, now: float) -> None:
        """Take note of an upcall, and of what the keeper did about it."""
        kernel = self.roster.kernel_of(key)
        if kernel is None:
            return
        self._note_upcall(kernel, key, kind, vif, template if answer in {Answer.INSTALLED, Answer.ELSEWHERE} else b"", now)
        tally(kernel, answer, template)
        old = kind is UpcallKind.NOCACHE and now < kernel.dumped_at
        if old and (key in kernel.actual or answer not in {Answer.NONE, Answer.CAPPED}):
            return  # Told to nobody in time; what came of it was in the dump that we began with.
        if kind is not UpcallKind.NOCACHE:
            look = key not in self.desired.routes and move(kernel, key, vif, now, caps=self._caps(kernel))
        elif key not in self.desired.routes:
            look = learn(kernel, key, vif, answer, template, now, caps=self._caps(kernel))
        elif look := answer in {Answer.INSTALLED, Answer.ELSEWHERE}:
            # The keeper was faster than the route, or than its own check: the entry does what a template says.
            kernel.programmed(key, kernel.unlike())
        self.sources.note(kernel, key, kind, vif, answer, self.desired.routes.get(key), now)
        if look:
            self.enqueue(Work((key,)))

    def _note_upcall(self, kernel: KernelTable, key: bytes, kind: UpcallKind, vif: int, template: bytes, now: float) -> None:
        """For those who follow upcalls; one whose VIF is not in the map any more came in nobody knows where."""
        slot = kernel.vifs.slots[vif] if vif < len(kernel.vifs.slots) else None
        shape = kernel.by_name.get(template)
        if slot is not None and kind in {UpcallKind.NOCACHE, UpcallKind.WRONGVIF}:
            self.feed.upcall(UpcallNote(now, kind, key, slot.name, shape.route.key if shape is not None else b""))

    def records_lost(self, table: int, family: Family) -> None:
        """The keeper has answered upcalls of which we shall not hear: what it may have overwritten is written again."""
        kernel = self.tables.get((table, family))
        if kernel is not None and kernel.opened:
            kernel.blind = SWEEPS_AFTER_LOSS
            unlike = kernel.unlike()
            keys = [key for key in kernel.actual if key in self.desired.routes and covered(kernel, *split_key(key)[1:])]
            for key in keys:
                kernel.programmed(key, unlike)
            self.enqueue(Work(keys))

    def sweep(self, table: int, family: Family, found: Iterable[tuple[bytes, float, int, int]], now: float) -> None:
        """A dump of our own entries (key, seconds idle, ifindex of the iif, packets): learned ones that are idle go."""
        kernel = self.tables.get((table, family))
        if kernel is not None and kernel.opened:
            routes, trees = self.desired.routes, kernel.trees
            # Of exact routes only those are looked at that should have no entry: the keeper may have made one unheard.
            ours = (one for one in found if one[0] not in trees and (one[0] not in routes or one[0] not in kernel.actual))
            self.enqueue(sweep(kernel, self._stopped(kernel, ours, now), routes, self.limits.idle_timeout, now))

    def _stopped(
        self, kernel: KernelTable, found: Iterable[tuple[bytes, float, int, int]], now: float
    ) -> Iterator[tuple[bytes, float, int, int]]:
        """The entries as they are found; what stop filters have dropped of late is taken note of on the way."""
        for one in found:
            learned = kernel.learned.get(one[0])
            if learned is not None and learned.shape is None and learned.stop_wanted and 0 <= one[1] < QUIET_SECONDS:
                link = self.world.by_index.get(learned.ifindex)
                if link is not None:
                    self.sources.stopped(one[0], link.name, now - one[1])
            yield one

    def flush(self, keys: AbstractSet[bytes]) -> tuple[Work, int]:
        """Forget these learned entries; packets that still come make them anew. The work, and how many there were."""
        work, count = Work(), 0
        for kernel in self.tables.values():
            gone = [key for key in kernel.learned if key in keys]
            for key in gone:
                forget(kernel, key)
            work.add(gone)
            count += len(gone)
        self.enqueue(work)
        return work, count

    def recounts(self) -> list[tuple[int, Family, list[tuple[bytes, int]]]]:
        """By how many the learned entries of templates differ from what the keeper counts, by name; it is told of it next."""
        out = []
        for kernel in self.tables.values():
            if kernel.recount:
                changed = [(one.name, one.children - one.counted) for one in kernel.recount if one.children != one.counted]
                for shape in kernel.recount:
                    shape.counted = shape.children
                kernel.recount = {}
                if changed:
                    out.append((kernel.table, kernel.family, changed))
        return out

    def _caps(self, kernel: KernelTable) -> Caps:
        return Caps(self.limits.learned_max, self.limits.stops_max if self.limits.stops(kernel.table) else 0)

    def retry(self) -> None:
        """Try again what the kernel refused: entries, VIFs, tables."""
        work = Work(self.entries.failed)
        refused, self.world.refused = self.world.refused, {}
        for table, family, _ in refused:
            kernel = self.tables[table, family]
            for shape in kernel.all_shapes():
                self.roster.resolve(shape, work)
        for kernel in self.tables.values():
            kernel.problem = None
        self.enqueue(work)

    @property
    def troubled(self) -> bool:
        """Whether there is anything for `retry`."""
        return bool(self.entries.failed or self.world.refused or any(k.problem and k.wanted for k in self.tables.values()))

    # --- effects -----------------------------------------------------------------------------------------------------

    def pull(self, now: float) -> list[Effect]:
        """The next step: effects to carry out in order, each answered by `push` before the next pull; empty = all is done."""
        if (closing := self.unused.pull()) is not None:
            return [closing]
        for kernel in self.tables.values():
            if kernel.opened:
                if step := self._vif_step(kernel) or self._template_step(kernel):
                    return step
            elif kernel.problem is None and kernel.wanted:
                return [OpenTable(kernel.table)]
        while (turn := self._queue.next()) is not None:
            work, keys = turn
            if changes := self.entries.step(keys, now):
                self._turn, self._unanswered, self._step = work, len(changes), changes
                return [*changes]
            self._queue.took(work)
        return []

    def push(self, effect: Effect, result: object, now: float) -> None:
        """What came of an effect (see mcastd.model.effect); `now` in seconds since the epoch."""
        match effect:
            case ProgramMfc():
                self.entries.programmed(effect, result, now)  # type: ignore[arg-type] # Each effect has a result type of its own.
                self._answered()
            case DeleteMfc():
                self.entries.deleted(effect, result)  # type: ignore[arg-type]
                self._answered()
            case AddVif():
                self._vif_added(effect, result)  # type: ignore[arg-type]
            case DelVif():
                self._vif_deleted(effect)
            case SetVifMap():
                kernel = self.tables[effect.table, effect.family]
                if kernel.vifs.map_acknowledged(frozenset(entry[0] for entry in effect.entries)):
                    self.enqueue(self.roster.feed_starved(kernel))
            case SetTemplates():
                self.enqueue(templates_set(self.tables[effect.table, effect.family], effect))
            case CloseTable():
                return  # It was forgotten when this was pulled.
            case OpenTable():
                self.opened(effect.table, result)  # type: ignore[arg-type]

    def finished(self) -> list[Work]:
        """Works that were done since the last call."""
        out, self._queue.finished = self._queue.finished, []
        return out

    def _vif_step(self, kernel: KernelTable) -> list[Effect]:
        vifs, table, family = kernel.vifs, kernel.table, kernel.family
        # A predecessor's templates, which the keeper still uses, may name any number that has not left the map.
        # Nor may one be used again that an entry may name of which we have not heard.
        retired, added = vifs.to_delete() if kernel.keeper_knows and not kernel.blind else [], vifs.to_add()
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

    def _template_step(self, kernel: KernelTable) -> list[Effect]:
        effect = next_templates(kernel, self.limits.learned_max)
        return [] if effect is None else [effect]

    def _vif_deleted(self, effect: DelVif) -> None:
        vifs = self.tables[effect.table, effect.family].vifs
        slot = vifs.slots[effect.vif]
        vifs.deleted(effect.vif)
        if slot is not None:
            self.feed.touch((slot.name,))

    def _vif_added(self, effect: AddVif, number: int) -> None:
        kernel = self.tables[effect.table, effect.family]
        self.feed.touch((effect.name,))
        if not kernel.vifs.added(effect.vif, number):
            return
        text = f"the kernel made no VIF of {effect.name} in table {effect.table}: {os.strerror(number)}"
        problem = Problem(Reason.KERNEL_ERROR, text, {"interface": effect.name, "errno": str(number), "call": "MRT_ADD_VIF"})
        self.world.refused[effect.table, effect.family, effect.ifindex] = problem
        work = Work()
        for shape in kernel.all_shapes():
            if effect.ifindex in shape.held:
                self.roster.resolve(shape, work)
        self.enqueue(work)

    def _answered(self) -> None:
        self._unanswered -= 1
        if not self._unanswered and self._turn is not None:
            self._queue.took(self._turn)
            self._turn = None
