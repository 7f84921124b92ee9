"""The watchdog's rules, with a clock of the test's own."""

import os

import pytest

from mcastd.keeper.watchdog import PATIENCE, ROUNDS, STARTING_PATIENCE, Round, Watchdog, watchdog_period

PERIOD = 60.0
INTERVAL = PERIOD / 2 / ROUNDS


class Played:
    """A watchdog whose rounds are played one after the other."""

    def __init__(self, period: float | None = PERIOD) -> None:
        self.now = 1000.0
        self.watchdog = Watchdog(period, self.now)

    def round(self, *, late: float = 0.0) -> Round:
        """Wait for the next one."""
        at = self.watchdog.next_at()
        assert at is not None
        assert self.watchdog.due(at - 0.001) is None or at <= self.now
        self.now = max(self.now, at) + late
        due = self.watchdog.due(self.now)
        assert due is not None
        return due

    def steady(self) -> None:
        """Have a server that answers."""
        self.watchdog.follow(self.now)
        due = self.round()
        self.watchdog.answered(due.ping or self.round().ping)


def test_a_server_that_answers_is_asked_again_and_all_is_well() -> None:
    played = Played()
    played.steady()
    numbers = set()
    for _ in range(100):
        due = played.round()
        assert due.well
        assert not due.overdue
        numbers.add(due.ping)
        played.watchdog.answered(due.ping)
    assert len(numbers) == 100


def test_the_service_manager_hears_several_times_in_its_period() -> None:
    played = Played()
    played.steady()
    began, count = played.now, 0
    while played.now < began + PERIOD:
        due = played.round()
        played.watchdog.answered(due.ping)
        count += due.well
    assert count >= 2 * ROUNDS


def test_a_server_that_stops_answering_is_overdue_after_the_patience_and_nothing_is_well() -> None:
    played = Played()
    played.steady()
    assert played.round().ping
    asked = played.now
    while not (due := played.round()).overdue:
        assert due == Round()
    assert due == Round(overdue=True)
    assert played.now - asked == pytest.approx(PERIOD / 2)
    # The server that follows is given up by nobody before the service manager's own patience ends.
    assert played.now - (asked - INTERVAL) < PERIOD


def test_a_late_answer_makes_all_well_again() -> None:
    played = Played()
    played.steady()
    number = played.round().ping
    for _ in range(ROUNDS - 1):
        assert played.round() == Round()
    played.watchdog.answered(number)
    due = played.round()
    assert due.well
    assert due.ping == number + 1


def test_a_machine_that_stood_still_has_missed_one_round() -> None:
    played = Played()
    played.steady()
    number = played.round().ping
    assert played.round(late=100_000) == Round()
    played.watchdog.answered(number)
    assert played.round().well


def test_a_server_that_starts_is_left_alone_and_all_is_well() -> None:
    played = Played()
    played.steady()
    played.watchdog.follow(played.now)
    asked = played.round()
    assert asked.ping
    began = played.now
    while not (due := played.round()).overdue:
        assert due == Round(well=True)
    assert not due.well
    assert played.now - began == pytest.approx(STARTING_PATIENCE, abs=INTERVAL)


def test_a_server_that_is_ready_has_its_patience_from_then_on() -> None:
    played = Played()
    played.watchdog.follow(played.now)
    assert played.round().ping
    for _ in range(3 * ROUNDS):
        assert played.round() == Round(well=True)
    played.watchdog.ready()
    began = played.now
    while not (due := played.round()).overdue:
        assert due == Round()
    assert played.now - began == pytest.approx(PERIOD / 2)


def test_an_answer_to_what_an_earlier_server_was_asked_counts_for_nothing() -> None:
    played = Played()
    played.steady()
    old = played.round().ping
    played.watchdog.leave()
    played.watchdog.answered(old)
    played.watchdog.follow(played.now)
    played.watchdog.answered(old)
    assert played.round().ping == old + 1
    assert played.round() == Round(well=True)


def test_all_is_well_while_a_server_is_waited_for() -> None:
    played = Played()
    for _ in range(10):
        assert played.round() == Round(well=True)
    played.steady()
    played.watchdog.leave()
    assert played.round() == Round(well=True)


def test_a_spared_server_gets_one_round_more_each_time() -> None:
    played = Played()
    played.steady()
    played.round()
    while not played.round().overdue:
        pass
    for _ in range(3):
        played.watchdog.spare()
        assert played.round() == Round(overdue=True)


def test_without_a_service_manager_the_server_is_looked_after_all_the_same() -> None:
    played = Played(None)
    assert played.watchdog.next_at() is None
    assert played.watchdog.due(played.now + 1e6) is None
    played.steady()
    number = played.round()
    assert number.ping
    assert not number.well
    asked = played.now
    while not played.round().overdue:
        pass
    assert played.now - asked == pytest.approx(PATIENCE)


@pytest.mark.parametrize(
    "environ,period",
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "1e6"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
    ],
)
def test_period_is_what_the_environment_says_to_this_process(environ: dict[str, str], period: float | None) -> None:
    assert watchdog_period(environ) == period
