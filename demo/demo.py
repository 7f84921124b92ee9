"""The program behind `make demo`: makes the tree importable and lets the play begin."""

import signal
import sys
from pathlib import Path


def main() -> int:
    """Play the demo; its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to clean up yet, and a traceback helps nobody
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the tree instead of this directory: it holds `demo` and `tests`
    from demo.play import play  # noqa: PLC0415 - found only now

    return play()


if __name__ == "__main__":
    sys.exit(main())
