"""`include`: which other files belong to a configuration, each read once."""

import glob
import os
from collections.abc import Iterator

from mcastd.sources.document import Document, check_type, read_document
from mcastd.sources.faults import BadConfiguration, Fault, Faults, Path

FILES_MAX = 1000
"""Files of one configuration."""


def read_files(path: str, faults: Faults, reader: str = "") -> Iterator[Document]:
    """The file, then those that it includes, in the order in which they are named; sorted where a pattern names several.

    An included file that is no good is a fault of its own, and the others are read on; BadConfiguration if the first is none.
    """
    document = read_document(path, reader)
    seen = {os.path.realpath(path): path}
    yield document
    waiting = [_named(document, faults)]  # A list, not a recursion: each file may include the next.
    while waiting:
        named = next(waiting[-1], None)
        if named is None:
            waiting.pop()
        elif (included := _read(*named, seen, faults, reader)) is not None:
            yield included
            waiting.append(_named(included, faults))


def _named(document: Document, faults: Faults) -> Iterator[tuple[Document, Path, str]]:
    """Each path that a document includes, after the document and where it says so."""
    patterns = document.content.get("include", [])
    for at, pattern in enumerate(patterns if isinstance(patterns, list) else []):
        where = ("include", at)
        if (fault := check_type(document, where, pattern, str) or _check_pattern(document, where, pattern)) is not None:
            faults.add(fault)
            continue
        for path in _matches(document, pattern):
            yield document, where, path


def _read(document: Document, where: Path, path: str, seen: dict[str, str], faults: Faults, reader: str) -> Document | None:
    real = os.path.realpath(path)
    if real in seen:
        faults.add(document.bad(where, path, f"it is read already ({seen[real]}): include each file once"))
        return None
    if len(seen) >= FILES_MAX:
        faults.add(document.bad(where, path, f"a configuration has at most {FILES_MAX} files: join some"))
        return None
    seen[real] = document.place(where)
    try:
        return read_document(path, reader)
    except BadConfiguration as exc:
        faults.add(exc.faults[0])
        return None


def _check_pattern(document: Document, where: Path, pattern: str) -> Fault | None:
    if not pattern or "\0" in pattern:
        return document.bad(where, pattern, "write the path of a file, or a pattern of several")
    if "**" in pattern:  # It follows links, which may go round: a search without end.
        return document.bad(where, pattern, "** is no pattern here: name the directories, or use * for one level of them")
    return None


def _matches(document: Document, pattern: str) -> list[str]:
    """Paths, sorted; a name without a pattern stands for itself, so that a file that is missing is found missing."""
    full = os.path.join(os.path.dirname(document.path), pattern)  # noqa: PTH118, PTH120 - text in, text out
    return sorted(glob.glob(full)) if glob.has_magic(full) else [full]  # noqa: PTH207 - as above
