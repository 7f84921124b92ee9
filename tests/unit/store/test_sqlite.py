"""The store in use: commits, compaction beside them, and what it says when it is called wrongly."""

import sqlite3
import threading
from pathlib import Path

import pytest

from mcastd.model.address import exact_key
from mcastd.model.errors import McastdError, Reason
from mcastd.model.record import Intent, InterfaceSettings, OwnerRecord, Pin
from mcastd.model.route import Oif, Paths, Route
from mcastd.store import sqlite
from mcastd.store.sqlite import Store

PATHS = Paths("eth0", (Oif("eth1"),))


def put(number: int, revision: int = 0) -> Route:
    return Route(exact_key(0, b"\xe8" + number.to_bytes(3, "big"), b"\x0a\0\0\1"), PATHS, "ctl", "", False, revision)


def revisions(store: Store) -> dict[bytes, int]:
    return {key: route.revision for key, route in store.load().routes.items()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "state")


def reopened(store: Store) -> Store:
    store.close()
    again = Store.open(store.path.parent)
    assert again.notice is None
    return again


def test_starts_are_counted_over_restarts(store: Store) -> None:
    assert store.begin() == 1
    store = reopened(store)
    assert store.begin() == 2
    assert store.begin() == 3
    store.close()


def test_a_key_both_deleted_and_put_is_there(store: Store) -> None:
    store.commit([Intent(puts=[put(1, 5)])])
    store.commit([Intent(puts=[put(1, 6)], deletes=[put(1).key])])
    store = reopened(store)
    assert revisions(store) == {put(1).key: 6}
    store.close()


def test_what_is_said_of_interfaces_is_kept_by_owner(store: Store) -> None:
    said = InterfaceSettings("eth0", "ctl", 5, 1, (Pin(0, True, 1),))
    other = InterfaceSettings("eth0", "config", pins=(Pin(0, False, 1),))
    store.commit([Intent(settings=[said, other])])
    store = reopened(store)
    assert store.load().settings == {("eth0", "ctl"): said, ("eth0", "config"): other}
    later = InterfaceSettings("eth0", "ctl", 6, 2, (Pin(0, True, 1),))
    store.commit([Intent(settings=[later])])
    store = reopened(store)
    assert store.load().settings == {("eth0", "ctl"): later, ("eth0", "config"): other}
    store.close()


def test_nothing_to_commit_writes_nothing(store: Store) -> None:
    mark = store.mark()
    store.commit([])
    store.commit([Intent(), Intent()])
    assert store.mark() == mark
    store.close()


def test_what_cannot_be_packed_stores_nothing_of_the_group(store: Store) -> None:
    with pytest.raises(ValueError, match="neither 12 nor 36"):
        store.commit([Intent(puts=[put(1)]), Intent(deletes=[b"x"])])
    assert store.load().routes == {}
    store.commit([Intent(puts=[put(2)])])
    assert list(store.load().routes) == [put(2).key]
    store.close()


def test_the_first_load_costs_no_second_reading(store: Store) -> None:
    store.commit([Intent(puts=[put(1)])])
    store = reopened(store)
    kept = store._loaded
    assert store.load() is kept
    assert store.load() is not kept
    store.close()


def test_another_thread_may_take_over(store: Store) -> None:
    worker = threading.Thread(target=store.commit, args=([Intent(puts=[put(1)])],))
    worker.start()
    worker.join()
    assert list(store.load().routes) == [put(1).key]
    store.close()


def test_commits_during_a_compaction_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "ROUTES_MAX", 2)
    store.commit([Intent(puts=[put(at, 1) for at in range(6)])])
    mark, snapshot = store.mark(), list(store.load().routes.values())
    store.commit([Intent(puts=[put(0, 2)], deletes=[put(1).key])])  # after the mark, before the first slice
    for step, _ in enumerate(store.compaction(mark, snapshot, [OwnerRecord("ctl", 3)], [])):
        store.commit([Intent(puts=[put(2, 10 + step), put(100 + step, 1)], deletes=[put(3).key])])
    expected = revisions(store)
    assert expected[put(0).key] == 2
    assert put(1).key not in expected
    assert put(3).key not in expected
    assert expected[put(2).key] == 10 + step
    store = reopened(store)
    assert revisions(store) == expected
    assert store.load().owners == {"ctl": OwnerRecord("ctl", 3)}
    store.close()


