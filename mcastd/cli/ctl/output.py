"""Answers on standard output in the format that was asked for, as they come.

Of a call that reads, the rows are what is printed; of a write, and of a watch, whole messages are: there the rest of the
answer counts too.
"""

import json
from collections.abc import Container, Sequence
from typing import NamedTuple

from google.protobuf.message import Message

from mcastd.cli.ctl.columns import Column, chosen_columns, declared_columns
from mcastd.cli.ctl.contract import changes_state, table_of
from mcastd.cli.ctl.details import detail_lines
from mcastd.cli.ctl.events import EventLines, is_event
from mcastd.cli.ctl.identity import Identities
from mcastd.cli.ctl.plain import Plain
from mcastd.cli.ctl.screen import Screen
from mcastd.cli.ctl.shape import Shape, shape_of
from mcastd.cli.ctl.table import Table
from mcastd.cli.ctl.tree import Command, FieldPath
from mcastd.cli.ctl.yamltext import yaml_document, yaml_item

FORMATS = ("table", "wide", "json", "yaml", "ndjson", "name")


class Style(NamedTuple):
    """What the user wants to see."""

    format: str = "table"
    columns: tuple[str, ...] = ()
    """Titles or field paths; () = those of the format."""
    full: bool = False
    """With zero values (json, yaml, ndjson)."""


class Printer:
    """Prints the answers of one call; this one keeps quiet."""

    def answer(self, message: Message) -> None:
        """Print one answer."""

    def end(self) -> None:
        """Print what comes after the last."""


def make_printer(
    command: Command, style: Style, screen: Screen, identities: Identities, *, unasked: Container[str] = ()
) -> Printer:
    """The printer for a command's answers; BadColumnError if a column does not exist.

    Tables have no columns of fields that the request could have asked for and has not (`unasked`), unless they were chosen.
    """
    if style.format in {"json", "ndjson", "yaml"}:
        return _data_printer(command, style, screen)
    if style.format == "name":
        return _NamePrinter(command, screen, identities)
    if style.columns:
        return _TablePrinter(command, chosen_columns(command.row_type, style.columns), screen)
    return _people_printer(command, screen, identities, wide=style.format == "wide", unasked=unasked)


def _people_printer(command: Command, screen: Screen, identities: Identities, *, wide: bool, unasked: Container[str]) -> Printer:
    row = command.row_type
    if is_event(row):
        return _EventPrinter(command, screen, identities, wide=wide)
    if (command.rows or table_of(row).columns) and (columns := declared_columns(row, wide=wide, without=unasked)):
        return _TablePrinter(command, columns, screen)
    if changes_state(command.method) and all(shape_of(field) is Shape.INTEGER for field in row.fields):
        return Printer()  # the summary says it all
    return _DetailPrinter(command, screen)


def rows_of(message: Message, path: FieldPath) -> list[Message]:
    """The rows of an answer."""
    rows = [message]
    for field in path:
        if field.is_repeated:
            rows = [inner for row in rows for inner in getattr(row, field.name)]
        else:
            rows = [getattr(row, field.name) for row in rows if row.HasField(field.name)]
    return rows


def is_watch(command: Command) -> bool:
    """Whether a call can go on where another was broken off: it gives tokens, and takes one."""
    method = command.method
    both = (method.input_type, method.output_type)
    return method.server_streaming and not method.client_streaming and all("resume_token" in one.fields_by_name for one in both)


def _data_printer(command: Command, style: Style, screen: Screen) -> Printer:
    streaming = command.method.server_streaming
    whole = changes_state(command.method) or is_watch(command) or not command.rows
    rows = () if whole else command.rows
    plain = Plain(full=style.full, exact=style.format == "yaml")
    if style.format == "ndjson":
        return _NdjsonPrinter(rows, plain, screen)
    one = not streaming and whole
    if style.format == "json":
        return _JsonDocument(plain, screen) if one else _JsonArray(rows, plain, screen)
    if one:
        return _YamlDocument(plain, screen)
    return _YamlDocuments(plain, screen) if whole else _YamlList(rows, plain, screen)


