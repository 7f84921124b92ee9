"""Metrics: the bounded ones. Counts of our own doing are kept here; state is read from the engine at each scrape."""

import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from mcastd import __version__
from mcastd.model.event import UpcallKind
from mcastd.model.interface import VIFS_MAX
from mcastd.model.route import RouteState

if TYPE_CHECKING:
    from prometheus_client import Metric

    from mcastd.core.engine import Engine

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
        """Routes by state, VIFs, build."""
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
        yield build
        routes = GaugeMetricFamily("mcastd_routes", "Routes that owners want, by state.", labels=["table", "family", "state"])
        used = GaugeMetricFamily("mcastd_vifs", "VIFs (IPv6: MIFs) in use.", labels=["table", "family"])
        limit = GaugeMetricFamily("mcastd_vifs_limit", "VIFs there are (MAXVIFS).", labels=["table", "family"])
        for kernel in self._engine.tables.values():
            where = [str(kernel.table), kernel.family.name.lower()]
            counts = dict.fromkeys(RouteState, 0)
            for shape in kernel.shapes.values():
                counts[shape.state] += len(shape.members)
            for key in self._engine.failed:
                route = self._engine.desired.routes.get(key)
                if route is not None and route.problem is not None and getattr(route.fate, "kernel", None) is kernel:
                    counts[route.fate.state] -= 1
                    counts[RouteState.FAILED] += 1
            for state, count in counts.items():
                routes.add_metric([*where, state.name.lower()], count)
            used.add_metric(where, kernel.vifs.used)
            limit.add_metric(where, VIFS_MAX)
        yield routes
        yield used
        yield limit
