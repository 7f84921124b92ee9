"""mcastd.sources.known: the principals of before, for a server that finds a faulty configuration."""

import logging
from pathlib import Path

import pytest

from mcastd.model.principal import Principal, Quota
from mcastd.model.settings import Access
from mcastd.sources.known import NAME, KnownPrincipals

SDN = Principal("spiffe://lab/sdn", Access.WRITE, "sdn", Quota(1, 2, 3))
BOTH = {"*": Principal("*", Access.VIEW, "guests"), SDN.name: SDN}


def test_what_is_kept_is_read(tmp_path: Path) -> None:
    KnownPrincipals(tmp_path).keep(BOTH)
    assert KnownPrincipals(tmp_path).read() == BOTH
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_nobody_is_kept_where_somebody_was(tmp_path: Path) -> None:
    KnownPrincipals(tmp_path).keep(BOTH)
    KnownPrincipals(tmp_path).keep({})
    assert KnownPrincipals(tmp_path).read() == {}


def test_a_daemon_without_principals_makes_no_file(tmp_path: Path) -> None:
    KnownPrincipals(tmp_path).keep({})
    assert list(tmp_path.iterdir()) == []


def test_the_same_is_not_written_again(tmp_path: Path) -> None:
    known = KnownPrincipals(tmp_path)
    known.keep(BOTH)
    (tmp_path / NAME).unlink()
    known.keep(dict(BOTH))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_can_not_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = KnownPrincipals(tmp_path / "nowhere")
    known.keep(BOTH)
    assert [one.levelno for one in caplog.records] == [logging.WARNING]
    (tmp_path / "nowhere").mkdir()
    known.keep(BOTH)
    assert known.read() == BOTH


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b"[1]", b'[["a", 9, "a", 0, 0, 0]]', b'[["a", 1, "a"]]', b"null", None])
def test_a_file_of_no_use_names_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / NAME).write_bytes(data)
    assert KnownPrincipals(tmp_path).read() == {}
    assert bool(caplog.records) is (data != b"{}")
