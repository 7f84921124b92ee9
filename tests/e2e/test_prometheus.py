"""Real Prometheus, two real routers under traffic, one a family: all queries return data; faults fire their alerts and clear."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e import templates
from tests.e2e.keeper_bench import open_directory
from tests.e2e.prometheus import Prometheus
from tests.e2e.router import Router
from tests.e2e.templates import Spray, template
from tests.e2e.test_templates_bursts import shrink_buffers
from tests.meta.test_dashboards import concrete, expressions, panels
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until
from tests.testbed.namespace import Namespace
from tools.monitoring.rules import recording_groups
from tools.monitoring.settings import Settings

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("heavy"), pytest.mark.timeout(180)]

SETTINGS = Settings().scaled(0.02)
"""Six seconds instead of five minutes."""

METRICS_PORT = 9464
MEMBERSHIPS = 20
LEARNED = 1000
CONFIG = f"""
[daemon]
metrics = "0.0.0.0:{METRICS_PORT}"
learned_max = {LEARNED}
memberships_max = {MEMBERSHIPS}
"""
FIRE_SECONDS = 40.0

_log = logging.getLogger(__name__)
LOST_FIRST = 0x4000
LOST = 2000
"""Upcalls that no buffer holds."""
REFUSED_FIRST = 0x8000


class Rig:
    """A router with traffic, and its faults."""

    def __init__(self, bed: Testbed, family: Family, stack: ExitStack, monitor: Namespace) -> None:
        self.name = family.name.lower()
        self.monitor = monitor
        directory = stack.enter_context(open_directory())
        (directory / "mcastd.toml").write_text(CONFIG)
        self.start_with = ("--config", str(directory / "mcastd.toml"))
        self.router = stack.enter_context(Router(bed, family, receivers=3, arguments=self.start_with))
        _, far = bed.connect(monitor, self.name, self.router.namespace, "mgmt")
        self.address = f"{far.ipv4}:{METRICS_PORT}"
        self.steady, self.watched, self.stray = (self.router.sender(n) for n in (1, 2, 3))

    def begin(self) -> None:
        """Forward a steady flow, one that is expected, and what a template learns."""
        router = self.router
        router.put(router.route(self.steady, "down1", "down2", join=True), router.route(self.watched, "down1", monitored=True))
        router.put(router.route(self.stray, "down1", iif="down2"))
        for first in (LOST_FIRST, REFUSED_FIRST):
            templates.put(router, template(templates.prefix(router.family, first, 14), "up", "down3"))
        self.steady.start(100)
        self.watched_flow = self.watched.start(50)

    def spoil(self) -> None:
        """Cause all faults at once."""
        router = self.router
        self.watched_flow.stop()
        self.stray_flow = self.stray.start(20)
        router.put(router.route(4, "down1", iif="nowhere"))
        names = [f"many{n}" for n in range(25)]
        router.namespace.ip(
            *(f"link add name {name} type veth peer name end{name}" for name in names),
            *(f"link set {prefix}{name} up" for name in names for prefix in ("", "end")),
        )
        router.wait_links(*names)
        router.put(router.route(5, "many*"))
        router.put(*(router.route(number, "down1", join=True) for number in JOINED))

    def be_refused(self) -> None:
        """Send to more new groups than a template may have entries."""
        Spray(self.router.star.source, self.router.family).send_numbers(range(REFUSED_FIRST, REFUSED_FIRST + LEARNED + 200))

    def lose_upcalls(self) -> None:
        """Stop the keeper for a moment, and send to more new groups than its socket's buffer holds."""
        spray = Spray(self.router.star.source, self.router.family)
        keeper = self.router.daemon.process.pid
        shrink_buffers(keeper, 1 << 16)
        os.kill(keeper, signal.SIGSTOP)
        try:
            spray.send_numbers(range(LOST_FIRST, LOST_FIRST + LOST))
        finally:
            os.kill(keeper, signal.SIGCONT)
        # The kernel tells of losses with the next upcall that it can deliver.
        self.router.check_leaves(self.router.sender(LOST_FIRST + LOST), "down3", count=1)

    def mend(self) -> None:
        """End all faults."""
        self.stray_flow.stop()
        self.watched_flow = self.watched.start(50)
        for number in (4, 5, *JOINED):
            self.router.daemon.delete(self.key(number))

    def key(self, number: int) -> t.RouteKey:
        """The key of the route to a group by number."""
        one = self.router.route(number)
        return t.RouteKey(group=one.group, source=one.source)


JOINED = range(100, 100 + MEMBERSHIPS - 1)
"""Groups that are joined, beside the steady flow's."""

LASTING = {
    "McastdFlowStalled",
    "McastdWrongInterfaceTraffic",
    "McastdRouteNotInstalled",
    "McastdVifTableNearlyFull",
    "McastdMembershipLimitNear",
}
"""Alerts whose faults last until they are mended."""

