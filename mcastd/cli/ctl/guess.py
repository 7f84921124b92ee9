"""What a mistyped command line probably meant: commands by other words, and where arguments that are too many belong. Pure."""

import difflib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mcastd.cli.ctl.tree import Command, Input, Place
from mcastd.cli.ctl.words import any_of

_SYNONYMS = {
    "create": "add",
    "delete": "del",
    "get": "list",
    "kill": "shutdown",
    "leave": "del",
    "remove": "del",
    "restart": "reload",
    "show": "list",
    "stop": "shutdown",
}
"""Words of other programs, smcroutectl among them, and what they are called here."""


class _Known(NamedTuple):
    words: tuple[str, ...]
    last: tuple[str, ...]
    """Its last word and its other names."""


def commands_meant(name: str, path: Sequence[str], commands: Sequence[Command], others: Sequence[str]) -> list[str]:
    """The commands below `path` of which one is probably meant by `name`, the likeliest first; `others` are those of one word."""
    at = len(path)
    known = [_Known(one.words, (one.words[-1], *one.aliases)) for one in commands]
    known += [_Known((one,), (one,)) for one in others]
    same = {name, _SYNONYMS.get(name, name)}
    next_word = _close(name, [one.words[at] for one in known])
    last_word = set(_close(name, [word for one in known for word in one.last]))
    found = (
        [one.words for one in known if not same.isdisjoint(one.last)]
        or [one.words[: at + 1] for one in known if one.words[at] in next_word]
        or [one.words for one in known if not last_word.isdisjoint(one.last)]
        or [one.words for one in known if path]  # below a word there are few: all of them
    )
    return list(dict.fromkeys(" ".join(one) for one in found))


def _close(name: str, known: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name, known, 1)


def place_for(extra: Sequence[str], given: Sequence[str], command: Command) -> str:
    """Where arguments beyond the last one belong, as a sentence; empty if nobody knows. `given` is the whole command line."""
    several = {word: one for one in command.flags if one.field.is_repeated for word in _spellings(one)}
    for at in range(2, len(given)):
        if given[at] == extra[0] and given[at - 2] in several:
            values = [given[at - 1], *_run_of(extra, given[at:])]
            return f"{given[at - 2]} takes several values with commas: {given[at - 2]} {','.join(values)}"
    flags = [f"-{one.short}" if one.short else f"--{one.name}" for one in command.flags if one.complete == "interface"]
    return f"Interfaces are given with {any_of(flags)}." if flags else ""


def _run_of(extra: Sequence[str], given: Sequence[str]) -> Iterator[str]:
    for word, other in zip(extra, given, strict=False):
        if word != other:
            return
        yield word


def _spellings(one: Input) -> list[str]:
    return [f"--{one.name}", *([f"-{one.short}"] if one.short else [])] if one.place is Place.FLAG else []
