"""Completion: the words that fit, in each shell's form, and bash itself."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.cli.ctl.completers import SOURCES
from mcastd.cli.ctl.completion import script
from mcastd.cli.ctl.contract import Contract, find_path
from mcastd.cli.ctl.program import program
from mcastd.cli.ctl.tree import Tree
from tests.unit.cli.ctl.fakeserver import serve

BASH = shutil.which("bash")


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No daemon, unless a test starts one."""
    monkeypatch.setenv("MCASTD_ADDRESS", f"unix:{tmp_path}/sock")


def words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str, shell: str = "fish") -> list[str]:
    """What is offered at the end of a line, without descriptions."""
    monkeypatch.setenv("_MCASTCTL_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("_MCASTCTL_LINE", line)
    assert program() == 0
    out, err = capsys.readouterr()
    assert err == ""
    kind, *offered = out.splitlines()
    assert kind == ("file" if not offered and kind == "file" else "words")
    return [one.partition("\t")[0] for one in offered] if kind == "words" else [kind]


@pytest.mark.parametrize(
    "line,some",
    [
        ("mcastctl ", {"route", "join", "interface", "source", "watch", "status", "shutdown"}),
        ("mcastctl ro", {"route"}),
        ("mcastctl route ", {"add", "del", "list"}),
        ("mcastctl route add --ii", {"--iif"}),
        ("mcastctl route add 239.1.1.1 --wildcard ", {"template", "shared_tree"}),
        ("mcastctl route list --state pr", {"programmed"}),
        ("mcastctl watch route so", {"source"}),
        ("mcastctl -o ya", {"yaml"}),
        ("mcastctl route add -f ", {"file"}),
        ("mcastctl route 'ad", {"add"}),
        ("mcastctl interface set eth0 --no-", {"--no-pinned", "--no-router-discovery"}),
    ],
)
def test_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str, some: set[str]) -> None:
    assert some <= set(words(capsys, monkeypatch, line))


def test_without_a_daemon_there_is_silence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert words(capsys, monkeypatch, "mcastctl route add 239.1.1.1 --iif ") == []
    assert words(capsys, monkeypatch, "mcastctl route list --tls-cert x --address h:1 --iif ") == []


def test_names_come_from_the_daemon(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shipped: Contract, tmp_path: Path
) -> None:
    names = sv.ListInterfacesResponse(interfaces=[t.Interface(name=name) for name in ("eth1", "eth0", "wan")])
    owners = sv.GetStatusResponse(owners=[sv.Owner(name="lab")])
    with serve(shipped, f"unix:{tmp_path}/sock", {"ListInterfaces": lambda *_: names, "GetStatus": lambda *_: owners}):
        assert words(capsys, monkeypatch, "mcastctl route add 239.1.1.1 --iif e") == ["eth0", "eth1"]
        assert words(capsys, monkeypatch, "mcastctl interface set ") == ["eth0", "eth1", "wan"]
        assert words(capsys, monkeypatch, "mcastctl route list --match-owner ") == ["lab"]
        assert words(capsys, monkeypatch, f"mcastctl --address unix:{tmp_path}/none interface set ") == []


def test_a_daemon_that_does_not_answer_costs_a_fifth_of_a_second(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shipped: Contract, tmp_path: Path
) -> None:
    asked = threading.Event()

    def late(*_: object) -> sv.ListInterfacesResponse:
        asked.wait(20)
        return sv.ListInterfacesResponse(interfaces=[t.Interface(name="eth0")])

    with serve(shipped, f"unix:{tmp_path}/sock", {"ListInterfaces": late}):
        assert words(capsys, monkeypatch, "mcastctl interface set ") == []
        asked.set()


def test_each_shell_has_its_own_form(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert words(capsys, monkeypatch, "mcastctl stat", "bash") == ["status"]
    assert words(capsys, monkeypatch, "mcastctl stat", "zsh") == ["status:Version, limits, owners, subscribers."]
    monkeypatch.setenv("_MCASTCTL_COMPLETE", "tcsh_complete")
    assert program() == 1


def test_scripts_are_shipped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_MCASTCTL_COMPLETE" in script(shell)
        assert program(["--completion", shell]) == 0
        assert capsys.readouterr().out == script(shell)
    monkeypatch.setenv("_MCASTCTL_COMPLETE", "bash_source")
    assert program() == 0
    assert capsys.readouterr().out == script("bash")


@pytest.mark.skipif(BASH is None, reason="there is no bash here")
@pytest.mark.parametrize(
    "line,replies",
    [("mcastctl rou", "route"), ("mcastctl interface set ff3e:", ":1"), ("mcastctl interface set e", "eth*"), ("mcastctl x", "")],
)
def test_bash(shipped: Contract, tmp_path: Path, line: str, replies: str) -> None:
    program_file = tmp_path / "mcastctl"
    program_file.write_text(f'#!/bin/sh\nexec {sys.executable} -m mcastd.cli.ctl.main "$@"\n')
    program_file.chmod(0o755)
    # Bash splits words at colons; what it hands to the function as the current word does not matter here.
    given = f'COMP_LINE="{line}" COMP_POINT={len(line)} COMP_WORDS=(mcastctl) COMP_WORDBREAKS=":= "'
    ask = f'{given}; _mcastctl; printf "%s\\n" "${{COMPREPLY[@]}}"'
    names = sv.ListInterfacesResponse(interfaces=[t.Interface(name=name) for name in ("ff3e::1", "eth*")])
    with serve(shipped, f"unix:{tmp_path}/sock", {"ListInterfaces": lambda *_: names}):
        done = subprocess.run(
            [BASH or "", "--norc", "-c", f"{script('bash')}\n{ask}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        )
    assert (done.stdout.strip(), done.stderr) == (replies, "")


def test_every_completer_that_is_named_exists(tree: Tree, shipped: Contract) -> None:
    from mcastd.cli.ctl.contract import flag_of  # noqa: PLC0415

    named = {flag_of(one.field).complete for command in tree.commands for one in command.inputs} - {""}
    assert named <= SOURCES.keys()
    for name, path in SOURCES.values():
        service, _, method = name.rpartition(".")
        (found,) = (one for one in shipped.services() if one.full_name == service)
        assert find_path(found.methods_by_name[method].output_type, path)
