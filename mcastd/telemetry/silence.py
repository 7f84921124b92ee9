"""Silence: routes with `monitored`, of which traffic is expected; says when one falls silent and when it is heard again.

Sans-IO: what was counted and the time are given. The kernel's own time of last use would not do: it is set as well when an entry
is programmed.
"""

import logging
from collections.abc import Callable, Generator, Iterable

from mcastd.model.route import Route
from mcastd.model.template import key_text

CODE = "FLOW_SILENT"
"""Of the condition."""

_NAMED_MAX = 10
"""Routes that a look names in the log, each on a line; of more, one line says how many."""

_AT_ONCE = 1000
"""Routes that are looked at between two yields."""

_log = logging.getLogger(__name__)

Used = tuple[int, float]
"""Packets, and seconds since the epoch when the last was seen."""


class Expected:
    """What is known of one route."""

    __slots__ = ("last_used", "packets", "route", "silent", "since")

    def __init__(self, route: Route, now: float) -> None:
        """It is expected from now on."""
        self.route = route
        self.since = now
        self.last_used = 0.0
        """Seconds since the epoch; 0 = not since it is watched, nor before as far as the kernel says."""
        self.packets: dict[bytes, int] = {}
        """By entry: a template has many."""
        self.silent = False


class SilenceWatch:
    """Looks at all routes that are monitored whenever there is a new sample."""

    def __init__(self, after: float) -> None:
        """A route is silent `after` so many seconds without a packet."""
        self.after = after
        self.expected: dict[bytes, Expected] = {}
        """By key of the route."""

    @property
    def silent(self) -> int:
        """Routes that are."""
        return sum(one.silent for one in self.expected.values())

    def look(
        self, routes: Iterable[tuple[Route, list[bytes]]], used: Callable[[bytes], Used | None], now: float
    ) -> Generator[None, None, None]:
        """The routes that are monitored now, each with the keys of its entries; `used` says what the kernel has counted for one.

        Yields now and then for others to run; one look at a time.
        """
        expected: dict[bytes, Expected] = {}
        fell: list[Expected] = []
        back: list[Expected] = []
        for number, (route, entries) in enumerate(routes, 1):
            one = self.expected.get(route.key) or Expected(route, now)
            one.route = route
            expected[route.key] = one
            self._count(one, entries, used)
            silent = now - max(one.last_used, one.since) > self.after
            if silent != one.silent:
                (fell if silent else back).append(one)
            one.silent = silent
            if number % _AT_ONCE == 0:
                yield
        self.expected = expected
        self._tell(fell, "a flow that is expected is silent", logging.WARNING, now)
        self._tell(back, "a flow that was silent is back", logging.INFO, now)

    @staticmethod
    def _count(one: Expected, entries: list[bytes], used: Callable[[bytes], Used | None]) -> None:
        known, one.packets = one.packets, {}
        for entry in entries:
            found = used(entry)
            if found is None:
                continue
            one.packets[entry] = packets = found[0]
            if packets and packets != known.get(entry, 0):
                one.last_used = max(one.last_used, found[1])

    def _tell(self, changed: list[Expected], text: str, level: int, now: float) -> None:
        for one in changed[:_NAMED_MAX]:
            seconds = round(now - one.last_used) if one.last_used else "never used"
            extra = {"route": key_text(one.route.key), "owner": one.route.owner, "seconds": seconds, "condition": CODE}
            _log.log(level, text, extra=extra)
        if len(changed) > _NAMED_MAX:
            _log.log(level, f"{text}: and others", extra={"others": len(changed) - _NAMED_MAX, "condition": CODE})
