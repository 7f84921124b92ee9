"""mcastd.keeper.statelog: what is appended is read again, by whoever has the descriptor, and nothing else is."""

import os
from collections.abc import Callable
from itertools import pairwise
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.keeper.statelog import FORMAT, RECORD_MAX, Record, StateLog, UnreadableState

RECORDS = [Record(8, b"one"), Record(128, b""), Record(255, b"x" * RECORD_MAX)]


def made(*records: Record) -> StateLog:
    log = StateLog.create()
    for kind, body in records:
        log.append(kind, body)
    return log


def again(log: StateLog) -> StateLog:
    """The log as another process finds it."""
    return StateLog.adopt(os.dup(log.fd))


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200)).map(lambda pair: Record(*pair)), max_size=20))
def test_what_is_appended_is_read_again(records: list[Record]) -> None:
    log = made(*records)
    found = again(log)
    assert list(log.records()) == list(found.records()) == records
    assert log.size == found.size == sum(9 + len(one.body) for one in records)
    log.close()
    found.close()


def test_a_successor_appends_behind() -> None:
    first = made(*RECORDS)
    second = again(first)
    second.append(1, b"more")
    third = again(first)
    assert list(third.records()) == [*RECORDS, Record(1, b"more")]
    for log in (first, second, third):
        log.close()


@pytest.mark.parametrize("cut", [1, 8, 9, 11])
def test_a_torn_end_is_cut_off(cut: int) -> None:
    log = made(RECORDS[0], Record(2, b"abc"))
    os.ftruncate(log.fd, log.end - cut)
    found = again(log)
    assert list(found.records()) == RECORDS[:1]
    found.append(3, b"next")
    assert list(again(log).records()) == [RECORDS[0], Record(3, b"next")]


def test_what_is_before_a_snapshot_is_forgotten_and_its_memory_given_back() -> None:
    log = made(*[Record(1, b"y" * 60_000)] * 40)
    used = os.fstat(log.fd).st_blocks
    start = log.end
    log.append(2, b"snapshot")
    log.begin_at(start)
    log.append(3, b"later")
    assert [one.kind for one in again(log).records()] == [2, 3]
    assert os.fstat(log.fd).st_blocks < used / 20
    for _, end in pairwise(range(6)):  # again and again, with little in between
        at = log.end
        log.append(4, bytes([end]))
        log.begin_at(at)
        assert list(again(log).records()) == [Record(4, bytes([end]))]


def test_unfinished_snapshot_does_no_harm() -> None:
    log = made(*RECORDS)
    log.append(2, b"half a snapshot")
    assert list(again(log).records()) == [*RECORDS, Record(2, b"half a snapshot")]


def spoil(log: StateLog) -> None:
    log.spoil()


def version(log: StateLog) -> None:
    head = os.pread(log.fd, 20, 0)
    head = head[:8] + (FORMAT + 1).to_bytes(4, "big") + head[12:]
    os.pwrite(log.fd, head + crc32(head).to_bytes(4, "big"), 0)


@pytest.mark.parametrize(
    "damage,words",
    [
        (spoil, "it is of version 0"),
        (version, f"it is of version {FORMAT + 1}, this program knows version {FORMAT}"),
        (lambda log: os.pwrite(log.fd, b"\xff", 15), "its header is damaged"),
        (lambda log: os.pwrite(log.fd, b"\xff", 0), "it has no header"),
        (lambda log: os.ftruncate(log.fd, 10), "it has no header"),
        (lambda log: os.pwrite(log.fd, b"\xff", 64), "the record at 64 is damaged"),
        (lambda log: os.pwrite(log.fd, b"\xff", 64 + 10), "the record at 64 is damaged"),
        (lambda log: os.pwrite(log.fd, b"\xff", 64 + 1), "the record at 64 is damaged"),
    ],
)
def test_damage_is_named(damage: Callable[[StateLog], object], words: str) -> None:
    log = made(*RECORDS)
    damage(log)
    with pytest.raises(UnreadableState, match=words):
        again(log)


def test_what_is_no_file_is_refused() -> None:
    reader, writer = os.pipe()
    with pytest.raises(UnreadableState, match="it is no file"):
        StateLog.adopt(reader)
    os.close(writer)
    with pytest.raises(UnreadableState, match="it can't be read"):
        StateLog.adopt(writer)
    os.close(reader)


def test_record_that_is_too_long_is_refused() -> None:
    log = StateLog.create()
    with pytest.raises(ValueError, match="a record of 65537 bytes"):
        log.append(1, bytes(RECORD_MAX + 1))
    assert log.size == 0
