"""Entries: what the kernel is to be told of single MFC entries, and what came of it."""

import errno
import os
from collections.abc import Callable, Sequence
from itertools import compress

from mcastd.core.desired import Desired
from mcastd.core.feed import Feed
from mcastd.core.learning import wanted
from mcastd.core.roster import Roster
from mcastd.core.shapes import Shape
from mcastd.core.sources import Sources
from mcastd.core.tables import KernelTable
from mcastd.model.effect import DeleteMfc, ProgramMfc
from mcastd.model.errors import Problem, Reason
from mcastd.model.route import Fate, Forwarding, Route
from mcastd.model.template import TEMPLATE_MARK, key_text

_NOTHING: dict[bytes, Forwarding] = {}
"""What is in the kernel of what has no place there."""

Errnos = Sequence[int] | None
"""Result of a batch: one errno an entry, or None when all were done."""


class Entries:
    """Compares what is wanted with what the kernel has acknowledged."""

    def __init__(self, desired: Desired, roster: Roster, sources: Sources, feed: Feed, next_revision: Callable[[], int]) -> None:
        """Look at these; the feed is told of routes whose state is another, the sources of traffic that is forwarded now."""
        self._sources = sources
        self._feed = feed
        self._desired = desired
        self._roster = roster
        self._next_revision = next_revision
        self.failed: dict[bytes, None] = {}
        """Keys whose last effect the kernel refused."""

    def step(self, keys: list[bytes], now: float) -> list[ProgramMfc | DeleteMfc]:
        """Compare what is wanted with what the kernel has, for these keys: creations and changes, then deletions."""
        programs: dict[KernelTable, tuple[list[bytes], list[Forwarding]]] = {}
        deletes: dict[KernelTable, list[bytes]] = {}
        told: list[bytes] = []
        routes = self._desired.routes
        # Of the route before: mostly they are those of the next one, too.
        fate: Fate | None = None
        kernel: KernelTable | None = None
        want: Forwarding | None = None
        actual = _NOTHING
        for key in keys:
            route = routes.get(key)
            if route is None or route.fate is not fate:
                fate = route.fate if route is not None else None
                kernel, route, want = self._look(key, route)
                actual = kernel.actual if kernel is not None else _NOTHING
            have = actual.get(key)
            if kernel is not None and want is not None and have is not want and (have is None or have.packed != want.packed):
                batch = programs.get(kernel)
                if batch is None:
                    batch = programs[kernel] = ([], [])
                batch[0].append(key)
                batch[1].append(want)
            elif kernel is not None and want is None and have is not None:
                deletes.setdefault(kernel, []).append(key)
            else:
                self._as_wanted(key, route, now, there=want is not None)
                if route is not None:
                    told.append(route.key)
        step: list[ProgramMfc | DeleteMfc] = [ProgramMfc(k.table, k.family, *batch) for k, batch in programs.items()]
        step.extend(DeleteMfc(k.table, k.family, batch) for k, batch in deletes.items())
        self._feed.routes(told)
        return step

    def _look(self, key: bytes, route: Route | None) -> tuple[KernelTable | None, Route | None, Forwarding | None]:
        """Where an entry lives, what asks for it (`route` = the one of this key), and what it should do.

        A template's own key has no entry.
        """
        if key[0] >= TEMPLATE_MARK:  # Its turn has come: what the keeper had to be told has been.
            return None, route, None
        if route is not None:
            shape: Shape = route.fate  # type: ignore[assignment] # Routes in force have a Shape.
            return shape.kernel, route, shape.forwarding
        kernel = self._roster.kernel_of(key)
        if kernel is None:
            return None, None, None
        return kernel, self.tree_route(kernel, key), wanted(kernel, key)

    def _as_wanted(self, key: bytes, route: Route | None, now: float, *, there: bool) -> None:
        """Nothing is to be done about an entry: the kernel has it, or has none and none is wanted."""
        if there:
            self._in_force(key, route, now)
        elif key in self.failed:
            self._recovered(key, route)

    def programmed(self, effect: ProgramMfc, errnos: Errnos, now: float) -> None:
        """What came of a batch of MRT_ADD_MFC."""
        kernel = self._roster.tables[effect.table, effect.family]
        keys, forwardings = effect.keys, effect.forwardings
        if errnos is not None:
            done = [not number for number in errnos]
            keys, forwardings = list(compress(keys, done)), list(compress(forwardings, done))
        kernel.programmed_all(keys, forwardings)
        changed: list[bytes] = []
        routes, failed = self._desired.routes, self.failed
        for key in keys:
            route = routes.get(key) or self.tree_route(kernel, key)
            if route is not None:
                changed.append(route.key)
                if not route.installed_at:
                    route.installed_at = now
            if failed and key in failed:
                self._recovered(key, route)
        if errnos is not None:
            self._note_refused(kernel, effect, errnos, changed)
        self._feed.routes(changed)
        if self._sources.all:
            self._forwarded(kernel, effect.keys)

    def _note_refused(self, kernel: KernelTable, effect: ProgramMfc, errnos: Sequence[int], changed: list[bytes]) -> None:
        for key, number in zip(effect.keys, errnos, strict=True):
            if number:
                route = self.route_of(kernel, key)
                self._refused(key, route, "MRT_ADD_MFC", number)
                if route is not None:
                    changed.append(route.key)

    def _forwarded(self, kernel: KernelTable, keys: list[bytes]) -> None:
        """The kernel forwards these (or is stopped from calling): those of routes and templates are no unrouted sources."""
        for key in keys:
            route, learned = self._desired.routes.get(key), kernel.learned.get(key)
            if route is not None:
                self._sources.covered(key, route.paths.iif)
            elif learned is not None and learned.shape is not None:
                link = self._roster.world.by_index.get(learned.ifindex)
                self._sources.covered(key, link.name if link is not None else "")

    def deleted(self, effect: DeleteMfc, errnos: Errnos) -> None:
        """What came of a batch of MRT_DEL_MFC; ENOENT is as good as done."""
        kernel = self._roster.tables[effect.table, effect.family]
        changed: list[bytes] = []
        for at, key in enumerate(effect.keys):
            route = self.route_of(kernel, key)
            if route is not None:
                changed.append(route.key)
            if errnos is not None and errnos[at] not in {0, errno.ENOENT}:
                self._refused(key, route, "MRT_DEL_MFC", errnos[at])
                continue
            kernel.deleted(key)
            if route is not None:
                route.installed_at = 0.0
            if key in self.failed:
                self._recovered(key, route)
        self._feed.routes(changed)

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
            route.revision = self._next_revision()

    def _refused(self, key: bytes, route: Route | None, call: str, number: int) -> None:
        self.failed[key] = None
        if route is not None:
            text = (
                f"the kernel refused {call} of {key_text(key)}: {os.strerror(number)}; it is tried again when interfaces change"
            )
            route.problem = Problem(Reason.KERNEL_ERROR, text, {"errno": str(number), "call": call})
            route.revision = self._next_revision()

    def route_of(self, kernel: KernelTable, key: bytes) -> Route | None:
        """The route that asks for an entry: an exact one, or a shared tree."""
        return self._desired.routes.get(key) or self.tree_route(kernel, key)

    def tree_route(self, kernel: KernelTable | None, key: bytes) -> Route | None:
        """The shared tree behind an entry, if it is one's."""
        tree = kernel.trees.get(key) if kernel is not None else None
        return tree.route if tree is not None else None
