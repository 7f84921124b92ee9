"""Patience in numbers."""

import signal

from mcastd.keeper.ending import Backoff, Ending


def test_delay_doubles_to_its_longest_and_starts_again_after_a_steady_life() -> None:
    backoff = Backoff()
    assert [backoff.next_delay(1.0) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.next_delay(9.99) == 5.0
    assert [backoff.next_delay(10.0), backoff.next_delay(0.0)] == [0.1, 0.2]


def test_patient_end_is_term_then_kill() -> None:
    ending = Ending(100.0)
    assert (ending.next_at(), ending.due(107.9)) == (108.0, [])
    assert ending.due(108.0) == [signal.SIGTERM]
    assert (ending.next_at(), ending.due(109.9)) == (110.0, [])
    assert ending.due(111.0) == [signal.SIGKILL]
    assert (ending.next_at(), ending.due(1e9)) == (None, [])


def test_hurry_takes_the_next_step_now() -> None:
    ending = Ending(100.0)
    ending.hurry(101.0)
    assert ending.due(101.0) == [signal.SIGTERM]
    assert ending.next_at() == 102.0
    ending.hurry(101.5)
    assert ending.due(101.5) == [signal.SIGKILL]


def test_hurry_never_delays() -> None:
    ending = Ending(100.0)
    ending.hurry(109.5)
    assert ending.due(110.0) == [signal.SIGTERM, signal.SIGKILL]
