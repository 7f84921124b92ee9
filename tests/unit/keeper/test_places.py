"""Locks and directories; other users' rights are tested with real processes."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcastd.keeper.failure import EX_CONFIG, EX_UNAVAILABLE, CannotRun
from mcastd.keeper.places import Lock, Places
from mcastd.model.settings import Listen, Settings


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def settings(directory: Path, *names: str) -> Settings:
    listens = tuple(Listen(str(directory / name)) for name in names or ("run/m.sock",))
    return Settings(listens, str(directory / "state"), "me", os.geteuid(), os.getegid(), change_user=False)


def test_lock_is_taken_once(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = Lock(path, "do something else")
    with pytest.raises(CannotRun) as caught:
        Lock(path, "do something else")
    assert caught.value.exit_code == EX_UNAVAILABLE
    assert str(caught.value) == f"another mcastd (pid {os.getpid()}) has {path}: stop it, or do something else"
    lock.release()
    assert not Path(path).exists()
    lock.release()
    Lock(path, "").release()


def test_left_lock_file_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("1234567\n")
    lock = Lock(str(path), "")
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()


@pytest.mark.parametrize("left", [True, False], ids=["a file", "none"])
def test_a_lock_where_no_file_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bool) -> None:
    """On a file that is there, or on the directory; for the state's alone: a socket could not be made there either."""
    path = tmp_path / "lock"
    if left:
        path.write_text("1234567\n")
    real = os.open

    def read_only(where: str, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_CREAT | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(where, flags, mode)

    monkeypatch.setattr(os, "open", read_only)
    lock = Lock(str(path), "do something else", as_it_is=True)
    with pytest.raises(CannotRun) as caught:
        Lock(str(path), "do something else", as_it_is=True)
    assert caught.value.exit_code == EX_UNAVAILABLE
    with pytest.raises(CannotRun, match="Read-only file system"):
        Lock(str(path), "do something else")
    again = Lock(str(path), "", held=lock.fileno(), as_it_is=True)  # by the next image of the process
    again.close()
    Lock(str(path), "", as_it_is=True).close()


def test_a_lock_on_a_full_disk_names_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    lock = Lock(str(tmp_path / "lock"), "do something else")
    with pytest.raises(CannotRun) as caught:
        Lock(str(tmp_path / "lock"), "do something else")
    assert str(caught.value) == f"another mcastd has {tmp_path}/lock: stop it, or do something else"
    lock.release()


def test_lock_on_a_removed_file_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder removes its file between our open and our lock: what we locked is nobody's, so we try again."""
    path = tmp_path / "lock"
    real = os.fstat
    calls: list[int] = []

    def removed_first(fd: int) -> os.stat_result:
        if not calls:
            path.unlink()
        calls.append(fd)
        return real(fd)

    monkeypatch.setattr(os, "fstat", removed_first)
    lock = Lock(str(path), "")
    assert len(calls) == 2
    assert path.exists()
    lock.release()


def test_places_are_made_and_left_empty(tmp_path: Path) -> None:
    places = Places(settings(tmp_path, "a/b/one.sock", "a/b/two.sock"))
    assert sorted(path.name for path in (tmp_path / "a/b").iterdir()) == ["one.sock.lock", "two.sock.lock"]
    assert [oct((tmp_path / name).stat().st_mode & 0o777) for name in ("a", "a/b", "state")] == ["0o755", "0o755", "0o750"]
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "a/b/one.sock"))
    (tmp_path / "a/b/two.sock").write_text("not a socket")
    places.keep()
    places.leave()
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["two.sock"]
    assert list((tmp_path / "state").iterdir()) == []


def test_all_locks_or_none(tmp_path: Path) -> None:
    first = Places(settings(tmp_path, "one.sock"))
    with pytest.raises(CannotRun):
        Places(settings(tmp_path, "two.sock", "one.sock"))
    assert not (tmp_path / "two.sock.lock").exists()
    first.leave()


def test_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(CannotRun) as caught:
        Places(settings(tmp_path))
    assert caught.value.exit_code == EX_CONFIG
    assert f"{tmp_path}/state" in str(caught.value)


def test_directories_of_a_daemon_that_does_not_start_go_again(tmp_path: Path) -> None:
    Places(settings(tmp_path)).leave()
    assert list(tmp_path.iterdir()) == []
    places = Places(settings(tmp_path))
    places.keep()
    places.leave()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "state"]


def test_directory_in_use_by_others_stays(tmp_path: Path) -> None:
    places = Places(settings(tmp_path))
    (tmp_path / "run" / "other").write_text("")
    places.leave()
    assert (tmp_path / "run" / "other").exists()
    assert not (tmp_path / "state").exists()


def test_lock_that_cannot_be_opened_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(CannotRun, match=f"{tmp_path}/lock can't be opened: Is a directory; remove it if .* stale .*or pray"):
        Lock(str(tmp_path / "lock"), "pray")


def test_socket_path_is_looked_at_before_its_lock_is_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "m.sock").write_text("")
    with pytest.raises(CannotRun, match=r"m\.sock is a file, not a socket: remove it, or choose another socket with --listen"):
        Places(settings(tmp_path))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["m.sock", "run"]
