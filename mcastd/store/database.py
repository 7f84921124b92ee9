"""The database file: making it, opening it, saying whether it can be used, setting it aside; and what its errors mean.

One connection holds the file for as long as the daemon runs (locking_mode=EXCLUSIVE: no shared memory file, and a second
daemon on the same state is refused). Commits are durable on return: write-ahead log, synchronous=FULL. The tables:

    state     one row: start count, which snapshot is in force, how far it covers the journal, where the journal ends,
              whether the database has begun anew and what the kernel held then is yet to be taken note of
    snapshot  records (codec.py) of all routes, joins, owners and settings; the upper bits of the number are a generation
    journal   records of what was committed since, in order

Two digests, over the checksums of the records of the snapshot and of the journal, stand in the state row: a lost, stale or
foreign record is found at the next start, whatever lost it. Knows how records are stored, not what is in them.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Literal, NamedTuple
from urllib.parse import quote
from zlib import crc32

from mcastd.model.errors import McastdError, Reason

SCHEMA_VERSION = 2
"""Of the tables and of the records in them; PRAGMA user_version. Earlier ones are brought up (migrations.py)."""

APPLICATION_ID = 0x6D636173
"""PRAGMA application_id, "mcas": tells our databases from others (file(1), and ourselves)."""

LOCK_WAIT_S = 2.0
"""How long to wait for a predecessor that is just ending."""

MODE = 0o600
"""Of the database; SQLite gives its log the same."""

SCHEMA = (
    "CREATE TABLE journal (sequence INTEGER PRIMARY KEY, record BLOB NOT NULL)",
    "CREATE TABLE snapshot (number INTEGER PRIMARY KEY, record BLOB NOT NULL)",
    (
        "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), start_count, generation, chunks, snapshot_digest,"
        " covered, covered_digest, head, head_digest, anew, checksum)"
    ),
)
"""The tables, in the order of their names."""

COMPANIONS = ("-wal", "-shm", "-journal")
"""Files that SQLite keeps beside a database."""

_MAKE_WRITABLE = "make the directory and the files in it readable and writable for the daemon's user"
_MAKE_ROOM = "make room on its file system"
_IN_USE = "another process has it open: end that one, or give this daemon a state directory of its own"

_REMEDIES = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EISDIR: "move it away",
    errno.ENOTDIR: "its parent is no directory: name another one",
    errno.EEXIST: "its parent is no directory: name another one",
    errno.ESTALE: "restart the daemon",
    errno.EBUSY: _IN_USE,
    errno.EROFS: "mount its file system writable",
}
"""Of errors of the system calls made here; all others speak of permission."""

_UNUSABLE_NOW = {
    sqlite3.SQLITE_PERM: _MAKE_WRITABLE,
    sqlite3.SQLITE_AUTH: _MAKE_WRITABLE,
    sqlite3.SQLITE_READONLY: _MAKE_WRITABLE,
    sqlite3.SQLITE_CANTOPEN: _MAKE_WRITABLE,
    sqlite3.SQLITE_BUSY: _IN_USE,
    sqlite3.SQLITE_LOCKED: _IN_USE,
    sqlite3.SQLITE_FULL: _MAKE_ROOM,
    sqlite3.SQLITE_IOERR: "look at the kernel's log for errors of the disk, and at room and quota of its file system",
    sqlite3.SQLITE_NOLFS: "its file system takes no file of this size: use another one",
    sqlite3.SQLITE_NOMEM: "give the daemon more memory",
}
"""Primary result codes that say nothing against the content, and what to do."""


class State(NamedTuple):
    """The state row."""

    start_count: int = 0
    generation: int = 0
    """Of the snapshot in force."""
    chunks: int = 0
    """Records of that snapshot."""
    snapshot_digest: int = 0
    covered: int = 0
    """The journal up to this sequence number is in the snapshot."""
    covered_digest: int = 0
    head: int = 0
    """Last sequence number of the journal."""
    head_digest: int = 0
    anew: int = 0
    """1 = it has begun with nothing, and what the kernel holds of ours is yet to be kept (Store.settle)."""


class Unusable(Exception):  # noqa: N818 - the name says what was found
    """A database that must be set aside: damaged, foreign, or newer than this program."""

    def __init__(self, detail: str, *, newer: int = 0) -> None:
        """Say what was found; `newer` is the schema version if that is the reason."""
        super().__init__(detail)
        self.newer = newer


class SetAside(Exception):  # noqa: N818 - the name says what was done
    """A database was found unusable and has been moved."""

    def __init__(self, notice: str, start_count: int) -> None:
        """Say what someone must know, and from which start count to go on."""
        super().__init__(notice)
        self.notice = notice
        self.start_count = start_count


def unavailable(path: Path, what: str, exc: sqlite3.Error | OSError) -> McastdError:
    """Return the error for a store that can't be used as things are, naming path, cause and remedy."""
    if isinstance(exc, OSError):
        cause, remedy = exc.strerror or str(exc), _REMEDIES.get(exc.errno or 0, _MAKE_WRITABLE)
    else:
        code = getattr(exc, "sqlite_errorcode", 0)
        cause = f"{exc} ({getattr(exc, 'sqlite_errorname', 'no code')})"
        remedy = _UNUSABLE_NOW.get(code & 0xFF, "restart the daemon: it sets a damaged database aside")
    message = f"cannot {what} {path}: {cause}; {remedy} (it runs as uid {os.geteuid()})"
    return McastdError(Reason.STORE_UNAVAILABLE, message, path=path)


