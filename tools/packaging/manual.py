"""`python -m tools.packaging.manual`: writes docs/man, mcastd(8) from the command line's parser, mcastctl(1) as it prints it."""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mcastd.cli.flags import DEFAULT_CONFIG
from mcastd.cli.mcastd import parser
from mcastd.model.settings import DEFAULT_SOCKET, DEFAULT_STATE_DIR

ROOT = Path(__file__).parents[2]
DIRECTORY = Path("docs", "man")

_DESCRIPTION = """
mcastd turns a Linux host into a multicast router that a program can drive. It takes static multicast routes over gRPC, from
mcastctl(1) and from its configuration file, programs them into the kernel's forwarding cache, and keeps them right while
interfaces come, go, flap and are renamed.

It runs as two processes: a small keeper that holds the kernel's multicast routing sockets, and the server, which does the rest
without any privilege. The server may crash, restart and be upgraded: packets go on.

It needs the capabilities CAP_NET_ADMIN and CAP_NET_RAW.
"""

_SIGNALS = (
    ("SIGTERM, SIGINT", "End. Routes and joins go, unless a service manager holds the sockets for the next start."),
    ("SIGHUP", "Read the configuration again, as mcastctl reload does."),
    ("SIGUSR2", "Upgrade the server: new code is started beside the old, which hands over. Nothing is lost."),
    ("SIGUSR1", "The keeper executes itself again, under the same process number: its own upgrade. Nothing is lost."),
)

_FILES = (
    (
        DEFAULT_CONFIG,
        "The configuration, read where it exists and no other file is named. mcastd check says what is wrong with it.",
    ),
    (DEFAULT_SOCKET, "The API, unless the configuration or --listen says otherwise."),
    (DEFAULT_STATE_DIR, "What was acknowledged is kept here."),
)

_SEE_ALSO = ".BR mcastctl (1),\n.BR systemd.service (5),\n.BR ip-mroute (8)"


def daemon_page() -> str:
    """mcastd(8)."""
    top = parser()
    lines = [
        '.TH MCASTD 8 "" mcastd "mcastd manual"',
        ".nh",
        ".ad l",
        ".SH NAME",
        "mcastd \\- multicast router daemon that a program can drive",
        ".SH SYNOPSIS",
    ]
    for one in _commands(top):
        lines += [".B mcastd", *_usage(one), ".br"]
    lines[-1:] = [".SH DESCRIPTION"]
    for paragraph in _DESCRIPTION.strip().split("\n\n"):
        lines += [".PP", _roff(" ".join(paragraph.split()))]
    lines.append(".SH COMMANDS")
    for one in _commands(top):
        lines += [f".SS {_roff(one.prog)}", _roff(_sentence(one.description))]
        lines += _entries(_options(one))
        if one.epilog:
            lines += [".PP", _roff(_sentence(one.epilog))]
    lines += [".SH SIGNALS", *_entries(_SIGNALS), ".SH FILES", *_entries(_FILES), ".SH SEE ALSO", _SEE_ALSO]
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """Every manual page, by its path in the tree."""
    command = [sys.executable, "-m", "mcastd.cli.ctl.main", "--dump-docs", "man"]
    control = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {str(DIRECTORY / "mcastd.8"): daemon_page(), str(DIRECTORY / "mcastctl.1"): control}


def _commands(top: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in top._subparsers._group_actions if top._subparsers else ():  # noqa: SLF001 - argparse has no other way to ask
        for one in action.choices.values() if isinstance(action.choices, dict) else ():
            if one._subparsers is None:  # noqa: SLF001 - see above
                yield one
            else:
                yield from _commands(one)


def _options(one: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in one._actions:  # noqa: SLF001 - see above
        if action.help is None or action.help == argparse.SUPPRESS or action.dest == "help":
            continue
        value = "" if action.nargs == 0 else f" {action.metavar or action.dest}"
        yield (", ".join(action.option_strings) + value).strip(), action.help % vars(action)


def _usage(one: argparse.ArgumentParser) -> list[str]:
    words = one.format_usage().removeprefix("usage: mcastd ").replace(" [-h]", "").split()
    return [_roff(" ".join(words))]


def _sentence(text: str | None) -> str:
    text = " ".join((text or "").split())
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ")", "]")) else ".")


def _entries(rows: "Iterator[tuple[str, str]] | tuple[tuple[str, str], ...]") -> list[str]:
    return [line for term, text in rows for line in (".TP", f"\\fB{_roff(term)}\\fR", _roff(text))]


def _roff(text: str) -> str:
    escaped = re.sub(r"([-\\])", lambda found: {"-": "\\-", "\\": "\\e"}[found[1]], text)
    escaped = escaped.replace("[,", "\\:[,")  # a place where a long word may be broken
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def main() -> None:
    """Write them into docs/man."""
    for name, text in pages().items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        print(path)


if __name__ == "__main__":
    main()
