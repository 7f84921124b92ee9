"""The examples of README.md and docs/clients.md, run as they are against a real daemon: only the socket's path is another."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess

ROOT = Path(__file__).parents[3]
PAGES = ("clients/python/README.md", "docs/clients.md")
SOCKET = "/run/mcastd/mcastd.sock"


def examples() -> list[tuple[str, str]]:
    """The blocks of Python of all pages that are whole programs."""
    found = []
    for page in PAGES:
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
        found += [(f"{page} {number}", block) for number, block in enumerate(blocks, 1) if "/etc/mcastd/tls" not in block]
    return found


@pytest.fixture(scope="module")
def daemon(_able: None) -> Iterator[McastdProcess]:
    """A daemon on a router with the interfaces that the pages name."""
    with Testbed() as bed, McastdProcess(bed.star(2).router) as made:
        yield made


@pytest.mark.kernel
@pytest.mark.parametrize("page,block", examples(), ids=[name for name, _ in examples()])
def test_example_runs(daemon: McastdProcess, page: str, block: str) -> None:
    assert SOCKET in block, page
    program = block.replace(SOCKET, str(daemon.socket))
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout or "view" in program, page


def test_there_are_examples() -> None:
    assert len(examples()) >= 6
