"""What the service manager is told, and in which order."""

import time

import pytest

from mcastd.keeper.notify import Notifier
from mcastd.keeper.reports import RETRY_SECONDS, STATUS_MAX, UNSENT_MAX, Reports, one_line


class Manager(Notifier):
    """Takes what it is told, unless it is full."""

    def __init__(self) -> None:
        super().__init__("")
        self.told: list[str] = []
        self.full = False

    def send(self, state: str) -> bool:
        if not self.full:
            self.told.append(state)
        return not self.full

    def take(self) -> list[str]:
        """What came since the last time, without the time of reloads."""
        told, self.told = self.told, []
        return [state.split("\nMONOTONIC_USEC=")[0] for state in told]


@pytest.fixture
def manager() -> Manager:
    return Manager()


@pytest.fixture
def reports(manager: Manager) -> Reports:
    """Of a daemon that serves."""
    made = Reports(manager)
    made.ready()
    assert manager.take() == ["READY=1"]
    return made


def test_words_are_told_where_they_change(reports: Reports, manager: Manager) -> None:
    for text in ("one", "one", "two", "one"):
        reports.say(text)
    assert manager.take() == ["STATUS=one", "STATUS=two", "STATUS=one"]


def test_words_before_the_daemon_serves_ask_for_more_time(manager: Manager) -> None:
    reports = Reports(manager)
    reports.say("starting; 1 of 2 routes")
    reports.say("starting; 1 of 2 routes")
    reports.status("the server has died")
    assert manager.take() == [
        "STATUS=starting; 1 of 2 routes\nEXTEND_TIMEOUT_USEC=60000000",
        "STATUS=the server has died\nEXTEND_TIMEOUT_USEC=60000000",
    ]
    reports.ready()
    reports.say("2 of 2")
    assert manager.take() == ["READY=1", "STATUS=2 of 2"]


def test_a_reload_by_signal_lasts_until_a_server_has_read_what_was_there_then(reports: Reports, manager: Manager) -> None:
    number = reports.reload()
    assert manager.take() == ["RELOADING=1"]
    reports.say("words", reloads=number - 1)  # the words of every second
    reports.say("words", reloading=True, reloads=number - 1)
    assert manager.take() == ["STATUS=words"]
    reports.say("other words", reloads=number)
    assert manager.take() == ["STATUS=other words", "READY=1"]


def test_a_second_signal_is_told_with_a_time_of_its_own(reports: Reports, manager: Manager) -> None:
    first = reports.reload()
    before = time.monotonic_ns() // 1000
    second = reports.reload()
    name, _, value = manager.told[-1].splitlines()[1].partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000
    manager.take()
    reports.say("", reloads=first)
    assert manager.take() == []
    reports.say("", reloads=second)
    assert manager.take() == ["READY=1"]


def test_a_reload_that_a_client_asked_for(reports: Reports, manager: Manager) -> None:
    reports.say("words", reloading=True, reloads=0)
    reports.say("words", reloading=True, reloads=0)
    reports.say("words", reloads=0)
    assert manager.take() == ["STATUS=words", "RELOADING=1", "READY=1"]


def test_a_server_that_is_ready_ends_the_reload_of_its_predecessor(reports: Reports, manager: Manager) -> None:
    reports.reload()
    reports.ready()
    reports.say("words", reloads=0)
    assert manager.take() == ["RELOADING=1", "READY=1", "STATUS=words"]


def test_a_reload_before_the_daemon_serves_is_not_told(manager: Manager) -> None:
    reports = Reports(manager)
    reports.reload()
    reports.ready()
    assert manager.take() == ["READY=1"]


def test_nothing_reloads_once_the_end_has_begun(reports: Reports, manager: Manager) -> None:
    reports.stopping()
    reports.reload()
    reports.say("", reloading=True)
    assert manager.take() == ["STOPPING=1"]


def test_what_is_not_taken_waits_in_order_and_of_words_the_newest(reports: Reports, manager: Manager) -> None:
    assert reports.next_at() is None
    manager.full = True
    reports.say("one")
    reports.reload()
    reports.say("two", reloads=0)
    reports.well()
    reports.say("three", reloads=1)
    at = reports.next_at()
    assert at is not None
    assert 0 < at - time.monotonic() <= RETRY_SECONDS
    manager.full = False
    reports.retry(at - 0.01)
    assert manager.take() == []
    reports.retry(at)
    assert manager.take() == ["RELOADING=1", "STATUS=three", "READY=1"]
    assert reports.next_at() is None
    reports.well()
    assert manager.take() == ["WATCHDOG=1"]


def test_a_server_that_never_stops_talking_to_a_manager_that_does_not_listen(reports: Reports, manager: Manager) -> None:
    manager.full = True
    for n in range(10_000):
        reports.say(str(n), reloading=n % 2 == 0)
    manager.full = False
    reports.retry(time.monotonic() + RETRY_SECONDS)
    told = manager.take()
    assert len(told) <= UNSENT_MAX
    assert told[-2:] == ["STATUS=9999", "READY=1"]


def test_words_are_one_line_and_no_state(reports: Reports, manager: Manager) -> None:
    reports.say("fine\nMAINPID=1\rREADY=1\x00\u2028end")
    assert manager.take() == ["STATUS=fine MAINPID=1 READY=1  end"]
    assert len(one_line("x" * 10_000)) == STATUS_MAX
