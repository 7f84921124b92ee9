"""Counters: one dump of the kernel's tables serves all who ask while it is fresh enough, and there is at most one a second.

API, Watch and Prometheus share it. A baseline is taken by itself from time to time, so that rates are those of the last seconds
whoever asks first.
"""

import asyncio
import logging
import time

from mcastd.api.ports import CounterSample
from mcastd.core.engine import Engine
from mcastd.model.errors import KernelRefused
from mcastd.runtime import samples
from mcastd.runtime.samples import KernelCounters, Sample
from mcastd.runtime.tasks import spawn

INTERVAL_MIN = 1.0
"""Seconds between the starts of two dumps, however many ask: who wants a younger one waits."""

BASELINE_SECONDS = 10.0
"""How old a sample grows before another is taken unasked: rates are over at most so much."""

BASELINE_SHARE = 50
"""A dump that took long is followed by the next unasked one after so many times its duration: 2 % of a processor."""


_log = logging.getLogger(__name__)


class CounterCache:
    """The last sample, and the one before it for rates."""

    def __init__(self, engine: Engine) -> None:
        """Dump the tables that the engine has open."""
        self._engine = engine
        self._sample = Sample([], 0.0, 0.0)
        self._answer: tuple[Sample, CounterSample] | None = None
        """A sample, and the same as the API has it."""
        self._began = 0.0
        """When the last dump began, by the monotonic clock, whatever came of it."""
        self._took = 0.0
        """How long it took, in seconds."""
        self._under_way: asyncio.Task[None] | None = None
        """A task of its own: who waits for it may be cancelled, and the others still wait."""

    async def get(self, max_age: float) -> CounterSample:
        """Counters by key, at most `max_age` seconds old, as the API has them; it waits where the last dump is of this second.

        Raises KernelRefused.
        """
        sample = await self.sample(max_age)
        await sample.index()
        if self._answer is None or self._answer[0] is not sample:
            before = sample.previous
            foreign = await sample.foreign(self._engine.desired.routes)
            previous = KernelCounters(before.tables) if before is not None else {}
            answer = CounterSample(KernelCounters(sample.tables), sample.time, previous, sample.interval, foreign)
            if self._answer is None or self._answer[0].at < sample.at:  # Others may have been at it meanwhile.
                self._answer = sample, answer
        return self._answer[1]

    async def sample(self, max_age: float) -> Sample:
        """The rows as they are: the cached sample, the one being taken where that will do, or a new one. Raises KernelRefused."""
        asked = time.monotonic()
        while not self._sample.at or self._sample.at < asked - max_age:
            if self._under_way is None:
                self._under_way = spawn(self._refresh(), "counters")
            await asyncio.shield(self._under_way)
        return self._sample

    async def run(self) -> None:
        """Take baselines until cancelled, while the kernel has entries."""
        while True:
            await asyncio.sleep(max(BASELINE_SECONDS, self._took * BASELINE_SHARE))
            if any(kernel.actual for kernel in self._engine.tables.values()):
                try:
                    await self.sample(BASELINE_SECONDS)
                except KernelRefused as exc:
                    _log.warning("the kernel's counters can't be read", extra={"error": str(exc)})

    async def _refresh(self) -> None:
        try:
            await asyncio.sleep(max(0.0, self._began + INTERVAL_MIN - time.monotonic()) if self._began else 0.0)
            self._began = time.monotonic()
            open_tables = [key for key, kernel in self._engine.tables.items() if kernel.opened]
            sample = await asyncio.to_thread(samples.dump, open_tables)
            self._took = time.monotonic() - self._began
        finally:
            self._under_way = None
        self._sample = sample.after(self._sample) if self._sample.at else sample
