"""The store: commits intents, gives them back at start, and keeps what it has to read then short.

A commit appends records to the journal and moves the state row on, in one transaction. Compaction writes everything that is
wanted as a snapshot of a new generation beside the old one, puts it in force in one small transaction, and then removes
what it replaces: a crash at any moment leaves one whole truth. Does not know what routes mean.
"""

import gc
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from time import time
from typing import NamedTuple, Self
from zlib import crc32

from mcastd.model.errors import McastdError, Reason
from mcastd.model.join import JoinRecord
from mcastd.model.record import Intent, InterfaceSettings, OwnerRecord, Stored
from mcastd.model.route import Route
from mcastd.store import database, migrations
from mcastd.store.codec import ROUTES_MAX, DamagedRecord, Interner, checksum_of, decode, encode, pieces
from mcastd.store.database import Unusable

DATABASE_NAME = "state.db"

JOURNAL_RECORDS_MAX = 4_096
"""Journal records that are not worth a compaction; more of them where the snapshot is large. Reading one costs some 10 us."""

JOURNAL_BYTES_MAX = 8 << 20
"""Bytes of journal that are not worth a compaction; as many as the snapshot has where that is more."""

_ROUTES_PER_JOURNAL_RECORD = 64
"""Of the snapshot: a compaction, which writes all routes, waits until the journal has one record for so many."""

_GENERATION_SHIFT = 32
"""A snapshot record's number is its generation and, in the lower bits, its place."""

_REMOVE_AT_ONCE = 32
"""Rows per transaction when replaced records are removed; each may be a chain of a hundred pages."""


class Mark(NamedTuple):
    """A place in the journal, for a compaction."""

    sequence: int
    digest: int
    written: int
    """Bytes of journal so far, as this process counts them."""


class _SetAside(Exception):  # noqa: N818 - the name says what was done
    """The database was found unusable and has been moved."""

    def __init__(self, notice: str, start_count: int) -> None:
        super().__init__(notice)
        self.notice = notice
        self.start_count = start_count


