"""The order in which the server is told things, whatever its speed."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mcastd.keeper.channel import RECORDS_MAX, Losses, Message, UpcallRecord, decode, encode, take_losses, unpack_records
from mcastd.keeper.outbox import FLUSH_MAX, Outbox
from mcastd.model.address import Family
from tests.descriptors import open_descriptors


class Sink:
    """A channel that takes as many messages as it is told."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.taken: list[object] = []
        self.losses: list[Losses] = []

    def send(self, data: bytes, _fds: Sequence[int]) -> bool:
        if self.room == 0:
            return False
        self.room -= 1
        frame = decode(data)
        if frame.message is Message.UPCALLS:
            found = unpack_records(frame.body)
            assert 0 < len(found) <= RECORDS_MAX
            self.taken += [record.vif for record in found]
        elif frame.message is Message.LOSSES:
            self.losses.append(take_losses(frame.values()))
        else:
            self.taken.append(f"{frame.message.name} {frame.request}")
        return True


def record(number: int) -> UpcallRecord:
    return UpcallRecord(7, Family.IPV4, 1, number, b"\xe8\0\0\1", b"\x0a\0\0\1", 0.0)


def message(number: int) -> bytes:
    return encode(Message.REPLY, number)


steps = st.lists(st.sampled_from(["record", "message", "flush"]) | st.integers(0, 3), max_size=300)


@given(steps)
def test_records_and_messages_keep_their_order(todo: list[str | int]) -> None:
    outbox, sink = Outbox(), Sink(0)
    expected: list[int | str] = []
    for number, step in enumerate(todo):
        if step == "record":
            outbox.add_record(record(number))
            expected.append(number)
        elif step == "message":
            outbox.add_message(message(number))
            expected.append(f"REPLY {number}")
        elif isinstance(step, int):
            sink.room = step
            outbox.flush(sink.send)
    sink.room = 1_000_000
    while not outbox.flush(sink.send):
        pass
    assert sink.taken == expected
    assert sink.losses == []
    assert not outbox


@given(st.integers(1, 10), st.lists(st.integers(0, 30), max_size=10))
def test_full_ring_drops_the_oldest_and_counts_them(size: int, bursts: list[int]) -> None:
    outbox, sink, expected, dropped, number = Outbox(size), Sink(), [], 0, 0
    for burst in bursts:
        numbers = list(range(number, number + burst))
        number += burst
        for one in numbers:
            outbox.add_record(record(one))
        expected += numbers[-size:]
        dropped += max(0, burst - size)
        assert outbox.flush(sink.send)
    assert sink.taken == expected
    assert sum(losses.keeper for losses in sink.losses) == dropped
    assert {(losses.table, losses.family, losses.kernel) for losses in sink.losses} <= {(7, Family.IPV4, 0)}


def test_reply_waits_for_records_that_the_ring_dropped_no_longer() -> None:
    outbox, sink = Outbox(2), Sink()
    outbox.add_record(record(0))
    outbox.add_message(message(1))
    for number in (1, 2, 3):
        outbox.add_record(record(number))
    assert outbox.flush(sink.send)
    assert sink.taken == ["REPLY 1", 2, 3]


def test_first_messages_go_before_records() -> None:
    outbox, sink = Outbox(), Sink()
    outbox.add_record(record(0))
    outbox.add_message(message(1), first=True)
    outbox.add_message(message(2), first=True)
    assert outbox.flush(sink.send)
    assert sink.taken == ["REPLY 1", "REPLY 2", 0]


def test_kernel_losses_add_up_until_they_are_told() -> None:
    outbox, sink = Outbox(), Sink(0)
    outbox.add_losses(Losses(0, Family.IPV6, 3, 0))
    outbox.add_losses(Losses(0, Family.IPV6, 4, 0))
    outbox.add_losses(Losses(1, Family.IPV6, 1, 0))
    assert not outbox.flush(sink.send)
    sink.room = 5
    assert outbox.flush(sink.send)
    assert sink.losses == [Losses(0, Family.IPV6, 7, 0), Losses(1, Family.IPV6, 1, 0)]


def test_descriptors_are_duplicated_until_sent_or_forgotten() -> None:
    before = open_descriptors()
    outbox, sink = Outbox(), Sink(1)
    with Path(os.devnull).open("rb") as file:
        outbox.add_message(message(1), [file.fileno()])
        outbox.add_message(message(2), [file.fileno()])
        outbox.add_record(record(3))
    assert not outbox.flush(sink.send)
    assert outbox.waiting == 1
    outbox.clear_messages()
    assert open_descriptors() == before
    sink.room = 1
    assert outbox.flush(sink.send)
    assert sink.taken == ["REPLY 1", 3]


def test_borrowed_messages_come_after_the_first_ones_and_before_everything_else() -> None:
    before = open_descriptors()
    outbox, sink = Outbox(), Sink(2)
    outbox.add_record(record(0))
    for number in (1, 2):
        outbox.add_message(message(number), first=True)
    made: list[int] = []

    def borrowed() -> Iterator[tuple[bytes, int]]:
        for number in range(3, 6):
            made.append(number)
            yield message(number), 0

    outbox.add_borrowed(borrowed())
    outbox.add_message(message(6))
    assert not outbox.flush(sink.send)
    assert made == [3], "each is made when its turn comes"
    sink.room = 1
    assert not outbox.flush(sink.send)
    sink.room = 100
    assert outbox.flush(sink.send)
    assert sink.taken == ["REPLY 1", "REPLY 2", "REPLY 3", "REPLY 4", "REPLY 5", 0, "REPLY 6"]
    assert not outbox
    assert open_descriptors() == before


def test_borrowed_messages_are_forgotten_with_the_server_they_were_for() -> None:
    outbox, sink = Outbox(), Sink(1)
    outbox.add_message(message(1), first=True)
    outbox.add_borrowed(iter([(message(2), 0), (message(3), 0)]))
    assert not outbox.flush(sink.send)
    outbox.clear_messages()
    assert not outbox
    outbox.add_message(message(4), first=True)
    outbox.add_borrowed(iter([(message(5), 0)]))
    sink.room = 100
    assert outbox.flush(sink.send)
    assert sink.taken == ["REPLY 1", "REPLY 4", "REPLY 5"]


def test_no_more_than_a_slice_is_sent_at_a_time() -> None:
    """The kernel's sockets have their turn in between."""
    outbox, sink = Outbox(), Sink()
    outbox.add_borrowed((message(number), 0) for number in range(3 * FLUSH_MAX))
    for count in (1, 2):
        assert not outbox.flush(sink.send)
        assert len(sink.taken) == count * FLUSH_MAX
    assert outbox.flush(sink.send)
    assert len(sink.taken) == 3 * FLUSH_MAX
