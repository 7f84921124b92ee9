"""The reference of all commands, as Markdown and as a manual page: the same words as help, from the same parameters."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import click

from mcastd.cli.ctl import words
from mcastd.cli.ctl.commands import PROGRAM, Branch, Leaf, Session, argument_help, argument_name, option_sections, usage_of
from mcastd.cli.ctl.handwritten import handwritten
from mcastd.cli.ctl.shared import CONNECTION, OUTPUT

_EXIT_CODES = (
    ("0", "Done."),
    ("1", "Some items failed; standard output says which."),
    ("2", "Usage, or local input or output: a wrong command line, a file that can't be read, output that can't be written."),
    ("3", "A dry run found changes (only with --exit-code)."),
    (
        "64 + N",
        (
            "The call failed with gRPC status N: 67 invalid, 68 too late, 69 not found, 71 not allowed, 72 a limit, 73 not now, "
            "74 aborted, 76 not in this daemon, 78 no daemon."
        ),
    ),
    ("130", "Interrupted. A watch that is interrupted ends with 0."),
    ("141", "The reader of standard output has gone."),
)

_FORMS = (
    ("duration", "90s, 5m, 1h30m, 250ms; a bare number is seconds."),
    ("time", "2026-11-20T18:00:00Z, or -10m for ten minutes ago."),
    (
        "file",
        (
            "YAML, JSON or NDJSON: a list of items, or one, or several documents; - is standard input. A listed route can be put "
            "back as it is. Of many items, NDJSON is read more than twice as fast as YAML."
        ),
    ),
    ("several", "Of a flag that may be repeated: -O eth1,eth2 is -O eth1 -O eth2."),
    (
        "output",
        (
            "json, yaml and ndjson have the contract's names; numbers of 64 bits are in quotes in JSON, as protobuf has it, and "
            "not in YAML; what is zero or empty is left out, but for --full. Later versions add fields and rename none."
        ),
    ),
    ("JSON", "A message in braces, as JSON or YAML: -O '{interface: eth1, ttl_threshold: 8}'."),
)


class Section(NamedTuple):
    """One command, ready to be written."""

    usage: str
    paragraphs: list[str]
    aliases: list[str]
    arguments: list[tuple[str, str]]
    options: dict[str, list[tuple[str, str]]]
    examples: tuple[str, ...]


def markdown(context: click.Context) -> str:
    """The reference as Markdown; `context` is that of the root."""
    session = _session(context)
    lines = [
        f"# {PROGRAM}",
        "",
        f"Written by `{PROGRAM} --dump-docs md` from the contract; do not edit.",
        "",
        "| command | what it does |",
        "|---|---|",
    ]
    lines += [f"| [`{one.usage}`](#{_anchor(one)}) | {_cell(one.paragraphs[0])} |" for one in _sections(session)]
    for section in _sections(session):
        lines += ["", f"## {_name(section)}", "", f"    {PROGRAM} {section.usage}", "", *_spaced(section.paragraphs)]
        if section.aliases:
            lines += [f"Also called {', '.join(f'`{alias}`' for alias in section.aliases)}.", ""]
        lines += _table("argument", section.arguments)
        for heading, rows in section.options.items():
            lines += _table(heading.lower(), rows)
        if section.examples:
            lines += ["```", *section.examples, "```", ""]
        lines.pop()
    lines += ["", "## Every command", "", "Taken before the command or after it.", ""]
    for heading, rows in _shared(context).items():
        lines += _table(heading.lower(), rows)
    lines += _table("value", list(_FORMS)) + _table("exit code", list(_EXIT_CODES))
    return "\n".join(lines).rstrip() + "\n"


def man_page(context: click.Context) -> str:
    """The reference as a manual page (man 7 groff_man); `context` is that of the root."""
    session = _session(context)
    lines = [
        f'.TH {PROGRAM.upper()} 1 "" mcastd "mcastd manual"',
        ".SH NAME",
        f"{PROGRAM} \\- drive mcastd, the multicast router daemon",
        ".SH SYNOPSIS",
        f".B {PROGRAM}",
        "[\\fIoptions\\fR] \\fIcommand\\fR [\\fIarguments\\fR]",
        ".SH COMMANDS",
    ]
    for section in _sections(session):
        lines += [f".SS {_roff(PROGRAM)} {_roff(section.usage)}"]
        for paragraph in section.paragraphs:
            lines += [".PP", _roff(paragraph)]
        if section.aliases:
            lines += [".PP", _roff(f"Also called {', '.join(section.aliases)}.")]
        lines += _entries(section.arguments)
        for heading, rows in section.options.items():
            lines += [".PP", f"{_roff(heading)}:", *_entries(rows)]
        if section.examples:
            lines += [".PP", ".nf", ".RS", *map(_roff, section.examples), ".RE", ".fi"]
    lines.append(".SH OPTIONS OF EVERY COMMAND")
    for heading, rows in _shared(context).items():
        lines += [".PP", f"{_roff(heading)}:", *_entries(rows)]
    lines += [".SH VALUES", *_entries(list(_FORMS)), ".SH EXIT STATUS", *_entries(list(_EXIT_CODES))]
    lines += [".SH SEE ALSO", "\\fBmcastd\\fR(8)"]
    return "\n".join(lines) + "\n"


def _session(context: click.Context) -> Session:
    if not isinstance(context.command, Branch):
        raise TypeError("the root is a branch")
    return context.command.session


def _sections(session: Session) -> Iterator[Section]:
    for command in session.tree.commands:
        leaf = Leaf(session, command)
        context = click.Context(leaf, info_name=command.name)
        summary, details = words.summary_and_details(command.comment)
        options = option_sections(
            context, [param for param in leaf.params if getattr(param, "heading", "") not in {OUTPUT, CONNECTION}]
        )
        yield Section(
            usage=usage_of(command),
            paragraphs=[summary, *details],
            aliases=[" ".join((*command.words[:-1], alias)) for alias in command.aliases],
            arguments=[(argument_name(one), argument_help(one)) for one in command.arguments],
            options=options,
            examples=command.examples,
        )
    for one in handwritten(session.contract):
        by_hand = one.make(session.contract, session.tree)
        context = click.Context(by_hand, info_name=one.name)
        yield Section(
            usage=" ".join([one.name, *by_hand.collect_usage_pieces(context)[1:]]),
            paragraphs=(by_hand.help or one.summary).split("\n\n"),
            aliases=[],
            arguments=[],
            options=option_sections(context, [param for param in by_hand.params if getattr(param, "heading", "") != CONNECTION]),
            examples=(),
        )


def _shared(context: click.Context) -> dict[str, list[tuple[str, str]]]:
    return option_sections(context, context.command.params)


def _name(section: Section) -> str:
    return re.split(r" (?=[A-Z\[])", section.usage)[0]


def _anchor(section: Section) -> str:
    return _name(section).replace(" ", "-")


def _spaced(paragraphs: list[str]) -> list[str]:
    return [line for paragraph in paragraphs for line in (_text(paragraph), "")]


def _table(heading: str, rows: list[tuple[str, str]]) -> list[str]:
    if not rows:
        return []
    return [f"| {heading} | |", "|---|---|", *(f"| `{_cell(name, code=True)}` | {_cell(text)} |" for name, text in rows), ""]


def _cell(text: str, *, code: bool = False) -> str:
    escaped = text.replace("|", "\\|")
    return escaped if code else _text(escaped)


def _text(text: str) -> str:
    """Text in which nothing is taken for markup."""
    return re.sub(r"([*_<>])", r"\\\1", text)


def _entries(rows: list[tuple[str, str]]) -> list[str]:
    return [line for name, text in rows for line in (".TP", f".B {_roff(name)}", _roff(text))]


def _roff(text: str) -> str:
    """Text that groff takes for nothing else."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped
