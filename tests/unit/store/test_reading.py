"""mcastd.store.reading: what was committed is put together again, and what is lost in between is found."""

import sqlite3
from pathlib import Path

import pytest

from mcastd.model.address import exact_key
from mcastd.model.record import Intent, OwnerRecord
from mcastd.model.route import Oif, Paths, Route
from mcastd.store import database
from mcastd.store.database import Unusable
from mcastd.store.reading import read_records, record_number
from mcastd.store.sqlite import Store


def route(number: int) -> Route:
    return Route(
        exact_key(0, b"\xe8\0\0" + bytes([number]), b"\x0a\0\0\1"), Paths("eth0", (Oif("eth1"),)), "ctl", "", False, number
    )


@pytest.fixture
def connection(tmp_path: Path) -> sqlite3.Connection:
    """A snapshot of two routes, and three records of journal, one of which deletes."""
    store = Store.open(tmp_path)
    store.commit([Intent(puts=[route(1), route(2)], owners=[OwnerRecord("ctl", 0, 2)])])
    store.compact(store.mark(), list(store.load().routes.values()), [OwnerRecord("ctl", 0, 2)], [])
    for intent in (Intent(puts=[route(3)]), Intent(deletes=[route(1).key]), Intent(puts=[route(4)])):
        store.commit([intent])
    store.close()
    return sqlite3.connect(tmp_path / "state.db", isolation_level=None)


def test_snapshot_then_journal(connection: sqlite3.Connection) -> None:
    found = read_records(connection, database.read_state(connection))
    assert list(found.stored.routes) == [route(number).key for number in (2, 3, 4)]
    assert list(found.stored.owners) == ["ctl"]
    assert found.snapshot_routes == 2
    assert min(found.snapshot_bytes, found.journal_bytes) > 0
    connection.close()


@pytest.mark.parametrize(
    "damage,said",
    [
        ("DELETE FROM journal WHERE sequence = (SELECT MIN(sequence) + 1 FROM journal)", "a record of the journal is lost"),
        ("DELETE FROM journal WHERE sequence = (SELECT MAX(sequence) FROM journal)", "the journal does not end where it should"),
        ("DELETE FROM snapshot", "the snapshot is not the one in force"),
    ],
)
def test_what_is_lost_is_found(connection: sqlite3.Connection, damage: str, said: str) -> None:
    state = database.read_state(connection)
    connection.execute(damage)
    with pytest.raises(Unusable, match=said):
        read_records(connection, state)
    connection.close()


def test_a_number_is_a_generation_and_a_place_in_it() -> None:
    assert record_number(3, 0) > record_number(2, 2**32 - 1)
    assert record_number(2, 1) == record_number(2, 0) + 1
