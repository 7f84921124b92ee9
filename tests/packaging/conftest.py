"""What tests of the packages share: everything built once, from the tree as it is."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.packaging.build import TOOLS, Built, build

ROOT = Path(__file__).parents[2]

# What builds packages takes minutes: `make test-dist` spends them, and `make test` does not.
_BUILDING = [
    "test_changelog.py",
    "test_debian.py",
    "test_installed.py",
    "test_pythons.py",
    "test_reproducible.py",
    "test_wheels.py",
]
collect_ignore = [] if os.environ.get("MCASTD_TEST_DIST") else _BUILDING


@pytest.fixture(scope="session")
def tools() -> Path:
    """The Python of the environment that builds; where it can't be made tests are skipped, in CI they fail."""
    done = subprocess.run(
        ["sh", ROOT / "tools/packaging/setup.sh"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode and os.environ.get("CI") == "true":
        pytest.fail(f"packages can't be built here: {done.stdout}")
    if done.returncode:
        pytest.skip(f"packages can't be built here: {done.stdout}")
    return TOOLS


@pytest.fixture(scope="session")
def built(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """All packages of the tree as it is."""
    return build(tools, tmp_path_factory.mktemp("packages"))
