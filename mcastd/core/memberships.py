"""Memberships wanted and actual, and the plan between them: steps of leaves and joins, and what came of them.

Sans-IO and level-triggered like the engine: a step is the difference at that moment. A membership is wanted while anybody wants
it. Knows nothing of what it is wanted for.
"""

from collections.abc import Callable, Container, Iterable
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from mcastd.core.join_problems import JOINED, LEFT, refused
from mcastd.core.shapes import World
from mcastd.model.address import Family
from mcastd.model.errors import Problem
from mcastd.model.join import Membership

STEP_MAX = 256
"""Memberships of one step: each may wait for the kernel's rtnl lock."""

RETRIES_MAX = 1024
"""Memberships that one retry tries again; those that were tried longest ago come first."""

W = TypeVar("W")

_NONE: frozenset[Membership] = frozenset()


class JoinStep(NamedTuple):
    """What to do next: first leave, then join."""

    leave: list[Membership]
    join: list[Membership]


class JoinWork:
    """Waits until the kernel has answered for all memberships that a write is about."""

    __slots__ = ("begun", "finished", "waiting")

    def __init__(self) -> None:
        """Wait for nothing yet."""
        self.waiting: set[Membership] = set()
        self.begun = False
        """Whether all is known that it waits for."""
        self.finished = False


