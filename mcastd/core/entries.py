"""Entries: what the kernel is to be told of single MFC entries, and what came of it."""

import errno
import os
from collections.abc import Callable, Sequence

from mcastd.core.desired import Desired
from mcastd.core.learning import wanted
from mcastd.core.roster import Roster
from mcastd.core.shapes import Shape
from mcastd.core.tables import KernelTable
from mcastd.model.effect import DeleteMfc, Effect, ProgramMfc
from mcastd.model.errors import Problem, Reason
from mcastd.model.route import Forwarding, Route
from mcastd.model.template import TEMPLATE_MARK, key_text

Errnos = Sequence[int] | None
"""Result of a batch: one errno an entry, or None when all were done."""


class Entries:
    """Compares what is wanted with what the kernel has acknowledged."""

    def __init__(self, desired: Desired, roster: Roster, next_revision: Callable[[], int]) -> None:
        """Look at these."""
        self._desired = desired
        self._roster = roster
        self._next_revision = next_revision
        self.failed: dict[bytes, None] = {}
        """Keys whose last effect the kernel refused."""

    def step(self, keys: list[bytes], now: float) -> list[Effect]:
        """Compare what is wanted with what the kernel has, for these keys: creations and changes, then deletions."""
        routes = self._desired.routes
        programs: dict[KernelTable, tuple[list[bytes], list[Forwarding]]] = {}
        deletes: dict[KernelTable, list[bytes]] = {}
        for key in keys:
            if key[0] >= TEMPLATE_MARK:
                continue  # Its turn has come: what the keeper had to be told has been.
            route = routes.get(key)
            if route is None:
                kernel = self._roster.kernel_of(key)
                want = wanted(kernel, key) if kernel is not None else None
                route = self._tree_route(kernel, key)
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

    def programmed(self, effect: ProgramMfc, errnos: Errnos, now: float) -> None:
        """What came of a batch of MRT_ADD_MFC."""
        kernel, routes = self._roster.tables[effect.table, effect.family], self._desired.routes
        for at, (key, forwarding) in enumerate(zip(effect.keys, effect.forwardings, strict=True)):
            route = routes.get(key) or self._tree_route(kernel, key)
            if errnos is not None and errnos[at]:
                self._refused(key, route, "MRT_ADD_MFC", errnos[at])
                continue
            kernel.programmed(key, forwarding)
            self._in_force(key, route, now)

    def deleted(self, effect: DeleteMfc, errnos: Errnos) -> None:
        """What came of a batch of MRT_DEL_MFC; ENOENT is as good as done."""
        kernel, routes = self._roster.tables[effect.table, effect.family], self._desired.routes
        for at, key in enumerate(effect.keys):
            route = routes.get(key) or self._tree_route(kernel, key)
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
            route.revision = self._next_revision()

    def _refused(self, key: bytes, route: Route | None, call: str, number: int) -> None:
        self.failed[key] = None
        if route is not None:
            text = (
                f"the kernel refused {call} of {key_text(key)}: {os.strerror(number)}; it is tried again when interfaces change"
            )
            route.problem = Problem(Reason.KERNEL_ERROR, text, {"errno": str(number), "call": call})
            route.revision = self._next_revision()

    def _tree_route(self, kernel: KernelTable | None, key: bytes) -> Route | None:
        """The shared tree behind an entry, if it is one's."""
        tree = kernel.trees.get(key) if kernel is not None else None
        return tree.route if tree is not None else None
