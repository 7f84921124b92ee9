"""mcastd.core.router_discovery: who is sent what and when, to the second."""

import pytest

from mcastd.core.router_discovery import FAILURES_MAX, Discovery, Place, Sending
from mcastd.model.address import Family
from mcastd.model.router_discovery import Message

V4, V6 = Place(1, Family.IPV4), Place(1, Family.IPV6)
ADVERTISE = [Sending(Message.ADVERTISEMENT, V4), Sending(Message.ADVERTISEMENT, V6)]
END = [Sending(Message.TERMINATION, V4), Sending(Message.TERMINATION, V6)]


class Dice:
    """A source of randomness that gives what the test says."""

    def __init__(self, value: float = 0.5) -> None:
        self.value = value

    def __call__(self) -> float:
        return self.value


@pytest.fixture
def dice() -> Dice:
    return Dice()


@pytest.fixture
def discovery(dice: Dice) -> Discovery:
    return Discovery(20, dice)


def speak(discovery: Discovery, now: float) -> list[Sending]:
    """Send all that is due."""
    due = discovery.pull(now)
    for sending in due:
        discovery.push(sending, sent=True, now=now)
    return due


def settle(discovery: Discovery, now: float = 0.0) -> float:
    """Wait for the end of the beginning; when the next advertisement is due."""
    for _ in range(3):
        due = discovery.next_due()
        assert due is not None
        now = due
        assert len(speak(discovery, now)) == len(discovery.places)
    due = discovery.next_due()
    assert due is not None
    return due


def test_nothing_is_said_where_nothing_is_wanted(discovery: Discovery) -> None:
    assert discovery.next_due() is None
    discovery.update(set(), {1, 2}, 0)
    discovery.update({3}, {1, 2}, 0)
    assert discovery.next_due() is None
    assert discovery.pull(100) == []
    assert not discovery.places


def test_three_in_quick_succession_then_the_interval(discovery: Discovery, dice: Dice) -> None:
    discovery.update({1}, {1}, 10)
    assert discovery.places == {V4, V6}
    assert discovery.pull(10.999) == []
    assert discovery.next_due() == 11
    assert speak(discovery, 11) == ADVERTISE
    assert speak(discovery, 11) == []
    assert discovery.next_due() == 12
    assert speak(discovery, 12) == ADVERTISE
    assert speak(discovery, 13) == ADVERTISE
    assert discovery.next_due() == 33
    dice.value = 0.0
    assert speak(discovery, 33) == ADVERTISE
    assert discovery.next_due() == 33 + 19.5
    dice.value = 0.999999
    assert speak(discovery, 60) == ADVERTISE
    assert discovery.next_due() == pytest.approx(60 + 20.5, abs=1e-4)


@pytest.mark.parametrize("interval", [4, 180])
def test_interval_and_jitter(dice: Dice, interval: int) -> None:
    discovery = Discovery(interval, dice)
    discovery.update({1}, {1}, 0)
    assert settle(discovery) == 3 + interval
    dice.value = 0.0
    speak(discovery, 1000)
    assert discovery.next_due() == pytest.approx(1000 + interval * 0.975)
    discovery.interval = 10
    speak(discovery, 2000)
    assert discovery.next_due() == 2009.75


def test_each_interface_has_its_own_times(discovery: Discovery, dice: Dice) -> None:
    discovery.update({1}, {1, 2}, 0)
    dice.value = 0.25
    discovery.update({1, 2}, {1, 2}, 4)
    assert discovery.pull(0.9) == []
    assert speak(discovery, 1) == ADVERTISE
    assert [one.place.ifindex for one in speak(discovery, 4.5)] == [1, 1, 2, 2]


def test_an_answer_comes_after_a_random_delay_and_starts_the_wait_anew(discovery: Discovery, dice: Dice) -> None:
    discovery.update({1}, {1}, 0)
    assert settle(discovery) == 23
    dice.value = 0.75
    discovery.solicited(V4, 5)
    dice.value = 0.0
    discovery.solicited(V4, 5.1)  # ignored: the answer is on its way
    assert discovery.next_due() == 5.75
    dice.value = 0.5
    assert speak(discovery, 5.75) == ADVERTISE[:1]
    assert speak(discovery, 23) == ADVERTISE[1:]
    assert discovery.next_due() == 25.75
    discovery.solicited(V4, 6)
    assert speak(discovery, 6.5) == ADVERTISE[:1]


