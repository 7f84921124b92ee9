"""What a mistyped command line probably meant."""

import pytest

from mcastd.cli.ctl.guess import commands_meant, place_for
from mcastd.cli.ctl.tree import Tree
from tests.unit.cli.ctl.conftest import find


@pytest.mark.parametrize(
    "line,meant",
    [
        ("add", ["route add", "join add"]),
        ("remove", ["route del", "join del"]),
        ("rm", ["route del", "join del"]),
        ("join eth0", ["join add", "join del", "join list"]),
        ("leave", ["route del", "join del"]),
        ("show", ["route list", "join list", "interface list", "source list"]),
        ("flush", ["route flush"]),
        ("kill", ["shutdown"]),
        ("restart", ["reload"]),
        ("rote", ["route"]),
        ("interfaces", ["interface"]),
        ("route lst", ["route list"]),
        ("route remove", ["route del"]),
        ("tpo", ["top"]),
        ("mroute", ["route"]),
        ("frobnicate", []),
    ],
)
def test_other_words_for_commands(tree: Tree, line: str, meant: list[str]) -> None:
    *path, name = line.split()
    below = [one for one in tree.commands if list(one.words[: len(path)]) == path and list(one.words) != path]
    assert commands_meant(name, path, below, [] if path else ["top"]) == meant


@pytest.mark.parametrize(
    "line,extra,said",
    [
        ("route add 239.1.1.1 10.0.0.5 -O a b c --iif d", "b c", "-O takes several values with commas: -O a,b,c"),
        ("route add 239.1.1.1 10.0.0.5 --oif a b", "b", "--oif takes several values with commas: --oif a,b"),
        ("route patch 239.1.1.1 10.0.0.5 --add-oif a b", "b", "--add-oif takes several values with commas: --add-oif a,b"),
        ("route add a 10.0.0.5 239.1.1.1 b c", "239.1.1.1 b c", "Interfaces are given with --iif or -O."),
        ("join add a 239.1.1.1 10.0.0.5 c", "c", ""),
        ("status now", "now", ""),
    ],
)
def test_where_arguments_belong(tree: Tree, line: str, extra: str, said: str) -> None:
    words = line.split()
    command = find(tree, " ".join(words[: 1 if words[0] == "status" else 2]))
    assert place_for(extra.split(), words, command) == said
