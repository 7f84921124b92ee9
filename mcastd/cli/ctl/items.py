"""Files of items: YAML, JSON and NDJSON, from a path or from standard input ("-"). Knows no descriptors."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STDIN = "-"

MOST_NESTED = 64
"""Levels of a document; aliases could make one that never ends."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class BadFileError(ValueError):
    """A file that can't be read or understood; the message names it."""


def read_items(path: str, name: str) -> list[object]:
    """The items of a file as plain values; BadFileError if it holds none of the three formats.

    A file is a list, or one item, or several documents (or lines) of either; a mapping with a list under `name` (as the request
    has it) stands for that list.
    """
    shown, text = ("standard input", _stdin()) if path == STDIN else (path, _read(path))
    items: list[object] = []
    for document in _documents(shown, text):
        if isinstance(document, dict) and isinstance(document.get(name), list):
            document = document[name]  # noqa: PLW2901 - what the mapping stands for
        if isinstance(document, list):
            items += document
        elif document is not None:
            items.append(document)
    return items


def parse_yaml(text: str) -> object:
    """One YAML document as plain values, every scalar as text; ValueError if it is none."""
    documents = list(_yaml(text))
    if len(documents) != 1:
        raise ValueError(f"{len(documents)} YAML documents instead of one")
    return documents[0]


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError as exc:
        raise BadFileError(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise BadFileError(f"{path}: not UTF-8 at byte {exc.start}") from exc


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as exc:
        raise BadFileError(f"standard input: not UTF-8 at byte {exc.start}") from exc


def _documents(shown: str, text: str) -> Iterator[object]:
    """What looks like JSON and is none may still be YAML, whose flow style looks alike."""
    if text.lstrip()[:1] in {"{", "["}:
        try:
            yield json.loads(text)
        except json.JSONDecodeError as exc:
            lines = _lines(text)
            if lines is None:
                yield from _yaml_documents(shown, text, exc)
            else:
                yield from lines
        return
    yield from _yaml_documents(shown, text, None)


def _lines(text: str) -> list[object] | None:
    """Each line as JSON; None where the first is none."""
    found: list[object] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError as exc:
                if not found:
                    return None
                raise BadFileError(f"line {number} is not JSON: {exc.msg}") from exc
    return found


def _yaml_documents(shown: str, text: str, as_json: json.JSONDecodeError | None) -> Iterator[object]:
    try:
        yield from list(_yaml(text))
    except ValueError as exc:
        if as_json is not None:
            raise BadFileError(f"{shown}: not JSON ({as_json.msg} in line {as_json.lineno}), nor YAML ({exc})") from exc
        raise BadFileError(f"{shown}: not YAML: {exc}") from exc


def _yaml(text: str) -> Iterator[object]:
    """Documents with every scalar as text: YAML 1.1 would take an interface `on` for a truth and 12:30 for a number."""
    import yaml  # noqa: PLC0415 - slow to load

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc] # Chosen at run time.
        # The library looks at every scalar with a dozen patterns to find its type.
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the library's own way to say it

    try:
        for node in yaml.compose_all(text, Loader):
            yield _plain(node, 0)
    except yaml.YAMLError as exc:
        raise ValueError(" ".join(str(exc).split())) from exc


def _plain(node: Any, depth: int) -> Any:
    """A node as a plain value; the library's own constructor takes five times as long."""
    if depth > MOST_NESTED:
        raise ValueError(f"nested more than {MOST_NESTED} deep")
    if node.id == "scalar":
        return None if not node.style and node.value in _NULLS else node.value
    if node.id == "sequence":
        return [_plain(one, depth + 1) for one in node.value]
    return _mapping(node, depth)


def _mapping_only(value: object) -> dict[object, object]:
    if isinstance(value, dict):
        return value
    raise ValueError(f"<< merges mappings, and {value!r} is none")


def _mapping(node: Any, depth: int) -> dict[object, object]:
    found: dict[object, object] = {}
    merged: dict[object, object] = {}
    for key, value in node.value:
        if key.id != "scalar":
            raise ValueError(f"a key in line {key.start_mark.line + 1} is no text")
        plain = _plain(value, depth + 1)
        if not key.style and key.value == "<<":
            for one in plain if isinstance(plain, list) else [plain]:
                merged = {**_mapping_only(one), **merged}
        elif key.value in found:
            raise ValueError(f"{key.value!r} is there twice (line {key.start_mark.line + 1})")
        else:
            found[key.value] = plain
    return {**merged, **found}
