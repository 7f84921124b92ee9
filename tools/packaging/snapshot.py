"""The copy of the tree that is built: what git knows or would take, with modes and times that do not depend on this machine."""

import os
import shutil
from pathlib import Path

from tools.packaging.command import run

ROOT = Path(__file__).parents[2]

_NOT_SOURCE = {".venv", ".git", "build", "dist", "__pycache__"}


def source_date_epoch(source: Path) -> int:
    """SOURCE_DATE_EPOCH: seconds since 1970 of the last commit, unless the environment says; without git of pyproject.toml."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    if (source / ".git").exists():
        return int(run(["git", "log", "-1", "--format=%ct"], cwd=source))
    return int((source / "pyproject.toml").stat().st_mtime)


def take_snapshot(source: Path, work: Path) -> Path:
    """Empty `work`, copy the tree's sources below it and return where they are; changes that are not committed are among them."""
    shutil.rmtree(work, ignore_errors=True)
    tree = work / "tree"
    for name in _names(source):
        path, copy = source / name, tree / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            copy.symlink_to(path.readlink())
        elif path.exists():  # git still lists what was removed and not committed
            copy.write_bytes(path.read_bytes())
            copy.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    return tree


def set_times(root: Path, epoch: int) -> None:
    """Give every file and directory below `root` the same time."""
    for path in (root, *root.rglob("*")):
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _names(source: Path) -> list[str]:
    if (source / ".git").exists():
        listed = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=source)
        return sorted(filter(None, listed.split("\0")))
    found = (path.relative_to(source) for path in source.rglob("*") if path.is_symlink() or path.is_file())
    return sorted(str(name) for name in found if not _NOT_SOURCE & set(name.parts) and name.suffix not in {".so", ".o"})
