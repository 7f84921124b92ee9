"""`mcastctl`: the entry point. Turns whatever ends the program into an exit code; imports the rest when it runs."""

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from mcastd.cli.ctl import codes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    _open_closed()
    code: object
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = codes.INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        code = codes.BROKEN_PIPE
    except OSError as exc:
        # Of what we do here only writing can fail so: a full disk, a terminal that is gone.
        _drop_output()
        with suppress(OSError):  # perhaps it is standard error that can't be written
            sys.stderr.write(f"mcastctl: can't write: {exc.strerror}\n")
            sys.stderr.flush()
        code = codes.USAGE
    return code if isinstance(code, int) else 0 if code is None else 1


def run() -> NoReturn:
    """Run the program and end the process: without taking the interpreter apart, which takes a third of a call's time."""
    gc.set_threshold(100_000, 50, 100)  # What is imported stays: to look at it again and again takes a fifth.
    code = main()
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def _run(arguments: Sequence[str] | None) -> object:
    # Here, so that Ctrl-C while the rest is loaded is no traceback either.
    from mcastd.cli.ctl.program import program  # noqa: PLC0415

    try:
        return program(arguments)
    except SystemExit as exc:
        return exc.code


def _open_closed() -> None:
    """Give standard streams that the caller has closed a descriptor: the next socket would become standard output otherwise.

    Standard input and output are opened the wrong way round, so that using them fails as it does elsewhere (EBADF), and not using
    them does not; what would be said on standard error is lost.
    """
    if sys.stdin is None:
        _take_descriptor(0, os.O_WRONLY)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        _take_descriptor(1, os.O_RDONLY)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        _take_descriptor(2, os.O_WRONLY)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _take_descriptor(number: int, flags: int) -> None:
    nowhere = os.open(os.devnull, flags)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


def _drop_output() -> None:
    """Have the interpreter's last flush go nowhere: it would fail like the one before."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    run()
