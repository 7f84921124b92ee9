"""Metrics: the bounded ones. Counts of our own doing are kept here; state is read from the engine at each scrape."""

import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from mcastd import __version__
from mcastd.model.event import UpcallKind
from mcastd.model.interface import VIFS_MAX
from mcastd.model.route import RouteState

if TYPE_CHECKING:
    from prometheus_client import Metric

    from mcastd.core.engine import Engine
    from mcastd.core.tables import KernelTable

_WHERE = ["table", "family"]

OPERATIONS = ("add_vif", "del_vif", "add_mfc", "del_mfc")


class Metrics:
    """The registry and the counters that the daemon increments itself."""

    def __init__(self) -> None:
        """Every series that is known to exist starts at 0."""
        self.registry = CollectorRegistry()
        self.kernel_operations = Counter(
            "mcastd_kernel_operations",
            "Calls that change the kernel's multicast tables (MRT_*), by operation.",
            ["op"],
            registry=self.registry,
        )
        self.kernel_operation_failures = Counter(
            "mcastd_kernel_operation_failures", "Those of them that the kernel refused.", ["op", "errno"], registry=self.registry
        )
        self.upcalls = Counter(
            "mcastd_upcalls", "Kernel upcalls (igmpmsg, mrt6msg), by kind.", ["table", "family", "kind"], registry=self.registry
        )
        self.upcall_drops = Counter(
            "mcastd_upcall_queue_drops", "Upcalls lost to full queues, in the kernel or in the keeper.", registry=self.registry
        )
        for operation in OPERATIONS:
            self.kernel_operations.labels(operation)
        for family in ("ipv4", "ipv6"):
            for kind in UpcallKind:
                self.upcalls.labels("0", family, kind.name.lower())


class EngineCollector(Collector):
    """State as gauges, made anew at each scrape."""

    def __init__(self, engine: "Engine", instance_id: str) -> None:
        """Read this engine."""
        self._engine = engine
        self._instance_id = instance_id

    def collect(self) -> "Iterator[Metric]":
        """Build, routes by state, entries by origin, what the caps have refused, VIFs."""
        yield self._build()
        tables = list(self._engine.tables.values())
        yield self._routes(tables)
        yield from _learned(tables)
        used = GaugeMetricFamily("mcastd_vifs", "VIFs (IPv6: MIFs) in use.", labels=_WHERE)
        limit = GaugeMetricFamily("mcastd_vifs_limit", "VIFs there are (MAXVIFS).", labels=_WHERE)
        for kernel in tables:
            used.add_metric(_where(kernel), kernel.vifs.used)
            limit.add_metric(_where(kernel), VIFS_MAX)
        yield used
        yield limit

    def _build(self) -> "Metric":
        build = InfoMetricFamily("mcastd_build", "What runs here.")
        build.add_metric(
            [],
            {
                "version": __version__,
                "python": platform.python_version(),
                "kernel": platform.release(),
                "instance_id": self._instance_id,
            },
        )
        return build

    def _routes(self, tables: "list[KernelTable]") -> "Metric":
        routes = GaugeMetricFamily("mcastd_routes", "Routes that owners want, by state.", labels=[*_WHERE, "state"])
        for kernel in tables:
            counts = dict.fromkeys(RouteState, 0)
            for shape in kernel.shapes.values():
                counts[shape.state] += len(shape.members)
            for one in (*kernel.templates.values(), *kernel.trees.values()):
                counts[one.state] += 1
            for key in self._engine.failed:
                route = self._engine.desired.routes.get(key)
                if route is not None and route.problem is not None and getattr(route.fate, "kernel", None) is kernel:
                    counts[route.fate.state] -= 1
                    counts[RouteState.FAILED] += 1
            for state, count in counts.items():
                routes.add_metric([*_where(kernel), state.name.lower()], count)
        return routes


def _learned(tables: "list[KernelTable]") -> "Iterator[Metric]":
    """What traffic has made, and what the caps have refused it."""
    entries = GaugeMetricFamily(
        "mcastd_entries",
        "Entries in the kernel (ip_mr_cache), by origin: what owners ask for, what templates made, stop filters.",
        labels=[*_WHERE, "origin"],
    )
    learned_refused = CounterMetricFamily(
        "mcastd_learned_refused", "New sources that a template's cap has refused (setting learned_max).", labels=_WHERE
    )
    stops_refused = CounterMetricFamily(
        "mcastd_stops_refused", "Stop filters that a table's cap has refused (setting stops_max).", labels=_WHERE
    )
    for kernel in tables:
        where = _where(kernel)
        learned = sum(one.children for one in kernel.templates.values()) + sum(one.children for one in kernel.trees.values())
        entries.add_metric([*where, "configured"], max(0, len(kernel.actual) - len(kernel.learned)))
        entries.add_metric([*where, "learned"], learned)
        entries.add_metric([*where, "stop"], max(0, len(kernel.learned) - learned))
        learned_refused.add_metric(where, kernel.capped)
        stops_refused.add_metric(where, kernel.stops_refused)
    yield entries
    yield learned_refused
    yield stops_refused


def _where(kernel: "KernelTable") -> list[str]:
    return [str(kernel.table), kernel.family.name.lower()]
