"""Owns whether this replica leads, and with which epoch: the term of whatever elects among the replicas of one controller.

The election itself is not the controller's: etcd, Kubernetes or an operator say who leads. Either the epoch is given once, or it
stands in a file of this replica: a number above 0 while it leads, 0 or nothing while it stands by.
"""

import asyncio
from pathlib import Path

LOOK_SECONDS = 0.1


class Election:
    """Says when to lead."""

    def __init__(self, fixed: int | None, path: Path | None) -> None:
        """One of both."""
        self._fixed = fixed
        self._path = path

    @property
    def fixed(self) -> bool:
        """Whether there will never be another epoch."""
        return self._path is None

    def epoch(self) -> int:
        """The epoch now; 0 = stand by."""
        if self._path is None:
            return self._fixed or 0
        try:
            found = self._path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return 0
        return int(found) if found.isdecimal() else 0

    async def won(self, above: int) -> int:
        """Wait until this replica leads with an epoch higher than one that is used up; the epoch."""
        while (epoch := self.epoch()) <= above:  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(LOOK_SECONDS)
        return epoch

    async def lost(self, epoch: int) -> None:
        """Wait until this replica does not lead with an epoch any more."""
        while self.epoch() == epoch:  # noqa: ASYNC110 - see won
            await asyncio.sleep(LOOK_SECONDS)
