"""Metrics of our own doing: counters and histograms that the daemon increments itself. State is read at each scrape (state.py).

docs/metrics.md lists all of them; a test compares it with what is live.
"""

import logging

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from mcastd.model.event import UpcallKind

OPERATIONS = ("add_vif", "del_vif", "add_mfc", "del_mfc")

LEVELS = ("debug", "info", "warning", "error", "critical")

_OPERATION_SECONDS = (0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_LAG_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

disable_created_metrics()  # type: ignore[no-untyped-call] # A second series for each counter, which nobody reads.


class Metrics:
    """The registry and the counters that the daemon increments itself."""

    def __init__(self) -> None:
        """Every series that is known to exist starts at 0."""
        self.registry = registry = CollectorRegistry()
        self.kernel_operations = Counter(
            "mcastd_kernel_operations",
            "Calls that change the kernel's multicast tables (MRT_*), by operation; one for each entry.",
            ["op"],
            registry=registry,
        )
        self.kernel_operation_failures = Counter(
            "mcastd_kernel_operation_failures", "Those of them that the kernel refused.", ["op", "errno"], registry=registry
        )
        self.kernel_operation_seconds = Histogram(
            "mcastd_kernel_operation_duration_seconds",
            "Duration of the calls that change the kernel's multicast tables; of a batch (up to 1000 entries), as a whole.",
            ["op"],
            buckets=_OPERATION_SECONDS,
            registry=registry,
        )
        self.membership_failures = Counter(
            "mcastd_membership_failures",
            "Memberships that the kernel did not take or give up (MCAST_JOIN_GROUP and its like), each time it was tried.",
            ["errno"],
            registry=registry,
        )
        self.upcalls = Counter(
            "mcastd_upcalls", "Kernel upcalls (igmpmsg, mrt6msg), by kind.", ["table", "family", "kind"], registry=registry
        )
        self.upcall_drops = Counter(
            "mcastd_upcall_queue_drops", "Upcalls lost to full queues, in the kernel or in the keeper.", registry=registry
        )
        self.loop_lag = Histogram(
            "mcastd_event_loop_lag_seconds",
            "How late the event loop wakes a task that sleeps: what every call waits for beside its own work.",
            buckets=_LAG_SECONDS,
            registry=registry,
        )
        self.log_messages = Counter(
            "mcastd_log_messages", "Lines that the server process has logged, by level.", ["level"], registry=registry
        )
        self._make_listener()
        self._make_drift()
        for operation in OPERATIONS:
            self.kernel_operations.labels(operation)
            self.kernel_operation_seconds.labels(operation)
        for level in LEVELS:
            self.log_messages.labels(level)
        for family in ("ipv4", "ipv6"):
            for kind in UpcallKind:
                self.upcalls.labels("0", family, kind.name.lower())
        ProcessCollector(registry=registry)

    def _make_listener(self) -> None:
        """The metrics listener's own."""
        registry = self.registry
        self.http_requests = Counter(
            "mcastd_http_requests", "Requests to the metrics listener that were answered, by status.", ["code"], registry=registry
        )
        self.certificate_expiry = Gauge(
            "mcastd_tls_certificate_expiry_timestamp_seconds",
            "When the certificate of a listener ends, seconds since the epoch.",
            ["listener"],
            registry=registry,
        )
        self.tls_files_good = Gauge(
            "mcastd_tls_files_good",
            "Whether certificate, key and CA of a listener are in force as they are (1), or as they were when good (0).",
            ["listener"],
            registry=registry,
        )
        self.web_config_good = Gauge(
            "mcastd_web_config_last_reload_successful",
            "Whether the web configuration file is in force as it is (1), or as it was when it was good (0); 1 without a file.",
            registry=registry,
        )
        self.web_config_good.set(1)

    def _make_drift(self) -> None:
        """What others have done to our entries and VIFs."""
        self.drift_repairs = Counter(
            "mcastd_drift_repairs",
            "Entries and VIFs that somebody else removed or changed, and that were put back, by kind.",
            ["kind"],
            registry=self.registry,
        )
        self.drift_routes = Gauge(
            "mcastd_drift_routes",
            "Entries that differ from what is wanted: missing and different ones are being put back, foreign ones left alone.",
            ["kind"],
            registry=self.registry,
        )
        self.reconciles = Counter(
            "mcastd_reconciles",
            "Comparisons of a dump of a table with what it should be, by cause.",
            ["trigger"],
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "mcastd_reconcile_duration_seconds", "Time that such a comparison took, dump and all.", registry=self.registry
        )
        self.reconcile_success = Gauge(
            "mcastd_reconcile_last_success_timestamp_seconds",
            "When the last one was completed, seconds since the epoch; 0 = there was none.",
            registry=self.registry,
        )
        for kind in ("missing", "different", "vif"):
            self.drift_repairs.labels(kind)
        for kind in ("missing", "different", "foreign"):
            self.drift_routes.labels(kind)
        self.reconciles.labels("notifications_lost")


class LogCounter(logging.Handler):
    """Counts what is logged."""

    def __init__(self, metrics: Metrics) -> None:
        """Count here; a handler beside the one that writes."""
        super().__init__()
        self._levels = {level.upper(): metrics.log_messages.labels(level) for level in LEVELS}

    def emit(self, record: logging.LogRecord) -> None:
        """One more."""
        found = self._levels.get(record.levelname)
        if found is not None:
            found.inc()
