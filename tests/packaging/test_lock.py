"""The pins: they are for all that is wanted, within the bounds of pyproject.toml, with digests, and name no host."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.build import ROOT
from tools.packaging.lock import wanted


def pins(name: str) -> dict[str, str]:
    """Version by distribution."""
    text = (ROOT / "tools/packaging" / name).read_text("utf-8")
    return {canonicalize_name(found[0]): found[1] for found in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


@pytest.mark.parametrize("name", ["bundled.txt", "tools.txt"])
def test_what_is_wanted_is_pinned_within_its_bounds(name: str) -> None:
    pinned = pins(name)
    for one in map(Requirement, wanted()[name]):
        assert one.specifier.contains(pinned[canonicalize_name(one.name)]), one


@pytest.mark.parametrize("name", ["bundled.txt", "tools.txt"])
def test_every_pin_has_digests_and_no_host(name: str) -> None:
    text = (ROOT / "tools/packaging" / name).read_text("utf-8")
    for stanza in re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in stanza, stanza.splitlines()[0]
    assert "://" not in text
    assert not re.search(r"^\s*-", re.sub(r"^ +--hash=\S+( \\)?$", "", text, flags=re.MULTILINE), re.MULTILINE)
