"""mcastd.cli.readable: what the server's user can't read, found out by becoming it, or by looking at modes."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcastd.cli.readable import Reader, files_of, reader_of, warnings
from mcastd.model.settings import Exposition, Remote, Settings

SOMEBODY = 60_001
THEIRS = 60_002

ways = pytest.mark.parametrize(
    "become",
    [pytest.param(True, marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root")), False],
    ids=["becoming it", "by modes"],
)


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that everybody may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="mcastd-test-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def settings(**options: object) -> Settings:
    return Settings((), "/state", "somebody", SOMEBODY, THEIRS, **{"change_user": True, **options})  # type: ignore[arg-type]


def make(path: Path, mode: int, gid: int | None = None) -> str:
    path.write_text("")
    if gid is not None:
        os.chown(path, -1, gid)
    path.chmod(mode)
    return str(path)


@ways
def test_each_file_that_is_closed_to_it_is_named_with_the_remedy(directory: Path, become: bool) -> None:
    (directory / "closed").mkdir(mode=0o700)
    (directory / "closed").chmod(0o700)
    reader = Reader("somebody", SOMEBODY, frozenset({THEIRS}), become)
    paths = [
        make(directory / "open", 0o644),
        make(directory / "key", 0o640),
        make(directory / "closed" / "open", 0o644),
        str(directory / "absent"),
    ]
    found = list(warnings(reader, paths))
    assert [line.split()[1] for line in found] == paths[1:]
    assert all("can't be read by the server's user somebody: " in line and "chgrp, chmod g+r" in line for line in found)
    assert "No such file" in found[2]


@ways
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_groups_count_and_links_are_followed(directory: Path, become: bool) -> None:
    key = make(directory / "key", 0o640, THEIRS)
    (directory / "link").symlink_to(key)
    shut = make(directory / "shut", 0o604, THEIRS)  # The group's bits count for its members, not those of others.
    reader = Reader("somebody", SOMEBODY, frozenset({THEIRS}), become)
    assert [line.split()[1] for line in warnings(reader, [key, str(directory / "link"), shut])] == [shut]


def test_who_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reader_of(settings()) == Reader("somebody", SOMEBODY, frozenset({THEIRS}), become=True)
    monkeypatch.setattr("mcastd.cli.readable.DEFAULT_USERS", ("no such user",))
    assert reader_of(settings(change_user=False)) is None
    monkeypatch.setattr("mcastd.cli.readable.DEFAULT_USERS", ("nobody",))
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    found = reader_of(settings(change_user=False))
    assert found is not None
    assert (found.name, found.become) == ("nobody", False)
    monkeypatch.setattr(os, "geteuid", lambda: found.uid)
    assert reader_of(settings(change_user=False)) is None


def test_all_that_is_read_is_looked_at(directory: Path) -> None:
    web = directory / "web.yml"
    web.write_text("basic_auth_users: {}\n")
    remotes = (Remote("::", 50051, "/c.pem", "/k.pem", "/ca.pem"), Remote("::1", 50052))
    found = files_of(settings(remotes=remotes, exposition=Exposition(web_config=str(web))), ["/etc/one.toml"])
    assert found == ["/etc/one.toml", "/c.pem", "/k.pem", "/ca.pem", str(web)]
    web.write_text("nonsense: 1\n")
    assert str(web) in files_of(settings(exposition=Exposition(web_config=str(web))), [])
