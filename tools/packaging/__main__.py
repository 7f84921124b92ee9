"""`python -m tools.packaging`: builds sdists, wheels and the .deb of the tree into dist/; `make dist` runs it."""

import argparse
import os
import sys
from pathlib import Path

from tools.packaging import debian, wheels
from tools.packaging.command import BuildError
from tools.packaging.snapshot import ROOT, source_date_epoch, take_snapshot


def main() -> int:
    """Build all; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=ROOT, help="the tree (default: that of this program)")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="directory of what is built (default: dist)")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "dist", help="directory to build in; it is emptied first")
    parser.add_argument("--no-lintian", action="store_true", help="do not have lintian look at the .deb")
    given = parser.parse_args()
    os.umask(0o022)
    try:
        epoch = source_date_epoch(given.source)
        tree = take_snapshot(given.source, given.work)
        built = wheels.build(tree, given.work, epoch)
        package = debian.build(tree, given.work, epoch, built)
        if not given.no_lintian:
            debian.check(package)
    except BuildError as exc:
        print(f"dist: {exc}", file=sys.stderr)
        return 1
    given.output.mkdir(parents=True, exist_ok=True)
    for old in given.output.glob("mcast*"):  # of other versions: `apt install ./mcastd_*.deb` must mean one file
        old.unlink()
    for path in (*built, package):
        target = given.output / path.name
        target.write_bytes(path.read_bytes())
        print(f"dist: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
