"""The position index against tomllib: whatever a document looks like, each key is found, on the line where it was written."""

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.sources.faults import Path
from mcastd.sources.lines import Lines

DOCUMENT = '''# a comment with = and [brackets]
include = ["a", "b"]   # and "quotes"
title = """
[[route]]
group = "not a key"
"""

[daemon]
user = 'it\\s # no comment'
  idle.timeout = 3
text = \'\'\'
two
\'\'\'
date = 1979-05-27 07:32:00

[[route]]
group = "239.1.1.1"
oifs = [
  "a", # first
  { interface = "b", ttl_threshold = 3 },
  [1,
   2],
]

[[ route ]]
"quoted \\"key\\"" = 1
'x.y'.z = { a.b = 1, "c" = [ {d = 1}, {d = 2} ] }

[[route.inner]]
n = 1
[[route.inner]]
n = 2
[route.inner.deeper]
n = 3
[interface."eth0.1"]
pinned = true
'''

EXPECTED: dict[Path, int] = {
    ("include",): 2,
    ("include", 1): 2,
    ("title",): 3,
    ("daemon",): 8,
    ("daemon", "user"): 9,
    ("daemon", "idle", "timeout"): 10,
    ("daemon", "text"): 11,
    ("daemon", "date"): 14,
    ("route",): 16,
    ("route", 0): 16,
    ("route", 0, "group"): 17,
    ("route", 0, "oifs"): 18,
    ("route", 0, "oifs", 0): 19,
    ("route", 0, "oifs", 1, "ttl_threshold"): 20,
    ("route", 0, "oifs", 2, 1): 22,
    ("route", 1): 25,
    ("route", 1, 'quoted "key"'): 26,
    ("route", 1, "x.y", "z", "a", "b"): 27,
    ("route", 1, "x.y", "z", "c", 1, "d"): 27,
    ("route", 1, "inner", 0, "n"): 30,
    ("route", 1, "inner", 1): 31,
    ("route", 1, "inner", 1, "n"): 32,
    ("route", 1, "inner", 1, "deeper", "n"): 34,
    ("interface", "eth0.1"): 35,
    ("interface", "eth0.1", "pinned"): 36,
}


def paths(value: object, at: Path = ()) -> Iterator[Path]:
    """Every key path of what tomllib has read."""
    if at:
        yield at
    if isinstance(value, dict):
        for name, one in value.items():
            yield from paths(one, (*at, name))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from paths(one, (*at, number))


def test_each_key_is_on_its_line() -> None:
    lines = Lines(DOCUMENT)
    assert {path: lines[path] for path in EXPECTED} == EXPECTED


def test_every_key_of_tomllib_is_known() -> None:
    lines = Lines(DOCUMENT)
    assert [path for path in paths(tomllib.loads(DOCUMENT)) if path not in lines] == []


def test_a_key_that_is_not_there_is_on_the_line_of_what_it_would_be_in() -> None:
    lines = Lines(DOCUMENT)
    assert lines["route", 1, "source"] == 25
    assert lines["route", 0, "oifs", 0, "interface"] == 19
    assert lines["nowhere",] == 0


@pytest.mark.parametrize("closed", ['""""a"""""', '"""a\\""""', "''''a'''''", '"""\\\n  x"""', "''", '""', '"\\\\"'])
def test_strings_end_where_they_end(closed: str) -> None:
    text = f"a = {closed}\nb = 1\n"
    assert Lines(text)["b",] == 2 + closed.count("\n")
    assert "b" in tomllib.loads(text)


def test_what_is_no_toml_is_read_as_far_as_it_is() -> None:
    lines = Lines("[daemon]\nuser = 'a'\nx = [1,\n 2\nlog_level = 3\n")
    assert lines["daemon", "user"] == 2
    assert lines.last_before(2) == ("daemon", "user")
    assert Lines("[" * 100_000).last_before(1) == ()
    assert Lines("a = " + "[" * 100_000).last_before(1)[:1] == ("a",)


KEYS = st.one_of(st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True), st.text(max_size=5))
SCALARS = st.one_of(st.integers(-9, 10**6), st.booleans(), st.text(max_size=12), st.dates(), st.floats(allow_nan=False))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
TABLES = st.dictionaries(KEYS, VALUES | st.lists(st.dictionaries(KEYS, VALUES, max_size=3), min_size=1, max_size=3), max_size=5)