PASSING = {"McastdUpcallDrops", "McastdSourcesRefused"}
"""Those that clear by themselves when nothing more is lost."""


@pytest.fixture
def rigs(testbed: Testbed) -> Iterator[list[Rig]]:
    """A router of each family, with traffic, and a network that reaches their metrics."""
    monitor = testbed.namespace("monitor")
    with ExitStack() as stack:
        made = [Rig(testbed, family, stack, monitor) for family in Family]
        for rig in made:
            rig.begin()
        yield made


@pytest.fixture
def prometheus(rigs: list[Rig]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes both."""
    with Prometheus(rigs[0].monitor, {rig.name: rig.address for rig in rigs}, SETTINGS) as made:
        yield made


def wait_firing(prometheus: Prometheus, want: set[tuple[str, str]], rigs: list[Rig]) -> float:
    """Wait until these alerts fire and no other; how long it took, in seconds."""

    def there() -> bool:
        for rig in rigs:
            rig.router.daemon.status()  # calls, for the panels that show them
        time.sleep(0.2)
        return prometheus.firing() == want

    return wait_until(there, FIRE_SECONDS, lambda: f"these fire: {sorted(prometheus.firing())}, but not {sorted(want)}")


def wait_fired(prometheus: Prometheus, passing: set[tuple[str, str]], lasting: set[tuple[str, str]]) -> None:
    """Wait until each of these has fired, not necessarily at once: they pass. Beside them nothing fires but what lasts."""
    fired: set[tuple[str, str]] = set()

    def there() -> bool:
        time.sleep(0.2)
        fired.update(prometheus.firing())
        assert fired <= passing | lasting
        return passing <= fired

    wait_until(there, FIRE_SECONDS, lambda: f"these have fired: {sorted(fired)}, but not {sorted(passing)}")


def check_queries(prometheus: Prometheus) -> None:
    """Every panel's and every recording rule's query returns data of both routers, or of all together."""
    empty = []
    for panel in panels():
        for expression in expressions(panel):
            found = prometheus.query(concrete(expression).replace("[1m]", "[10s]"))
            instances = {one["metric"].get("instance") for one in found}
            if not found or not (instances <= {None} or instances == {"ipv4", "ipv6"}):
                empty.append((panel.dashboard, panel.content["title"], expression, instances))
    for rule in recording_groups(SETTINGS)[0]["rules"]:
        found = prometheus.query(rule["record"])
        if {one["metric"]["instance"] for one in found} != {"ipv4", "ipv6"}:
            empty.append(("rules", rule["record"], rule["expr"], set()))
    assert empty == []
    assert prometheus.unhealthy_rules() == []


def test_queries_return_data_and_each_fault_fires_its_alert(prometheus: Prometheus, rigs: list[Rig]) -> None:
    began = time.monotonic()
    # Both flows of both routers are seen to flow, and that is no reason for an alert.
    wait_until(lambda: len(prometheus.query("rate(mcastd_flow_packets_total[5s]) > 10")) == 4, FIRE_SECONDS)
    wait_firing(prometheus, set(), rigs)
    calm = time.monotonic()
    for rig in rigs:
        rig.spoil()
    wait_firing(prometheus, of_all(LASTING, rigs), rigs)
    fired = time.monotonic()
    for rig in rigs:
        rig.be_refused()
        rig.lose_upcalls()
        wait_fired(prometheus, {(name, rig.name) for name in PASSING}, of_all(LASTING | PASSING, rigs))
    check_queries(prometheus)
    for rig in rigs:
        rig.mend()
    wait_firing(prometheus, set(), rigs)
    times = [calm - began, fired - calm, time.monotonic() - fired]
    _log.info("calm after %.1f s, faults fired after %.1f s, all cleared %.1f s later", *times)


def test_a_daemon_that_is_down_and_servers_that_end_again_and_again(prometheus: Prometheus, rigs: list[Rig]) -> None:
    down, restarting = rigs
    wait_until(lambda: len(prometheus.query("up == 1")) == 2, FIRE_SECONDS)
    down.router.daemon.close()
    wait_firing(prometheus, {("McastdDown", down.name)}, [restarting])
    for _ in range(3):
        restarting.router.wait_server_after(restarting.router.daemon.kill_server())
    wait_until(lambda: ("McastdServerRestarts", restarting.name) in prometheus.firing(), FIRE_SECONDS)
    down.router.start(arguments=down.start_with)
    wait_firing(prometheus, set(), rigs)


def of_all(names: set[str], rigs: list[Rig]) -> set[tuple[str, str]]:
    """These alerts of every router."""
    return {(name, rig.name) for name in names for rig in rigs}
