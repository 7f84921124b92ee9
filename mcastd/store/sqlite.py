"""The store: commits intents, gives them back at start, and keeps what it has to read then short.

A commit appends records to the journal and moves the state row on, in one transaction. Compaction writes everything that is
wanted as a snapshot of a new generation beside the old one, puts it in force in one small transaction, and then removes
what it replaces: a crash at any moment leaves one whole truth. Does not know what routes mean.
"""

import errno
import os
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import chain, islice
from pathlib import Path
from time import time
from typing import NamedTuple, Self

from mcastd.model.errors import McastdError, Reason
from mcastd.model.join import JoinRecord
from mcastd.model.record import Intent, InterfaceSettings, OwnerRecord, Stored
from mcastd.model.route import Route
from mcastd.store import database, migrations, unwritable
from mcastd.store.codec import ROUTES_MAX, DamagedRecord, encode, pieces
from mcastd.store.database import SetAside, Unusable
from mcastd.store.reading import chained, journal_identity, read_records, record_number, snapshot_identity

DATABASE_NAME = "state.db"

JOURNAL_RECORDS_MAX = 4_096
"""Journal records that are not worth a compaction; more of them where the snapshot is large. Reading one costs some 10 us."""

JOURNAL_BYTES_MAX = 8 << 20
"""Bytes of journal that are not worth a compaction; as many as the snapshot has where that is more."""

_ROUTES_PER_JOURNAL_RECORD = 64
"""Of the snapshot: a compaction, which writes all routes, waits until the journal has one record for so many."""

_REMOVE_AT_ONCE = 32
"""Rows per transaction when replaced records are removed; each may be a chain of a hundred pages."""


class Mark(NamedTuple):
    """A place in the journal, for a compaction."""

    sequence: int
    digest: int
    written: int
    """Bytes of journal so far, as this process counts them."""


class StateChanged(Exception):  # noqa: N818 - the name says what was found
    """What can be written now is not what was read when it could not be: it must be loaded by another start."""


