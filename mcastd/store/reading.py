"""Reading a database: every record checked and in order, and what they say put together.

Knows where records are and how they hang together; what is in one codec.py knows, what a database is database.py.
"""

import gc
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from zlib import crc32

from mcastd.model.record import Intent, Stored
from mcastd.store.codec import Interner, checksum_of, decode
from mcastd.store.database import State, Unusable

_GENERATION_SHIFT = 32
"""A snapshot record's number is its generation and, in the lower bits, its place."""


class Found(NamedTuple):
    """What was read."""

    stored: Stored
    snapshot_bytes: int
    snapshot_routes: int
    journal_bytes: int


def read_records(connection: sqlite3.Connection, state: State) -> Found:
    """Read and check every record; DamagedRecord, Unusable, sqlite3.Error."""
    with _no_collection():
        stored = Stored()
        interner = Interner()
        snapshot_bytes = _read_snapshot(connection, state, stored, interner)
        snapshot_routes = len(stored.routes)
        journal_bytes = _read_journal(connection, state, stored, interner)
        return Found(stored, snapshot_bytes, snapshot_routes, journal_bytes)


def _read_snapshot(connection: sqlite3.Connection, state: State, stored: Stored, interner: Interner) -> int:
    digest = size = 0
    low, high = record_number(state.generation, 0), record_number(state.generation + 1, 0)
    expected = low
    for number, record in connection.execute(
        "SELECT number, record FROM snapshot WHERE number >= ? AND number < ? ORDER BY number", (low, high)
    ):
        _require(number == expected, "a record of the snapshot is lost")
        _replay(stored, decode(record, snapshot_identity(state.generation, number - low), interner))
        digest = chained(digest, record)
        size += len(record)
        expected += 1
    _require((expected - low, digest) == (state.chunks, state.snapshot_digest), "the snapshot is not the one in force")
    return size


def _read_journal(connection: sqlite3.Connection, state: State, stored: Stored, interner: Interner) -> int:
    sequence, digest, size = state.covered, state.covered_digest, 0
    for found, record in connection.execute(
        "SELECT sequence, record FROM journal WHERE sequence > ? ORDER BY sequence", (sequence,)
    ):
        sequence += 1
        _require(found == sequence, "a record of the journal is lost")
        _replay(stored, decode(record, journal_identity(sequence), interner))
        digest = chained(digest, record)
        size += len(record)
    _require((sequence, digest) == (state.head, state.head_digest), "the journal does not end where it should")
    return size


def chained(digest: int, record: bytes) -> int:
    """The digest over the records so far and one more."""
    return crc32(checksum_of(record).to_bytes(4, "little"), digest)


def record_number(generation: int, chunk: int) -> int:
    """Number of a record of the snapshot of this generation."""
    return generation << _GENERATION_SHIFT | chunk


def journal_identity(sequence: int) -> bytes:
    """What a record of the journal is bound to, so that it is of no use in another place."""
    return b"journal %d" % sequence


def snapshot_identity(generation: int, chunk: int) -> bytes:
    """What a record of a snapshot is bound to."""
    return b"snapshot %d %d" % (generation, chunk)


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
