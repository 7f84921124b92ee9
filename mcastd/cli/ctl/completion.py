"""What the completion scripts of the shells ask for: the words that fit at the end of a line, in each shell's own form."""

import os
import shlex
from collections.abc import Callable
from importlib.resources import files

import click
from click.shell_completion import CompletionItem, ShellComplete

LINE = "_MCASTCTL_LINE"
BREAKS = "_MCASTCTL_BREAKS"


def script(shell: str) -> str:
    """The completion script of a shell."""
    return files("mcastd.cli.ctl").joinpath("shell", f"mcastctl.{shell}").read_text("utf-8")


def answer_shell(root: click.Group, instruction: str) -> int:
    """Answer a script ("bash_complete"), or print one ("bash_source", as click's programs do); the exit code."""
    shell, _, wanted = instruction.partition("_")
    if shell not in _FORMS or wanted not in {"complete", "source"}:
        return 1
    if wanted == "source":
        click.echo(script(shell), nl=False)
        return 0
    line = os.environ.get(LINE, "")
    typed = _split(line)[1:]
    # The word under the cursor is what is typed of it, or empty after a space.
    incomplete = typed.pop() if typed and not line[-1:].isspace() else ""
    items = ShellComplete(root, {}, root.name or "", "").get_completions(typed, incomplete)
    if any(item.type in {"file", "dir"} for item in items):
        click.echo("file")
    else:
        click.echo("\n".join(["words", *(_FORMS[shell](item, incomplete) for item in items)]))
    return 0


def _split(line: str) -> list[str]:
    """The words of a line as a shell has them, the last of which may be unfinished."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    found: list[str] = []
    try:
        found.extend(lexer)
    except ValueError:  # a quote is still open
        found.append(lexer.token)
    return found


def _bash(item: CompletionItem, incomplete: str) -> str:
    """Bash replaces only what follows the last character at which it breaks words, as the colons of an IPv6 address."""
    breaks = [at for at, char in enumerate(incomplete) if char in os.environ.get(BREAKS, "") and char in ":="]
    return str(item.value)[breaks[-1] + 1 :] if breaks else str(item.value)


def _zsh(item: CompletionItem, _incomplete: str) -> str:
    value = str(item.value).replace("\\", "\\\\").replace(":", "\\:")
    return f"{value}:{_line(item.help)}" if item.help else value


def _fish(item: CompletionItem, _incomplete: str) -> str:
    return f"{item.value}\t{_line(item.help)}" if item.help else str(item.value)


def _line(text: str) -> str:
    return " ".join(text.split())


_FORMS: dict[str, Callable[[CompletionItem, str], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
