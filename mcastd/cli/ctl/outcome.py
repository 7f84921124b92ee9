"""What came of a call: the summary of a write, and the exit code. From the names that the contract gives its numbers."""

from collections import Counter
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from mcastd.cli.ctl import codes
from mcastd.cli.ctl.contract import changes_state, descriptor_of
from mcastd.cli.ctl.failure import one_line
from mcastd.cli.ctl.output import rows_of
from mcastd.cli.ctl.shape import Shape, shape_of
from mcastd.cli.ctl.tree import Command, FieldPath

OMITTED = "mcastd-changes-omitted"
"""Trailing metadata: how many changes the daemon has left out of an answer for its size."""

CONDITION = "mcastd-condition"
"""Trailing metadata: what is not as it should be with the daemon, for people."""

MOST_ERRORS = 10

DEEPEST_ERROR = 2
"""Messages in a row between it and an error."""

_PLAN = (("created", "+"), ("updated", "~"), ("deleted", "-"), ("unchanged", "="))


class Outcome:
    """Adds up the answers of one call."""

    def __init__(self, command: Command, *, dry_run: bool) -> None:
        """Begin with nothing."""
        self._command = command
        self._dry_run = dry_run
        self._writes = changes_state(command.method)
        self._numbers: dict[str, int] = {}
        self._errors = 0
        self._told: Counter[str] = Counter()
        paths = list(_error_paths(command.row_type)) if command.rows else []
        # What a write has not failed with, but waits for, is said of what is there after it.
        self._reasons = [path for path in paths if not self._writes or path[0].name == "after"]

    @property
    def writes(self) -> bool:
        """Whether the call changes anything."""
        return self._writes

    def add(self, answer: Message) -> None:
        """Count an answer in."""
        if not self._writes:
            self._add_reasons(answer)
            return
        for name, number in _numbers(answer):
            self._numbers[name] = number
        rows = [row for row in rows_of(answer, self._command.rows) if self._command.rows and _has_error(row)]
        for row in rows:
            self._told[_line(row.error)] += 1  # type: ignore[attr-defined] # it has one
        self._add_reasons(answer)
        if "failed" not in self._numbers:
            self._errors += len(rows)

    def _add_reasons(self, answer: Message) -> None:
        """Count what listed rows say is wrong with them (Route.status.last_error): a table shows that something is, not why."""
        if not self._reasons:
            return
        for row in rows_of(answer, self._command.rows):
            if self._writes and _has_error(row):
                continue
            for path in self._reasons:
                for error in rows_of(row, path):
                    self._told[_line(error)] += 1

    def errors(self) -> list[str]:
        """What is wrong with items, a line for each problem; of many the first."""
        lines = list(self._told)
        if not self._writes and self._command.rows:
            rows = self._command.rows[-1].name.replace("_", " ")
            lines = [f"{line} ({count} {rows})" if count > 1 else line for line, count in self._told.items()]
        more = len(lines) - MOST_ERRORS
        return [*lines[:MOST_ERRORS], *([f"mcastctl: and {more} more (-o json has all)"] if more > 0 else [])]

    def summary(self) -> str:
        """One line, as `created 3, failed 0, revision 412`; empty for what only reads, or tells nothing."""
        numbers = dict(self._numbers)
        if self._errors:
            numbers["failed"] = self._errors
        if not self._dry_run:
            spoken = _spoken(numbers)
            shown = [(name, number) for name, number in spoken if number or name == "failed"]
            return ", ".join(f"{name} {number}" for name, number in shown or spoken)
        counts = [f"{sign}{numbers.pop(name)}" for name, sign in _PLAN if name in numbers]
        rest = [f"{name} {number}" for name, number in _spoken(numbers) if number and name != "revision"]
        return "plan: " + ", ".join([" ".join(counts), *rest] if counts else rest or ["nothing to do"])

    def exit_code(self, *, tell_changes: bool) -> int:
        """0, or what failed items and the changes that a dry run found call for."""
        if self._numbers.get("failed") or self._errors:
            return codes.ITEMS_FAILED
        changes = any(number for name, number in self._numbers.items() if _is_change(name))
        return codes.CHANGES if tell_changes and self._dry_run and changes else 0


def _error_paths(row: Descriptor, path: FieldPath = ()) -> Iterator[FieldPath]:
    """Where a row holds errors: messages with a reason and a message, in it or in what it holds."""
    for field in row.fields:
        inner = field.message_type
        if inner is None or field.is_repeated or shape_of(field) is not Shape.MESSAGE:
            continue
        if "reason" in inner.fields_by_name and "message" in inner.fields_by_name:
            yield (*path, field)
        elif inner is not row and len(path) < DEEPEST_ERROR:
            yield from _error_paths(inner, (*path, field))


def _line(error: Message) -> str:
    return f"mcastctl: {error.reason}: {one_line(error.message)}"  # type: ignore[attr-defined] # so it was chosen


def _numbers(message: Message) -> Iterator[tuple[str, int]]:
    """The integers of an answer and of messages in it, by name."""
    for field in descriptor_of(message).fields:
        if field.is_repeated:
            continue
        if shape_of(field) is Shape.INTEGER:
            yield field.name, getattr(message, field.name)
        elif shape_of(field) is Shape.MESSAGE and message.HasField(field.name) and field.message_type is not None:
            # A row (SetInterfaceResponse.interface) is data, not the outcome: an outcome says so by its name or its counts.
            inner = field.message_type.fields_by_name
            if "revision" in inner or "failed" in inner:
                yield from _numbers(getattr(message, field.name))


def _spoken(numbers: dict[str, int]) -> list[tuple[str, int]]:
    """Numbers with names as people say them, the revision last."""
    ordered = sorted(numbers.items(), key=lambda one: one[0] == "revision")
    return [(name.replace("_", " "), number) for name, number in ordered]


def _is_change(name: str) -> bool:
    return name in {"created", "updated", "deleted", "removed"} or name.endswith("_changed")


def _has_error(row: Message) -> bool:
    field = descriptor_of(row).fields_by_name.get("error")
    return field is not None and field.message_type is not None and not field.is_repeated and row.HasField("error")