def says_damaged(exc: sqlite3.Error) -> bool:
    """Whether an error while reading says that the database is damaged, rather than out of reach."""
    code = getattr(exc, "sqlite_errorcode", 0)
    return code == sqlite3.SQLITE_IOERR_SHORT_READ or code & 0xFF not in _UNUSABLE_NOW


def left_behind(path: Path) -> bool:
    """Whether there is a database at this path, or a log that one has left."""
    return any(os.path.lexists(f"{path}{suffix}") for suffix in ("", *COMPANIONS))


def create(path: Path, start_count: int) -> None:
    """Make an empty database under another name, then move it here: there is never half a database at `path`."""
    making = path.with_name(path.name + ".making")
    for suffix in ("", *COMPANIONS):
        Path(f"{making}{suffix}").unlink(missing_ok=True)
    os.close(os.open(making, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, MODE))
    connection = connect(making)
    try:
        lay_out(connection, start_count)
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
    making.rename(path)
    sync_directory(path.parent)


def lay_out(connection: sqlite3.Connection, start_count: int) -> None:
    """Make the tables of a database that begins with nothing."""
    connection.execute("PRAGMA auto_vacuum = NONE")
    connection.execute("PRAGMA encoding = 'UTF-8'")
    with transaction(connection):
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        for statement in SCHEMA:
            connection.execute(statement)
        insert_state(connection, State(start_count=start_count, anew=1))


def attach(path: Path) -> sqlite3.Connection:
    """Open an existing database; Unusable if it is not one of ours from the outside, OSError or sqlite3.Error."""
    # For writing too: SQLite would fall back to reading, and then report the lock that it can't take as an error of the disk.
    require_header(path, "r+b")
    return connect(path)


def require_header(path: Path, mode: Literal["rb", "r+b"]) -> None:
    """Check a database from the outside, opening it in this mode; Unusable if it is not one of ours, OSError."""
    if not path.exists():
        raise Unusable("the database is gone and its log is still there")
    with path.open(mode) as file:
        header = file.read(100)
    # Two bytes say which SQLite may read and write it (2 = with a write-ahead log); a damaged one would look like a
    # file without permission to write (https://sqlite.org/fileformat2.html section 1.3.3).
    if header[:16] != b"SQLite format 3\0" or header[18:20] != b"\2\2":
        raise Unusable("it is not an SQLite database with a write-ahead log")


