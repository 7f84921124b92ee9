"""Works: keys whose MFC entries may differ from what is wanted, and the fair queue that the plan takes them from.

A work says which keys to look at, never what to do: that is found when its turn comes, from what is wanted and what the
kernel has by then. So works may overlap, repeat or be late, and the result is the same. Works take turns, a batch each: a
single route never waits behind a hundred thousand.
"""

from collections import deque
from collections.abc import Iterable

from mcastd.core.memberships import JoinWork
from mcastd.model.effect import BATCH


class Work:
    """Keys to bring into line; finished when each has been looked at and its effect, if any, has been answered."""

    __slots__ = ("_at", "_keys", "finished", "growing", "joins", "parked")

    def __init__(self, keys: Iterable[bytes] = (), *, growing: bool = False) -> None:
        """Look at these, in this order; `growing`: more will come while it is in the queue, until it is `complete`."""
        self._keys = list(keys)
        self._at = 0
        self.growing = growing
        self.parked = False
        """Whether it is out of the queue until more keys come."""
        self.finished = False
        self.joins: JoinWork | None = None
        """What the same write joins and leaves, if anything."""

    def add(self, keys: Iterable[bytes]) -> None:
        """Look at these as well."""
        self._keys.extend(keys)

    def take(self) -> list[bytes]:
        """The next batch."""
        batch = self._keys[self._at : self._at + BATCH]
        self._at += len(batch)
        return batch

    @property
    def remaining(self) -> int:
        """Keys not yet taken."""
        return len(self._keys) - self._at


class WorkQueue:
    """Works that take turns."""

    __slots__ = ("_works", "finished")

    def __init__(self) -> None:
        """An empty queue."""
        self._works: deque[Work] = deque()
        self.finished: list[Work] = []
        """Works that are done and not yet reported."""

    def __len__(self) -> int:
        """Works that are not done."""
        return len(self._works)

    @property
    def keys(self) -> int:
        """Keys that have not had their turn."""
        return sum(work.remaining for work in self._works)

    def push(self, work: Work) -> None:
        """Add a work at the end of the round."""
        self._works.append(work)

    def next(self) -> tuple[Work, list[bytes]] | None:
        """The work whose turn it is, and its next batch; the caller gives it back by `took` when the batch is answered."""
        if not self._works:
            return None
        work = self._works.popleft()
        return work, work.take()

    def took(self, work: Work) -> None:
        """The batch was answered: the work goes to the end of the round, or is done, or waits for more keys."""
        if work.remaining:
            self._works.append(work)
        elif work.growing:
            work.parked = True
        else:
            work.finished = True
            self.finished.append(work)

    def grown(self, work: Work) -> None:
        """A growing work has more keys."""
        if work.parked and work.remaining:
            work.parked = False
            self._works.append(work)

    def complete(self, work: Work) -> None:
        """A growing work has all its keys."""
        self.grown(work)
        work.growing = False
        if work.parked:
            work.parked = False
            self.took(work)
