"""Newcomers and those who leave, with socket pairs and no process."""

import selectors
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mcastd.keeper import succession
from mcastd.keeper.channel import PROTOCOL, Channel, ChannelError, Message, encode
from mcastd.keeper.process import Server
from mcastd.keeper.succession import NEWCOMERS_MAX, Succession, prepare_message, take_prepared
from mcastd.model.settings import SEATS_MAX, Settings

SETTINGS = Settings(listens=(), state_dir="/s", user="u", uid=1, gid=1, change_user=False)


class FakeServer(Server):
    """A server whose other end is the test's."""

    def __init__(self, pidfd: int | None = 99) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.settimeout(5)
        super().__init__(Channel(ours), 1000, time.monotonic())
        self.pidfd = pidfd
        self.sock = theirs
        self.theirs = Channel(theirs)
        self.signals: list[signal.Signals] = []

    def kill(self, number: signal.Signals) -> None:
        self.signals.append(number)

    def say_prepared(self, **values: Any) -> None:
        """Say what a server says that is prepared."""
        body = {"protocol": PROTOCOL, "tables": [], "stand_by": False, **values}
        self.theirs.send(encode(Message.PREPARED, body=body))

    def close(self) -> None:
        self.sock.close()
        self.close_channel()


class Bench:
    """A succession with its selector."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.prepared = 0
        self.succession = Succession(self.selector, SETTINGS, self._on_prepared)
        self.servers: list[FakeServer] = []

    def _on_prepared(self) -> None:
        self.prepared += 1

    def come(self, serving: Server | None = None, **options: Any) -> FakeServer:
        """A server has come."""
        server = FakeServer(**options)
        self.servers.append(server)
        self.succession.prepare(server, serving, time.monotonic())
        return server

    def turn(self) -> None:
        """What the keeper's loop does."""
        for key, _ in self.selector.select(0):
            key.data()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for server in made.servers:
        server.close()
    made.selector.close()


def test_newcomer_hears_protocol_settings_and_seat(bench: Bench) -> None:
    frame = bench.come().theirs.receive()
    assert frame is not None
    values = frame.values()
    assert (frame.message, values["protocol"], values["seat"]) == (Message.PREPARE, PROTOCOL, 1)
    assert Settings.from_json(values["settings"]) == SETTINGS


def test_seats_are_those_that_nobody_has(bench: Bench) -> None:
    serving = FakeServer()
    serving.seat = 2
    assert [bench.come(serving).seat for _ in range(3)] == [1, 3, 4]
    bench.succession.ended(bench.servers[1], {})
    assert bench.come(serving).seat == 3
    assert NEWCOMERS_MAX + 1 == SEATS_MAX
    serving.close()


def test_nobody_is_taken_before_it_is_prepared(bench: Bench) -> None:
    server = bench.come()
    assert (bench.succession.take(), bench.succession.successor, bool(bench.succession)) == (None, None, True)
    server.say_prepared(tables=[7])
    bench.turn()
    assert bench.prepared == 1
    assert bench.succession.successor is server
    taken = bench.succession.take()
    assert taken is not None
    assert (taken.server, taken.tables) == (server, (7,))
    assert bench.selector.get_map() == {}
    assert not bench.succession


def test_one_that_stands_by_is_the_last_choice(bench: Bench) -> None:
    stands_by = bench.come()
    stands_by.say_prepared(stand_by=True)
    bench.turn()
    assert bench.succession.successor is None
    takes_over = bench.come()
    takes_over.say_prepared()
    bench.turn()
    taken = [bench.succession.take(), bench.succession.take()]
    assert [one.server for one in taken if one is not None] == [takes_over, stands_by]


@pytest.mark.parametrize(
    "message",
    [
        encode(Message.READY),
        encode(Message.PREPARED, body={"protocol": PROTOCOL + 1, "tables": []}),
        encode(Message.PREPARED, body=b"nonsense"),
        b"\1",
    ],
)
def test_nonsense_ends_it(bench: Bench, message: bytes) -> None:
    server = bench.come()
    server.sock.send(message)
    bench.turn()
    assert (server.signals, server.channel, bench.prepared) == ([signal.SIGKILL], None, 0)
    assert bench.succession  # until it is gone
    bench.succession.ended(server, {})
    assert not bench.succession


def test_what_comes_after_prepared_ends_it(bench: Bench) -> None:
    server = bench.come()
    server.say_prepared()
    bench.turn()
    server.say_prepared()
    bench.turn()
    assert server.signals == [signal.SIGKILL]
    assert bench.succession.take() is None


def test_patience_ends(bench: Bench) -> None:
    server, other = bench.come(), bench.come()
    other.say_prepared()
    bench.turn()
    due = bench.succession.next_at()
    assert due is not None
    assert 0 < due - time.monotonic() <= succession.PREPARE_SECONDS
    bench.succession.keep_times(due - 0.1)
    assert server.signals == []
    bench.succession.keep_times(due)
    assert (server.signals, other.signals) == ([signal.SIGKILL], [])
    assert bench.succession.next_at() is None


@pytest.mark.parametrize("pidfd", [99, None])
def test_one_that_hangs_up_is_forgotten(bench: Bench, pidfd: int | None) -> None:
    server = bench.come(pidfd=pidfd)
    server.say_prepared()
    bench.turn()
    server.sock.close()
    bench.turn()
    assert bench.succession.take() is None
    assert bench.succession.newcomers == (pidfd is not None)  # a child is waited for
    if pidfd is not None:
        assert server.ending is not None
        assert bench.succession.next_at() == server.ending.next_at()


def test_those_that_stand_by_are_dismissed(bench: Bench) -> None:
    stands_by, takes_over = bench.come(pidfd=None), bench.come(pidfd=None)
    stands_by.say_prepared(stand_by=True)
    takes_over.say_prepared()
    bench.turn()
    bench.succession.dismiss()
    assert (stands_by.signals, takes_over.signals) == ([signal.SIGKILL], [])
    assert list(bench.succession.servers()) == [takes_over]


def test_nobody_comes_any_more(bench: Bench) -> None:
    child, visitor = bench.come(), bench.come(pidfd=None)
    bench.succession.end_newcomers()
    assert (child.signals, visitor.signals) == ([signal.SIGKILL], [signal.SIGKILL])
    assert bench.succession.newcomers == 1
    frame = visitor.theirs.receive()
    assert frame is not None
    assert frame.message is Message.PREPARE
    assert visitor.theirs.receive() is None


def test_one_that_leaves_is_waited_for(bench: Bench) -> None:
    server = FakeServer()
    bench.servers.append(server)
    bench.succession.leave(server)
    assert (list(bench.succession.servers()), bench.succession.newcomers) == ([server], 0)
    bench.succession.ended(server, {"pid": 1})
    assert not bench.succession


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"protocol": "1", "tables": []},
        {"protocol": PROTOCOL},
        {"protocol": PROTOCOL, "tables": ["7"]},
        {"protocol": PROTOCOL, "tables": [-1]},
        {"protocol": PROTOCOL, "tables": list(range(1000))},
    ],
)
def test_what_can_be_no_prepared_is_an_error(values: dict[str, Any]) -> None:
    with pytest.raises(ChannelError):
        take_prepared(values)


def test_prepare_fits_into_a_message() -> None:
    assert len(prepare_message(SETTINGS, SEATS_MAX)) < 4096
