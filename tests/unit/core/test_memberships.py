"""mcastd.core.memberships: the plan between what is wanted and what is there. More of it in tests/property/test_joins.py."""

import errno
from collections.abc import Iterable

from mcastd.core.memberships import RETRIES_MAX, STEP_MAX, JoinStep, JoinWork, Memberships
from mcastd.core.shapes import World
from mcastd.model.join import Membership


class Plan(Memberships[str]):
    """Memberships wanted by people with names."""

    def __init__(self) -> None:
        self.told: list[str] = []
        super().__init__(World(), self.note)

    def note(self, who: Iterable[str]) -> None:
        """They are told."""
        self.told.extend(who)

    def answer(self, *numbers: int) -> JoinStep:
        """Pull a step and give these results: of the leaves, then of the joins."""
        step = self.pull()
        assert step is not None
        self.push(step, list(numbers[: len(step.leave)]), list(numbers[len(step.leave) :]))
        return step


def member(number: int = 1, ifindex: int = 1) -> Membership:
    return Membership(ifindex, b"\xef\1" + number.to_bytes(2, "big"), b"")


def done(work: JoinWork) -> bool:
    return work.finished


def test_a_membership_is_wanted_while_anybody_wants_it() -> None:
    plan = Plan()
    plan.want(member(), "a")
    plan.want(member(), "b")
    assert plan.answer(0) == ([], [member()])
    plan.unwant(member(), "a", None)
    assert plan.pull() is None
    plan.unwant(member(), "b", None)
    assert plan.answer(0) == ([member()], [])
    assert plan.actual == {}


def test_what_is_wanted_again_before_its_turn_is_let_alone() -> None:
    plan = Plan()
    plan.adopt([member()])
    assert plan.pull() is not None
    plan = Plan()
    plan.adopt([member()])
    plan.want(member(), "a")
    assert plan.pull() is None
    plan.unwant(member(), "a", None)
    plan.want(member(), "a")
    assert plan.pull() is None


def test_what_changes_during_a_step_is_seen_afterwards() -> None:
    plan, work = Plan(), JoinWork()
    plan.want(member(), "a")
    step = plan.pull()
    assert step is not None
    plan.unwant(member(), "a", work)
    plan.begin(work)
    assert plan.pull() is None, "the kernel has yet to answer"
    plan.push(step, [], [0])
    assert not done(work)
    assert plan.answer(0) == ([member()], [])
    assert done(work)
    assert plan.finished() == [work]


def test_a_join_that_is_there_already_and_a_leave_that_is_done_are_no_problems() -> None:
    plan = Plan()
    plan.want(member(), "a")
    plan.answer(errno.EADDRINUSE)
    assert (plan.problems, plan.actual) == ({}, {1: {member()}})
    for number in (errno.EADDRNOTAVAIL, errno.ENODEV):
        plan.unwant(member(), "a", None)
        plan.answer(number)
        assert plan.actual == {}
        plan.want(member(), "a")
        plan.answer(0)


def test_those_concerned_are_told_of_news_alone() -> None:
    plan = Plan()
    plan.want(member(), "a")
    plan.want(member(), "b")
    plan.answer(errno.EPERM)
    assert plan.told == ["a", "b"]
    plan.retry()
    plan.answer(errno.EPERM)
    assert plan.told == ["a", "b"]
    plan.want(member(), "late")
    assert plan.told == ["a", "b", "late"]
    plan.retry()
    plan.answer(0)
    assert plan.told == ["a", "b", "late"] * 2


def test_a_leave_that_was_refused_is_forgotten_when_it_is_wanted_again() -> None:
    plan = Plan()
    plan.adopt([member()])
    plan.answer(errno.EIO)
    assert plan.troubled
    plan.want(member(), "a")
    assert (plan.problems, plan.troubled) == ({}, False)


def test_retries_take_turns() -> None:
    plan, count = Plan(), RETRIES_MAX + STEP_MAX
    for number in range(count):
        plan.want(member(number), "a")
    while step := plan.pull():
        assert len(step.join) <= STEP_MAX
        plan.push(step, [], [errno.ENOBUFS] * len(step.join))
    tried: list[Membership] = []
    for _ in range(2):
        plan.retry()
        while step := plan.pull():
            tried += step.join
            plan.push(step, [], [errno.ENOBUFS] * len(step.join))
    assert set(tried[:count]) == {member(number) for number in range(count)}


def test_a_work_that_waits_for_nothing_is_finished() -> None:
    plan, work = Plan(), JoinWork()
    plan.try_again(member(), work)
    plan.begin(work)
    assert done(work)
