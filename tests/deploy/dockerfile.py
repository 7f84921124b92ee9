"""Reads a Dockerfile and a .dockerignore as `docker build` does, as far as ours go."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/container/Dockerfile"


class Instruction(NamedTuple):
    """One instruction, its lines joined."""

    name: str
    value: str

    def words(self) -> list[str]:
        """The words of it: of a JSON list, or as a shell splits them."""
        if self.value.startswith("["):
            words: list[str] = json.loads(self.value)
            return words
        return shlex.split(self.value)

    def pairs(self) -> dict[str, str]:
        """The values of an ARG, ENV or LABEL."""
        return dict(word.partition("=")[::2] for word in self.words())


@dataclass
class Stage:
    """What follows one FROM."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """Its instructions of one name."""
        return [one for one in self.instructions if one.name == name]

    def last(self, name: str) -> Instruction:
        """What is in force of those that replace each other."""
        return self.all(name)[-1]

    def environment(self) -> dict[str, str]:
        """All that ENV sets."""
        return {name: value for one in self.all("ENV") for name, value in one.pairs().items()}

    def labels(self) -> dict[str, str]:
        """All labels."""
        return {name: value for one in self.all("LABEL") for name, value in one.pairs().items()}


def stages(path: Path = DOCKERFILE) -> list[Stage]:
    """The stages of a Dockerfile."""
    found: list[Stage] = []
    for one in DockerfileParser(str(path), env_replace=False).structure:
        name, value = one["instruction"], one["value"]
        if name == "COMMENT":
            continue
        if name == "FROM":
            base, _, stage = re.sub(r"\s+(?i:AS)\s+", " ", value).partition(" ")
            found.append(Stage(base, stage))
        elif found:
            found[-1].instructions.append(Instruction(name, value))
    return found


def context(root: Path = ROOT) -> Iterator[Path]:
    """The files that a build gets, relative to the root: all but those that .dockerignore leaves out."""
    rules = []
    for line in (root / ".dockerignore").read_text("utf-8").splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            rules.append((_expression(pattern.removeprefix("!").strip("/")), pattern.startswith("!")))
    tops = {one.split("/")[0] for one in _included(root)}
    for top in sorted(tops):
        for path in [root / top, *sorted((root / top).rglob("*"))]:
            if path.is_symlink() or path.is_file():
                relative = path.relative_to(root)
                if _is_in(relative, rules):
                    yield relative


def _included(root: Path) -> list[str]:
    """Names at the top that some pattern takes in: nothing else need be looked at."""
    lines = (root / ".dockerignore").read_text("utf-8").splitlines()
    return [line[1:] for line in lines if line.startswith("!")]


def _is_in(path: Path, rules: list[tuple[re.Pattern[str], bool]]) -> bool:
    """Whether the last rule that matches the path, or a directory above it, takes it in."""
    names = [path.as_posix(), *(one.as_posix() for one in path.parents if one.name)]
    taken = True
    for expression, takes in rules:
        if any(expression.fullmatch(name) for name in names):
            taken = takes
    return taken


def _expression(pattern: str) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    return re.compile(text)
