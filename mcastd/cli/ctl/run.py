"""Runs one command: inputs into requests, the call, answers to the screen, the outcome to standard error."""

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple, NoReturn

from google.protobuf.message import Message

from mcastd.cli.ctl import codes, words
from mcastd.cli.ctl.contract import descriptor_of
from mcastd.cli.ctl.failure import CallError
from mcastd.cli.ctl.identity import Identities
from mcastd.cli.ctl.items import STDIN, read_items
from mcastd.cli.ctl.outcome import CONDITION, OMITTED, Outcome
from mcastd.cli.ctl.output import Printer, Style, is_watch, make_printer
from mcastd.cli.ctl.reader import BadValueError
from mcastd.cli.ctl.request import BadUsageError, Given, make_requests
from mcastd.cli.ctl.screen import Screen, complain, tell
from mcastd.cli.ctl.shape import Shape, shape_of
from mcastd.cli.ctl.transport import Answers, Connection, Target
from mcastd.cli.ctl.tree import Command
from mcastd.cli.ctl.watch import watch


class Wish(NamedTuple):
    """What the command line says beside the request."""

    target: Target
    style: Style = Style()
    file: str = ""
    yes: bool = False
    tell_changes: bool = False


def run(command: Command, given: Given, wish: Wish, identities: Identities) -> int:
    """Run it; BadUsageError and its kin (ValueError) if the command line makes no request."""
    requests = prepare(command, given, wish.file)
    printer = make_printer(command, wish.style, Screen(), identities, unasked=_unasked(command, given))
    if command.confirm and not wish.yes:
        _confirm(command)
    try:
        with Connection(wish.target) as connection:
            if is_watch(command):
                _follow(watch(connection, command, requests[0], complain), printer)
            outcome = Outcome(command, dry_run=any(one.path == command.dry_run and not one.in_item for one in given))
            answers = connection.call(command.method, requests)
            for answer in answers:
                printer.answer(answer)
                outcome.add(answer)
            printer.end()
    except KeyboardInterrupt:
        if not is_watch(command):
            raise
        printer.end()  # an array is closed
        return 0  # there is no other way to end a watch
    except CallError as exc:
        return tell_failure(exc, wish.style)
    _tell_outcome(answers, outcome, wish.style)
    return outcome.exit_code(tell_changes=wish.tell_changes)


def _unasked(command: Command, given: Given) -> set[str]:
    """Names of the request's switches that are off: `counters` has the daemon fill the field of this name."""
    switches = [one for one in command.flags if not one.in_item and shape_of(one.field) is Shape.BOOL]
    return {one.field.name for one in switches if not given.get(one)}


def _follow(answers: Iterator[Message], printer: Printer) -> NoReturn:
    """Print events for ever; numbers beside them say what was lost."""
    for answer in answers:
        printer.answer(answer)
        for field in descriptor_of(answer).fields:
            if shape_of(field) is Shape.INTEGER and not field.is_repeated and getattr(answer, field.name):
                complain(f"mcastctl: {field.name.replace('_', ' ')}: {getattr(answer, field.name)}")
    raise AssertionError("a watch does not end by itself")


def tell_failure(failed: CallError, style: Style) -> int:
    """Say what a call failed with, in the style of its answers; the exit code."""
    sys.stdout.flush()
    if style.format in {"json", "ndjson"}:
        tell(failed.json())
    else:
        complain(failed.line())
    return failed.exit_code


def _tell_outcome(answers: Answers, outcome: Outcome, style: Style) -> None:
    # The others have it all on standard output, except names, which are for programs.
    if style.format in {"table", "wide"} or (style.format == "name" and outcome.writes):
        for line in outcome.errors():
            complain(line)
    if answers.notes.get(OMITTED, "0") != "0":
        complain(f"mcastctl: {answers.notes[OMITTED]} changes are left out: the answer would be too large")
    if condition := answers.notes.get(CONDITION):
        complain(f"mcastctl: {condition}")
    if summary := outcome.summary():
        tell(summary)


def prepare(command: Command, given: Given, file: str) -> list[Message]:
    """The requests of a command line; BadUsageError if there are none."""
    shown = "standard input: " if file == STDIN else f"{file}: " if file else ""
    items: Sequence[object] | None = None
    try:
        if file:
            items = read_items(file, command.item[-1].name if command.item else "")
        return make_requests(command, given, items)
    except BadValueError as exc:
        raise BadUsageError(f"{shown}{exc}") from exc
    except RecursionError as exc:  # of JSON, or of messages that hold themselves
        raise BadUsageError(f"{shown}nested too deep") from exc


def _confirm(command: Command) -> None:
    """Ask; SystemExit if the answer is no, BadUsageError where nobody can answer."""
    if not sys.stdin.isatty():
        raise BadUsageError(f"{command.name} asks before it acts, and there is nobody to answer: add --yes.")
    summary, _ = words.summary_and_details(command.comment)
    sys.stderr.write(f"{command.name}: {summary} Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        tell("Nothing was done.")
        raise SystemExit(codes.USAGE)
