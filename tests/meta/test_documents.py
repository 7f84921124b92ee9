"""The documents: every link leads somewhere, every mcastctl command in them can be given, every configuration can be used."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest

from mcastd.cli.check import check
from mcastd.cli.ctl.contract import Contract
from mcastd.cli.ctl.request import BadUsageError
from tests.unit.cli.ctl.conftest import parse

ROOT = Path(__file__).parents[2]
CONTRACT = Contract.shipped()
DOCUMENTS = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("clients/*/*.md"), *ROOT.glob("clients/examples/*/*.md")}
)

_ABRIDGED = re.compile(r"\.\.\.|…|\[|  unix:| -f$")
"""A command that is told of, not given; and the first line of what `top` shows."""


def text_of(path: Path) -> str:
    """A document; a copy of its test may be run without it."""
    return path.read_text("utf-8")


def anchors(path: Path) -> set[str]:
    """What links into a document may name: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"(?ms)^```.*?^```", "", text_of(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def commands(path: Path) -> Iterator[str]:
    """The mcastctl command lines of a document: lines of code blocks, and spans of code."""
    text = text_of(path)
    blocks = re.findall(r"(?ms)^```\w*\n(.*?)^```", text) + re.findall(r"(?m)^    (mcastctl .*)$", text)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", text))
    for line in [*(line for block in blocks for line in block.splitlines()), *spans]:
        found = re.match(r"\s*(?:\$ |sudo |docker exec mcastd )*(mcastctl [^#|]+)", line)
        if found and not _ABRIDGED.search(found[1]):
            yield found[1].strip()


COMMANDS = sorted({(path.name, line) for path in DOCUMENTS if path.name != "CHANGELOG.md" for line in commands(path)})
CONFIGURATIONS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in DOCUMENTS
    if path.name != "controller.md" and "controller" not in path.parts  # whose files are the example's
    for number, block in enumerate(re.findall(r"(?ms)^```toml\n(.*?)^```", text_of(path)))
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(path)):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("name,line", COMMANDS, ids=lambda one: one)
def test_every_command_can_be_given(name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)[1:]
    for file in [after for flag, after in pairwise(words) if flag == "-f"]:
        Path(file).write_text("- {}\n")
    try:
        parse(CONTRACT, words)
    except BadUsageError:  # the name of a command that needs more
        assert words == [word for word in words if word.islower() and word.isalpha()] or name == "mcastctl.md"
    except click.exceptions.Exit:  # of --version and its like
        return


@pytest.mark.parametrize("block", CONFIGURATIONS)
def test_every_configuration_can_be_used(block: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mcastd.toml").write_text(block)
    assert check(str(tmp_path / "mcastd.toml"), quiet=True) == 0, capsys.readouterr().err


def test_there_are_some() -> None:
    assert len(COMMANDS) > 50
    assert len(CONFIGURATIONS) > 2
