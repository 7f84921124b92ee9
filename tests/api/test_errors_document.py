"""docs/errors.md: a row for each reason, with the code that the daemon sends and the metadata that it gives."""

import re
from pathlib import Path

import pytest

from mcastd.model.errors import CODES, Reason

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "errors.md").read_text().partition("## Without a reason")[0]
ROWS = {
    cells[0]: cells
    for cells in (list(map(str.strip, line.strip("|").split("|"))) for line in TABLE.splitlines() if line[:2] == "| ")
}


def test_the_document_lists_the_reasons_in_their_order() -> None:
    assert list(ROWS) == ["reason", *Reason]


@pytest.mark.parametrize("reason", list(Reason))
def test_each_row_is_complete_and_has_the_code(reason: Reason) -> None:
    name, code, when, _, remedy = ROWS[reason]
    assert (name, code) == (reason.name, CODES[reason].name)
    assert when.endswith(".")
    assert remedy.endswith(".")


def test_every_reason_is_used() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "mcastd").rglob("*.py") if path.name != "errors.py")
    assert [reason for reason in Reason if f"Reason.{reason.name}" not in source and reason is not Reason.KERNEL_ERROR] == []


def test_the_metadata_named_is_given_somewhere() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "mcastd").rglob("*.py"))
    words = {word for name, cells in ROWS.items() if name != "reason" for word in re.findall(r"[a-z_]+", cells[3])}
    keys = words - {
        "for",
        "a",
        "patch",
        "what",
        "is",
        "no",
        "message",
        "not",
        "where",
        "set",
        "cut",
        "off",
        "or",
        "and",
        "tables",
        "of",
    }
    assert [key for key in sorted(keys) if not re.search(rf'[\s(]{key}=|"{key}"', source)] == []
