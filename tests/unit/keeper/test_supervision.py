"""Looking after the server: questions, words, and its replacement. The rules of time are in test_watchdog.py."""

import os
import signal
import time
from typing import Any

import pytest

from mcastd.keeper.channel import ChannelError, Frame, Message, decode, encode
from mcastd.keeper.ending import HURRY
from mcastd.keeper.notify import Notifier
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.process import Server
from mcastd.keeper.supervision import Supervision, _tracer
from mcastd.keeper.watchdog import ROUNDS

PERIOD = 60.0


class FakeServer(Server):
    """Remembers the signals it gets."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ending = None
        self.ready = False
        self.signals: list[signal.Signals] = []

    def kill(self, number: signal.Signals) -> None:
        self.signals.append(number)


class Manager(Notifier):
    """Remembers what it is told."""

    def __init__(self) -> None:
        super().__init__("")
        self.told: list[str] = []

    def send(self, state: str) -> bool:
        self.told.append(state)
        return True


class Bench:
    """A supervision, and the server's end."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.manager = Manager()
        self.supervision = Supervision(self.outbox, self.manager, {"WATCHDOG_USEC": str(int(PERIOD * 1e6))})
        self.server = FakeServer(os.getpid())

    def round(self) -> list[Frame]:
        """Play the next round; what the server is told in it."""
        at = self.supervision.next_at()
        assert at is not None
        self.supervision.keep_times(at)
        told: list[bytes] = []
        self.outbox.flush(lambda data, _: not told.append(data))  # type: ignore[func-returns-value]
        return [decode(data) for data in told]


def word(message: Message, number: int = 0, **values: object) -> Frame:
    """A frame of the server."""
    return decode(encode(message, number, values))


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.supervision.follow(made.server)
    (ping,) = made.round() or made.round()
    assert ping.message is Message.PING
    made.supervision.hear(word(Message.PONG, ping.request))
    made.manager.told.clear()
    return made


def test_a_server_that_answers_is_left_alone(bench: Bench) -> None:
    for _ in range(5 * ROUNDS):
        (ping,) = bench.round()
        bench.supervision.hear(word(Message.PONG, ping.request))
    assert set(bench.manager.told) == {"WATCHDOG=1"}
    assert bench.server.signals == []


def test_a_server_that_does_not_is_told_to_say_where_it_hangs_and_then_ended(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.round()
    bench.manager.told.clear()
    for _ in range(ROUNDS):
        assert bench.server.signals == []
        bench.round()
    assert bench.server.signals == [signal.SIGABRT]
    ending = bench.server.ending
    assert ending is not None
    at = ending.next_at()
    assert at is not None
    assert ending.due(at + HURRY) == [signal.SIGTERM, signal.SIGKILL]
    assert bench.manager.told == ["STATUS=the server does not answer: it is replaced\nEXTEND_TIMEOUT_USEC=60000000"]
    assert "does not answer: it is replaced" in caplog.text
    bench.round()  # There is nobody to be asked; that all is well is told again.
    assert bench.manager.told[1:] == ["WATCHDOG=1"]
    assert bench.server.signals == [signal.SIGABRT]


@pytest.mark.parametrize("handed", [False, True], ids=["says that it is ready", "was so before"])
def test_one_that_is_ready_has_to_answer_from_the_first_question_on(handed: bool) -> None:
    bench = Bench()
    bench.server.ready = handed
    bench.supervision.follow(bench.server)
    if not handed:
        bench.supervision.ready()
        assert "READY=1" in "\n".join(bench.manager.told)
    while not bench.round():  # until it is asked
        pass
    for _ in range(ROUNDS):
        assert bench.server.signals == []
        bench.round()
    assert bench.server.signals == [signal.SIGABRT]


def test_a_server_that_was_asked_to_end_is_asked_nothing_any_more(bench: Bench) -> None:
    bench.round()
    bench.server.ending = object()  # type: ignore[assignment] # whatever it is
    for _ in range(3 * ROUNDS):
        assert bench.round() == []
    assert bench.server.signals == []


def test_a_server_that_is_debugged_is_spared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = 1
    monkeypatch.setattr("mcastd.keeper.supervision._tracer", lambda _: tracer)
    bench.round()
    for _ in range(3 * ROUNDS):
        bench.round()
    assert bench.server.signals == []
    assert caplog.text.count("somebody debugs it") == 1
    tracer = 0
    bench.round()
    assert bench.server.signals == [signal.SIGABRT]


def test_nobody_traces_this_process_or_one_that_is_gone() -> None:
    assert _tracer(os.getpid()) == 0
    assert _tracer(0) == 0


def test_words_are_passed_on(bench: Bench) -> None:
    bench.supervision.reports.ready()
    bench.manager.told.clear()
    bench.supervision.hear(word(Message.NOTIFY, text="fine", reloading=False, reloads=0))
    assert bench.manager.told == ["STATUS=fine"]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"text": 1, "reloading": False, "reloads": 0},
        {"text": "", "reloading": 0, "reloads": 0},
        {"text": "", "reloading": False, "reloads": -1},
        {"text": "", "reloading": False, "reloads": "1"},
    ],
)
def test_words_that_are_none_are_an_error(bench: Bench, values: dict[str, Any]) -> None:
    with pytest.raises(ChannelError):
        bench.supervision.hear(word(Message.NOTIFY, **values))
    assert bench.manager.told == []


def test_times_are_those_of_the_monotonic_clock(bench: Bench) -> None:
    at = bench.supervision.next_at()
    assert at is not None
    assert abs(at - time.monotonic()) < PERIOD
