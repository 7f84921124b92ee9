"""Quotas of principals: how many streams each has open, and how many requests each may make.

Requests come out of a bucket that holds what may be used in BURST seconds. A call for which it is empty is refused, and told
when to come again; a message of a stream that is open waits instead, and with it, by the flow control of its stream, its sender.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mcastd.model.errors import McastdError, Reason
from mcastd.model.principal import Quota

BURST = 2.0
"""Seconds' worth of requests that may come at once."""

BUCKETS_MAX = 10_000
"""Buckets; when there are more, full ones are forgotten, which changes nothing for their owners."""


class Quotas:
    """What principals use, by name; `quota_of` says what each may, as the configuration has it now."""

    def __init__(
        self,
        quota_of: Callable[[str], Quota],
        clock: Callable[[], float] = time.monotonic,
        settings: tuple[str, str] = ("streams_max", "requests_per_second"),
    ) -> None:
        """Nobody uses anything; `settings`: where the limits of streams and requests stand."""
        self._quota_of = quota_of
        self._of_streams, self._of_requests = settings
        self._clock = clock
        self._streams: dict[str, int] = {}
        self._buckets: dict[str, tuple[float, float]] = {}
        """What was in the bucket, and when."""

    def request(self, name: str) -> None:
        """One more request; McastdError RATE_LIMIT if it comes too soon."""
        wait = self._take(name)
        if wait:
            limit = self._quota_of(name).requests
            text = (
                f"principal {name!r} makes more than the {limit} requests a second allowed ({self._of_requests}):"
                f" come again in {wait:.3f} s"
            )
            raise McastdError(Reason.RATE_LIMIT, text, limit=limit, retry_after=f"{wait:.3f}")

    async def message(self, name: str) -> None:
        """One more message of a stream: wait until it may come."""
        while True:
            wait = self._take(name)
            if not wait:
                return
            await asyncio.sleep(wait)

    @contextmanager
    def stream(self, name: str) -> Iterator[None]:
        """A stream is open; McastdError STREAM_LIMIT if that is one too many."""
        limit, used = self._quota_of(name).streams, self._streams.get(name, 0)
        if limit and used >= limit:
            text = f"principal {name!r} has {used} streams open, and {limit} are allowed ({self._of_streams}): end one first"
            raise McastdError(Reason.STREAM_LIMIT, text, limit=limit)
        self._streams[name] = used + 1
        try:
            yield
        finally:
            self._streams[name] -= 1
            if not self._streams[name]:
                del self._streams[name]

    def streams(self, name: str) -> int:
        """How many streams a principal has open."""
        return self._streams.get(name, 0)

    def _take(self, name: str) -> float:
        """Take one request out of the bucket; the seconds after which there is one, 0 = it is taken."""
        rate = self._quota_of(name).requests
        if not rate:
            return 0.0
        now, most = self._clock(), rate * BURST
        held, at = self._buckets.get(name, (most, now))
        held = min(most, held + (now - at) * rate)
        if name not in self._buckets and len(self._buckets) >= BUCKETS_MAX:
            self._forget_full(now)
        if held < 1.0:
            self._buckets[name] = held, now
            return (1.0 - held) / rate
        self._buckets[name] = held - 1.0, now
        return 0.0

    def _forget_full(self, now: float) -> None:
        for name, (held, at) in list(self._buckets.items()):
            rate = self._quota_of(name).requests
            if held + (now - at) * rate >= rate * BURST:
                del self._buckets[name]
