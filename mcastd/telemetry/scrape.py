"""A scrape: one sample of the kernel's counters, everything collected from it and from the engine, then text, a piece at a time.

Nothing here keeps the event loop for longer than a slice; the reader of the pieces decides how fast they come.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

from mcastd.core.engine import Engine
from mcastd.core.orphans import orphans_left
from mcastd.model.errors import McastdError
from mcastd.telemetry.exposition import Format, restrict
from mcastd.telemetry.flows import FlowPage, Flows
from mcastd.telemetry.flowtext import every_text, page_text
from mcastd.telemetry.owners import owner_families
from mcastd.telemetry.ports import Daemon, Sample, Sampler
from mcastd.telemetry.silence import CODE as FLOW_SILENT
from mcastd.telemetry.state import WHERE, build, engine_families, learned_count, where

MAX_AGE = 1.0
"""Seconds: scrapers and API share a sample of this age."""

ORPHANS = "ORPHANS"
"""Code of the condition that there are routes or joins of owner "kernel": the state was lost, and these were kept."""

STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
"""Code of the condition that writes are refused, since they can't be stored; the reason that they are refused with."""

COLLECTORS = ("kernel", "flows", "state")

_EMPTY = FlowPage([], 0, 0)


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change while the server runs."""

    instance_id: str
    keeper_started_at: float
    """Seconds since the epoch."""
    server_starts: int
    """Servers that this keeper has started."""
    config: str = ""
    """Path of the configuration file; empty = none."""


@dataclass(slots=True)
class _Scrape:
    """What one scrape has collected."""

    page: FlowPage
    sample: Sample | None
    families: list[Metric]
    seconds: dict[str, float]
    failed: set[str]


class Scraper:
    """Makes the text of /metrics and /metrics/flows."""

    def __init__(
        self, engine: Engine, daemon: Daemon, sampler: Sampler, registry: CollectorRegistry, flows: Flows, facts: Facts
    ) -> None:
        """Tell of these."""
        self._engine = engine
        self._daemon = daemon
        self._sampler = sampler
        self._registry = registry
        self._flows = flows
        self._facts = facts
        self._few_at_a_time = asyncio.Semaphore(2)
        """Scrapes that collect at once."""
        self.under_way = 0
        """Answers of /metrics/flows that are being sent."""

    async def metrics(self, form: Format, names: Collection[str] = ()) -> AsyncGenerator[bytes, None]:
        """/metrics: what is bounded, the top flows and those that are expected; restricted to samples of these names, if any."""
        async with self._few_at_a_time:
            found = await self._collect()
        for metric in found.families:
            kept = restrict(metric, names) if names else metric
            if kept is not None:
                yield form.encode(kept)
                await asyncio.sleep(0)
        async for text in page_text(found.page.rows, form, names):
            yield text
        yield form.ending

    async def every_flow(
        self, form: Format, names: Collection[str] = (), shard: tuple[int, int] = (0, 1)
    ) -> AsyncGenerator[bytes, None]:
        """/metrics/flows: every flow of a shard; McastdError if the kernel does not tell."""
        self.under_way += 1
        try:
            sample = await self._sampler.sample(MAX_AGE)
            async for text in every_text(self._flows, sample, form, names, shard):
                yield text
            yield form.ending
        finally:
            self.under_way -= 1

    async def _collect(self) -> _Scrape:
        found = _Scrape(_EMPTY, None, [], dict.fromkeys(COLLECTORS, 0.0), set())
        began = time.perf_counter()
        try:
            found.sample = await self._sampler.sample(MAX_AGE)
        except McastdError:
            found.failed |= {"kernel", "flows"}  # Whoever takes the sample logs why; the rest is still worth telling.
        began = self._took(found, "kernel", began)
        if found.sample is not None:
            found.page = await self._flows.page(found.sample)
        began = self._took(found, "flows", began)
        for family in self._all_families(found):
            if family is not None:
                found.families.append(family)
            await asyncio.sleep(0)
        self._took(found, "state", began)
        found.families += self._collectors(found)
        found.sample = None  # Who reads slowly keeps the text waiting, but not megabytes of counters.
        return found

    @staticmethod
    def _took(found: _Scrape, collector: str, began: float) -> float:
        now = time.perf_counter()
        found.seconds[collector] = now - began
        return now

    def _all_families(self, found: _Scrape) -> Iterator[Metric | None]:
        yield build(self._facts.instance_id)
        yield from self._of_facts()
        yield from self._registry.collect()
        yield from engine_families(self._engine, self._daemon)
        yield from owner_families(self._engine.desired)
        yield from self._entries(found.sample)
        yield from self._export(found.page)
        yield self._condition()
        yield from self._memberships()
        yield from self._watchers()

    def _of_facts(self) -> Iterator[Metric]:
        config = InfoMetricFamily("mcastd_config", "What the daemon was started with.")
        config.add_metric([], {"file": self._facts.config})
        yield config
        started = "When the keeper, which holds the kernel's sockets, was started, seconds since the epoch."
        yield GaugeMetricFamily("mcastd_keeper_start_time_seconds", started, value=self._facts.keeper_started_at)
        starts = "Server processes that this keeper has started; more than 1 = it was restarted, and forwarding went on."
        yield CounterMetricFamily("mcastd_server_starts", starts, value=self._facts.server_starts)

    def _entries(self, sample: Sample | None) -> Iterator[Metric]:
        entries = GaugeMetricFamily(
            "mcastd_entries",
            "Entries in the kernel (ip_mr_cache), by origin: of owners' routes, of templates, stop filters, somebody else's.",
            labels=[*WHERE, "origin"],
        )
        flows = GaugeMetricFamily("mcastd_flows", "(S,G) and (*,G) entries in the kernel that are no stop filters.", labels=WHERE)
        waiting = GaugeMetricFamily(
            "mcastd_unresolved_flows", "(S,G) for which packets wait in the kernel (ip_mr_cache, Iif -1).", labels=WHERE
        )
        for _, kernel in sorted(self._engine.tables.items()):
            here = where(kernel)
            learned = learned_count(kernel)
            origins = {
                "configured": max(0, len(kernel.actual) - len(kernel.learned)),
                "learned": learned,
                "stop": max(0, len(kernel.learned) - learned),
                "foreign": len(kernel.foreign),
            }
            for origin, count in origins.items():
                entries.add_metric([*here, origin], count)
            table = sample.table(kernel.table, kernel.family) if sample is not None else None
            if table is not None:
                flows.add_metric(here, self._flows.flows_of(table))
                waiting.add_metric(here, len(table.unresolved))
        yield from (entries, flows, waiting)

    def _export(self, page: FlowPage) -> Iterator[Metric]:
        text = "Flows by rate (K) that /metrics tells of, beside those that are expected (setting metrics.flows_top)."
        yield GaugeMetricFamily("mcastd_flow_export_limit", text, value=self._flows.limit)
        text = "Flows of which /metrics does not tell; /metrics/flows does where it is on (setting metrics.flows_all)."
        yield GaugeMetricFamily("mcastd_flows_not_exported", text, value=page.total - page.exported)
        text = "Routes with `monitored` of which no packet has come for the time of the setting metrics.silent_after."
        yield GaugeMetricFamily("mcastd_flows_silent", text, value=self._flows.silence.silent)

    def _condition(self) -> Metric:
        conditions = GaugeMetricFamily(
            "mcastd_condition", "What is not as it should be: 1 while it is so.", labels=["code", "severity"]
        )
        conditions.add_metric([FLOW_SILENT, "warning"], float(self._flows.silence.silent > 0))
        conditions.add_metric([ORPHANS, "warning"], float(any(orphans_left(self._engine.desired))))
        conditions.add_metric([STORE_UNAVAILABLE, "critical"], float(self._daemon.store_refuses()))
        return conditions

    def _memberships(self) -> Iterator[Metric]:
        held = GaugeMetricFamily(
            "mcastd_memberships", "Group memberships that the kernel holds for joins (ip maddr).", labels=["family", "interface"]
        )
        for (family, interface), count in sorted(self._engine.joins.held().items()):
            held.add_metric([family.name.lower(), interface], count)
        yield held
        limit = GaugeMetricFamily(
            "mcastd_memberships_limit", "Memberships that joins may come to, both families together.", labels=["family"]
        )
        for name in ("ipv4", "ipv6"):
            limit.add_metric([name], self._engine.limits.memberships_max)
        yield limit

    def _watchers(self) -> Iterator[Metric]:
        count, backlog, resyncs = self._daemon.watchers()
        yield GaugeMetricFamily("mcastd_watchers", "Watch streams that are open.", value=count)
        yield GaugeMetricFamily("mcastd_watcher_backlog_events", "Objects that wait to be sent to watchers.", value=backlog)
        why = CounterMetricFamily(
            "mcastd_watcher_resyncs",
            "Watchers that began anew, or were ended as too slow.",
            labels=["reason"],
        )
        for reason, times in resyncs.items():
            why.add_metric([reason], times)
        yield why

    def _collectors(self, found: _Scrape) -> Iterator[Metric]:
        seconds = GaugeMetricFamily(
            "mcastd_scrape_collector_duration_seconds", "Time that a part of this scrape took.", labels=["collector"]
        )
        success = GaugeMetricFamily(
            "mcastd_scrape_collector_success", "Whether a part of this scrape was had.", labels=["collector"]
        )
        for collector in COLLECTORS:
            seconds.add_metric([collector], found.seconds[collector])
            success.add_metric([collector], float(collector not in found.failed))
        yield from (seconds, success)