class Writer:
    """Writes a document in as many ways as there are, and takes note of the line of each key."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw
        self.text = ""
        self.lines: dict[Path, int] = {}

    def one_of(self, *choices: str) -> str:
        return str(self._draw(st.sampled_from(choices)))

    def note(self, path: Path) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def gap(self) -> None:
        """Between statements."""
        self.text += self.one_of("", "\n", "# x = 1 [[y]]\n", "  \n\t# '''\n", "\r\n")

    def space(self) -> None:
        """Where an array may have anything blank."""
        self.text += self.one_of("", " ", "\n", " # ]\n  ", "\r\n")

    def document(self, content: dict[str, Any]) -> None:
        """The plain values first: what comes after a header is in its table."""
        sections = {name: one for name, one in content.items() if self._is_array_of_tables(one) or isinstance(one, dict)}
        later = {name: one for name, one in sections.items() if self._draw(st.booleans())}
        self.table({name: one for name, one in content.items() if name not in later}, ())
        for name, one in later.items():
            if isinstance(one, dict):
                self.header((name,), f"[{self.key(name)}]")
                self.table(one, (name,))
                continue
            for number, table in enumerate(one):
                self.header((name, number), f"[[{self.one_of('', ' ')}{self.key(name)}]]")
                self.table(table, (name, number))

    @staticmethod
    def _is_array_of_tables(value: object) -> bool:
        return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)

    def header(self, path: Path, text: str) -> None:
        self.gap()
        self.note(path[:1])
        self.note(path)
        self.text += text + self.one_of("\n", "  # x\n", "\r\n")

    def table(self, content: dict[str, Any], path: Path) -> None:
        for name, value in content.items():
            self.gap()
            self.text += self.one_of("", "  ", "\t")
            self.pair(name, value, path)
            self.text += self.one_of("\n", " # a = 'b'\n", "\r\n")

    def pair(self, name: str, value: object, path: Path) -> None:
        self.note((*path, name))
        self.text += self.key(name) + self.one_of("=", " = ", "\t=")
        if isinstance(value, dict) and len(value) == 1 and self._draw(st.booleans()):
            self.text = self.text.rstrip("= \t") + "."
            ((inner, one),) = value.items()
            self.pair(inner, one, (*path, name))
            return
        self.value(value, (*path, name))

    def key(self, name: str) -> str:
        bare = name.isascii() and name and all(c.isalnum() or c in "-_" for c in name)
        literal = "'" not in name and name.isprintable()
        forms = [quoted(name), *([f"'{name}'"] if literal else []), *([name] if bare else [])]
        return self.one_of(*forms)

    def value(self, value: object, path: Path) -> None:
        if isinstance(value, dict):
            self.text += "{" + self.one_of("", " ")
            for at, (name, one) in enumerate(value.items()):
                self.text += ", " if at else ""
                self.pair(name, one, path)
            self.text += self.one_of("", " ") + "}"
        elif isinstance(value, list):
            self.text += "["
            for number, one in enumerate(value):
                self.space()
                self.note((*path, number))
                self.value(one, (*path, number))
                self.space()
                self.text += "," if number + 1 < len(value) else self.one_of("", ",")
            self.space()
            self.text += "]"
        elif isinstance(value, str):
            self.text += self.string(value)
        elif isinstance(value, bool):
            self.text += str(value).lower()
        else:
            self.text += str(value) if not isinstance(value, float) else repr(value).replace("e+", "e")

    def string(self, value: str) -> str:
        forms = [quoted(value), '"""' + quoted(value)[1:-1] + '"""', '"""\n' + quoted(value)[1:-1] + '\\\n  """']
        if value.isprintable() and "'" not in value:
            forms += [f"'{value}'", f"'''\n{value}'''"]
        return self.one_of(*forms)


def quoted(text: str) -> str:
    """A basic string."""
    out = ""
    for c in text:
        if c in '"\\':
            out += "\\" + c
        elif c.isprintable() and c.isascii():
            out += c
        else:
            out += f"\\U{ord(c):08x}"
    return f'"{out}"'


@given(st.data())
def test_any_document(data: st.DataObject) -> None:
    writer = Writer(data.draw)
    content = data.draw(TABLES.filter(lambda tables: all(not _surrogates(one) for one in paths(tables))))
    writer.document(content)
    text = writer.text.replace("\r\n", "\n")
    read = tomllib.loads(text)
    lines = Lines(text)
    assert [path for path in paths(read) if path not in lines] == []
    assert {path: lines[path] for path in writer.lines} == writer.lines


def _surrogates(path: Path) -> bool:
    return any(isinstance(part, str) and any(0xD800 <= ord(c) <= 0xDFFF for c in part) for part in path)


@given(st.text(alphabet="[]{}=.,\"'#\n \\ab1", max_size=60))
def test_no_text_is_too_much(text: str) -> None:
    lines = Lines(text)
    assert lines["a",] <= text.count("\n") + 1
