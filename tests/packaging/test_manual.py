"""docs/man is what the programs say of themselves, and groff reads it."""

import argparse
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcastd.cli.mcastd import parser
from tests.packaging.build import ROOT
from tools.packaging.manual import pages

pytestmark = pytest.mark.xdist_group("packages")  # one at a time makes the environment that brings groff

PAGES = ("docs/man/mcastctl.1", "docs/man/mcastd.8")


def commands_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The commands below a parser that have none below them."""
    if parser._subparsers is None:
        yield parser
        return
    for action in parser._subparsers._group_actions:
        assert isinstance(action.choices, dict)
        for one in action.choices.values():
            yield from commands_of(one)


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_current(name: str) -> None:
    assert sorted(pages()) == sorted(PAGES)
    assert (ROOT / name).read_text("utf-8") == pages()[name], "python -m tools.packaging.manual"


def test_every_command_and_option_of_the_daemon_is_in_its_page() -> None:
    text = (ROOT / "docs/man/mcastd.8").read_text("utf-8").replace("\\-", "-")
    for command in commands_of(parser()):
        assert f".SS {command.prog}\n" in text
        for action in command._actions:
            assert all(f"\\fB{', '.join(action.option_strings)}" in text for _ in action.option_strings if action.dest != "help")
    assert ".SS mcastd serve\n" in text
    assert ".SS mcastd tls init\n" in text


@pytest.mark.skipif(not os.environ.get("MCASTD_TEST_DIST"), reason="make test-dist brings groff")
@pytest.mark.parametrize("name", PAGES)
def test_groff_takes_all_of_it(tools: Path, name: str) -> None:
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", ROOT / name], capture_output=True, text=True, check=True)
    assert [line for line in done.stderr.splitlines() if "adjust line" not in line] == []
