"""mcastd.model.interface: names that the kernel would have, and globs."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.model.interface import glob_matcher, is_glob, name_problem


@pytest.mark.parametrize("name", ["eth0", "a", "x" * 15, "br-lan.100", "wlan0@x", "é", "...", "-", "é" * 7])
def test_names_of_interfaces(name: str) -> None:
    assert name_problem(name) == ""


@pytest.mark.parametrize(
    "name,problem",
    [
        ("", "empty"),
        ("x" * 16, "longer than 15 bytes"),
        ("é" * 8, "longer than 15 bytes"),
        (".", "characters"),
        ("..", "characters"),
        ("eth/0", "characters"),
        ("eth0:1", "characters"),
        ("eth 0", "characters"),
        ("eth0\n", "characters"),
        ("eth\x000", "characters"),
    ],
)
def test_what_is_no_name(name: str, problem: str) -> None:
    assert problem in name_problem(name)


@pytest.mark.parametrize(
    "name,glob", [("eth0", False), ("vlan*", True), ("eth?", True), ("eth[01]", True), ("!eth0", False), ("eth]", False)]
)
def test_what_is_a_glob(name: str, glob: bool) -> None:
    assert is_glob(name) is glob


@given(st.text("ab*?[]!-1", max_size=8), st.text("ab-1]", max_size=6))
def test_globs_match_as_fnmatch_does(pattern: str, name: str) -> None:
    assert bool(glob_matcher(pattern).match(name)) == fnmatchcase(name, pattern)


def test_a_glob_matches_the_whole_name_and_its_case() -> None:
    assert glob_matcher("eth?").match("eth0")
    assert not glob_matcher("eth?").match("eth01")
    assert not glob_matcher("eth?").match("ETH0")
