"""The program behind `make fabric`: makes the tree importable and lets the play begin."""

import signal
import sys
from pathlib import Path


def main() -> int:
    """Play it; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to clean up yet, and a traceback helps nobody
    root = Path(__file__).resolve().parents[2]
    # The tree instead of this directory: it holds `demo` and `tests`, and the controller.
    sys.path[:1] = [str(root), str(root / "clients/examples/controller")]
    from demo.fabric.play import play  # noqa: PLC0415 - found only now

    return play()


if __name__ == "__main__":
    sys.exit(main())
