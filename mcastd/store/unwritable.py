"""What can be had of a database that can't be written: a copy in memory, with what its log holds, and nothing on disk touched.

SQLite reads a write-ahead log only with an index of it: a file beside it, which can't be made here, or memory, for which it must
have locked the database for writing, which can't be done by a descriptor that only reads. So it is told not to lock ("unix-none",
https://sqlite.org/vfs.html section 2.1), and whether somebody has the lock is asked before. Without a log nothing can be newer
than the database itself, and there need be no index ("immutable": with a log that would leave out all that is in the log alone).
"""

import errno
import fcntl
import os
import sqlite3
import struct
import time
from contextlib import closing
from pathlib import Path

from mcastd.store import database, migrations

_SHARED_FIRST, _SHARED_SIZE = 0x4000_0002, 510
"""Bytes of the file on which SQLite puts its locks (https://sqlite.org/src/file/src/os.h, SHARED_FIRST)."""

_FLOCK = struct.Struct("hhqqi0q")
"""struct flock of fcntl(2): type, whence, start, length, pid."""

_LOCK_LOOK_S = 0.02
"""Between two looks whether a predecessor that is just ending has let go."""


def copy(path: Path) -> sqlite3.Connection:
    """Read a database into memory, of today's schema; Unusable if it is not one of ours, OSError or sqlite3.Error."""
    database.require_header(path, "rb")
    _require_free(path)
    how = "mode=ro&vfs=unix-none" if _has_log(path) else "mode=ro&immutable=1"
    memory = _memory()
    try:
        with closing(database.connect(path, how)) as source:
            source.backup(memory)
        migrations.bring_up(memory)
    except BaseException:
        memory.close()
        raise
    return memory


def nothing(start_count: int) -> sqlite3.Connection:
    """A database in memory that begins with nothing, where there is none on disk, or none that can be used."""
    memory = _memory()
    database.lay_out(memory, start_count)
    return memory


def _memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)


def _has_log(path: Path) -> bool:
    try:
        return Path(f"{path}-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def _require_free(path: Path) -> None:
    """Wait a moment for whoever has it open for writing; OSError EBUSY if that is for longer."""
    until = time.monotonic() + database.LOCK_WAIT_S
    with path.open("rb") as file:
        asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
        while _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK:
            if time.monotonic() >= until:
                raise OSError(errno.EBUSY, "another process writes to it")
            time.sleep(_LOCK_LOOK_S)
