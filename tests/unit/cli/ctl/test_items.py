"""Files of items in all their forms."""

import errno
import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from mcastd.cli.ctl.items import BadFileError, read_items
from mcastd.cli.ctl.yamlread import MOST_NESTED, MOST_REPEATED, parse_yaml

A, B = {"group": "239.1.1.1", "iif": "on"}, {"group": "ff3e::1", "iif": "12:30"}


@pytest.mark.parametrize(
    "text",
    [
        "- group: 239.1.1.1\n  iif: on\n- {group: 'ff3e::1', iif: 12:30}\n",
        "group: 239.1.1.1\niif: on\n---\ngroup: ff3e::1\niif: 12:30\n",
        "routes:\n- group: 239.1.1.1\n  iif: on\n- group: ff3e::1\n  iif: 12:30\n",
        '[{"group": "239.1.1.1", "iif": "on"}, {"group": "ff3e::1", "iif": "12:30"}]',
        '{"group": "239.1.1.1", "iif": "on"}\n\n{"group": "ff3e::1", "iif": "12:30"}\n',
        '{"routes": [{"group": "239.1.1.1", "iif": "on"}]}\n{"routes": [{"group": "ff3e::1", "iif": "12:30"}]}\n',
        "[{group: 239.1.1.1, iif: on}, {group: 'ff3e::1', iif: 12:30}]",
        "a: &a {iif: on}\nroutes:\n- {<<: *a, group: 239.1.1.1}\n- {<<: *a, group: 'ff3e::1', iif: '12:30'}\n",
    ],
)
def test_the_same_items(tmp_path: Path, text: str) -> None:
    path = tmp_path / "items"
    path.write_text(text)
    assert read_items(str(path), "routes") == [A, B]


@pytest.mark.parametrize("text", ["", "\n", "[]", "---\n", "routes: []", "# nothing\n", "null"])
def test_no_items(tmp_path: Path, text: str) -> None:
    path = tmp_path / "items"
    path.write_text(text)
    assert read_items(str(path), "routes") == []


def test_nothing_is_nothing_only_where_it_is_bare() -> None:
    assert parse_yaml("{a: , b: ~, c: null, d: '', e: 'null', f: nil}") == {
        "a": None,
        "b": None,
        "c": None,
        "d": "",
        "e": "null",
        "f": "nil",
    }


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"- {a: 1}")))
    assert read_items("-", "x") == [{"a": "1"}]


@pytest.mark.parametrize(
    "content,said",
    [
        (b"\xff", "not UTF-8 at byte 0"),
        (b"{\n", "not JSON (Expecting property name enclosed in double quotes in line"),
        (b"a: [", "not YAML: "),
        (b'{"a": 1}\n{"a": }\n', "line 2 is not JSON: Expecting value"),
        (b"a: 1\na: 2\n", "'a' is there twice (line 2)"),
        (b"? [a]\n: 1\n", "a key in line 1 is no text"),
        (b"<<: 3\n", "<< merges mappings, and '3' is none"),
        (b"a: &a [*a]\n", "*a in line 1 stands for nothing that has ended above"),
        (b"a: 1\n*a : 1\n", "*a in line 2 stands for nothing"),
        (b"- &a [1]\n- {*a : 1}\n", "a key in line 2 is no text"),
        (b"- " * (MOST_NESTED + 2) + b"1", "nested more than"),
        (b"- " * 100_000 + b"1", "nested more than"),
        (b"- " + b"[" * 100_000, "nested more than"),
        (b"[" * (MOST_NESTED + 2) + b"]" * (MOST_NESTED + 2) + b" x", "nor YAML"),
        (b"a: !!python/object:os.system {}\nb", "not YAML"),
    ],
)
def test_what_is_no_file_of_items(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "items"
    path.write_bytes(content)
    with pytest.raises(BadFileError) as caught:
        read_items(str(path), "routes")
    assert said in str(caught.value)


BOMB = "".join(f"- &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 11))


@pytest.mark.parametrize("bomb", ["- &x0 [a, b]\n" + BOMB, "- &x0 {a: b}\n" + BOMB, "- &x0 a\n" + BOMB])
def test_an_alias_bomb(tmp_path: Path, bomb: str) -> None:
    """Some 500 bytes that stand for 10^10 values."""
    path = tmp_path / "items"
    path.write_text(bomb)
    assert len(bomb) < 600
    with pytest.raises(BadFileError, match=f"aliases stand for more than {MOST_REPEATED} values"):
        read_items(str(path), "routes")


def test_aliases_stand_for_what_they_name() -> None:
    text = "a: &o [{interface: eth1}, &e eth2]\nb: *o\nc: [*e, *e]\nd: &o 3\ne: *o\n"
    oifs = [{"interface": "eth1"}, "eth2"]
    assert parse_yaml(text) == {"a": oifs, "b": oifs, "c": ["eth2", "eth2"], "d": "3", "e": "3"}
    assert parse_yaml("- &a {x: 1, y: 1}\n- &b {x: 2}\n- {<<: [*a, *b], z: 3}\n- {<<: *b, x: 4}\n") == [
        {"x": "1", "y": "1"},
        {"x": "2"},
        {"x": "1", "y": "1", "z": "3"},
        {"x": "4"},
    ]


def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed() -> bytes:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=SimpleNamespace(read=closed)))
    with pytest.raises(BadFileError, match="standard input: Bad file descriptor"):
        read_items("-", "x")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="No such file"):
        read_items(str(tmp_path / "none"), "routes")
