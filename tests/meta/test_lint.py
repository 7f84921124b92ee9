"""Runs the linters over the tree: ruff's rules, its format, and mypy --strict, all as set in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def judge(*arguments: str | Path, where: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a linter that is installed beside this interpreter."""
    return subprocess.run([sys.executable, "-m", *arguments], cwd=where, capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", ["ruff check", "ruff format --check --diff", "mypy"])
def test_the_tree_is_clean(command: str) -> None:
    done = judge(*command.split())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command,source",
    [
        ("ruff check", '"""A module."""\n\nimport os\n'),
        ("ruff format --check", '"""A module."""\n\nx = {  "a":1 }\n'),
        ("mypy", '"""A module."""\n\n\ndef f(x):  # says no types\n    return x\n'),
    ],
)
def test_a_fault_is_found(tmp_path: Path, command: str, source: str) -> None:
    faulty = tmp_path / "faulty.py"
    faulty.write_text(source, "utf-8")
    option = "--config-file" if command == "mypy" else "--config"
    done = judge(*command.split(), option, ROOT / "pyproject.toml", faulty, where=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "faulty.py" in done.stdout
