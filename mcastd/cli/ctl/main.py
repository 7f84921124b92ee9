"""`mcastctl`: the entry point. Turns whatever ends the program into an exit code; imports the rest when it runs."""

import os
import sys
from collections.abc import Sequence

from mcastd.cli.ctl import codes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    try:
        # Here, so that Ctrl-C while the rest is loaded is no traceback either.
        from mcastd.cli.ctl.program import program  # noqa: PLC0415

        code: object = program(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = codes.INTERRUPTED
    except SystemExit as exc:
        code = exc.code
    except BrokenPipeError:
        _drop_output()
        code = codes.BROKEN_PIPE
    except OSError as exc:
        # Of what we do here only writing can fail so: a full disk, a terminal that is gone.
        _drop_output()
        sys.stderr.write(f"mcastctl: can't write: {exc.strerror}\n")
        code = codes.USAGE
    return code if isinstance(code, int) else 0 if code is None else 1


def _drop_output() -> None:
    """Have the interpreter's last flush go nowhere: it would fail like the one before."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
