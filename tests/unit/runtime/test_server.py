"""The server's main: how a fault in it ends."""

import os
import subprocess
import sys
from pathlib import Path

FAULTY = """
import sys
from mcastd.runtime import server
def fail():
    raise RuntimeError("a fault\\nof two lines")
server.inherited_channel = fail
sys.exit(server.main())
"""


def test_fault_is_one_line_of_the_log() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTY],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
        env={name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"},
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "level=critical process=server" in done.stderr
    assert "fail\\n" in done.stderr  # the traceback is a field
