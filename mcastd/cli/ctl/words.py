"""Spelling: how names and comments of a contract are written on a command line. Knows no descriptors."""

import re
from collections.abc import Sequence

_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SENTENCE_END = re.compile(r"(?<![.\s(]e\.g)(?<!i\.e)[.!?](?=\s+[^a-z\s])")


def kebab(name: str) -> str:
    """PutRoutes and put_routes as put-routes."""
    return _HUMPS.sub("-", name).replace("_", "-").lower()


def upper_snake(name: str) -> str:
    """RouteState as ROUTE_STATE."""
    return kebab(name).replace("-", "_").upper()


def any_of(names: Sequence[str]) -> str:
    """Names as a person lists them when one of them is wanted: "a, b or c"."""
    return ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else names[0]


def title(name: str) -> str:
    """WriteOptions as "Write options"."""
    return kebab(name).replace("-", " ").capitalize()


def value_prefix(enum: str, values: Sequence[str]) -> str:
    """The prefix that the values of an enum share by convention, as ROUTE_STATE_; empty if one lacks it."""
    prefix = upper_snake(enum) + "_"
    return prefix if all(value.startswith(prefix) and value != prefix for value in values) else ""


def paragraphs(comment: str) -> list[str]:
    """The paragraphs of a comment, each on one line."""
    blocks = re.split(r"\n\s*\n", comment.strip())
    return [" ".join(block.split()) for block in blocks if block.strip()]


def split_sentence(paragraph: str) -> tuple[str, str]:
    """The first sentence of a paragraph, and what follows it."""
    end = _SENTENCE_END.search(paragraph)
    return (paragraph[: end.end()], paragraph[end.end() :].strip()) if end else (paragraph, "")


def summary_and_details(comment: str) -> tuple[str, list[str]]:
    """A comment as help: its first sentence, and the paragraphs of the rest."""
    found = paragraphs(comment)
    if not found:
        return "", []
    summary, rest = split_sentence(found[0])
    return summary, [*([rest] if rest else []), *found[1:]]