def connect(path: Path, how: str = "mode=rw") -> sqlite3.Connection:
    """Open a database with these parameters (https://sqlite.org/uri.html), for this process alone; sqlite3.Error."""
    address = f"file:{quote(os.fsencode(path.absolute()))}?{how}"
    connection = sqlite3.connect(address, uri=True, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        connection.execute("PRAGMA trusted_schema = OFF")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def verify(connection: sqlite3.Connection) -> State:
    """Check all but the records, set how commits are made, and return the state row; Unusable or sqlite3.Error."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise Unusable("it is a database of another program")
    if version > SCHEMA_VERSION:
        raise Unusable(f"it was written by a newer mcastd (schema {version}, this one knows {SCHEMA_VERSION})", newer=version)
    require_sound(connection, SCHEMA if version == SCHEMA_VERSION else ())
    for setting in ("synchronous = FULL", "secure_delete = OFF", "temp_store = MEMORY", "journal_size_limit = 16777216"):
        connection.execute(f"PRAGMA {setting}").fetchall()
    return read_state(connection)


def require_sound(connection: sqlite3.Connection, schema: tuple[str, ...]) -> None:
    """Check tables and pages; Unusable or sqlite3.Error."""
    found = connection.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
    if found != [(statement,) for statement in schema]:
        raise Unusable("its tables are not those of any mcastd")
    # Cheap, whatever the number of routes: there are few rows, and long ones are chains of pages. 1,000,000 IPv6 routes: 11 ms.
    ((verdict,), *_) = connection.execute("PRAGMA quick_check(1)").fetchall()
    if verdict != "ok":
        raise Unusable(str(verdict))


def read_state(connection: sqlite3.Connection) -> State:
    """Return the state row; Unusable if it fails its checksum."""
    return State(*read_state_row(connection, len(State._fields)))


def read_state_row(connection: sqlite3.Connection, count: int) -> tuple[int, ...]:
    """The so many values of the state row, of whatever schema version; Unusable if it is lost or fails its checksum."""
    rows = connection.execute("SELECT * FROM state").fetchall()
    if len(rows) != 1 or len(rows[0]) != count + 2 or not all(type(value) is int for value in rows[0]):
        raise Unusable("its state row is lost")
    _, *values, checksum = rows[0]
    if checksum != _state_checksum(tuple(values)):
        raise Unusable("its state row fails its checksum")
    return tuple(values)


def insert_state(connection: sqlite3.Connection, state: State) -> None:
    """Make the state row; inside a transaction."""
    connection.execute("INSERT INTO state VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*state, _state_checksum(state)))


def write_state(connection: sqlite3.Connection, state: State) -> None:
    """Replace the state row; inside a transaction with what it describes."""
    connection.execute(
        "UPDATE state SET start_count = ?, generation = ?, chunks = ?, snapshot_digest = ?, covered = ?, covered_digest = ?,"
        " head = ?, head_digest = ?, anew = ?, checksum = ?",
        (*state, _state_checksum(state)),
    )


def _state_checksum(values: tuple[int, ...]) -> int:
    return crc32(repr(tuple(values)).encode())


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing: committed at the end, rolled back on whatever exception."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself on some errors of the disk
            connection.execute("ROLLBACK")
        raise


def require_in_place(path: Path, inode: int) -> None:
    """Check that the open database is still the one at this path: SQLite goes on writing to a removed file. OSError."""
    try:
        in_place = path.stat().st_ino == inode
    except FileNotFoundError:
        in_place = False
    if not in_place:
        raise OSError(errno.ESTALE, "it has been moved or removed since the daemon started")


def set_aside(path: Path, found: Unusable) -> Path:
    """Move the database and its log to a name that says why, and return it; OSError.

    Do it before the connection is closed: SQLite then finds the file moved, and leaves file and log as they are.
    """
    label = f"newer-v{found.newer}" if found.newer else "corrupt"
    base = f"{path}.{label}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    aside, attempt = base, 1
    while any(os.path.lexists(f"{aside}{suffix}") for suffix in ("", *COMPANIONS)):
        attempt += 1
        aside = f"{base}-{attempt}"
    for suffix in ("", *COMPANIONS):
        if os.path.lexists(f"{path}{suffix}"):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    sync_directory(path.parent)
    return Path(aside)


def notice_aside(path: Path, aside: Path, found: Unusable) -> str:
    """What someone must know of a database that was set aside, and what he can do."""
    if found.newer:
        remedy = "to use it again install that version, stop the daemon and move the file back"
    else:
        remedy = "to use a backup stop the daemon and put it in that place"
    return (
        f"{path} can't be used: {found}. It was moved to {aside} and an empty state was started: what the kernel holds"
        f" goes on, as owner kernel's, until owners write theirs again; {remedy}, with any -wal file beside it"
    )


def notice_sealed(path: Path, found: Exception) -> str:
    """What someone must know of a database that would be set aside if that could be done."""
    return (
        f"{path} can't be used: {found}. It is moved away as soon as its directory can be written; until then what the kernel"
        " holds goes on, as owner kernel's"
    )


def start_count_after(connection: sqlite3.Connection | None) -> int:
    """Return a start count that no earlier life has passed, when a database was set aside: revisions never run back.

    The one that it holds if that can be read, otherwise the hours since 1970, which a daemon would have to be started
    more than hourly ever since to pass, and which leaves revisions (count << 40) below 2**63 for 900 years.
    """
    count = 0
    if connection is not None:
        try:
            ((found,), *_) = connection.execute("SELECT start_count FROM state").fetchall()
            count = found if isinstance(found, int) and 0 <= found < 1 << 22 else 0
        except (sqlite3.Error, ValueError):
            count = 0  # as unreadable as the rest, which is why it was set aside
    return max(count, int(time()) // 3600)


def sync_directory(directory: Path) -> None:
    """Make names in a directory durable; OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
