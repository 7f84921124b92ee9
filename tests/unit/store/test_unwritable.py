"""A store that can't be written: read whole, also what is in its log alone, refused writes, and taken up again."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mcastd.model.address import Family, exact_key, pack_address
from mcastd.model.errors import McastdError, Reason
from mcastd.model.record import Intent, OwnerRecord
from mcastd.model.route import Oif, Paths, Route
from mcastd.store import database, unwritable
from mcastd.store.database import Unusable
from mcastd.store.sqlite import StateChanged, Store

ADDRESSES = {Family.IPV4: ("232.1.1.", "10.0.0.1"), Family.IPV6: ("ff3e::", "2001:db8::1")}
HOLD = """
import sys
from pathlib import Path
from mcastd.store.sqlite import Store
store = Store.open(Path(sys.argv[1]))
print(flush=True)
input()
"""
"""A program that has a store open."""


def route(number: int, family: Family = Family.IPV4) -> Route:
    group, source = ADDRESSES[family]
    key = exact_key(0, pack_address(f"{group}{number}"), pack_address(source))
    return Route(key, Paths("eth0", (Oif("eth1"),)), "ctl", "", False, number)


def refusal_of(store: Store) -> McastdError | None:
    return store.refusal


def fingerprint(directory: Path) -> dict[str, tuple[bytes, int]]:
    """All that is there, and when it was changed."""
    return {one.name: (one.read_bytes(), one.stat().st_mtime_ns) for one in directory.iterdir()}


@pytest.fixture(params=list(Family), ids=["ipv4", "ipv6"])
def killed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What a daemon that was killed has left: a database, and a log that has more."""
    alive, left = tmp_path / "alive", tmp_path / "left"
    store = Store.open(alive)
    store.begin()
    store.commit([Intent(puts=[route(1, request.param)])])
    store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    store.commit([Intent(puts=[route(2, request.param)], owners=[OwnerRecord("ctl", 7, 2)])])
    shutil.copytree(alive, left)
    store.close()
    assert (left / "state.db-wal").stat().st_size > 0
    return left