class Store:
    """Durable desired state in one directory; one thread at a time may call it, `mark` and `wants_compaction` any.

    What can be read and not written is *sealed*: a copy in memory, whose writes are refused until `resume` has opened the files.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Verify and read an attached database, which becomes the store's own; use `open`."""
        self.path = path
        self.notice: str | None = None
        """What was found at start that someone must know: what was set aside, where it is and what to do."""
        self.copy = migrations.migrate(path, connection)
        """Where a copy is of what was of an earlier schema version at start; None = it was of today's."""
        self.refusal: McastdError | None = None
        """Why what was written last could not be stored; None = it could."""
        self._sealed = self._nothing = False
        """Whether it is a copy of what can't be written; whether there was nothing on disk to be copied."""
        self._pending_count = 0
        """Start count that the next write stores; 0 = it was stored."""
        self._connection = connection
        self._inode = path.stat().st_ino if path.exists() else 0
        self._state = database.verify(connection)
        self._compacting = False
        self._snapshot_bytes = 0
        self._snapshot_routes = 0
        self._covered_written = 0
        """Bytes of journal that the snapshot covers, counted as Mark.written is."""
        self._mark = Mark(self._state.head, self._state.head_digest, 0)
        self._loaded: Stored | None = self._read()
        self._tidy()

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the store in this directory, or make both; McastdError STORE_UNAVAILABLE if it can't be read, or is in use.

        A database that is damaged or newer than this program is renamed, a fresh one started, and `notice` says so. Where
        nothing can be written now it is sealed, and `refusal` says why: nothing is set aside then.
        """
        path = directory / DATABASE_NAME
        try:
            return cls._open(path)
        except (OSError, sqlite3.Error) as exc:
            refusal, done = database.unavailable(path, "open", exc), getattr(exc, "__notes__", None)
        return cls._open_sealed(path, refusal, done[0] if done else None)

    @classmethod
    def _open(cls, path: Path) -> Self:
        notice = None
        start_count = 0
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if database.left_behind(path):
                try:
                    migrations.remove_old_copies(path, time())
                    return cls._attach(path)
                except SetAside as done:
                    notice, start_count = done.notice, done.start_count
            database.create(path, start_count)
            store = cls._attach(path)
        except (OSError, sqlite3.Error) as exc:
            if notice is not None:
                exc.add_note(notice)
            raise
        except SetAside as exc:
            msg = f"cannot use {path}, which was just made: {exc}; look at the kernel's log for errors of the disk"
            raise McastdError(Reason.STORE_UNAVAILABLE, msg, path=path) from exc
        store.notice = notice
        return store

    @classmethod
    def _open_sealed(cls, path: Path, refusal: McastdError, notice: str | None) -> Self:
        """Read what there is into memory; McastdError where that can't be done. `notice`: of what was set aside just now."""
        begun = database.start_count_after(None)  # What is not there may come to light, and may have any number of starts.
        try:
            if not os.access(path.parent, os.R_OK | os.X_OK):
                raise refusal  # Whether there is anything can't be seen.
            found = database.left_behind(path)
            try:
                store = cls(path, unwritable.copy(path) if found else unwritable.nothing(begun))
            except (Unusable, DamagedRecord, UnicodeError, sqlite3.Error) as exc:
                if isinstance(exc, sqlite3.Error) and not database.says_damaged(exc):
                    raise
                found, notice = False, database.notice_sealed(path, exc)
                store = cls(path, unwritable.nothing(begun))
        except (OSError, sqlite3.Error) as exc:
            taken = isinstance(exc, OSError) and exc.errno == errno.EBUSY
            raise database.unavailable(path, "open", exc) if taken else refusal from exc
        store._connection.execute("PRAGMA query_only = ON")
        store._sealed, store._nothing, store.refusal, store.notice = True, not found, refusal, notice
        return store

    @classmethod
    def _attach(cls, path: Path) -> Self:
        """Open what is there; SetAside, OSError, sqlite3.Error."""
        connection = None
        with ExitStack() as undo:
            try:
                connection = database.attach(path)
                undo.callback(connection.close)
                store = cls(path, connection)
            except (Unusable, DamagedRecord, UnicodeError, sqlite3.Error) as exc:  # UnicodeError: damaged names in its schema
                if isinstance(exc, sqlite3.Error) and not database.says_damaged(exc):
                    raise
                found = exc if isinstance(exc, Unusable) else Unusable(str(exc))
                start_count = database.start_count_after(connection)
                aside = database.set_aside(path, found)  # before the connection is closed
                raise SetAside(database.notice_aside(path, aside, found), start_count) from exc
            undo.pop_all()
            return store

    def begin(self) -> int:
        """Count this start of the daemon and return its number, which is durable; the upper part of its revisions."""
        self._write(self._state._replace(start_count=self._state.start_count + 1))
        return self._state.start_count

    @property
    def start_count(self) -> int:
        """Number of the last start that is stored."""
        return self._state.start_count

    def begin_later(self, start_count: int) -> None:
        """Have this be the start count of what is written first, since `begin` was refused."""
        self._pending_count = start_count

    def resume(self, found: Sequence[Intent]) -> None:
        """Try whether it can be written again, with what was `found` in the kernel where it is `anew`.

        McastdError STORE_UNAVAILABLE if it can't; StateChanged if it can, and holds something else than was loaded.
        """
        if self._sealed:
            self._unseal()
        self._commit(found, self._state._replace(anew=0), probe=True)

    def _unseal(self) -> None:
        try:
            opened = self._open(self.path)
        except (OSError, sqlite3.Error) as exc:
            self.refusal = database.unavailable(self.path, "open", exc)
            raise self.refusal from exc
        new = opened._state  # noqa: SLF001 - one of our own kind
        if new != self._state and not (self._nothing and new.anew and not new.head and not new.generation):
            with closing(opened):  # The start count is this one's all the same: the next server's revisions are above these.
                opened._write(new._replace(start_count=max(new.start_count, self._pending_count)))  # noqa: SLF001
            raise StateChanged(opened.notice or f"{self.path} holds something else than was read before")
        self._connection.close()
        kept = {"_pending_count": self._pending_count, "refusal": self.refusal, "_loaded": None}
        vars(self).update(vars(opened) | kept)

    @property
    def anew(self) -> bool:
        """Whether it has begun with nothing and was not settled since: what the kernel holds of ours is nobody's leftover."""
        return bool(self._state.anew)

    def load(self) -> Stored:
        """Return everything that was committed; the caller owns it. McastdError STORE_UNAVAILABLE."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            return loaded
        try:
            return self._read()
        except (DamagedRecord, Unusable, sqlite3.Error) as exc:
            msg = f"cannot read {self.path}: {exc}; restart the daemon: it sets a damaged database aside"
            raise McastdError(Reason.STORE_UNAVAILABLE, msg, path=self.path) from exc

    def commit(self, intents: Sequence[Intent]) -> None:
        """Make these intents durable, in order, all or none of them; on return they survive a crash and a power cut.

        A key that one intent both deletes and puts is there afterwards. McastdError STORE_UNAVAILABLE (a full disk):
        nothing was stored, and the next commit may succeed.
        """
        self._commit(intents, self._state)

    def settle(self, intents: Sequence[Intent]) -> None:
        """Do as `commit` does with what was found in the kernel; from then on the store is not `anew`."""
        self._commit(intents, self._state._replace(anew=0))

    def _commit(self, intents: Sequence[Intent], state: database.State, *, probe: bool = False) -> None:
        """Write what there is, if there is anything; `probe`: something in any case."""
        mark = self._mark
        rows = []
        for piece in pieces(intents):
            sequence = mark.sequence + 1
            record = encode(piece, journal_identity(sequence))
            rows.append((sequence, record))
            mark = Mark(sequence, chained(mark.digest, record), mark.written + len(record))
        if not rows and state == self._state and not probe:
            return
        self._write(state._replace(head=mark.sequence, head_digest=mark.digest), rows)
        self._mark = mark
        self._loaded = None

    def _write(self, state: database.State, rows: Sequence[tuple[int, bytes]] = ()) -> None:
        """Write this state and these records of the journal, in one transaction."""
        if self._sealed and self.refusal is not None:
            raise McastdError(self.refusal.reason, str(self.refusal), **self.refusal.problem.metadata)
        state = state._replace(start_count=max(state.start_count, self._pending_count))
        try:
            with self._explained("write to"), database.transaction(self._connection):
                database.require_in_place(self.path, self._inode)
                self._connection.executemany("INSERT INTO journal VALUES (?, ?)", rows)
                database.write_state(self._connection, state)
        except McastdError as exc:
            self.refusal = exc
            raise
        self._state, self._pending_count, self.refusal = state, 0, None

    def wants_compaction(self) -> bool:
        """Whether so much journal has gathered that reading it at start, or keeping it, costs more than a compaction."""
        if self._compacting or self.refusal is not None:
            return False
        records = self._mark.sequence - self._state.covered
        size = self._mark.written - self._covered_written
        return records > max(JOURNAL_RECORDS_MAX, self._snapshot_routes // _ROUTES_PER_JOURNAL_RECORD) or size > max(
            JOURNAL_BYTES_MAX, self._snapshot_bytes
        )

    def mark(self) -> Mark:
        """Return the present end of the journal, for a compaction.

        Take it first, then the snapshot (a list of the routes), at a moment when nothing waits for its commit: everything
        that the owners' state has is then committed, and everything committed is in it. What is committed afterwards,
        during the compaction, stays in the journal.
        """
        return self._mark

    def compact(
        self,
        mark: Mark,
        routes: Iterable[Route],
        owners: Iterable[OwnerRecord],
        settings: Iterable[InterfaceSettings],
        joins: Iterable[JoinRecord] = (),
    ) -> None:
        """Replace the journal up to `mark` by this snapshot, at one go: some 0.8 s for 1,000,000 routes; see `compaction`."""
        for _ in self.compaction(mark, routes, owners, settings, joins):
            pass

    def compaction(
        self,
        mark: Mark,
        routes: Iterable[Route],
        owners: Iterable[OwnerRecord],
        settings: Iterable[InterfaceSettings],
        joins: Iterable[JoinRecord] = (),
    ) -> Generator[None, None, None]:
        """Do as `compact` does in slices of some 10 ms: one per step of the generator, and commits may come between.

        What was there before stays in force until a last small transaction, so a compaction that fails (a full disk:
        McastdError STORE_UNAVAILABLE), or is closed half-way, has changed nothing. RuntimeError if one is under way,
        ValueError if a later one has overtaken the mark.
        """
        if self._compacting:
            raise RuntimeError("a compaction is under way")
        if not self._state.covered <= mark.sequence <= self._mark.sequence:
            raise ValueError(f"the mark {mark.sequence} is not between {self._state.covered} and {self._mark.sequence}")
        self._compacting = True
        try:
            with self._explained("compact"):
                yield from self._remove_replaced()
                rest = Intent(owners=list(owners), settings=list(settings), join_puts=list(joins))
                yield from self._write_snapshot(mark, routes, rest)
                yield from self._remove_replaced()
        finally:
            self._compacting = False

    def close(self) -> None:
        """Put the log into the database and let go of it; nothing can be called afterwards."""
        self._connection.close()

    def _write_snapshot(self, mark: Mark, routes: Iterable[Route], rest: Intent) -> Iterator[None]:
        generation = self._state.generation + 1
        chunks = digest = written = count = 0
        for piece in chain(pieces([rest]), _batches(routes)):
            record = encode(piece, snapshot_identity(generation, chunks))
            with database.transaction(self._connection):
                self._connection.execute("INSERT INTO snapshot VALUES (?, ?)", (record_number(generation, chunks), record))
            chunks += 1
            digest = chained(digest, record)
            written += len(record)
            count += len(piece.puts)
            yield
        state = self._state._replace(
            generation=generation, chunks=chunks, snapshot_digest=digest, covered=mark.sequence, covered_digest=mark.digest
        )
        with database.transaction(self._connection):
            database.write_state(self._connection, state)
        self._state = state
        self._snapshot_bytes, self._snapshot_routes, self._covered_written = written, count, mark.written
        yield

    def _tidy(self) -> None:
        """Remove what a crash has left; what can't be written now is left for the next compaction."""
        try:
            for _ in self._remove_replaced():
                pass
        except sqlite3.Error as exc:
            if database.says_damaged(exc):
                raise
            self.refusal = database.unavailable(self.path, "write to", exc)

    def _remove_replaced(self) -> Iterator[None]:
        """Remove in slices what the state row does not speak of: replaced records, and those of a broken-off compaction."""
        live, after = record_number(self._state.generation, 0), record_number(self._state.generation + 1, 0)
        removed = _REMOVE_AT_ONCE
        while removed >= _REMOVE_AT_ONCE:
            with database.transaction(self._connection):
                removed = self._connection.execute(
                    "DELETE FROM snapshot WHERE number IN (SELECT number FROM snapshot WHERE number < ? OR number >= ? LIMIT ?)",
                    (live, after, _REMOVE_AT_ONCE),
                ).rowcount
            yield
        removed = _REMOVE_AT_ONCE
        while removed >= _REMOVE_AT_ONCE:
            with database.transaction(self._connection):
                removed = self._connection.execute(
                    "DELETE FROM journal WHERE sequence IN (SELECT sequence FROM journal WHERE sequence <= ? LIMIT ?)",
                    (self._state.covered, _REMOVE_AT_ONCE),
                ).rowcount
            yield

    def _read(self) -> Stored:
        """Read and check every record; DamagedRecord, Unusable, sqlite3.Error."""
        found = read_records(self._connection, self._state)
        self._snapshot_bytes, self._snapshot_routes = found.snapshot_bytes, found.snapshot_routes
        self._covered_written = self._mark.written - found.journal_bytes
        return found.stored

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn what SQLite refuses into McastdError STORE_UNAVAILABLE; calls on a closed store stay errors of the caller."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except (OSError, sqlite3.Error) as exc:
            raise database.unavailable(self.path, what, exc) from exc


def _batches(routes: Iterable[Route]) -> Iterator[Intent]:
    remaining = iter(routes)
    while batch := list(islice(remaining, ROUTES_MAX)):
        yield Intent(puts=batch)
