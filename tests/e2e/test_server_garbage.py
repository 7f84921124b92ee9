"""The real server collects garbage once it serves, though not while it imports; what was imported is never looked at."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, wait_until

pytestmark = pytest.mark.kernel

SIGNAL = signal.SIGRTMIN + 6
VARIABLE = "PYTHON_MCASTD_GARBAGE"
"""Path of the file for what is found; the keeper passes on to its server what begins with PYTHON."""

HOOK = f"""import gc, json, os, signal, sys

def look(*_):
    path = os.environ["{VARIABLE}"]
    with open(path + ".new", "w") as file:
        json.dump([gc.isenabled(), gc.get_freeze_count(), len(gc.get_objects())], file)
    os.rename(path + ".new", path)

if "mcastd.runtime.server" in sys.orig_argv:
    signal.signal({SIGNAL}, look)
"""


def test_garbage_is_collected_once_it_serves(testbed: Testbed, directory: Path) -> None:
    found, hook = directory / "state" / "found", directory / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")])
    environment = {VARIABLE: str(found), "PYTHONPATH": path}
    with McastdProcess(testbed.namespace("router"), directory, environment=environment) as daemon:
        os.kill(daemon.server_pid(), SIGNAL)
        wait_until(found.exists)
    enabled, frozen, watched = json.loads(found.read_text())
    assert enabled
    assert frozen > 10 * watched
