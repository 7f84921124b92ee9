"""What is written about the configuration: the reference names each key that is accepted, the example can be used."""

import re
from pathlib import Path

import pytest

from mcastd.cli.check import check
from mcastd.sources import daemon, interfaces, items

ROOT = Path(__file__).parents[3]

REFERENCE = {
    "[daemon]": daemon.DAEMON_KEYS,
    "[metrics]": daemon.METRICS_KEYS,
    "[[listen]]": daemon.LISTEN_KEYS,
    "[[principal]]": daemon.PRINCIPAL_KEYS,
    "[[table]]": daemon.TABLE_KEYS,
    "rules": interfaces.RULE_KEYS,
    "[interface.NAME]": interfaces.INTERFACE_KEYS,
    "[[route]]": items.ROUTE_KEYS,
    "oifs": items.OIF_KEYS,
    "[[join]]": items.JOIN_KEYS,
}


def documented() -> dict[str, list[str]]:
    """The keys of the reference's tables, by the heading above them."""
    text = (ROOT / "docs/configuration.md").read_text("utf-8").partition("\n## Keys\n")[2].partition("\n## ")[0]
    parts = re.split(r"^### (.*)$", text, flags=re.MULTILINE)[1:]
    return {name: re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE) for name, body in zip(parts[::2], parts[1::2], strict=True)}


def test_the_reference_names_just_the_keys_that_are_accepted() -> None:
    found = documented()
    assert found.pop("At the top") == ["include"]
    assert {name: sorted(keys) for name, keys in found.items()} == {name: sorted(keys) for name, keys in REFERENCE.items()}


def test_every_section_has_its_place_in_the_reference() -> None:
    headings = {re.sub(r"[\[\]]|\.NAME", "", name) for name in documented()}
    assert set(daemon.SECTIONS) - {"include"} <= headings


def test_what_a_reload_puts_in_force_is_said() -> None:
    text = (ROOT / "docs/configuration.md").read_text("utf-8")
    said = re.search(r"What a reload puts in force of `\[daemon\]`: (.*?)\. Everything", text, re.DOTALL)
    assert said
    assert set(re.findall(r"`(\w+)`", said[1])) == daemon._RELOADED


def test_the_example_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(str(ROOT / "deploy/mcastd.toml"), quiet=False) == 0
    assert "routes 4, joins 1, interfaces 2, tables 1, rules 1" in capsys.readouterr().out
