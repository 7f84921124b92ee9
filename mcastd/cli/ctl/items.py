"""Files of items: YAML, JSON and NDJSON, from a path or from standard input ("-"). Knows no descriptors."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from mcastd.cli.ctl.yamlread import yaml_documents

STDIN = "-"


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
    except OSError as exc:
        raise BadFileError(f"standard input: {exc.strerror}") from exc
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
        yield from list(yaml_documents(text))
    except ValueError as exc:
        if as_json is not None:
            raise BadFileError(f"{shown}: not JSON ({as_json.msg} in line {as_json.lineno}), nor YAML ({exc})") from exc
        raise BadFileError(f"{shown}: not YAML: {exc}") from exc
