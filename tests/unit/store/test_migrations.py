"""Databases of earlier schema versions: read without loss, brought up in place, and never half."""

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mcastd.model.errors import McastdError, Reason
from mcastd.model.record import Intent, OwnerRecord, Stored
from mcastd.model.route import Route, Template
from mcastd.store import database, migrations
from mcastd.store.sqlite import Store
from tests.unit.store import versions

FIXTURES = Path(__file__).with_name("fixtures")
KINDS = ["journal", "snapshot", "killed"]


def lay_out(directory: Path, kind: str) -> Path:
    """Put a database of version 1 in place, with its log if it has one."""
    for suffix in ("", "-wal"):
        source = FIXTURES / f"v1-{kind}.db{suffix}"
        if source.exists():
            shutil.copyfile(source, directory / f"state.db{suffix}")
    return directory / "state.db"


def fields_of(route: Route) -> tuple[object, ...]:
    paths = (route.paths.iif, route.paths.oifs)
    more = (route.idle_timeout, route.shared_tree) if isinstance(route, Template) else ()
    return route.key, paths, route.owner, route.cookie, route.monitored, route.revision, route.join, route.session, more


def assert_all_there(stored: Stored) -> None:
    """See that it is just what the program of the time has stored."""
    wanted = versions.all_routes()
    assert {key: fields_of(route) for key, route in stored.routes.items()} == {one.key: fields_of(one) for one in wanted}
    assert {name: astuple(one) for name, one in stored.owners.items()} == {one.name: astuple(one) for one in versions.OWNERS}
    assert list(stored.settings.values()) == versions.SETTINGS
    assert stored.joins == {record.key: record for record in versions.all_joins()}


def version_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    connection.close()
    return int(version)


@pytest.mark.parametrize("kind", KINDS)
def test_version_1_is_read_without_loss(tmp_path: Path, kind: str) -> None:
    lay_out(tmp_path, kind)
    store = Store.open(tmp_path)
    assert store.notice is None
    assert not store.anew
    assert_all_there(store.load())
    assert store.begin() == versions.STARTS + 1
    store.commit([Intent(owners=[OwnerRecord("later", 1, 1)])])
    store.close()

    again = Store.open(tmp_path)
    assert again.copy is None
    stored = again.load()
    assert stored.owners.pop("later").epoch == 1
    assert_all_there(stored)
    again.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_copy_is_the_way_back(tmp_path: Path, kind: str) -> None:
    """What it holds is of version 1, whole, and for the daemon alone; in place it is taken up again."""
    path = lay_out(tmp_path, kind)
    store = Store.open(tmp_path)
    assert store.copy == tmp_path / "state.db.v1"
    store.close()
    assert version_of(path) == database.SCHEMA_VERSION
    assert store.copy.stat().st_mode & 0o777 == 0o600
    assert {entry.name for entry in tmp_path.iterdir()} == {"state.db", "state.db.v1"}
    assert version_of(store.copy) == 1

    store.copy.rename(path)
    back = Store.open(tmp_path)
    assert_all_there(back.load())
    back.close()


def killed_at_line(number: int, do: Callable[[], None]) -> bool:
    """Do it in a child that is killed when it comes to its so many-th line of the store; whether it came to it."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)
    left = number

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in {migrations.__file__, database.__file__}:
            return None
        left -= event == "line"
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    status = 1
    try:
        do()
        status = 0
    finally:
        os._exit(status)


def test_a_crash_at_any_line_leaves_one_whole_truth(tmp_path: Path) -> None:
    number, killed = 0, True
    while killed:
        number += 1
        directory = tmp_path / str(number)
        directory.mkdir()
        lay_out(directory, "killed")
        killed = killed_at_line(number, lambda directory=directory: Store.open(directory).close())  # type: ignore[misc]
        store = Store.open(directory)
        assert store.notice is None
        assert_all_there(store.load())
        store.close()
        assert version_of(directory / "state.db.v1") == 1
        assert not list(directory.glob("*.making"))
    assert number > 60


def test_copies_are_kept_for_a_month(tmp_path: Path) -> None:
    lay_out(tmp_path, "journal")
    Store.open(tmp_path).close()
    copy = tmp_path / "state.db.v1"
    made = copy.stat().st_mtime
    migrations.remove_old_copies(tmp_path / "state.db", made + migrations.COPY_SECONDS)
    assert copy.exists()
    os.utime(copy, (0, made - migrations.COPY_SECONDS - 60))
    Store.open(tmp_path).close()
    assert not copy.exists()


def test_without_room_for_the_copy_nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lay_out(tmp_path, "journal")
    before = path.read_bytes()
    monkeypatch.setattr(migrations, "_copy", _full)
    store = Store.open(tmp_path)
    assert_all_there(store.load())  # brought up in memory
    with pytest.raises(McastdError, match="make room") as refused:
        store.begin()
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert path.read_bytes() == before
    with pytest.raises(McastdError, match="make room"):
        store.resume([])
    monkeypatch.undo()
    store.begin_later(versions.STARTS + 3)
    store.resume([])
    store.close()
    assert (version_of(path), store.copy) == (database.SCHEMA_VERSION, tmp_path / "state.db.v1")
    again = Store.open(tmp_path)
    assert again.begin() == versions.STARTS + 4
    assert_all_there(again.load())
    again.close()


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "spoil", ["UPDATE state SET start_count = 9", "DELETE FROM state", "CREATE TABLE more (x)", "ALTER TABLE state ADD COLUMN x"]
)
def test_a_damaged_one_is_set_aside_as_it_was(tmp_path: Path, spoil: str) -> None:
    path = lay_out(tmp_path, "journal")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(spoil)
    connection.close()
    before = path.read_bytes()
    store = Store.open(tmp_path)
    assert store.anew
    assert store.notice is not None
    (aside,) = [entry for entry in tmp_path.iterdir() if ".corrupt-" in entry.name and not entry.name.endswith("-wal")]
    assert aside.read_bytes() == before
    store.close()
