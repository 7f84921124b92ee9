"""A pool of join sockets in memory: what mcastd.kernel.joins.JoinPool is to the joiner, with refusals as a test wants them."""

import errno
from collections.abc import Callable, Iterable, Sequence

from mcastd.core.joins import JoinBook
from mcastd.model.join import Membership


class FakePool:
    """Holds memberships; `refuses` may give an errno for a join, `refuses_leave` for a leave, and there may be a limit."""

    def __init__(self, held: Iterable[Membership] = (), limit: int | None = None) -> None:
        self.joined = set(held)
        self.limit = limit
        self.refuses: Callable[[Membership], int] = lambda _: 0
        self.refuses_leave: Callable[[Membership], int] = lambda _: 0
        self.calls: list[tuple[str, Membership]] = []
        """Every join and leave that was tried, in order."""

    def adopt(self, _held: Iterable[object]) -> set[Membership]:
        """What it has already."""
        return set(self.joined)

    def leave(self, unwanted: Sequence[Membership]) -> list[int]:
        """Leave; an errno for each."""
        return [self._leave(member) for member in unwanted]

    def join(self, wanted: Sequence[Membership]) -> list[int]:
        """Join; an errno for each."""
        return [self._join(member) for member in wanted]

    def link_gone(self, ifindex: int) -> None:
        """The kernel has forgotten what was joined on an interface."""
        self.joined = {member for member in self.joined if member.ifindex != ifindex}

    def _leave(self, member: Membership) -> int:
        self.calls.append(("leave", member))
        if number := self.refuses_leave(member):
            return number
        if member not in self.joined:
            return errno.EADDRNOTAVAIL
        self.joined.remove(member)
        return 0

    def _join(self, member: Membership) -> int:
        self.calls.append(("join", member))
        if number := self.refuses(member):
            return number
        if self.limit is not None and len(self.joined) >= self.limit:
            return errno.ENOBUFS
        assert member not in self.joined, "a step joins what is joined already"
        self.joined.add(member)
        return 0


def settle(book: JoinBook, pool: FakePool) -> None:
    """Carry out steps until there are none."""
    while step := book.pull():
        assert step.leave or step.join
        book.push(step, pool.leave(step.leave), pool.join(step.join))
