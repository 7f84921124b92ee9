"""Running the programs that build: their output is shown when they fail, and not before."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class BuildError(Exception):
    """A step of the build that did not succeed; the message says which, and what it printed."""


def run(command: Sequence[str | Path], *, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a program and return what it printed on both outputs; BuildError where it exits with anything but 0."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except FileNotFoundError as exc:
        raise BuildError(f"{command[0]} is missing: `make dist` installs what it needs (tools/packaging/setup.sh)") from exc
    if done.returncode != 0:
        raise BuildError(f"{' '.join(map(str, command))} failed with exit code {done.returncode}:\n{done.stdout}")
    return done.stdout