def test_a_compaction_removes_what_it_replaces(store: Store) -> None:
    for revision in range(200):
        store.commit([Intent(puts=[put(at, revision) for at in range(5)])])
    for _ in range(3):
        store.compact(store.mark(), list(store.load().routes.values()), [], [])
    count = store._connection.execute("SELECT (SELECT COUNT(*) FROM snapshot), (SELECT COUNT(*) FROM journal)").fetchone()
    assert count == (1, 0)
    assert set(revisions(store).values()) == {199}
    store.close()


def test_what_a_broken_off_compaction_left_goes_at_the_next_start(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "ROUTES_MAX", 1)
    store.commit([Intent(puts=[put(at, 1) for at in range(50)])])
    steps = store.compaction(store.mark(), list(store.load().routes.values()), [], [])
    for _ in range(45):
        next(steps)
    steps.close()
    assert store._connection.execute("SELECT COUNT(*) > 40 FROM snapshot").fetchone() == (1,)
    store = reopened(store)
    assert store._connection.execute("SELECT COUNT(*) FROM snapshot").fetchone() == (0,)
    assert len(store.load().routes) == 50
    store.close()


def test_one_compaction_at_a_time_and_none_from_the_past(store: Store) -> None:
    early = store.mark()
    store.commit([Intent(puts=[put(1)])])
    steps = store.compaction(store.mark(), [put(1)], [], [])
    next(steps)
    assert not store.wants_compaction()
    with pytest.raises(RuntimeError, match="under way"):
        store.compact(store.mark(), [], [], [])
    for _ in steps:
        pass
    with pytest.raises(ValueError, match="is not between"):
        store.compact(early, [], [], [])
    assert list(store.load().routes) == [put(1).key]
    store.close()


def test_it_wants_a_compaction_after_many_records(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "JOURNAL_RECORDS_MAX", 10)
    for number in range(10):
        store.commit([Intent(puts=[put(number)])])
    assert not store.wants_compaction()
    store.commit([Intent(puts=[put(10)])])
    assert store.wants_compaction()
    store = reopened(store)
    assert store.wants_compaction()
    mark, snapshot = store.mark(), list(store.load().routes.values())
    for number in range(3):
        store.commit([Intent(puts=[put(number)])])
    store.compact(mark, snapshot, [], [])
    assert not store.wants_compaction()
    for number in range(8):
        store.commit([Intent(puts=[put(number)])])
    assert store.wants_compaction()
    store.close()


def test_it_wants_a_compaction_after_many_bytes_unless_the_snapshot_has_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "JOURNAL_BYTES_MAX", 10_000)
    routes = [put(number) for number in range(2_000)]
    store.commit([Intent(puts=routes)])
    assert store.wants_compaction()
    store.compact(store.mark(), routes, [], [])
    store.commit([Intent(puts=routes[:1_000])])
    assert not store.wants_compaction()
    store = reopened(store)
    assert not store.wants_compaction()
    store.commit([Intent(puts=routes[:1_200])])
    assert store.wants_compaction()
    store.close()


def test_a_database_damaged_while_open_is_an_error_that_says_so(store: Store) -> None:
    store.commit([Intent(puts=[put(1)])])
    store._connection.execute("UPDATE journal SET record = x'00'")
    with pytest.raises(McastdError, match="sets a damaged database aside") as refused:
        store.load()
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    store.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_removed_while_open_takes_nothing_more(store: Store, replaced: bool) -> None:
    store.path.rename(store.path.with_name("moved"))
    if replaced:
        store.path.touch()
    with pytest.raises(McastdError, match=r"has been moved or removed.*restart the daemon") as refused:
        store.commit([Intent(puts=[put(1)])])
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    store.path.with_name("moved").rename(store.path)
    store.commit([Intent(puts=[put(2)])])
    assert list(store.load().routes) == [put(2).key]
    store.close()


def test_a_closed_store_is_the_caller_s_mistake(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        store.commit([Intent(puts=[put(1)])])
