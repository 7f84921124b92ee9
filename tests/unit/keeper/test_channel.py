"""The codec of the channel: what is said arrives, and nothing that arrives can do harm."""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.keeper import channel
from mcastd.keeper.channel import Channel, ChannelError, Losses, Message, UpcallRecord
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from tests.descriptors import open_descriptors

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield Channel(ours), Channel(theirs)


def records() -> st.SearchStrategy[UpcallRecord]:
    def of(family: Family) -> st.SearchStrategy[UpcallRecord]:
        address = st.binary(min_size=4, max_size=4) if family is Family.IPV4 else st.binary(min_size=16, max_size=16)
        return st.builds(
            UpcallRecord,
            table=st.integers(0, 2**32 - 1),
            family=st.just(family),
            kind=st.integers(0, 255),
            vif=st.integers(0, 2**16 - 1),
            group=address,
            source=address,
            time=st.floats(allow_nan=False),
            answer=st.integers(0, 255),
            template=st.binary(min_size=8, max_size=8),
        )

    return st.sampled_from(Family).flatmap(of)


names = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=15)
vif_maps = st.dictionaries(st.integers(0, 31), st.tuples(st.integers(1, 2**31 - 1), names)).map(
    lambda found: tuple((vif, ifindex, name) for vif, (ifindex, name) in found.items())
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.lists(records(), max_size=channel.RECORDS_MAX))
def test_records_come_back(made: list[UpcallRecord]) -> None:
    packed = b"".join(map(channel.pack_record, made))
    assert len(packed) == len(made) * channel.RECORD_SIZE
    assert channel.unpack_records(packed) == made


@given(st.sampled_from(Message), st.integers(0, 2**32 - 1), st.dictionaries(st.text(), st.integers() | st.text()))
def test_messages_come_back(message: Message, request_number: int, values: dict[str, object]) -> None:
    frame = channel.decode(channel.encode(message, request_number, values))
    assert (frame.message, frame.request, frame.values()) == (message, request_number, values)


@given(st.integers(0, 2**32 - 1), st.sampled_from(Family), vif_maps)
def test_vif_maps_come_back(table: int, family: Family, entries: channel.VifEntries) -> None:
    body = channel.decode(channel.encode(Message.VIF_MAP, 1, channel.vif_map_values(table, family, entries))).values()
    assert channel.take_vif_entries(body) == entries
    assert channel.take_family(body) is family


@given(st.integers(0, 2**32 - 1), st.sampled_from(Family), st.integers(0, 2**40), st.integers(0, 2**40))
def test_losses_come_back(table: int, family: Family, kernel: int, keeper: int) -> None:
    losses = Losses(table, family, kernel, keeper)
    assert (
        channel.take_losses(channel.decode(channel.encode(Message.LOSSES, 0, channel.losses_values(losses))).values()) == losses
    )


def test_errors_come_back() -> None:
    error = channel.take_error(channel.error_values(McastdError(Reason.MROUTE_SOCKET_BUSY, "busy", table=3)))
    assert error is not None
    assert (error.reason, str(error), dict(error.problem.metadata)) == (Reason.MROUTE_SOCKET_BUSY, "busy", {"table": "3"})
    assert channel.take_error({}) is None


@given(
    st.binary(max_size=200)
    | st.builds(lambda head, body: b"\1" + bytes([head]) + b"\0\0\0\0\0\1" + body, st.integers(0, 255), st.binary())
)
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        frame = channel.decode(data)
    except ChannelError:
        return
    assert isinstance(frame.message, Message)
    try:
        values = frame.values()
    except ChannelError:
        return
    assert isinstance(values, dict)


@given(st.dictionaries(st.sampled_from(["table", "family", "entries", "kernel", "keeper", "error"]), json_values))
def test_any_values_are_taken_or_refused(values: dict[str, object]) -> None:
    for take in (channel.take_vif_entries, channel.take_family, channel.take_losses, channel.take_error):
        try:
            take(values)
        except ChannelError:
            continue


