"""Fixtures of tests that build the image and run containers of it."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcastd.model.address import Family
from tests.deploy.image import PYTHON, Image
from tests.e2e.keeper_bench import open_directory
from tests.testbed.rights import is_root

_SUITABLE = (
    "import sys, sysconfig, ensurepip, venv, pathlib; "
    "sys.exit(sys.version_info < (3, 11) or not pathlib.Path(sysconfig.get_path('include'), 'Python.h').exists())"
)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for sockets and state, open to all users."""
    with open_directory() as path:
        yield path


@pytest.fixture(params=list(Family), ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> Family:
    """Both, one after the other."""
    value: Family = request.param
    return value


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """The image, built by the commands of its Dockerfile."""
    if not is_root():
        pytest.skip("needs root outside of user namespaces: containers have several users")
    if subprocess.run([PYTHON, "-c", _SUITABLE], capture_output=True, check=False).returncode:
        pytest.skip(f"{PYTHON} stands in for the base image: it must be Python 3.11 or later, with venv and headers")
    with tempfile.TemporaryDirectory(prefix="mcastd-image-") as path:
        Path(path).chmod(0o755)
        yield Image(Path(path))
