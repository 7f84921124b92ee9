"""State as gauges: what the engine knows at a scrape, made anew each time.

A generator that yields None where others may run: where each route has oifs of its own there are as many shapes as routes.
"""

import platform
from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

from mcastd import __version__
from mcastd.core.engine import Engine
from mcastd.core.sources import Cause
from mcastd.core.tables import KernelTable
from mcastd.model.address import Family, key_family, key_table
from mcastd.model.interface import VIFS_MAX, VifCounters
from mcastd.model.route import RouteState
from mcastd.telemetry.ports import Daemon

WHERE = ("table", "family")

_CARRIED: tuple[tuple[str, str, Callable[[VifCounters], int]], ...] = (
    ("receive_packets", "Packets that came in on the VIF to be forwarded (SIOCGETVIFCNT icount).", lambda c: c.in_packets),
    ("receive_bytes", "Bytes that came in on the VIF to be forwarded (ibytes).", lambda c: c.in_bytes),
    ("transmit_packets", "Packets forwarded out of the VIF (ocount).", lambda c: c.out_packets),
    ("transmit_bytes", "Bytes forwarded out of the VIF (obytes).", lambda c: c.out_bytes),
)

_SHAPES_AT_ONCE = 2000
"""Shapes that are counted between two yields: under 1 ms."""


def where(kernel: KernelTable) -> list[str]:
    """The values of WHERE."""
    return [str(kernel.table), kernel.family.name.lower()]


def learned_count(kernel: KernelTable) -> int:
    """Entries that templates and trees have made."""
    return sum(one.children for one in kernel.templates.values()) + sum(one.children for one in kernel.trees.values())


def build(instance_id: str) -> Metric:
    """What runs here."""
    family = InfoMetricFamily("mcastd_build", "What runs here.")
    kernel, python = platform.release(), platform.python_version()
    family.add_metric([], {"version": __version__, "python": python, "kernel": kernel, "instance_id": instance_id})
    return family


def engine_families(engine: Engine, daemon: Daemon) -> Iterator[Metric | None]:
    """Routes by state, templates, entries of our own, what the caps have refused, VIFs and what they carry, interfaces."""
    tables = [kernel for _, kernel in sorted(engine.tables.items())]
    yield from _routes(engine, tables)
    yield from _learned(tables)
    yield from _sources(engine)
    yield from _vifs(tables, daemon)
    yield _interfaces(engine)


def _routes(engine: Engine, tables: list[KernelTable]) -> Iterator[Metric | None]:
    routes = GaugeMetricFamily("mcastd_routes", "Routes that owners want, by state (RouteState).", labels=[*WHERE, "state"])
    templates = GaugeMetricFamily("mcastd_route_templates", "Templates and shared trees that owners want.", labels=WHERE)
    counts = {kernel: dict.fromkeys(RouteState, 0) for kernel in tables}
    for number, (kernel, state, count) in enumerate(states(engine, tables), 1):
        counts[kernel][state] += count
        if number % _SHAPES_AT_ONCE == 0:
            yield None
    for kernel in tables:
        for state, count in counts[kernel].items():
            routes.add_metric([*where(kernel), state.name.lower()], count)
        templates.add_metric(where(kernel), len(kernel.templates) + len(kernel.trees))
    yield routes
    yield templates


def states(engine: Engine, tables: list[KernelTable]) -> Iterator[tuple[KernelTable, RouteState, int]]:
    """Changes to the counts that come to what is: table, state, by how many."""
    for kernel in tables:
        yield from ((kernel, shape.state, len(shape.members)) for shape in list(kernel.shapes.values()))
        yield from ((kernel, one.state, 1) for one in (*kernel.templates.values(), *kernel.trees.values()))
    for key in list(engine.failed):
        route = engine.desired.routes.get(key)
        kernel_of = getattr(route.fate, "kernel", None) if route is not None else None
        if route is not None and route.problem is not None and isinstance(kernel_of, KernelTable):
            yield kernel_of, route.fate.state, -1
            yield kernel_of, RouteState.FAILED, 1


def _learned(tables: list[KernelTable]) -> Iterator[Metric]:
    """What the caps have refused."""
    refused = CounterMetricFamily(
        "mcastd_learned_refused", "New sources that a template's cap has refused (setting learned_max).", labels=WHERE
    )
    stops = CounterMetricFamily(
        "mcastd_stops_refused", "Stop filters that a table's cap has refused (setting stops_max).", labels=WHERE
    )
    for kernel in tables:
        refused.add_metric(where(kernel), kernel.capped)
        stops.add_metric(where(kernel), kernel.stops_refused)
    yield refused
    yield stops


def _sources(engine: Engine) -> Iterator[Metric]:
    """Traffic that no route forwards as it should."""
    counts = {(where(kernel)[0], where(kernel)[1], cause): 0 for kernel in engine.tables.values() for cause in Cause}
    for (key, _), source in engine.sources.all.items():
        at = (str(key_table(key)), key_family(key).name.lower(), source.cause)
        counts[at] = counts.get(at, 0) + 1
    sources = GaugeMetricFamily(
        "mcastd_sources", "(S,G) that come in and that no route forwards as it should, by cause.", labels=[*WHERE, "cause"]
    )
    for (table, family, cause), count in counts.items():
        sources.add_metric([table, family, cause.name.lower()], count)
    yield sources
    yield CounterMetricFamily(
        "mcastd_sources_refused", "New sources that were not taken note of: too many are known.", value=engine.sources.refused
    )


def _vifs(tables: list[KernelTable], daemon: Daemon) -> Iterator[Metric | None]:
    used = GaugeMetricFamily("mcastd_vifs", "VIFs (IPv6: MIFs) in use.", labels=WHERE)
    limit = GaugeMetricFamily("mcastd_vifs_limit", "VIFs there are (MAXVIFS).", labels=WHERE)
    carried: list[tuple[list[str], VifCounters]] = []
    for kernel in tables:
        used.add_metric(where(kernel), kernel.vifs.used)
        limit.add_metric(where(kernel), VIFS_MAX)
        for number in kernel.vifs.in_kernel():
            slot = kernel.vifs.slots[number]
            counters = daemon.vif_counters(kernel.table, kernel.family is Family.IPV6, number)
            if slot is not None and counters is not None:
                carried.append(([*where(kernel), slot.name], counters))
        yield None
    yield used
    yield limit
    for name, text, value in _CARRIED:
        family = CounterMetricFamily(f"mcastd_interface_{name}", text, labels=[*WHERE, "interface"])
        for labels, counters in carried:
            family.add_metric(labels, value(counters))
        yield family


def _interfaces(engine: Engine) -> Metric:
    interfaces = GaugeMetricFamily(
        "mcastd_interfaces", "Interfaces of the network namespace: up, down, or unable to carry multicast.", labels=["state"]
    )
    counts = {"up": 0, "down": 0, "no_multicast": 0}
    for link in engine.world.by_name.values():
        counts["no_multicast" if not link.multicast else "up" if link.up else "down"] += 1
    for state, count in counts.items():
        interfaces.add_metric([state], count)
    return interfaces
