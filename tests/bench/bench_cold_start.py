"""How long a cold start takes: from exec of the daemon to the last kernel entry, with so many routes stored, by phases.

    python -m tests.bench.bench_cold_start [routes] [starts]

The phases are told by the daemon's own log, of which the last line comes when the kernel has answered for every entry; a dump
checks that it has them. Beside it what an empty daemon takes, and a loop in C over the same entries. In namespaces of its own.
"""

import re
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from mcastd.kernel import mfc_dump
from mcastd.model.address import Family
from tests.bench.bench_bulk import floor
from tests.e2e.router import bulk
from tests.testbed import Testbed, become_able
from tests.testbed.daemon import McastdProcess

PHASES = (
    ("keeper", "the server is started"),
    ("imports, state, engine", "a table is taken over"),
    ("programming", "the server serves"),
)
"""Each ends with the first line of the log with this message."""


def start(bed: Testbed, directory: Path) -> tuple[float, list[tuple[str, float]], int]:
    """Start a daemon in a router of its own: seconds until it serves, the phases, and how many entries the kernel has."""
    router = bed.star(2).router
    began = time.time()
    with McastdProcess(router, directory) as daemon:
        text = daemon.log()
        entries = sum(router.run(lambda family=family: len(mfc_dump.dump(family, 0))) for family in Family)  # type: ignore[misc]
    daemon.log_path.unlink()
    phases, before = [], began
    for name, message in PHASES:
        at = _time_of(text, message)
        if at is not None:
            phases.append((name, at - before))
            before = at
    return before - began, phases, entries


def _time_of(text: str, message: str) -> float | None:
    found = re.search(rf'time=(\S+) .*msg="{message}"', text)
    return datetime.fromisoformat(found[1]).timestamp() if found else None


def run(bed: Testbed, count: int, starts: int) -> Iterator[str]:
    """Measure; the lines to print."""
    for family in Family:
        with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as full:
            star = bed.star(2)
            source = star.source.address(family)
            routes = list(bulk(family, count, source, "down1", "down2"))
            with McastdProcess(star.router, Path(full)) as daemon:
                daemon.replace(routes, options={"owner": "bulk"})
            daemon.log_path.unlink()
            loop, _ = floor(bed, family, routes)
            for _ in range(starts):
                nothing, _, _ = start(bed, Path(empty))
                seconds, phases, entries = start(bed, Path(full))
                assert entries == count, entries
                told = ", ".join(f"{name} {took:.2f}" for name, took in phases)
                yield f"{family.name}: {count} routes in {seconds:.2f} s ({told}); nothing {nothing:.2f} s; C loop {loop:.2f} s"


def main() -> None:
    """Measure and print."""
    reason = become_able()
    if reason:
        sys.exit(reason)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    starts = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with Testbed() as bed:
        for line in run(bed, count, starts):
            print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
