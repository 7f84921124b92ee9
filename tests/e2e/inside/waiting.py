"""Runs the attempts: in a server process that serves, when SIGNAL comes; or as a program, with whatever rights it is started.

Those of root show that the attempts are well made. `hook` writes the `sitecustomize` that brings this into the interpreter of a
server.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from . import files, network, processes, rights
from .attempts import Target, try_everything

SIGNAL = signal.SIGRTMIN + 7
VARIABLE = "PYTHON_MCASTD_INSIDE"
"""Path of the file that says what to try it on; the keeper passes on to its server what begins with PYTHON."""

_HOOK = """import sys

if "mcastd.runtime.server" in sys.orig_argv:
    from inside.waiting import lie_in_wait

    lie_in_wait()
"""

ALL = (files, network, processes, rights)
"""Their import registers what is tried."""


def lie_in_wait() -> None:
    """Try everything when the signal comes."""
    signal.signal(SIGNAL, lambda *_: run(os.environ[VARIABLE]))


def run(path: str) -> None:
    """Try everything on the target in a file, and leave what came of it where that says."""
    target = Target(**json.loads(Path(path).read_text()))
    new = Path(target.result + ".new")
    new.write_text(json.dumps(try_everything(target)))
    new.rename(target.result)


def hook(directory: Path) -> dict[str, str]:
    """Make a directory from which a server's interpreter takes this; the environment that brings it about.

    What to try it on is written to target.json there.
    """
    shutil.copytree(Path(__file__).parent, directory / "inside", ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "sitecustomize.py").write_text(_HOOK)
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return {VARIABLE: str(directory / "target.json"), "PYTHONPATH": str(directory)}


if __name__ == "__main__":
    run(sys.argv[1])
