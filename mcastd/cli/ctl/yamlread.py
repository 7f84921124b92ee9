"""YAML text into plain values, from the parser's events: no recursion, and no more memory or time than the text deserves."""

from collections.abc import Iterator
from typing import Any

MOST_NESTED = 64
"""Levels of a document."""

MOST_REPEATED = 1_000_000
"""Values that the aliases of a document may stand for: each is short to write, and may hold aliases itself."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


def parse_yaml(text: str) -> object:
    """One YAML document as plain values, every scalar as text; ValueError if it is none."""
    documents = list(yaml_documents(text))
    if len(documents) != 1:
        raise ValueError(f"{len(documents)} YAML documents instead of one")
    return documents[0]


def yaml_documents(text: str) -> Iterator[object]:
    """Documents with every scalar as text: YAML 1.1 would take an interface `on` for a truth and 12:30 for a number.

    ValueError if it is no YAML. What an alias stands for is the same object each time.
    """
    import yaml  # noqa: PLC0415 - slow to load

    document = _Document()
    try:
        for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            kind = event.__class__
            if kind is yaml.ScalarEvent:
                document.scalar(event)
            elif kind is yaml.MappingStartEvent:
                document.begin({}, event)
            elif kind is yaml.SequenceStartEvent:
                document.begin([], event)
            elif kind in {yaml.MappingEndEvent, yaml.SequenceEndEvent}:
                document.end()
            elif kind is yaml.AliasEvent:
                document.alias(event)
            elif kind is yaml.DocumentEndEvent:
                yield document.value
                document = _Document()
    except yaml.YAMLError as exc:
        raise ValueError(" ".join(str(exc).split())) from exc


class _Open:
    """A list or mapping that has not ended."""

    __slots__ = ("anchor", "before", "key", "merged", "value")

    def __init__(self, value: Any, anchor: str | None, before: int) -> None:
        self.value = value
        self.anchor = anchor
        self.before = before
        """Values of the document before this one, with what aliases stand for."""
        self.key: Any = None
        """The key that waits for its value, as its event."""
        self.merged: dict[object, object] = {}


class _Document:
    """Puts one document together."""

    def __init__(self) -> None:
        self.value: object = None
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[object, int]] = {}
        self._values = 0
        self._repeated = 0

    def scalar(self, event: Any) -> None:
        """Take text."""
        self._values += 1
        at = self._open[-1] if self._open else None
        if at is not None and at.key is None and at.value.__class__ is dict:
            at.key = event
            plain = event.value
        else:
            plain = None if not event.style and event.value in _NULLS else event.value
            self._put(at, plain)
        if event.anchor:
            self._anchors[event.anchor] = (plain, 1)

    def begin(self, value: Any, event: Any) -> None:
        """Take the beginning of a list or mapping."""
        line = event.start_mark.line + 1
        if len(self._open) > MOST_NESTED:
            raise ValueError(f"nested more than {MOST_NESTED} deep (line {line})")
        if self._open and self._open[-1].key is None and isinstance(self._open[-1].value, dict):
            raise ValueError(f"a key in line {line} is no text")
        self._open.append(_Open(value, event.anchor, self._values))
        self._values += 1

    def end(self) -> None:
        """Take its end."""
        done = self._open.pop()
        if done.merged:
            done.value = {**done.merged, **done.value}
        if done.anchor:
            self._anchors[done.anchor] = (done.value, self._values - done.before)
        self._put(self._open[-1] if self._open else None, done.value)

    def alias(self, event: Any) -> None:
        """Take what stands for something above."""
        line = event.start_mark.line + 1
        if event.anchor not in self._anchors:
            raise ValueError(f"*{event.anchor} in line {line} stands for nothing that has ended above")
        value, size = self._anchors[event.anchor]
        self._values += size
        self._repeated += size
        if self._repeated > MOST_REPEATED:
            raise ValueError(f"aliases stand for more than {MOST_REPEATED} values (line {line})")
        at = self._open[-1] if self._open else None
        if at is not None and at.key is None and isinstance(at.value, dict):
            raise ValueError(f"a key in line {line} is no text")
        self._put(at, value)

    def _put(self, at: _Open | None, value: Any) -> None:
        if at is None:
            self.value = value
        elif at.key is None:
            at.value.append(value)
        else:
            key, at.key = at.key, None
            if key.value == "<<" and not key.style:
                for one in value if isinstance(value, list) else [value]:
                    at.merged = {**_mapping_only(one), **at.merged}
            elif key.value in at.value:
                raise ValueError(f"{key.value!r} is there twice (line {key.start_mark.line + 1})")
            else:
                at.value[key.value] = value


def _mapping_only(value: object) -> dict[object, object]:
    if isinstance(value, dict):
        return value
    raise ValueError(f"<< merges mappings, and {value!r} is none")
