"""mcastd.telemetry.metrics: names, labels, and numbers that agree with the engine."""

import errno

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mcastd.model.address import Family
from mcastd.model.write import PutRoutes, WriteOptions
from mcastd.telemetry.metrics import EngineCollector, Metrics
from tests.fakerouter import Router, route
from tests.netns.routed import key_of

Labels = tuple[tuple[str, str], ...]


def scrape(registry: CollectorRegistry) -> dict[tuple[str, Labels], float]:
    """Every sample, as Prometheus reads it."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def of(samples: dict[tuple[str, Labels], float], name: str, **labels: str) -> float:
    """One sample."""
    return samples[name, tuple(sorted(labels.items()))]


def test_what_can_happen_starts_at_zero() -> None:
    samples = scrape(Metrics().registry)
    for operation in ("add_vif", "del_vif", "add_mfc", "del_mfc"):
        assert of(samples, "mcastd_kernel_operations_total", op=operation) == 0
    for family in ("ipv4", "ipv6"):
        for kind in ("nocache", "wrongvif", "wholepkt", "wrvifwhole"):
            assert of(samples, "mcastd_upcalls_total", table="0", family=family, kind=kind) == 0
    assert of(samples, "mcastd_upcall_queue_drops_total") == 0


def test_two_daemons_do_not_share_a_registry() -> None:
    first, second = Metrics(), Metrics()
    first.kernel_operations.labels("add_mfc").inc(5)
    assert of(scrape(second.registry), "mcastd_kernel_operations_total", op="add_mfc") == 0


def collected(router: Router) -> dict[tuple[str, Labels], float]:
    """What is said of a router's engine."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(router.engine, "an-instance"))
    return scrape(registry)


def test_the_build_is_told() -> None:
    ((_, labels),) = [key for key in collected(Router()) if key[0] == "mcastd_build_info"]
    assert dict(labels)["instance_id"] == "an-instance"
    assert {name for name, _ in labels} == {"version", "python", "kernel", "instance_id"}


def test_routes_are_counted_by_state() -> None:
    router = Router("up", "down")
    four, six = [key_of(Family.IPV4, n) for n in range(1, 6)], key_of(Family.IPV6, 1)
    router.kernel.refuse("add_mfc", errno.ENOMEM, 1, lambda key: key == four[4])
    routes = [
        route(four[0], "up", "down"),
        route(four[1], "up", "down"),
        route(four[2], "up", "down", "absent"),
        route(four[3], "absent", "down"),
        route(four[4], "up", "down"),
        route(six, "up", "down"),
    ]
    router.write(PutRoutes(WriteOptions("alice"), routes))
    router.settle()
    samples = collected(router)
    states = ("programmed", "partial", "pending", "template", "failed")
    by_state = {state: of(samples, "mcastd_routes", table="0", family="ipv4", state=state) for state in states}
    assert by_state == {"programmed": 2, "partial": 1, "pending": 1, "template": 0, "failed": 1}
    assert of(samples, "mcastd_routes", table="0", family="ipv6", state="programmed") == 1
    assert of(samples, "mcastd_vifs", table="0", family="ipv4") == 2
    assert of(samples, "mcastd_vifs_limit", table="0", family="ipv6") == 32
