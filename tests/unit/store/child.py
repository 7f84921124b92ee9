"""What the store's tests run in processes of their own: to be killed, to lack room, to lack permission. No test itself."""

import json
import os
import resource
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

from mcastd.model.address import exact_key
from mcastd.model.errors import McastdError
from mcastd.model.record import Intent, OwnerRecord
from mcastd.model.route import Oif, Paths, Route
from mcastd.store import database
from mcastd.store.sqlite import Store

PATHS = [Paths(f"eth{at}", (Oif(f"vlan{at}"),)) for at in range(5)]


def intent_at(number: int) -> Intent:
    """Return the intent of this number: seven new routes, and the deletion of those of forty intents ago."""
    deletes = [_key(number - 40, at) for at in range(7)] if number > 40 else []
    puts = [Route(_key(number, at), PATHS[at % 5], "ctl", f"cookie {number}", False, number) for at in range(7)]
    return Intent(puts=puts, deletes=deletes, owners=[OwnerRecord("ctl", 0, number)])


def _key(number: int, at: int) -> bytes:
    if number % 2:
        return exact_key(0, b"\xe8" + at.to_bytes(3, "big"), number.to_bytes(4, "big"))
    return exact_key(0, b"\xff\x0e" + bytes(13) + bytes([at]), bytes(12) + number.to_bytes(4, "big"))


def say(*values: object) -> None:
    """Write a line at once."""
    os.write(1, json.dumps(values).encode() + b"\n")


def commit_forever(directory: Path) -> None:
    """Commit, and acknowledge what has been committed; a compaction in slices goes on between."""
    store = Store.open(directory)
    if store.notice:
        sys.exit(store.notice)
    stored = store.load()
    last = stored.owners["ctl"].revision if stored.owners else 0
    compaction = None
    for number in count(last + 1):
        store.commit([intent_at(number)])
        say(number)
        if compaction is None and number % 5 == 0:
            stored = store.load()
            compaction = store.compaction(store.mark(), list(stored.routes.values()), stored.owners.values(), [])
        elif compaction is not None and next(compaction, "ended") == "ended":
            compaction = None


def fill(directory: Path, make_room: Callable[[], object]) -> None:
    """Commit until there is no room, go on when there is; say what happened."""
    store = Store.open(directory)
    refusals = []
    numbers = count(1)
    number = 0

    def until_refused() -> None:
        nonlocal number
        for number in numbers:
            try:
                store.commit([intent_at(number) for _ in range(50)])
            except McastdError as exc:
                refusals.append((exc.reason, str(exc)))
                return

    until_refused()
    acknowledged = store.load().owners["ctl"].revision
    stored = store.load()
    try:
        store.compact(store.mark(), list(stored.routes.values()) * 50, stored.owners.values(), [])
    except McastdError as exc:
        refusals.append((exc.reason, str(exc)))
    unharmed = store.load().owners["ctl"].revision == acknowledged == number - 1
    make_room()
    store.commit([intent_at(number)])
    stored = store.load()
    store.compact(store.mark(), list(stored.routes.values()), stored.owners.values(), [])
    store.commit([intent_at(number + 1)])
    store.close()
    again = Store.open(directory)
    numbers_found = sorted({route.revision for route in again.load().routes.values()})
    expected = list(range(max(1, number + 1 - 39), number + 2))
    say(refusals, unharmed, again.notice, numbers_found == expected)


def fill_file_system(directory: Path) -> None:
    """Fill a small file system, where a file is in the way that can be removed."""
    ballast = directory / "ballast"
    ballast.write_bytes(bytes(600_000))
    fill(directory / "state", ballast.unlink)


def fill_limited(directory: Path) -> None:
    """Meet a limit of the size of a file (EFBIG, where a full disk is ENOSPC)."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    Store.open(directory / "state").close()
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    fill(directory / "state", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)))


def open_once(directory: Path) -> None:
    """Open the store, without waiting for whoever has it, and say what it says."""
    database.LOCK_WAIT_S = 0.0
    try:
        store = Store.open(directory)
        store.begin()
    except McastdError as exc:
        say(exc.reason, str(exc))
    else:
        say("opened", store.notice)


if __name__ == "__main__":
    {
        "commit": lambda: commit_forever(Path(sys.argv[2])),
        "fill-file-system": lambda: fill_file_system(Path(sys.argv[2])),
        "fill-limited": lambda: fill_limited(Path(sys.argv[2])),
        "open": lambda: open_once(Path(sys.argv[2])),
    }[sys.argv[1]]()