@given(st.binary(max_size=500))
def test_any_records_are_taken_or_refused(body: bytes) -> None:
    try:
        found = channel.unpack_records(body)
    except ChannelError:
        return
    assert len(found) * channel.RECORD_SIZE == len(body)


@pytest.mark.parametrize(
    "entries",
    [
        None,
        "x",
        [[0, 1, "a"]] * 2,
        [[n, 1, "a"] for n in range(33)],
        [[32, 1, "a"]],
        [[-1, 1, "a"]],
        [[0, 0, "a"]],
        [[0, 2**31, "a"]],
        [[0, 1, ""]],
        [[0, 1, "x" * 61]],  # 15 bytes, each written as four
        [[True, 1, "a"]],
        [[0, True, "a"]],
        [[0, 1.0, "a"]],
        [[0, 1]],
    ],
)
def test_impossible_vif_maps_are_refused(entries: object) -> None:
    with pytest.raises(ChannelError):
        channel.take_vif_entries({"entries": entries})


def test_too_long_a_message_is_not_made() -> None:
    with pytest.raises(ValueError):
        channel.encode(Message.HELLO, 0, b"x" * channel.MESSAGE_MAX)


def test_descriptors_arrive_closed_on_exec(pair: Pair) -> None:
    ours, theirs = pair
    with Path(os.devnull).open("rb") as file:
        assert ours.send(channel.encode(Message.SOCKET), [file.fileno()])
        frame = theirs.receive()
        assert frame is not None
        (fd,) = frame.fds
        assert os.path.sameopenfile(fd, file.fileno())
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_end_is_none_and_nothing_yet_is_an_error(pair: Pair) -> None:
    ours, theirs = pair
    with pytest.raises(BlockingIOError):
        theirs.receive()
    ours.close()
    assert theirs.receive() is None


def test_full_channel_is_no_error(pair: Pair) -> None:
    ours, theirs = pair
    data = channel.encode(Message.UPCALLS, 0, b"x" * 10_000)
    sent = 0
    while ours.send(data):
        sent += 1
    assert sent > 0
    for _ in range(sent):
        assert theirs.receive() == channel.decode(data)
    with pytest.raises(BlockingIOError):
        theirs.receive()


def test_refused_messages_leak_no_descriptors(pair: Pair) -> None:
    ours, theirs = pair
    before = open_descriptors()
    with Path(os.devnull).open("rb") as file:
        for data, fds in [(b"x", 1), (channel.encode(Message.REPLY), 3), (b"y" * (channel.MESSAGE_MAX + 1), 1)]:
            assert ours.send(data, [file.fileno()] * fds)
            with pytest.raises(ChannelError):
                theirs.receive()
    assert open_descriptors() == before


def lingering() -> int:
    """A TCP socket whose last close() lasts half a minute: data is on its way that its peer does not take."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
        peers.append(peer)
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65_536))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 30))
    return sock.detach()


peers: list[socket.socket] = []


@pytest.fixture
def unread() -> Iterator[None]:
    """Where `lingering` may be called."""
    yield
    while peers:
        peers.pop().close()


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("others", [0, 1, 200])
@pytest.mark.parametrize("read", [True, False], ids=["read", "on its way"])
def test_no_descriptor_makes_its_reader_wait(pair: Pair, others: int, read: bool) -> None:
    ours, theirs = pair
    began, mine = time.monotonic(), lingering()
    with Path(os.devnull).open("rb") as file:
        assert theirs.send(b"", ())
        assert theirs.send(channel.encode(Message.READY), [*[file.fileno()] * others, mine])
    os.close(mine)
    if read:
        assert ours.receive() is None
        with pytest.raises(ChannelError) if others > 1 else contextlib.nullcontext():
            frame = ours.receive()
            assert frame is not None
            channel.discard(frame.fds)
    ours.close()
    assert time.monotonic() - began < 10


def test_version_of_another_release_is_named() -> None:
    with pytest.raises(ChannelError, match="different versions"):
        channel.decode(struct.pack("!BBHI", 2, Message.HELLO, 0, 0))
