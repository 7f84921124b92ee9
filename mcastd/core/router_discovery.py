"""Router discovery (RFC 4286), sans-IO: when an advertisement or a termination is due on which interface.

The timers of a router, for each interface and family on its own (sections 3.4, 4 and 5.3). What an interface is wanted for, and
whether it is up, is said as it is now, not as an event: so an interface that comes late, is renamed or is made again needs no
care. The clock and the source of randomness are the caller's.
"""

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

from mcastd.model.address import Family
from mcastd.model.router_discovery import Message

JITTER = 0.025
"""AdvertisementJitter as a part of the interval (section 3.1.2): each wait is the interval, more or less at most this."""

MAX_INITIAL_ADVERTISEMENTS = 3
"""Advertisements in quick succession where an interface begins to route (section 3.1.4)."""

MAX_INITIAL_ADVERTISEMENT_INTERVAL = 2.0
"""Seconds that each of them waits at most (section 3.1.3)."""

RESPONSE_DELAY_MAX = 1.0
"""Seconds until a solicitation is answered, at most; the RFC allows 2 (MAX_RESPONSE_DELAY)."""

FAILURES_MAX = 10
"""Tries in quick succession where nothing can be sent, as while an IPv6 link-local address is tentative; then one an interval."""


class Place(NamedTuple):
    """An interface in one family."""

    ifindex: int
    family: Family


class Sending(NamedTuple):
    """A message that is due."""

    message: Message
    place: Place


@dataclass(slots=True)
class _Timer:
    due: float
    initial: int
    """Advertisements of the beginning that are still to come."""
    answering: bool = False
    """The next one answers a solicitation; more solicitations change nothing (section 3.4)."""
    failures: int = 0
    """Tries in a row that could not be sent."""


class Discovery:
    """The timers of all interfaces where discovery is wanted."""

    def __init__(self, interval: int, random: Callable[[], float], *, restarted: bool = False) -> None:
        """Speak nowhere yet; `random` gives numbers from 0 to 1, 1 excluded.

        `restarted`: this router has been heard before. A server's restart leaves the kernel's forwarding as it was, so interfaces
        that are there at the first update do not begin anew: each sends one advertisement soon, not a burst of them.
        """
        self.interval = interval
        """Seconds between advertisements; another one holds from the next advertisement on."""
        self._random = random
        self._burst = 1 if restarted else MAX_INITIAL_ADVERTISEMENTS
        self._timers: dict[Place, _Timer] = {}
        self._terminations: list[Place] = []
        self._stopped = False

    @property
    def places(self) -> AbstractSet[Place]:
        """Where this router speaks."""
        return self._timers.keys()

    def update(self, wanted: AbstractSet[int], up: AbstractSet[int], now: float) -> None:
        """Speak on the interfaces (ifindex) that are wanted and up, on no others.

        One that is up and not wanted any more (turned off, renamed, without multicast) is told of by a termination (section
        5.3); from one that is down or gone nothing can be sent.
        """
        if self._stopped:
            return
        for place in [place for place in self._timers if place.ifindex not in wanted or place.ifindex not in up]:
            del self._timers[place]
            if place.ifindex in up:
                self._terminations.append(place)
        for place in sorted(Place(ifindex, family) for ifindex in wanted & up for family in Family):
            if place not in self._timers:
                self._timers[place] = _Timer(now + self._soon(), self._burst)
        self._burst = MAX_INITIAL_ADVERTISEMENTS

    def stop(self) -> None:
        """The router ends: a termination is due wherever it speaks, and nothing after that."""
        self._terminations += self._timers
        self._timers.clear()
        self._stopped = True

    def solicited(self, place: Place, now: float) -> None:
        """Somebody asks: answer after a random delay, or by what is due before that."""
        timer = self._timers.get(place)
        if timer is not None and not timer.answering:
            timer.answering = True
            timer.due = min(timer.due, now + self._random() * RESPONSE_DELAY_MAX)

    def next_due(self) -> float | None:
        """When `pull` has something next; None = never as things are."""
        return min((timer.due for timer in self._timers.values()), default=None)

    def pull(self, now: float) -> list[Sending]:
        """What is due; each is to be pushed with what came of it."""
        terminations, self._terminations = self._terminations, []
        due = (place for place, timer in self._timers.items() if timer.due <= now)
        return [*_of(Message.TERMINATION, iter(terminations)), *_of(Message.ADVERTISEMENT, due)]

    def push(self, sending: Sending, *, sent: bool, now: float) -> int:
        """Take note of whether a message was sent: any advertisement starts the wait anew (section 3.4).

        Returns how many tries in a row have failed there.
        """
        timer = self._timers.get(sending.place)
        if timer is None or sending.message is not Message.ADVERTISEMENT:
            return 0
        if sent:
            timer.failures, timer.answering = 0, False
            timer.initial = max(0, timer.initial - 1)
            timer.due = now + (self._soon() if timer.initial else self._later())
        else:
            timer.failures += 1
            timer.due = now + (self._soon() if timer.failures <= FAILURES_MAX else self._later())
        return timer.failures

    def _soon(self) -> float:
        return self._random() * MAX_INITIAL_ADVERTISEMENT_INTERVAL

    def _later(self) -> float:
        return self.interval * (1 + JITTER * (2 * self._random() - 1))


def _of(message: Message, places: Iterator[Place]) -> Iterator[Sending]:
    return (Sending(message, place) for place in places)
