"""Commands from descriptors: those of the real contract without a flaw, those of strange ones as well as can be."""

import io
import shlex
from pathlib import Path

import pytest

from mcastd.cli.ctl.contract import Contract, command_of
from mcastd.cli.ctl.tree import Place, Tree, build_tree
from tests.unit.cli.ctl.conftest import Run, contract_of, find, parse

NAMES = [command.name for command in build_tree(Contract.shipped()).commands]
EXAMPLES = [example for command in build_tree(Contract.shipped()).commands for example in command.examples]


def test_the_contract_is_without_a_flaw(tree: Tree) -> None:
    assert tree.problems == ()


def test_every_method_is_a_command_but_those_left_out(shipped: Contract, tree: Tree) -> None:
    methods = [method for service in shipped.services() for method in service.methods if not command_of(method).skip]
    assert [command.method.full_name for command in tree.commands] == [method.full_name for method in methods]
    assert {"route add", "route list", "interface set", "watch", "status", "shutdown"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help(shipped: Contract, tree: Tree, command_line: Run, name: str) -> None:
    code, out, err = command_line(shipped, *name.split(), "--help")
    assert (code, err) == (0, "")
    command = find(tree, name)
    for one in command.inputs:
        shown = f"--{one.name}" if one.place is Place.FLAG else one.name.upper()
        assert shown in out
    assert out.startswith(f"Usage: mcastctl {name} ")
    assert ("Write options:" in out) == any(one.group == "Write options" for one in command.inputs)


@pytest.mark.parametrize("name", NAMES)
def test_every_alias_is_the_command(shipped: Contract, tree: Tree, command_line: Run, name: str) -> None:
    command = find(tree, name)
    for alias in command.aliases:
        assert f"Also called {' '.join((*command.words[:-1], alias))}"[:12] in command_line(shipped, *name.split(), "-h")[1]
        assert command_line(shipped, *command.words[:-1], alias, "-h")[0] == 0


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_makes_a_request(shipped: Contract, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(example)
    assert words.pop(0) == "mcastctl"
    for name in (word for word in words if word.endswith((".yaml", ".json"))):
        Path(name).write_text("- {}\n")
    assert parse(shipped, words)


def test_there_are_examples() -> None:
    assert EXAMPLES


def test_positional_arguments(tree: Tree) -> None:
    places = {one.name: one.place for one in find(tree, "route add").arguments}
    assert places == {"group": Place.REQUIRED, "source": Place.OPTIONAL}
    assert [one.place for one in find(tree, "watch").arguments] == [Place.REST]


def test_flags_of_nested_messages_have_their_own_names(tree: Tree) -> None:
    flags = {one.name: one for one in find(tree, "route add").flags}
    assert flags["oif"].short == "O"
    assert flags["dry-run"].group == "Write options"
    assert flags["iif"].group == ""
    assert flags["iif"].complete == "interface"
    assert "status" not in flags


def test_the_contract_may_say_nothing_of_commands(lab: Contract) -> None:
    tree = build_tree(lab)
    assert tree.problems == ()
    assert [command.name for command in tree.commands] == [
        "lab-service do-everything",
        "lab-service upload",
        "lab-service follow",
        "lab-service talk",
        "feed",
    ]
    upload = find(tree, "lab-service upload")
    assert upload.item == ()
    assert [one.name for one in upload.inputs] == ["name", "count"]


def test_flaws_are_told_and_take_no_command_away() -> None:
    tree = build_tree(contract_of("bad.proto"))
    assert [command.name for command in tree.commands] == ["clash", "lost", "bad-service again", "silent"]
    assert [one.name for one in tree.commands[0].flags] == ["name", "second-name", "address-2", "other"]
    told = "\n".join(tree.problems)
    for flaw in (
        "Clash: the flag --name of bad.v1.Second.name is taken",
        "Clash: the flag --address of bad.v1.ClashRequest.address is taken",
        "Clash: the flag -o of bad.v1.ClashRequest.other is taken",
        "Lost: the path 'nowhere' leads nowhere",
        "Lost: the path 'nothing.here' leads nowhere",
        "Lost: the item 'reason' is no repeated message",
        "Again: another command is called 'clash'",
        "Silent: bad.v1.BadService.Silent has no comment",
        "Silent: bad.v1.Answer.reason has no comment",
    ):
        assert flaw in told


def test_an_alias_gives_way_to_a_command(shipped: Contract) -> None:
    tree = build_tree(contract_of("bad.proto"))
    names = [(*command.words[:-1], one) for command in tree.commands for one in (command.words[-1], *command.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["rote"], "No such command 'rote'. Did you mean 'route'?"),
        (["route", "lst"], "No such command 'route lst'. Did you mean 'route list'?"),
        (["add", "eth0"], "No such command 'add'. Did you mean 'route add' or 'join add'?"),
        (
            ["show", "routes"],
            "No such command 'show'. Did you mean 'route list', 'join list', 'interface list' or 'source list'?",
        ),
        (["leave", "eth0", "239.1.1.1"], "Did you mean 'route del' or 'join del'?"),
        (["kill"], "Did you mean 'shutdown'?"),
        (["join", "eth0", "239.1.1.1"], "Did you mean 'join add', 'join del' or 'join list'?"),
        (
            ["route", "add", "239.1.1.1", "10.0.0.5", "-O", "eth1", "eth2"],
            "(eth2). -O takes several values with commas: -O eth1,eth2",
        ),
        (["route", "add", "eth0", "239.1.1.1", "eth1"], "extra argument (eth1). Interfaces are given with --iif or -O."),
        (["status", "now", "or", "never"], "Got unexpected extra arguments (now or never)."),
        (["route", "add", "239.1.1.1", "-O", "eth1,,eth2"], "'eth1,,eth2' has a comma with nothing before or after it"),
        (["route", "list", "--state", "pending,gone"], "'gone' is not one of programmed"),
        (["route", "add"], "Missing argument GROUP, or -f FILE."),
        (["route", "add", "239.1.1.1", "--ttl", "3"], "No such option"),
        (["route", "add", "239.1.1.1", "--wildcard", "tree"], "'tree' is not one of template, shared_tree"),
        (["route", "add", "239.1.1.1", "--table", "-1"], "-1 is not in the range 0 to 4294967295"),
        (["route", "add", "239.1.1.1", "--idle-timeout", "soon"], "'soon' is not a duration"),
        (["route", "add", "239.1.1.1", "-f", "x"], "x: No such file or directory"),
        (["route", "add", "-f", "/dev/null", "239.1.1.1"], "GROUP and -f exclude each other"),
        (["watch", "everything"], "'everything' is not one of route, interface"),
        (["route", "list", "--columns", "grop"], "'grop' is no column: choose from group, source"),
        (["interface", "set"], "Missing argument INTERFACE."),
        (["status", "--address", "nowhere"], "'nowhere' is no address"),
        (["status", "--timeout", "0"], "leaves no time"),
        (["status", "--tls-cert", "x"], "--tls-cert needs --tls-key"),
        (["route", "list", "--address", "h:1", "--tls-ca", "/nonexistent"], "/nonexistent: No such file"),
        (["shutdown"], "shutdown asks before it acts"),
    ],
)
def test_a_wrong_command_line(
    shipped: Contract, command_line: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, out, err = command_line(shipped, *arguments)
    assert (code, out) == (2, "")
    assert said in " ".join(err.split())