class Store:
    """Durable desired state in one directory; one thread at a time may call it, `mark` and `wants_compaction` any."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Verify and read an attached database, which becomes the store's own; use `open`."""
        self.path = path
        self.notice: str | None = None
        """What was found at start that someone must know: what was set aside, where it is and what to do."""
        self.copy = migrations.migrate(path, connection)
        """Where a copy is of what was of an earlier schema version at start; None = it was of today's."""
        self._connection = connection
        self._inode = path.stat().st_ino
        self._state = database.verify(connection)
        self._compacting = False
        self._snapshot_bytes = 0
        self._snapshot_routes = 0
        self._covered_written = 0
        """Bytes of journal that the snapshot covers, counted as Mark.written is."""
        self._mark = Mark(self._state.head, self._state.head_digest, 0)
        self._loaded: Stored | None = self._read()
        for _ in self._remove_replaced():
            pass

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the store in this directory, or make both.

        A database that is damaged or newer than this program is renamed, a fresh one started, and `notice` says so.
        McastdError STORE_UNAVAILABLE where files can't be opened or written: nothing is set aside then.
        """
        path = directory / DATABASE_NAME
        notice = None
        start_count = 0
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if database.left_behind(path):
                try:
                    migrations.remove_old_copies(path, time())
                    return cls._attach(path)
                except _SetAside as done:
                    notice, start_count = done.notice, done.start_count
            database.create(path, start_count)
            store = cls._attach(path)
        except (OSError, sqlite3.Error) as exc:
            raise database.unavailable(path, "open", exc) from exc
        except _SetAside as exc:
            msg = f"cannot use {path}, which was just made: {exc}; look at the kernel's log for errors of the disk"
            raise McastdError(Reason.STORE_UNAVAILABLE, msg, path=path) from exc
        store.notice = notice
        return store

    @classmethod
    def _attach(cls, path: Path) -> Self:
        """Open what is there; _SetAside, OSError, sqlite3.Error."""
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
                raise _SetAside(_notice(path, aside, found), start_count) from exc
            undo.pop_all()
            return store

    def begin(self) -> int:
        """Count this start of the daemon and return its number, which is durable; the upper part of its revisions."""
        state = self._state._replace(start_count=self._state.start_count + 1)
        with self._explained("write to"), database.transaction(self._connection):
            database.write_state(self._connection, state)
        self._state = state
        return state.start_count

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

    def _commit(self, intents: Sequence[Intent], state: database.State) -> None:
        mark = self._mark
        rows = []
        for piece in pieces(intents):
            sequence = mark.sequence + 1
            record = encode(piece, _journal_identity(sequence))
            rows.append((sequence, record))
            mark = Mark(sequence, _chained(mark.digest, record), mark.written + len(record))
        if not rows and state == self._state:
            return
        state = state._replace(head=mark.sequence, head_digest=mark.digest)
        with self._explained("write to"), database.transaction(self._connection):
            database.require_in_place(self.path, self._inode)
            self._connection.executemany("INSERT INTO journal VALUES (?, ?)", rows)
            database.write_state(self._connection, state)
        self._state = state
        self._mark = mark
        self._loaded = None

    def wants_compaction(self) -> bool:
        """Whether so much journal has gathered that reading it at start, or keeping it, costs more than a compaction."""
        if self._compacting:
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
            record = encode(piece, _snapshot_identity(generation, chunks))
            with database.transaction(self._connection):
                self._connection.execute("INSERT INTO snapshot VALUES (?, ?)", (_number(generation, chunks), record))
            chunks += 1
            digest = _chained(digest, record)
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

    def _remove_replaced(self) -> Iterator[None]:
        """Remove in slices what the state row does not speak of: replaced records, and those of a broken-off compaction."""
        live, after = _number(self._state.generation, 0), _number(self._state.generation + 1, 0)
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
        with _no_collection():
            return self._read_records()

    def _read_records(self) -> Stored:
        state = self._state
        stored = Stored()
        interner = Interner()
        digest = size = 0
        low, high = _number(state.generation, 0), _number(state.generation + 1, 0)
        expected = low
        for number, record in self._connection.execute(
            "SELECT number, record FROM snapshot WHERE number >= ? AND number < ? ORDER BY number", (low, high)
        ):
            _require(number == expected, "a record of the snapshot is lost")
            _replay(stored, decode(record, _snapshot_identity(state.generation, number - low), interner))
            digest = _chained(digest, record)
            size += len(record)
            expected += 1
        _require((expected - low, digest) == (state.chunks, state.snapshot_digest), "the snapshot is not the one in force")
        self._snapshot_bytes, self._snapshot_routes = size, len(stored.routes)
        sequence, digest = state.covered, state.covered_digest
        size = 0
        for found, record in self._connection.execute(
            "SELECT sequence, record FROM journal WHERE sequence > ? ORDER BY sequence", (sequence,)
        ):
            sequence += 1
            _require(found == sequence, "a record of the journal is lost")
            _replay(stored, decode(record, _journal_identity(sequence), interner))
            digest = _chained(digest, record)
            size += len(record)
        _require((sequence, digest) == (state.head, state.head_digest), "the journal does not end where it should")
        self._covered_written = self._mark.written - size
        return stored

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn what SQLite refuses into McastdError STORE_UNAVAILABLE; calls on a closed store stay errors of the caller."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except (OSError, sqlite3.Error) as exc:
            raise database.unavailable(self.path, what, exc) from exc


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the collector of cycles from walking over all that is read again and again: it makes a load twice as long."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _batches(routes: Iterable[Route]) -> Iterator[Intent]:
    remaining = iter(routes)
    while batch := list(islice(remaining, ROUTES_MAX)):
        yield Intent(puts=batch)


def _replay(stored: Stored, intent: Intent) -> None:
    for key in intent.deletes:
        stored.routes.pop(key, None)
    stored.routes.update([(route.key, route) for route in intent.puts])
    for owner in intent.owners:
        stored.owners[owner.name] = owner
    for said in intent.settings:
        stored.settings[said.interface, said.owner] = said
    for join in intent.join_deletes:
        stored.joins.pop(join, None)
    stored.joins.update((record.key, record) for record in intent.join_puts)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Unusable(otherwise)


def _chained(digest: int, record: bytes) -> int:
    return crc32(checksum_of(record).to_bytes(4, "little"), digest)


def _number(generation: int, chunk: int) -> int:
    return generation << _GENERATION_SHIFT | chunk


def _journal_identity(sequence: int) -> bytes:
    return b"journal %d" % sequence


def _snapshot_identity(generation: int, chunk: int) -> bytes:
    return b"snapshot %d %d" % (generation, chunk)


def _notice(path: Path, aside: Path, found: Unusable) -> str:
    if found.newer:
        remedy = "to use it again install that version, stop the daemon and move the file back"
    else:
        remedy = "to use a backup stop the daemon and put it in that place"
    return (
        f"{path} can't be used: {found}. It was moved to {aside} and an empty state was started: what the kernel holds"
        f" goes on, as owner kernel's, until owners write theirs again; {remedy}, with any -wal file beside it"
    )
