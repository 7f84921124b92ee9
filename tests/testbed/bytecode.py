"""Compiles what the tests import and start, once: also where Python is told to write no bytecode, as in many containers.

Hundreds of tests start a daemon, each of three processes; without bytecode each of them compiles the same 200 modules anew, which
takes as long as all the rest of a start.
"""

import compileall
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = ("mcast", "mcastd", "tests", "tools")
"""What daemons, clients and helpers of tests are made of."""

REWRITTEN = re.compile(r"/(test_[^/]*|conftest)\.py$")
"""Modules that pytest compiles itself."""


def compile_all(packages: Iterable[str] = PACKAGES) -> None:
    """Bring the bytecode of these packages up to date; what cannot be compiled or written is left to whoever imports it."""
    for name in packages:
        spec = importlib.util.find_spec(name)
        for place in (spec and spec.submodule_search_locations) or ():
            compileall.compile_dir(place, quiet=2, rx=REWRITTEN)
