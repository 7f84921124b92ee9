"""Drift: what somebody else has done to our entries, found in notifications and dumps, and told from what we do ourselves.

Sans-IO. What a notification or a dump says is as old as its reading: the entry may have been written, or deleted by us, since.
So an entry that is said to be gone counts as gone only where a look at it (`Absent`) finds none now; and entries that are
being written just now, whose answer the engine has not heard, are looked at later.
"""

from collections.abc import Callable, Container, Generator, Iterable, Sequence
from typing import NamedTuple

from mcastd.core.adopt import kernel_paths
from mcastd.core.engine import Engine
from mcastd.core.plan import Work
from mcastd.core.tables import KernelTable
from mcastd.model.effect import BATCH
from mcastd.model.event import KernelPaths

Absent = Callable[[KernelTable, list[bytes]], list[bytes]]
"""Of these keys of a table (at most BATCH) those of which the kernel has no entry at this moment."""

DumpRow = tuple[int, int, int, float, int, int, int, bytes]
"""As mcastd.kernel.mfc_dump has it: ..., number of the paths, protocol, unresolved, key."""


class Found(NamedTuple):
    """Entries of one table that somebody else has touched, and that are being put right."""

    kernel: KernelTable
    missing: list[bytes]
    """Removed."""
    different: list[bytes]
    """Overwritten."""


class Drift:
    """Compares what the kernel is said to hold with what it has acknowledged."""

    def __init__(self, engine: Engine) -> None:
        """Look after this engine's tables."""
        self._engine = engine
        self._said: dict[KernelTable, dict[bytes, KernelPaths | None]] = {}
        """Of entries of ours the last that was heard and not yet looked at; None = removed."""
        self._repairs: list[tuple[Work, Found]] = []
        """Those that are not finished yet, as far as is known."""

    @property
    def pending(self) -> bool:
        """Whether anything was heard and not looked at yet."""
        return bool(self._said)

    def under_repair(self) -> tuple[int, int]:
        """Entries that are missing, and that are different, and not put right yet."""
        self._repairs = [one for one in self._repairs if not one[0].finished]
        found = [one for _, one in self._repairs]
        return sum(len(one.missing) for one in found), sum(len(one.different) for one in found)

    def hear(self, changes: Iterable[tuple[bytes, KernelPaths | None]]) -> None:
        """Take note of notifications: key, and what the entry does now; None = it was removed. Those of others' tables too."""
        kernel_of, being_written = self._engine.roster.kernel_of, self._engine.being_written()
        for key, paths in changes:
            kernel = kernel_of(key)
            if kernel is None:
                continue
            if key in kernel.actual or key in being_written:
                self._said.setdefault(kernel, {})[key] = paths
                continue
            if kernel in self._said:
                self._said[kernel].pop(key, None)
            _note_others(kernel, key, paths)

    def hear_removals(self, keys: Iterable[bytes]) -> None:
        """Do as `hear` does of entries that were all removed: mostly by us, 100,000 of them at times."""
        deleting = self._engine.being_deleted()
        keys = [key for key in keys if key not in deleting]
        for kernel in self._engine.tables.values():
            if kernel.foreign or kernel in self._said or not kernel.actual.keys().isdisjoint(keys):
                self.hear((key, None) for key in keys)
                return

    def settle(self, absent: Absent) -> Generator[Found, None, None]:
        """Put right what was heard of, in slices; what is being written just now stays for the next time."""
        for kernel in list(self._said):
            said = self._said.pop(kernel)
            later: dict[bytes, KernelPaths | None] = {}
            while said:
                part = [said.popitem() for _ in range(min(BATCH, len(said)))]
                being_written = self._engine.being_written()
                later.update(one for one in part if one[0] in being_written)
                found = self._judge(kernel, [one for one in part if one[0] not in being_written], absent)
                yield self._put_right(found)
            if later:
                self._said[kernel] = {**later, **self._said.get(kernel, {})}

    def _judge(self, kernel: KernelTable, said: list[tuple[bytes, KernelPaths | None]], absent: Absent) -> Found:
        suspects, different = [], []
        expected: dict[bytes, KernelPaths | None] = {}
        for key, paths in said:
            have = kernel.actual.get(key)
            if have is None:
                _note_others(kernel, key, paths)  # We have deleted it meanwhile: it is somebody else's, if it is there.
            elif not have.packed:
                continue  # It is about to be written anyway.
            elif paths is None:
                suspects.append(key)
            else:
                want = expected.get(have.packed)
                if want is None:
                    want = expected[have.packed] = kernel_paths(kernel.vifs, have)
                if want is not None and want != paths:
                    different.append(key)
        return Found(kernel, absent(kernel, suspects) if suspects else [], different)

    def _put_right(self, found: Found) -> Found:
        keys = [*found.missing, *found.different]
        if keys:
            self._repairs.append((self._engine.put_back(found.kernel, keys), found))
            said = self._said.get(found.kernel, {})
            for key in keys:
                said.pop(key, None)
        return found

    # --- dumps -------------------------------------------------------------------------------------------------------

    def dump_begins(self, kernel: KernelTable) -> None:
        """A dump is about to begin: what is written from now on is younger than what it says."""
        kernel.touched = set(self._engine.being_written())

    def dump_ends(self, kernel: KernelTable) -> None:
        """It was compared, or could not be had."""
        kernel.touched = None

    def compare(
        self, kernel: KernelTable, rows: Iterable[DumpRow], paths: Sequence[KernelPaths], foreign: int, absent: Absent
    ) -> Generator[Found, None, None]:
        """Compare a dump with what we think is there, in slices, and put right what differs.

        `foreign` is the protocol of entries that somebody else has added or changed. Others can't differ: who has our socket
        is us, or the keeper, of which we hear.
        """
        touched: Container[bytes] = kernel.touched if kernel.touched is not None else ()
        seen: set[bytes] = set()
        others: set[bytes] = set()
        part: list[tuple[bytes, KernelPaths | None]] = []
        for at, (_, _, _, _, number, protocol, unresolved, key) in enumerate(rows, 1):
            if not unresolved:
                seen.add(key)
                if key not in kernel.actual:
                    if protocol == foreign:
                        others.add(key)
                elif protocol == foreign and key not in touched:
                    part.append((key, paths[number]))
            if at % BATCH == 0:
                yield self._put_right(self._judge(kernel, self._at_rest(part, touched), absent))
                part = []
        yield self._put_right(self._judge(kernel, self._at_rest(part, touched), absent))
        kernel.foreign = {key for key in others if key not in kernel.actual}
        ours = list(kernel.actual)
        for start in range(0, len(ours), BATCH):
            # A dump misses entries where others are deleted while it goes on (mr_table_dump counts them): so this looks again.
            part = [(key, None) for key in ours[start : start + BATCH] if key not in seen and key in kernel.actual]
            yield self._put_right(self._judge(kernel, self._at_rest(part, ()), absent))

    def _at_rest(
        self, part: list[tuple[bytes, KernelPaths | None]], touched: Container[bytes]
    ) -> list[tuple[bytes, KernelPaths | None]]:
        """Without what was written since the dump began, or is being written: of others' changes after that we shall hear."""
        being_written = self._engine.being_written()
        return [one for one in part if one[0] not in touched and one[0] not in being_written]


def _note_others(kernel: KernelTable, key: bytes, paths: KernelPaths | None) -> None:
    """Take note of what somebody has done to an entry that is not ours."""
    if paths is None:
        kernel.foreign.discard(key)
    else:
        kernel.foreign.add(key)