class Memberships(Generic[W]):
    """What is wanted, by whom, and what the kernel has."""

    def __init__(self, world: World, noted: Callable[[Iterable[W]], None]) -> None:
        """Nothing is wanted; `noted` is told of those who want a membership of which another thing is known now."""
        self.wanted: dict[Membership, tuple[W, ...]] = {}
        self.actual: dict[int, set[Membership]] = {}
        """What the kernel has acknowledged, by ifindex."""
        self.problems: dict[Membership, Problem] = {}
        """What came of the last try, where that was nothing good."""
        self._world = world
        self._noted = noted
        self._doomed: set[Membership] = set()
        """Actual ones whose interface has gone: to be left, whatever gets their ifindex next."""
        self._resting: dict[Membership, None] = {}
        """Refused, and not to be tried again before a retry; the longest ago first."""
        self._to_leave: dict[Membership, None] = {}
        self._to_join: dict[Membership, None] = {}
        self._busy: set[Membership] = set()
        """Those of the step that is being carried out."""
        self._gone_meanwhile: set[int] = set()
        """Interfaces (ifindex) that have gone since that step was pulled."""
        self._waiters: dict[Membership, list[JoinWork]] = {}
        self._finished: list[JoinWork] = []

    def want(self, member: Membership, who: W, work: JoinWork | None = None) -> None:
        """One more wants it."""
        others = self.wanted.get(member)
        self.wanted[member] = (who,) if others is None else (*others, who)
        if member in self.problems:
            self._noted((who,))
        self._look(member, work)

    def unwant(self, member: Membership, who: W, work: JoinWork | None) -> None:
        """One less wants it."""
        others = tuple(one for one in self.wanted[member] if one is not who)
        if others:
            self.wanted[member] = others
        else:
            del self.wanted[member]
        self._look(member, work)

    def try_again(self, member: Membership, work: JoinWork | None = None) -> None:
        """Try it although the kernel has refused it, and let the work wait for what comes of it."""
        self._resting.pop(member, None)
        self._look(member, work)

    def begin(self, work: JoinWork) -> None:
        """That was all of it: the work is finished when everything it waits for was answered, at once if nothing is left."""
        work.begun = True
        if not work.waiting:
            self._finish(work)

    def finished(self) -> list[JoinWork]:
        """Works that were finished since the last call."""
        out, self._finished = self._finished, []
        return out

    def held(self) -> dict[tuple[Family, str], int]:
        """How many memberships the kernel has, by family and interface."""
        out: dict[tuple[Family, str], int] = {}
        for ifindex, members in self.actual.items():
            link = self._world.by_index.get(ifindex)
            if link is not None:
                ipv4 = sum(len(member.group) == 4 for member in members)
                counts = ((Family.IPV4, ipv4), (Family.IPV6, len(members) - ipv4))
                out.update({(family, link.name): count for family, count in counts if count})
        return out

    # --- events ------------------------------------------------------------------------------------------------------

    def adopt(self, memberships: Iterable[Membership]) -> None:
        """The kernel has these, from a predecessor's sockets; before the first pull."""
        for member in memberships:
            self.actual.setdefault(member.ifindex, set()).add(member)
            self._look(member)

    def links_gone(self, gone: Iterable[int]) -> None:
        """Interfaces (ifindex) are no more: the kernel has forgotten their memberships, but sockets count them still."""
        for ifindex in gone:
            self._gone_meanwhile.add(ifindex)
            members = self.actual.get(ifindex, ())
            self._doomed.update(members)
            for member in list(members):
                self._look(member)

    def links_changed(self, changed: Container[int]) -> None:
        """Interfaces (ifindex) differ: what was refused there may be taken now."""
        for member in [one for one in self._resting if one.ifindex in changed]:
            self.try_again(member)

    def retry(self) -> None:
        """Try again what the kernel has refused."""
        for member in list(islice(self._resting, RETRIES_MAX)):
            self.try_again(member)

    @property
    def settled(self) -> bool:
        """Whether everything is as it should be: nothing is to be done, under way or refused."""
        return not (self._to_leave or self._to_join or self._busy or self._resting)

    @property
    def troubled(self) -> bool:
        """Whether there is anything for `retry`."""
        return bool(self._resting)

    # --- effects -----------------------------------------------------------------------------------------------------

    def pull(self) -> JoinStep | None:
        """The next step, to be answered by `push` before the next pull; None = all is done."""
        leave = list(islice(self._to_leave, STEP_MAX))
        join = list(islice(self._to_join, STEP_MAX - len(leave)))
        if not leave and not join:
            return None
        for member in leave:
            del self._to_leave[member]
        for member in join:
            del self._to_join[member]
        self._busy.update(leave, join)
        self._gone_meanwhile.clear()
        return JoinStep(leave, join)

    def push(self, step: JoinStep, left: list[int], joined: list[int]) -> None:
        """What came of a step: an errno for each leave and each join, 0 = done."""
        self._busy.clear()
        room = 0
        for member, number in zip(step.leave, left, strict=True):
            if number in LEFT:
                room += 1
                self._left(member)
            else:
                self._note(member, refused(member, self._name(member), number, leaving=True))
        for member, number in zip(step.join, joined, strict=True):
            if number in JOINED:
                self.actual.setdefault(member.ifindex, set()).add(member)
                if member.ifindex in self._gone_meanwhile:
                    self._doomed.add(member)
                self._note(member, None)
            else:
                self._note(member, refused(member, self._name(member), number))
        for member in (*step.leave, *step.join):
            self._look(member)
        for member in list(islice(self._resting, room)):  # There may be room for them now.
            self.try_again(member)

    def _left(self, member: Membership) -> None:
        members = self.actual[member.ifindex]
        members.discard(member)
        if not members:
            del self.actual[member.ifindex]
        self._doomed.discard(member)
        self._note(member, None)

    def _name(self, member: Membership) -> str:
        link = self._world.by_index.get(member.ifindex)
        return link.name if link is not None else f"interface {member.ifindex}, which is gone"

    def _note(self, member: Membership, problem: Problem | None) -> None:
        """Take note of what came of a try."""
        before = self.problems.pop(member, None)
        if problem is not None:
            self.problems[member] = problem
            self._resting[member] = None
        if before != problem:
            self._noted(self.wanted.get(member, ()))

    def _look(self, member: Membership, work: JoinWork | None = None) -> None:
        """Queue what is to be done about a membership; who waits for it is told where that is nothing."""
        actual, wanted = member in self.actual.get(member.ifindex, _NONE), member in self.wanted
        if wanted is actual and not (actual and member in self._doomed):  # As it should be, whatever came of the last try.
            self._resting.pop(member, None)
            if self.problems.pop(member, None) is not None:
                self._noted(self.wanted.get(member, ()))
        idle = member not in self._busy and member not in self._resting
        leave = idle and actual and (not wanted or member in self._doomed)
        join = idle and wanted and not actual
        if leave:
            self._to_leave.setdefault(member)
        else:
            self._to_leave.pop(member, None)
        if join:
            self._to_join.setdefault(member)
        else:
            self._to_join.pop(member, None)
        if leave or join or member in self._busy:
            if work is not None and member not in work.waiting:
                work.waiting.add(member)
                self._waiters.setdefault(member, []).append(work)
            return
        for waiter in self._waiters.pop(member, ()):
            waiter.waiting.discard(member)
            if waiter.begun and not waiter.waiting:
                self._finish(waiter)

    def _finish(self, work: JoinWork) -> None:
        work.finished = True
        self._finished.append(work)
