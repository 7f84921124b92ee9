"""Counter samples for those who watch counters: at each tick the entries whose counters have moved."""

import time
from collections.abc import Iterator, Mapping

from mcast.v1 import services_pb2 as sv
from mcastd.api import convert, fields
from mcastd.api.ports import CounterSample, DaemonPort
from mcastd.api.select import matcher
from mcastd.model.errors import Reason
from mcastd.model.route import Counters, Route

INTERVAL = 10.0
INTERVAL_MIN = 1.0
INTERVAL_MAX = 86_400.0

_AT_ONCE = 500

Sampled = tuple[bytes, Route, CounterSample]
"""Key of the entry, its route, and the sample that has its counters."""


class Sampler:
    """Samples for one watcher."""

    def __init__(self, daemon: DaemonPort, request: sv.WatchRequest) -> None:
        """Check what is asked for; the first sample is due at once."""
        self._daemon = daemon
        self._interval = _interval(request)
        self._test = matcher(request.selector)
        self._before: Mapping[bytes, Counters] = {}
        self.next_at = time.monotonic()
        """When the next sample is due, by the monotonic clock."""

    def due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() >= self.next_at

    async def sample(self) -> Iterator[list[Sampled]]:
        """What has moved since the last sample that was taken, in parts; a follower that is slow gets fewer samples."""
        sample = await self._daemon.counters(self._interval / 2)
        # From now on rather than from when it was due: who is late is not given several in a row.
        self.next_at = time.monotonic() + self._interval
        before, self._before = self._before, sample.counters
        return self._parts(sample, before)

    def _parts(self, sample: CounterSample, before: Mapping[bytes, Counters]) -> Iterator[list[Sampled]]:
        part: list[Sampled] = []
        for looked, (key, now) in enumerate(sample.counters.items(), 1):
            if now[:3] != before.get(key, (0, 0, 0))[:3]:
                route = self._route(key)
                if route is not None and (self._test is None or self._test(route)):
                    part.append((key, route, sample))
            if len(part) >= _AT_ONCE or (looked % (20 * _AT_ONCE) == 0):
                yield part
                part = []
        if part:
            yield part

    def _route(self, key: bytes) -> Route | None:
        """The route behind an entry: an exact one, a shared tree, or what a template has learned."""
        engine = self._daemon.engine
        kernel = engine.roster.kernel_of(key)
        if kernel is None:
            return None
        route = engine.entries.route_of(kernel, key)
        learned = kernel.learned.get(key) if route is None else None
        if learned is None:
            return route
        link = engine.world.by_index.get(learned.ifindex)
        return convert.learned_route(key, learned, link.name) if link is not None else None


def _interval(request: sv.WatchRequest) -> float:
    if not request.HasField("sample_interval"):
        return INTERVAL
    seconds = fields.read_duration(request.sample_interval, "sample_interval")
    if not INTERVAL_MIN <= seconds <= INTERVAL_MAX:
        value = fields.seconds_text(request.sample_interval)
        text = f"give {INTERVAL_MIN:g}s to {INTERVAL_MAX:g}s, or leave it unset ({INTERVAL:g}s)"
        raise fields.invalid(Reason.INVALID_VALUE, "sample_interval", value, text)
    return seconds
