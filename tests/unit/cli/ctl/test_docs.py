"""The reference: current, complete, and acceptable to those who format it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mcastd.cli.ctl.contract import Contract
from mcastd.cli.ctl.tree import Tree
from tests.unit.cli.ctl.conftest import ROOT, Run

REFERENCE = ROOT / "docs" / "mcastctl.md"


def test_the_reference_is_current(shipped: Contract, command_line: Run) -> None:
    code, out, _ = command_line(shipped, "--dump-docs", "md")
    assert code == 0
    assert REFERENCE.read_text("utf-8") == out, "mcastctl --dump-docs md > docs/mcastctl.md"


def test_every_command_is_in_it(tree: Tree) -> None:
    lines = REFERENCE.read_text("utf-8").splitlines()
    for command in tree.commands:
        assert f"## {command.name}" in lines
        assert any(line.startswith(f"| [`{command.name}") and f"](#{command.name.replace(' ', '-')}) |" in line for line in lines)


def test_the_environment_does_not_show_in_it(shipped: Contract, command_line: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCASTD_ADDRESS", "unix:/elsewhere")
    monkeypatch.setenv("COLUMNS", "40")
    assert command_line(shipped, "--dump-docs", "md")[1] == REFERENCE.read_text("utf-8")


def test_the_manual_page(shipped: Contract, tree: Tree, command_line: Run, tmp_path: Path) -> None:
    code, out, _ = command_line(shipped, "--dump-docs", "man")
    assert code == 0
    for command in tree.commands:
        assert f".SS mcastctl {command.name}".replace("-", "\\-") in out
    groff = shutil.which("groff")
    if groff:
        (tmp_path / "page").write_text(out)
        line = [groff, "-man", "-Tutf8", "-ww", "-z", str(tmp_path / "page")]
        done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60)
        assert done.stderr == ""
