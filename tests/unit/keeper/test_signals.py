"""Signals as something a selector can wait for; in a process of its own, since they are its alone."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

SCRIPT = """
import os, select, signal
from mcastd.keeper.signals import Signals

def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)

signals = Signals()
assert signals.take() == []
send(signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM)
assert select.select([signals], [], [], 5)[0]
print(*sorted(number.name for number in signals.take()))
assert signals.take() == []
signals.close()
send(signal.SIGHUP)
print("alive", flush=True)
send(signal.SIGTERM)
"""


def test_signals_are_read_and_after_the_end_only_those_that_end_us_count() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert (done.stdout.splitlines(), done.stderr) == (["SIGHUP SIGTERM", "alive"], "")
    assert done.returncode == -15
