"""Two builds of one commit are the same bytes, and lintian has nothing to say that was not answered."""

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.packaging.build import ROOT, build
from tools.packaging.debian import check
from tools.packaging.snapshot import source_date_epoch, take_snapshot

pytestmark = [pytest.mark.xdist_group("packages"), pytest.mark.timeout(900)]


def sums(directory: Path) -> dict[str, str]:
    """Digest of each file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def test_two_builds_are_equal(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(source_date_epoch(ROOT)))
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    source = take_snapshot(ROOT, tmp_path / "source")  # of a tree that others may be changing
    one = build(tools, tmp_path / "one", "--source", str(source))
    other = tmp_path / "another/place"
    shutil.copytree(source, other / "tree", symlinks=True)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("HOME", str(tmp_path))
    two = build(tools, other, "--source", str(other / "tree"))
    assert len(sums(one.directory)) == 5
    assert sums(one.directory) == sums(two.directory)


def test_lintian_is_content(tools: Path, tmp_path: Path) -> None:
    check(build(tools, tmp_path).package())
