"""The wheels in every Python that this machine has: they install, and the extension and both programs load."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.build import Built

pytestmark = [pytest.mark.xdist_group("packages"), pytest.mark.timeout(600)]

_IMPORT = "import mcastd.kernel.mroute, mcastd.runtime.server; print(mcastd.kernel._native.__file__)"


def pythons() -> list[str]:
    """Paths of the Pythons from 3.11 on that are there, one of each."""
    found: dict[str, str] = {}
    for minor in range(11, 20):
        candidates = [shutil.which(f"python3.{minor}"), *map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3"))]
        for one in filter(None, candidates):
            command = [one, "-c", "import sys, ensurepip, venv; print(*sys.version_info[:2], sep='.')"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.stdout.strip() == f"3.{minor}":
                found.setdefault(f"3.{minor}", one)
    return list(found.values())


@pytest.mark.parametrize("python", pythons())
def test_the_wheels_work(built: Built, tmp_path: Path, python: str) -> None:
    subprocess.run([python, "-m", "venv", tmp_path], check=True)
    run = tmp_path / "bin"
    wheels = [built.one("mcastd-*.whl"), built.one("mcast_client-*.whl")]
    subprocess.run([run / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check", *wheels], check=True)
    said = subprocess.run([run / "python", "-I", "-W", "error", "-c", _IMPORT], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == str(next(tmp_path.glob("lib/python3*/site-packages/mcastd/kernel/_native.abi3.so")))
    for program in ("mcastd", "mcastctl"):
        command: list[str | Path] = [run / "python", "-I", run / program, "--version"]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.startswith(program)
    assert (tmp_path / "share/man/man8/mcastd.8").is_file()
    assert (tmp_path / "share/zsh/site-functions/_mcastctl").is_file()