@pytest.fixture
def undo(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Nothing can be opened for writing, made or moved, until this is called."""
    real = database.require_header

    def header(path: Path, mode: str) -> None:
        if mode != "rb":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real(path, "rb")

    def refuse(*_: object) -> Path:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name, fake in (("require_header", header), ("create", refuse), ("set_aside", refuse)):
        monkeypatch.setattr(database, name, fake)
    return monkeypatch.undo


def test_what_is_in_the_log_alone_is_read_and_nothing_is_touched(killed: Path) -> None:
    before = fingerprint(killed)
    memory = unwritable.copy(killed / "state.db")
    assert database.verify(memory).head == 2
    memory.close()
    assert fingerprint(killed) == before


def test_a_database_without_a_log(killed: Path) -> None:
    Store.open(killed).close()  # which takes it in
    assert not (killed / "state.db-wal").exists()
    before = fingerprint(killed)
    memory = unwritable.copy(killed / "state.db")
    assert database.verify(memory).head == 2
    memory.close()
    (killed / "state.db-wal").touch()
    unwritable.copy(killed / "state.db").close()
    (killed / "state.db-wal").unlink()
    assert fingerprint(killed) == before


def test_one_that_another_process_writes_is_left_alone(
    killed: Path, monkeypatch: pytest.MonkeyPatch, undo: Callable[[], None]
) -> None:
    """Its log is changed under the eyes of whoever reads it without locks."""
    monkeypatch.setattr(database, "LOCK_WAIT_S", 0.0)
    command = [sys.executable, "-c", HOLD, str(killed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        try:
            with pytest.raises(OSError, match="another process writes to it"):
                unwritable.copy(killed / "state.db")
            with pytest.raises(McastdError, match="another process has it open") as refused:
                Store.open(killed)
            assert refused.value.reason is Reason.STORE_UNAVAILABLE
        finally:
            undo()
            other.communicate(b"\n")
    unwritable.copy(killed / "state.db").close()


def test_what_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"nonsense")
    with pytest.raises(Unusable, match="not an SQLite database"):
        unwritable.copy(tmp_path / "state.db")


def test_nothing_begins_with_nothing() -> None:
    memory = unwritable.nothing(41)
    state = database.verify(memory)
    assert (state.start_count, state.anew, state.head) == (41, 1, 0)
    memory.close()


def test_it_is_read_refuses_writes_and_takes_them_again(killed: Path, undo: Callable[[], None]) -> None:
    before = fingerprint(killed)
    store = Store.open(killed)
    assert [one.revision for one in store.load().routes.values()] == [1, 2]
    assert store.load().owners["ctl"].epoch == 7
    assert not store.wants_compaction()
    tries: list[Callable[[], object]] = [
        store.begin,
        lambda: store.commit([Intent(puts=[route(3)])]),
        lambda: store.settle([]),
        lambda: store.resume([]),
    ]
    store.begin_later(90)
    for one in tries:
        with pytest.raises(McastdError, match=r"cannot open .*/state.db: Read-only file system; mount its file system writable"):
            one()
        assert refusal_of(store) is not None
    store.commit([Intent(refreshed={b"key": 1})])  # Nothing of it is stored.
    assert fingerprint(killed) == before
    undo()

    store.resume([])
    assert refusal_of(store) is None
    assert store.start_count == 90
    store.commit([Intent(puts=[route(3)])])
    store.close()
    again = Store.open(killed)
    assert again.begin() == 91
    assert [one.revision for one in again.load().routes.values()] == [1, 2, 3]
    again.close()


def test_another_state_than_the_one_that_was_read_is_not_written_to(killed: Path, undo: Callable[[], None]) -> None:
    store = Store.open(killed)
    undo()
    other = Store.open(killed)
    other.commit([Intent(puts=[route(9)])])
    other.close()
    store.begin_later(77)
    with pytest.raises(StateChanged, match="holds something else than was read"):
        store.resume([Intent(puts=[route(8)])])
    store.close()
    again = Store.open(killed)
    assert again.begin() == 78  # Revisions go on growing from one to the other.
    assert [one.revision for one in again.load().routes.values()] == [1, 2, 9]
    again.close()


def test_where_there_is_nothing_what_was_found_is_stored_later(tmp_path: Path, undo: Callable[[], None]) -> None:
    store = Store.open(tmp_path)
    assert [store.anew] == [True]
    assert not store.load().routes
    assert list(tmp_path.iterdir()) == []
    assert store.start_count > 400_000  # the hours since 1970: what is not there now may have been, and any number of times
    store.begin_later(5_000_000)
    undo()
    store.resume([Intent(puts=[route(1)])])
    assert not store.anew
    store.close()
    again = Store.open(tmp_path)
    assert (again.anew, again.begin(), len(again.load().routes)) == (False, 5_000_001, 1)
    again.close()


def test_a_database_that_appears_where_there_was_none_is_not_overwritten(
    killed: Path, tmp_path: Path, undo: Callable[[], None]
) -> None:
    late = tmp_path / "late"
    late.mkdir()
    store = Store.open(late)
    undo()
    shutil.copytree(killed, late, dirs_exist_ok=True)
    with pytest.raises(StateChanged):
        store.resume([Intent(puts=[route(9)])])
    store.close()
    again = Store.open(late)
    assert [one.revision for one in again.load().routes.values()] == [1, 2]
    again.close()


def test_a_damaged_one_is_set_aside_as_soon_as_that_can_be_done(tmp_path: Path, undo: Callable[[], None]) -> None:
    (tmp_path / "state.db").write_bytes(os.urandom(8192))
    before = fingerprint(tmp_path)
    store = Store.open(tmp_path)
    assert store.anew
    assert store.notice is not None
    assert "is moved away as soon as its directory can be written" in store.notice
    assert store.start_count > 400_000  # the hours since 1970, as where one is set aside
    assert fingerprint(tmp_path) == before
    undo()
    store.resume([Intent(puts=[route(1)])])
    assert "It was moved to" in store.notice
    assert len(list(tmp_path.glob("state.db.corrupt-*"))) == 1
    store.close()


def test_a_disk_that_is_full_for_the_first_write_alone(tmp_path: Path) -> None:
    """It is open for writing: the first write that succeeds stores the start count with it."""
    store = Store.open(tmp_path)
    assert store.begin() == 1
    store.close()
    store = Store.open(tmp_path)
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLITE_FULL from here on
    big = [route(number) for number in range(200)]
    store._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(McastdError, match="cannot write to"):
        store.begin()
    assert refusal_of(store) is not None
    store._connection.execute("PRAGMA query_only = OFF")
    store.begin_later(70)
    with pytest.raises(McastdError, match=r"full.*make room"):
        store.commit([Intent(puts=[Route(one.key, one.paths, "ctl", os.urandom(200).hex(), False, 1) for one in big])])
    store._connection.execute("PRAGMA max_page_count = 100000")
    store.commit([Intent(puts=[route(1)])])
    assert (store.start_count, refusal_of(store)) == (70, None)
    store.close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        assert connection.execute("SELECT start_count FROM state").fetchone() == (70,)
    connection.close()


def test_a_damaged_one_that_is_set_aside_without_room_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state.db").write_bytes(os.urandom(8192))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(database, "create", full)
    store = Store.open(tmp_path)
    assert store.notice is not None
    assert "It was moved to" in store.notice
    assert store.start_count > 400_000
    with pytest.raises(McastdError, match="make room"):
        store.begin()
    monkeypatch.undo()
    store.resume([Intent(puts=[route(1)])])
    store.close()
    assert len(list(tmp_path.glob("state.db*"))) == 2