class _RowsPrinter(Printer):
    """Prints rows."""

    def __init__(self, rows: FieldPath, plain: Plain, screen: Screen) -> None:
        self._path = rows
        self._plain = plain
        self._screen = screen
        self._any = False

    def _rows(self, message: Message) -> list[object]:
        return [self._plain.message(row) for row in rows_of(message, self._path)]


class _NdjsonPrinter(_RowsPrinter):
    def answer(self, message: Message) -> None:
        self._screen.lines(json.dumps(row, ensure_ascii=False) for row in self._rows(message))


class _JsonArray(_RowsPrinter):
    """One array, each element on a line of its own, whatever number of answers they come in."""

    def answer(self, message: Message) -> None:
        rows = [json.dumps(row, ensure_ascii=False) for row in self._rows(message)]
        if rows:
            self._screen.write((",\n" if self._any else "[\n") + ",\n".join(rows))
            self._any = True

    def end(self) -> None:
        self._screen.write("\n]\n" if self._any else "[]\n")


class _YamlList(_RowsPrinter):
    def answer(self, message: Message) -> None:
        rows = self._rows(message)
        self._any = self._any or bool(rows)
        self._screen.write("".join(map(yaml_item, rows)))

    def end(self) -> None:
        if not self._any:
            self._screen.write("[]\n")


class _DocumentPrinter(Printer):
    """Prints whole answers."""

    def __init__(self, plain: Plain, screen: Screen) -> None:
        self._plain = plain
        self._screen = screen


class _JsonDocument(_DocumentPrinter):
    def answer(self, message: Message) -> None:
        self._screen.write(json.dumps(self._plain.message(message), ensure_ascii=False, indent=2) + "\n")


class _YamlDocument(_DocumentPrinter):
    def answer(self, message: Message) -> None:
        self._screen.write(yaml_document(self._plain.message(message)))


class _YamlDocuments(_DocumentPrinter):
    def answer(self, message: Message) -> None:
        self._screen.write("---\n" + yaml_document(self._plain.message(message)))


class _NamePrinter(Printer):
    """Prints what each row is called, as a command would take it."""

    def __init__(self, command: Command, screen: Screen, identities: Identities) -> None:
        self._path = command.rows
        self._screen = screen
        self._words = identities.words(command.row_type)

    def answer(self, message: Message) -> None:
        names = (" ".join(self._words(row)) for row in rows_of(message, self._path))
        self._screen.lines(name for name in names if name)


class _TablePrinter(Printer):
    """Prints a table; without rows its titles alone, except for the exceptions of a write: none of these is good news."""

    def __init__(self, command: Command, columns: Sequence[Column], screen: Screen) -> None:
        self._path = command.rows
        self._columns = columns
        self._screen = screen
        self._table = Table(columns, screen.width, screen.paint)
        self._bare = changes_state(command.method)

    def answer(self, message: Message) -> None:
        rows = rows_of(message, self._path)
        if rows:
            self._bare = True
            self._screen.lines(self._table.block([[column.read(row) for column in self._columns] for row in rows]))

    def end(self) -> None:
        if not self._bare:
            self._screen.lines(self._table.block([]))


class _DetailPrinter(Printer):
    """Prints each row as a block of names and values."""

    def __init__(self, command: Command, screen: Screen) -> None:
        self._path = command.rows
        self._screen = screen
        self._any = False

    def answer(self, message: Message) -> None:
        for row in rows_of(message, self._path):
            lines = list(detail_lines(row, self._screen.width, self._screen.paint))
            if lines:
                self._screen.lines(["", *lines] if self._any else lines)
                self._any = True


class _EventPrinter(Printer):
    """Prints a line for each event."""

    def __init__(self, command: Command, screen: Screen, identities: Identities, *, wide: bool) -> None:
        self._path = command.rows
        self._screen = screen
        self._lines = EventLines(command.row_type, identities, screen.paint, wide=wide)

    def answer(self, message: Message) -> None:
        if getattr(message, "reset", False) is True:
            self._lines.forget()
        self._screen.lines(self._lines.line(row) for row in rows_of(message, self._path))
