"""Migrations: a database of an earlier schema version is brought up in place, and a copy of it is kept for the way back.

The copy is whole before anything is changed, and all that is changed is one transaction: a crash at any moment leaves the old
database or the new one. Records (codec.py) are read whatever version has written them, so no migration rewrites any.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from mcastd.store import database
from mcastd.store.database import State

COPY_SECONDS = 30 * 86_400.0
"""How long a copy is kept: the first start after this removes it. A state that is older is hardly one to go back to."""

_SCHEMA_1 = (
    *database.SCHEMA[:2],
    (
        "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), start_count, generation, chunks, snapshot_digest,"
        " covered, covered_digest, head, head_digest, checksum)"
    ),
)


def _from_1(connection: sqlite3.Connection) -> None:
    """The state row also says whether the database has begun anew: this one has not."""
    state = State(*database.read_state_row(connection, 8))
    connection.execute("DROP TABLE state")
    connection.execute(database.SCHEMA[2])
    database.insert_state(connection, state)


_STEPS: dict[int, tuple[tuple[str, ...], Callable[[sqlite3.Connection], None]]] = {1: (_SCHEMA_1, _from_1)}
"""By schema version: its tables, and what makes it the next one."""


def migrate(path: Path, connection: sqlite3.Connection) -> Path | None:
    """Bring an attached database up to today's schema; the copy of what it was, or None if there was nothing to do.

    Unusable if it is damaged; OSError or sqlite3.Error where that can't be done now, as on a full disk: then it is as it was.
    """
    version = _old_version(connection)
    if version is None:
        return None
    connection.execute("PRAGMA synchronous = FULL").fetchall()
    copy = _copy(path, connection, version)
    bring_up(connection)
    return copy


def bring_up(connection: sqlite3.Connection) -> None:
    """Bring a database up without keeping a copy, as one that is a copy itself; Unusable if it is damaged, sqlite3.Error."""
    version = _old_version(connection)
    if version is None:
        return
    with database.transaction(connection):
        while version in _STEPS:
            _STEPS[version][1](connection)
            version += 1
        connection.execute(f"PRAGMA user_version = {version}")


def _old_version(connection: sqlite3.Connection) -> int | None:
    """Its schema version if it is sound and of an earlier one; what else it may be is said by whoever verifies it."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != database.APPLICATION_ID or version not in _STEPS:
        return None
    database.require_sound(connection, _STEPS[version][0])
    return int(version)


def remove_old_copies(path: Path, now: float) -> None:
    """Remove copies that are older than COPY_SECONDS at `now`, seconds since the epoch; OSError."""
    for version in _STEPS:
        copy = copy_path(path, version)
        if copy.exists() and now - copy.stat().st_mtime > COPY_SECONDS:
            copy.unlink()


def copy_path(path: Path, version: int) -> Path:
    """Where the copy of a database of this schema version is kept."""
    return path.with_name(f"{path.name}.v{version}")


def _copy(path: Path, connection: sqlite3.Connection, version: int) -> Path:
    """Copy the database with what is in its log, under another name at first: there is never half a copy.

    By SQLite: a descriptor of the file that this process closed would take its lock away (fcntl(2), F_SETLK).
    """
    copy = copy_path(path, version)
    making = copy.with_name(copy.name + ".making")
    for suffix in ("", *database.COMPANIONS):
        Path(f"{making}{suffix}").unlink(missing_ok=True)
    os.close(os.open(making, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, database.MODE))
    with closing(sqlite3.connect(making, isolation_level=None)) as target:
        connection.backup(target)
        target.execute("PRAGMA journal_mode = WAL").fetchall()
    making.rename(copy)
    database.sync_directory(path.parent)
    return copy
