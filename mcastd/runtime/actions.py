"""What the action script is to be told: that an entry was made or moved because a packet came, the start, a reload.

Asked for only where a script is configured. What comes of it is the keeper's business, and in its log.
"""

import asyncio
import logging
import struct
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping

from mcastd.core.engine import Engine
from mcastd.core.plan import Work
from mcastd.core.tables import KernelTable
from mcastd.model.address import Family, address_text, split_key
from mcastd.model.event import Answer, UpcallKind

WAITING_MAX = 256
"""Entries of which the script has yet to be told; no more wait in the keeper's process either."""

_NO_OIF = 255
_IF_SET = struct.Struct("=8I")

_log = logging.getLogger(__name__)


class ActionCaller:
    """Has the script run."""

    def __init__(
        self, engine: Engine, done: Callable[[Work], Awaitable[None]], run_action: Callable[[str, Mapping[str, str]], None]
    ) -> None:
        """`done` waits until the kernel has what a work is about, `run_action` asks the keeper."""
        self._engine = engine
        self._done = done
        self._run_action = run_action
        self._waiting: dict[bytes, None] = {}
        self._left_out = 0
        self._wake = asyncio.Event()

    def start(self) -> None:
        """The daemon serves for the first time."""
        self._run_action("start", {})

    def reload(self) -> None:
        """A configuration was put in force again."""
        self._run_action("reload", {})

    def upcall(self, key: bytes, kind: UpcallKind, answer: Answer, time: float) -> None:
        """The engine has heard of an upcall (`time`: when): the script is told if an entry was made, or moved, because of it."""
        kernel = self._kernel_of(key)
        learned = kernel.learned.get(key) if kernel is not None else None
        if learned is None:
            return
        if kind is UpcallKind.NOCACHE:
            told = answer in {Answer.INSTALLED, Answer.ELSEWHERE}
        else:
            told = time in {learned.moved_at, learned.since}
        if not told:
            return
        if len(self._waiting) >= WAITING_MAX and key not in self._waiting:
            self._left_out += 1
            if self._left_out == 1:
                _log.warning("entries come faster than the action script is told of them: some are left out")
            return
        self._waiting[key] = None
        self._wake.set()

    async def run(self) -> None:
        """Tell of entries once the kernel has them, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            keys, self._waiting = list(self._waiting), {}
            if self._left_out:
                _log.warning("the action script was not told of all entries", extra={"left_out": self._left_out})
                self._left_out = 0
            work = Work(keys)
            self._engine.enqueue(work)
            await self._done(work)
            for key in keys:
                environment = self._environment(key)
                if environment is not None:
                    self._run_action("install", environment)

    def _kernel_of(self, key: bytes) -> KernelTable | None:
        return self._engine.roster.kernel_of(key)

    def _environment(self, key: bytes) -> dict[str, str] | None:
        """What the kernel has now; None = it has no learned entry any more, or a stop filter."""
        kernel = self._kernel_of(key)
        learned = kernel.learned.get(key) if kernel is not None else None
        if kernel is None or learned is None or learned.shape is None or key not in kernel.actual:
            return None
        packed = kernel.actual[key].packed
        if not packed:  # Not known yet: it will be looked at again.
            return None
        table, group, source = split_key(key)
        source_text, group_text = address_text(source), address_text(group)
        return {
            "MCASTD_INTERFACE": self._names(kernel, (int.from_bytes(packed[:2], sys.byteorder),)),
            "MCASTD_SOURCE": source_text,
            "MCASTD_GROUP": group_text,
            "MCASTD_OIFS": self._names(kernel, oifs_of(kernel.family, packed)),
            "MCASTD_TABLE": str(table),
            "source": source_text,
            "group": group_text,
        }

    @staticmethod
    def _names(kernel: KernelTable, numbers: Iterable[int]) -> str:
        """Names of VIFs, separated by spaces; a character that can't be shown is a question mark."""
        slots = (kernel.vifs.slots[number] for number in numbers if number < len(kernel.vifs.slots))
        text = " ".join(sorted(slot.name for slot in slots if slot is not None))
        return "".join(c if c.isprintable() else "?" for c in text)


def oifs_of(family: Family, packed: bytes) -> list[int]:
    """VIF numbers of the oifs in Forwarding.packed."""
    if family is Family.IPV4:
        return [number for number, ttl in enumerate(packed[2:34]) if ttl != _NO_OIF]
    words = _IF_SET.unpack_from(packed, 2)
    return [32 * at + bit for at, word in enumerate(words) for bit in range(32) if word >> bit & 1]
