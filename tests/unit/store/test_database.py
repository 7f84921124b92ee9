"""The database file: what is set aside, what is refused, and what never happens to either."""

import sqlite3
import stat
from pathlib import Path

import pytest

from mcastd.model.errors import McastdError, Reason
from mcastd.model.record import Intent, OwnerRecord
from mcastd.store import database
from mcastd.store.sqlite import Store


def fill(directory: Path, starts: int = 1) -> None:
    store = Store.open(directory)
    for _ in range(starts):
        store.begin()
    store.commit([Intent(owners=[OwnerRecord("ctl", 4, 2)])])
    store.close()


def alter(directory: Path, *statements: str) -> None:
    connection = sqlite3.connect(directory / "state.db", isolation_level=None)
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.close()


def opened_aside(directory: Path, label: str) -> Store:
    """Open the store, which must set the database aside under a name with this label, and say so."""
    before = (directory / "state.db").read_bytes()
    store = Store.open(directory)
    assert store.notice is not None
    aside = next(Path(word) for word in store.notice.split() if f".{label}-" in word)
    assert aside.read_bytes() == before
    assert store.load().owners == {}
    return store


def test_files_are_for_the_daemon_alone(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "a" / "state")
    store.begin()
    assert stat.S_IMODE((tmp_path / "a/state").stat().st_mode) == 0o700
    assert {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in (tmp_path / "a/state").iterdir()} == {
        "state.db": 0o600,
        "state.db-wal": 0o600,
    }
    store.close()


def test_a_path_may_have_any_characters(tmp_path: Path) -> None:
    directory = tmp_path / "a b?c#d%e"
    fill(directory)
    store = Store.open(directory)
    assert list(store.load().owners) == ["ctl"]
    store.close()


def test_a_newer_database_is_set_aside_and_its_start_count_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "time", lambda: 0.0)
    fill(tmp_path, starts=3)
    alter(tmp_path, "PRAGMA user_version = 7", "CREATE TABLE more (x)", "ALTER TABLE state ADD COLUMN also")
    store = opened_aside(tmp_path, "newer-v7")
    assert "schema 7" in (store.notice or "")
    assert store.begin() == 4
    store.close()


def test_a_database_whose_start_count_is_lost_goes_on_from_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "time", lambda: 1_800_000_000.0)
    fill(tmp_path)
    (tmp_path / "state.db").write_bytes(b"not a database")
    store = opened_aside(tmp_path, "corrupt")
    assert store.begin() == 500_001
    store.close()


@pytest.mark.parametrize(
    "statements",
    [
        ["PRAGMA application_id = 5"],
        ["PRAGMA user_version = 0"],
        ["DROP TABLE journal"],
        ["CREATE TABLE foreign_one (x)"],
        ["DELETE FROM state"],
        ["UPDATE state SET head = 'text'"],
        ["UPDATE state SET start_count = 99"],
        ["DELETE FROM journal"],
        ["INSERT INTO journal VALUES (9, x'00')"],
        ["UPDATE journal SET sequence = 9"],
        ["UPDATE journal SET record = 'text'"],
        ["UPDATE journal SET record = zeroblob(20)"],
        ["INSERT INTO snapshot VALUES (0, (SELECT record FROM journal))"],
        ["PRAGMA journal_mode = DELETE"],
    ],
)
def test_what_no_mcastd_has_written_is_set_aside(tmp_path: Path, statements: list[str]) -> None:
    fill(tmp_path)
    alter(tmp_path, *statements)
    opened_aside(tmp_path, "corrupt").close()


@pytest.mark.parametrize("table", ["journal", "snapshot"])
def test_a_sound_record_of_another_history_is_found(tmp_path: Path, table: str) -> None:
    """Same place, right checksum: as after a power cut on a disk that lost some writes, or a file put together from two."""
    for name, owner in (("a", "one"), ("b", "two")):
        store = Store.open(tmp_path / name)
        store.commit([Intent(owners=[OwnerRecord(owner)])])
        if table == "snapshot":
            store.compact(store.mark(), [], [OwnerRecord(owner)], [])
        store.close()
    take = {
        "journal": "UPDATE journal SET record = (SELECT record FROM other.journal)",
        "snapshot": "UPDATE snapshot SET record = (SELECT record FROM other.snapshot)",
    }
    alter(tmp_path / "a", f"ATTACH '{tmp_path}/b/state.db' AS other", take[table])
    opened_aside(tmp_path / "a", "corrupt").close()


@pytest.mark.parametrize("content", [b"", b"x", b"SQLite format 3\0" + bytes(84), bytes(100_000)])
def test_what_is_no_database_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.db").write_bytes(content)
    opened_aside(tmp_path, "corrupt").close()


def test_nothing_that_was_set_aside_is_overwritten(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / "state.db").write_bytes(b"%d" % number)
        Store.open(tmp_path).close()
    kept = [entry.read_bytes() for entry in tmp_path.glob("state.db.corrupt-*")]
    assert sorted(kept) == [b"0", b"1", b"2", b"3"]


def test_a_log_without_its_database_is_set_aside(tmp_path: Path) -> None:
    """SQLite would replay it into whatever database comes to stand beside it."""
    fill(tmp_path / "old")
    store = Store.open(tmp_path / "old")
    store.commit([Intent(owners=[OwnerRecord("stale")])])
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "state.db-wal").write_bytes((tmp_path / "old" / "state.db-wal").read_bytes())
    store.close()
    store = Store.open(tmp_path / "new")
    assert store.notice is not None
    assert "its log is still there" in store.notice
    assert store.load().owners == {}
    store.close()
    assert len(list((tmp_path / "new").glob("state.db.corrupt-*-wal"))) == 1


def test_what_an_interrupted_first_start_left_is_no_matter(tmp_path: Path) -> None:
    for name in ("state.db.making", "state.db.making-journal", "state.db.making-wal"):
        (tmp_path / name).write_bytes(b"half")
    store = Store.open(tmp_path)
    assert store.notice is None
    assert store.begin() == 1
    store.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.db"]


def test_a_directory_in_its_place_is_refused_and_left(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(McastdError, match="Is a directory; move it away") as refused:
        Store.open(tmp_path)
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.db"]


def test_a_second_failure_in_a_row_is_an_error_not_a_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "APPLICATION_ID", 1)
    making = database.create

    def make_foreign(path: Path, start_count: int) -> None:
        making(path, start_count)
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA application_id = 2")
        connection.close()

    monkeypatch.setattr(database, "create", make_foreign)
    with pytest.raises(McastdError, match="which was just made") as refused:
        Store.open(tmp_path)
    assert refused.value.reason is Reason.STORE_UNAVAILABLE


def test_an_exception_inside_a_transaction_undoes_it(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "any.db", isolation_level=None)
    connection.execute("CREATE TABLE t (x)")

    def half() -> None:
        with database.transaction(connection):
            connection.execute("INSERT INTO t VALUES (1)")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert connection.execute("SELECT * FROM t").fetchall() == []
    connection.close()


def test_a_disk_that_reads_nothing_speaks_not_against_the_content() -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
    assert not database.says_damaged(error)
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHORT_READ
    assert database.says_damaged(error)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    assert database.says_damaged(error)