def test_what_is_due_anyway_answers(discovery: Discovery, dice: Dice) -> None:
    discovery.update({1}, {1}, 0)
    assert settle(discovery) == 23
    dice.value = 0.9
    discovery.solicited(V4, 22.5)
    assert discovery.next_due() == 23
    speak(discovery, 23)
    assert discovery.next_due() == pytest.approx(23 + 20.4)


def test_an_answer_is_one_of_the_first(discovery: Discovery, dice: Dice) -> None:
    discovery.update({1}, {1}, 0)
    dice.value = 0.1
    discovery.solicited(V4, 0)
    assert speak(discovery, 0.1) == ADVERTISE[:1]
    dice.value = 0.5
    times = []
    for now in (1, 1.5, 2, 2.5, 3, 3.5, 4):
        times += [now for one in speak(discovery, now) if one.place == V4]
    assert times == [1, 2]


def test_solicitations_of_no_concern(discovery: Discovery) -> None:
    discovery.solicited(V4, 0)
    discovery.update({1}, {1}, 0)
    discovery.solicited(Place(2, Family.IPV4), 0)
    assert discovery.next_due() == 1


def test_turned_off(discovery: Discovery) -> None:
    """So it is with an interface that is renamed, or that loses multicast: it is up, and not wanted."""
    discovery.update({1}, {1}, 0)
    settle(discovery)
    discovery.update(set(), {1}, 5)
    assert not discovery.places
    assert speak(discovery, 5) == END
    assert speak(discovery, 100) == []
    discovery.update({1}, {1}, 101)
    assert discovery.next_due() == 102


def test_down_or_gone_says_nothing_and_begins_anew(discovery: Discovery) -> None:
    discovery.update({1}, {1}, 0)
    settle(discovery)
    discovery.update({1}, set(), 5)
    assert discovery.next_due() is None
    assert discovery.pull(100) == []
    discovery.update({1}, {1}, 100)
    assert settle(discovery, 100) == 123


def test_flapping_does_not_hasten(discovery: Discovery) -> None:
    for now in range(100):
        discovery.update({1}, {1} if now % 2 else set(), now / 10)
        assert speak(discovery, now / 10) == []


def test_made_again_under_another_index(discovery: Discovery) -> None:
    discovery.update({1}, {1}, 0)
    settle(discovery)
    discovery.update({7}, {7}, 5)
    assert discovery.places == {Place(7, Family.IPV4), Place(7, Family.IPV6)}
    assert {one.place.ifindex for one in speak(discovery, 6)} == {7}


def test_end_of_the_router(discovery: Discovery) -> None:
    discovery.update({1, 2}, {1, 2}, 0)
    discovery.update({1}, {1, 2}, 0)
    discovery.stop()
    assert sorted(one.place.ifindex for one in speak(discovery, 0)) == [1, 1, 2, 2]
    discovery.update({1}, {1}, 1)
    discovery.solicited(V4, 1)
    assert speak(discovery, 100) == []
    assert discovery.next_due() is None


def test_restart_is_one_advertisement_not_a_burst(dice: Dice) -> None:
    discovery = Discovery(20, dice, restarted=True)
    discovery.update({1}, {1, 2}, 0)
    assert speak(discovery, 1) == ADVERTISE
    assert discovery.next_due() == 21
    discovery.update({1, 2}, {1, 2}, 2)  # this one is new
    assert [speak(discovery, now) != [] for now in (3, 4, 5, 6)] == [True, True, True, False]


def test_what_can_not_be_sent_is_tried_again(discovery: Discovery) -> None:
    """An IPv6 link-local address is tentative for a second or two; the burst comes after that, whole."""
    discovery.update({1}, {1}, 0)
    now = 0.0
    for failures in range(1, FAILURES_MAX + 1):
        now += 1
        assert Sending(Message.ADVERTISEMENT, V6) in discovery.pull(now)
        discovery.push(ADVERTISE[0], sent=True, now=now)
        assert discovery.push(ADVERTISE[1], sent=False, now=now) == failures
    assert discovery.push(ADVERTISE[1], sent=False, now=now) == FAILURES_MAX + 1
    assert ADVERTISE[1] not in discovery.pull(now + 19.9)
    assert discovery.push(ADVERTISE[1], sent=True, now=50) == 0
    assert discovery.pull(50.9).count(ADVERTISE[1]) == 0
    assert discovery.pull(51).count(ADVERTISE[1]) == 1


def test_termination_that_can_not_be_sent_is_forgotten(discovery: Discovery) -> None:
    discovery.update({1}, {1}, 0)
    discovery.update(set(), {1}, 0)
    for sending in discovery.pull(0):
        assert discovery.push(sending, sent=False, now=0) == 0
    assert discovery.pull(100) == []
