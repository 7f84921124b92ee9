"""Owns whether this replica leads, and with which epoch: the term of whatever elects among the replicas of one controller.

The election itself is not the controller's: etcd, Kubernetes or an operator say who leads. Either the epoch is given once, or it
stands in a file of this replica: a number above 0 while it leads, 0 or nothing while it stands by.
"""

import asyncio
import logging
from pathlib import Path

log = logging.getLogger("mcast_controller")

LOOK_SECONDS = 0.1

EPOCH_MAX = 2**64 - 1
"""The contract's epochs are unsigned, of 64 bits."""


class Election:
    """Says when to lead."""

    def __init__(self, fixed: int | None, path: Path | None) -> None:
        """One of both."""
        self._fixed = fixed
        self._path = path
        self._fault = ""
        """What is wrong with the file, where the log has told it."""

    @property
    def fixed(self) -> bool:
        """Whether there will never be another epoch."""
        return self._path is None

    def epoch(self) -> int:
        """The epoch now; 0 = stand by."""
        if self._path is None:
            return self._fixed or 0
        try:
            found = self._path.read_text("ascii").strip() or "0"
        except FileNotFoundError:
            found = "0"
        except OSError as exc:
            return self._bad(exc.strerror or "it cannot be read")
        except UnicodeDecodeError:
            return self._bad("it is no text")
        if not found.isdecimal() or int(found) > EPOCH_MAX:
            return self._bad(f"{found[:40]!r} is no epoch: write a number above 0 to lead, 0 or nothing to stand by")
        self._fault = ""
        return int(found)

    def _bad(self, text: str) -> int:
        """Stand by, and say why once."""
        if text != self._fault:
            log.error("%s: %s; standing by", self._path, text)
        self._fault = text
        return 0

    async def won(self, above: int) -> int:
        """Wait until this replica leads with an epoch higher than one that is used up; the epoch."""
        while (epoch := self.epoch()) <= above:  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(LOOK_SECONDS)
        return epoch

    async def lost(self, epoch: int) -> None:
        """Wait until this replica does not lead with an epoch any more."""
        while self.epoch() == epoch:  # noqa: ASYNC110 - see won
            await asyncio.sleep(LOOK_SECONDS)
