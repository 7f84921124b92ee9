"""What the store costs: commits, load and compaction of many routes, beside a plain loop that inserts a row per route.

Run: python tests/bench/bench_store.py [routes]. Times of this process (CPU) and of the clock, in the same run.
"""

import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time

from mcastd.model.address import exact_key, split_key
from mcastd.model.record import Intent, OwnerRecord
from mcastd.model.route import Oif, Paths, Route
from mcastd.store.sqlite import Store

BATCH = 1_000

PATHS = [Paths(f"eth{at % 8}", tuple(Oif(f"vlan{at + more}") for more in range(4))) for at in range(64)]


def routes_of(count: int, *, ipv6: bool, cookies: bool) -> list[Route]:
    """Return routes as a controller would write them: few different interfaces, a revision per batch."""
    made = []
    for at in range(count):
        number = at.to_bytes(4, "big")
        key = (
            exact_key(0, b"\xff\x0e" + bytes(10) + number, bytes(15) + b"\1")
            if ipv6
            else exact_key(0, b"\xe8" + number[1:], b"\x0a\0\0\1")
        )
        made.append(Route(key, PATHS[at % 64], "controller", f"flow-{at}" if cookies else "", False, (1 << 40) + at // BATCH))
    return made


@contextmanager
def timed(what: str, count: int) -> Iterator[None]:
    """Print what the block cost, as a whole and for each of `count`."""
    cpu, clock = process_time(), perf_counter()
    yield
    cpu, clock = process_time() - cpu, perf_counter() - clock
    print(f"  {what:<46}{cpu * 1e3:9.1f} ms CPU {clock * 1e3:9.1f} ms {cpu / count * 1e6:8.2f} us CPU each")  # noqa: T201


def store_costs(directory: Path, routes: list[Route]) -> None:
    """Commit, load, compact and load again."""
    count = len(routes)
    store = Store.open(directory)
    store.load()
    with timed(f"commit, {BATCH} a commit", count):
        for at in range(0, count, BATCH):
            store.commit([Intent(puts=routes[at : at + BATCH], owners=[OwnerRecord("controller", 1, at)])])
    store.close()
    with timed("open and load from the journal", count):
        store = Store.open(directory)
        loaded = store.load()
    assert len(loaded.routes) == count
    mark, snapshot = store.mark(), list(loaded.routes.values())
    with timed("compact", count):
        store.compact(mark, snapshot, loaded.owners.values(), loaded.settings.values())
    slices = []
    clock = perf_counter()
    for _ in store.compaction(store.mark(), snapshot, loaded.owners.values(), loaded.settings.values()):
        slices.append(perf_counter() - clock)
        clock = perf_counter()
    print(f"  {'longest slice of a compaction':<46}{max(slices) * 1e3:26.1f} ms")  # noqa: T201
    store.close()
    with timed("open and load from the snapshot", count):
        store = Store.open(directory)
        loaded = store.load()
    assert len(loaded.routes) == count
    print(f"  {'database, bytes for each route':<46}{(directory / 'state.db').stat().st_size / count:26.1f}")  # noqa: T201
    few = routes[:2_000]
    with timed("commit, one route a commit", len(few)):
        for route in few:
            store.commit([Intent(puts=[route])])
    with timed("commit, one route a write, 100 in a group", len(few)):
        for at in range(0, len(few), 100):
            store.commit([Intent(puts=[route]) for route in few[at : at + 100]])
    store.close()


def plain_costs(directory: Path, routes: list[Route]) -> None:
    """Do the same with a row for each route and each of its interfaces as text: what one would write first."""
    count = len(routes)
    connection = sqlite3.connect(directory / "plain.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE route (tbl, grp, source, iif, oifs, owner, cookie, monitored, revision,"
        " PRIMARY KEY (tbl, grp, source)) WITHOUT ROWID"
    )
    with timed(f"plain rows: commit, {BATCH} a commit", count):
        for at in range(0, count, BATCH):
            connection.execute("BEGIN IMMEDIATE")
            for r in routes[at : at + BATCH]:
                oifs = ",".join(f"{name}/{threshold}" for name, threshold in r.paths.oifs)
                row = (*split_key(r.key), r.paths.iif, oifs, r.owner, r.cookie, r.monitored, r.revision)
                connection.execute("INSERT OR REPLACE INTO route VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            connection.execute("COMMIT")
    with timed("plain rows: load", count):
        loaded = {}
        for table, group, source, iif, oifs, owner, cookie, monitored, revision in connection.execute("SELECT * FROM route"):
            asked = [text.split("/") for text in oifs.split(",")]
            paths = Paths(iif, tuple(Oif(name, int(threshold)) for name, threshold in asked))
            key = exact_key(table, group, source)
            loaded[key] = Route(key, paths, owner, cookie, bool(monitored), revision)
    assert len(loaded) == count
    connection.close()


def main() -> None:
    """Print both, for both families, with and without cookies."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    for ipv6 in (False, True):
        for cookies in (False, True):
            print(f"{count} routes, {'IPv6' if ipv6 else 'IPv4'}, {'a cookie each' if cookies else 'no cookies'}")  # noqa: T201
            routes = routes_of(count, ipv6=ipv6, cookies=cookies)
            with tempfile.TemporaryDirectory(prefix="mcastd-bench-store-") as directory:
                store_costs(Path(directory) / "state", routes)
                plain_costs(Path(directory), routes)


if __name__ == "__main__":
    main()
