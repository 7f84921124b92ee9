"""mcastd.telemetry.metrics: what can happen starts at 0."""

import logging

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mcastd.telemetry.metrics import LogCounter, Metrics

Labels = tuple[tuple[str, str], ...]


def scrape(registry: CollectorRegistry) -> dict[tuple[str, Labels], float]:
    """Every sample, as Prometheus reads it."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def of(samples: dict[tuple[str, Labels], float], name: str, **labels: str) -> float:
    """One sample."""
    return samples[name, tuple(sorted(labels.items()))]


def test_what_can_happen_starts_at_zero() -> None:
    value = Metrics().registry.get_sample_value
    for operation in ("add_vif", "del_vif", "add_mfc", "del_mfc"):
        assert value("mcastd_kernel_operations_total", {"op": operation}) == 0
        assert value("mcastd_kernel_operation_duration_seconds_count", {"op": operation}) == 0
    for family in ("ipv4", "ipv6"):
        for kind in ("nocache", "wrongvif", "wholepkt", "wrvifwhole"):
            assert value("mcastd_upcalls_total", {"table": "0", "family": family, "kind": kind}) == 0
    for level in ("debug", "info", "warning", "error", "critical"):
        assert value("mcastd_log_messages_total", {"level": level}) == 0
    assert value("mcastd_upcall_queue_drops_total") == 0


def test_two_daemons_do_not_share_a_registry() -> None:
    first, second = Metrics(), Metrics()
    first.kernel_operations.labels("add_mfc").inc(5)
    assert of(scrape(second.registry), "mcastd_kernel_operations_total", op="add_mfc") == 0


def test_there_is_no_second_series_for_each_counter() -> None:
    names = {sample.name for family in Metrics().registry.collect() for sample in family.samples}
    assert not [name for name in names if name.endswith("_created")]


def test_lines_of_the_log_are_counted() -> None:
    metrics = Metrics()
    log = logging.getLogger("test_lines_of_the_log_are_counted")
    log.setLevel("DEBUG")
    log.propagate = False
    log.addHandler(LogCounter(metrics))
    log.warning("one")
    log.warning("two")
    log.log(35, "of no level that has a name")
    assert metrics.registry.get_sample_value("mcastd_log_messages_total", {"level": "warning"}) == 2
