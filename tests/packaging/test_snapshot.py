"""What is built: the files that git has or would take, whatever their modes, and the time of the last commit."""

import os
import subprocess
from pathlib import Path

import pytest

from tools.packaging.snapshot import set_times, source_date_epoch, take_snapshot


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a commit, a file to come, one that is ignored, one that is gone, and a link."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    root = tmp_path / "tree"
    (root / "below").mkdir(parents=True)
    for name in ("pyproject.toml", "below/file", "gone"):
        (root / name).write_text(name)
    (root / ".gitignore").write_text("*.so\n")
    (root / "link").symlink_to("below")
    identity = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    identity |= {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "n"), ("EMAIL", "e"))}
    identity |= {"GIT_COMMITTER_DATE": "1234567890 +0000"}
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", *command], cwd=root, check=True, env=os.environ | identity)
    (root / "gone").unlink()
    (root / "new").write_text("new")
    (root / "new").chmod(0o770)
    (root / "built.so").write_text("built")
    return root


def test_it_holds_what_git_has_or_would_take(tree: Path, tmp_path: Path) -> None:
    made = take_snapshot(tree, tmp_path / "work")
    assert {str(path.relative_to(made)) for path in made.rglob("*") if path.is_symlink() or path.is_file()} == {
        ".gitignore",
        "below/file",
        "link",
        "new",
        "pyproject.toml",
    }
    assert (made / "link").readlink() == Path("below")
    assert {path.stat().st_mode & 0o777 for path in (made / "new", made / "below/file")} == {0o755, 0o644}


def test_without_git_it_leaves_out_what_was_built(tree: Path, tmp_path: Path) -> None:
    bare = take_snapshot(tree, tmp_path / "first")
    (bare / "build").mkdir()
    for name in ("build/file", "built.so"):
        (bare / name).write_text("built")
    made = take_snapshot(bare, tmp_path / "second")
    assert not (made / "build").exists()
    assert not (made / "built.so").exists()
    assert (made / "below/file").read_text() == "below/file"


def test_what_was_there_before_is_gone(tree: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "old").write_text("old")
    take_snapshot(tree, work)
    assert not (work / "old").exists()


def test_the_time_is_that_of_the_commit_unless_the_environment_says(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_date_epoch(tree) == 1234567890
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    assert source_date_epoch(tree) == 5


def test_without_git_it_is_that_of_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    (tmp_path / "pyproject.toml").write_text("")
    set_times(tmp_path, 77)
    assert source_date_epoch(tmp_path) == 77
