"""The top flows: which of many flows have series of their own, chosen by rate with hysteresis, so that series do not churn."""

import heapq
from collections.abc import Callable, Iterable
from itertools import chain

Ranked = tuple[float, bytes]
"""Rate, and the key of the flow."""

STAY_SECONDS = 600.0
"""How long a flow stays that is no longer among the first K."""

LEAD = 1.25
"""A flow that is exported counts so much more when flows are ranked: of many alike, chance would always choose others."""


class TopFlows:
    """Flows that are exported: one enters within rank K, and leaves beyond 1.5 K, or 10 minutes after it was within K last."""

    def __init__(self, size: int) -> None:
        """Choose `size` (K) flows, nearly; 0 = none."""
        self.size = size
        self._chosen: dict[bytes, float] = {}
        """When each was within K last."""

    @property
    def reach(self) -> int:
        """Ranks that matter: 1.5 K."""
        return self.size * 3 // 2

    def leaders(self, best: list[Ranked], more: Iterable[Ranked]) -> list[Ranked]:
        """The first flows, in order, of those known to be the first so far (as this has returned them) and more of them."""
        chosen = self._chosen
        ranked = ((rate * LEAD if key in chosen else rate, key) for rate, key in more)
        return heapq.nlargest(self.reach, chain(best, ranked))

    def choose_all(self, keys: Iterable[bytes], now: float) -> None:
        """Take note that all flows are exported, since there are K at most: those that are idle stay when one more comes."""
        self._chosen = dict.fromkeys(keys, now)

    def choose(self, leaders: list[Ranked], present: Callable[[bytes], bool], now: float) -> list[bytes]:
        """Take note of the flows that have a rate, in order, `reach` at most; the keys of those to export.

        `present` = whether the kernel still has a flow; `now` in seconds by the monotonic clock. A flow that was chosen and has
        no rate any more ranks after all that have one: it is the one to look at when it has just fallen silent.
        """
        for _, key in leaders[: self.size]:
            self._chosen[key] = now
        ranked = [key for _, key in leaders if key in self._chosen]
        known = {key for _, key in leaders}
        idle = sorted(
            (key for key in self._chosen if key not in known and present(key)), key=self._chosen.__getitem__, reverse=True
        )
        room = self.reach - len(leaders)
        kept = [key for key in [*ranked, *idle[: max(0, room)]] if now - self._chosen[key] <= STAY_SECONDS]
        self._chosen = {key: self._chosen[key] for key in kept}
        return kept
