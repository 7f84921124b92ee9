"""The panels of the dashboard Router: forwarding, the kernel, the daemon."""

from typing import Any

from tools.monitoring.expressions import CHOSEN, rate, total
from tools.monitoring.panels import Query, Spot, ask, row, timeline


def router_panels() -> list[dict[str, Any]]:
    """All of them."""
    return [*_router_forwarding(), *_router_kernel(), *_router_daemon()]


def _router_forwarding() -> list[dict[str, Any]]:
    def interface(direction: str) -> list[Query]:
        by = "by (instance, interface)"
        return ask(f"8 * {total(by, rate(f'mcastd_interface_{direction}_bytes_total'))}", "{{instance}} {{interface}}")

    return [
        row("Forwarding", 0),
        timeline(
            "Routes by state",
            "PROGRAMMED: the kernel forwards as asked. TEMPLATE: entries are made as packets arrive.",
            Spot(0, 1, 12, 8),
            "short",
            ask(total("by (instance, state)", f"mcastd_routes{{{CHOSEN}}}"), "{{instance}} {{state}}"),
        ),
        timeline(
            "Entries by origin",
            "Entries in the kernel: configured, learned from templates, stop filters, foreign.",
            Spot(12, 1, 12, 8),
            "short",
            ask(
                total("by (instance, table, family, origin)", f"mcastd_entries{{{CHOSEN}}}"),
                "{{instance}} {{table}} {{family}} {{origin}}",
            ),
        ),
        timeline(
            "Received",
            "Multicast that was taken in to be forwarded, by interface.",
            Spot(0, 9, 12, 8),
            "bps",
            interface("receive"),
        ),
        timeline("Sent", "Multicast that was forwarded, by interface.", Spot(12, 9, 12, 8), "bps", interface("transmit")),
        timeline(
            "VIFs in use",
            "VIFs of each table and family; the kernel has 32 of each.",
            Spot(0, 17, 8, 8),
            "short",
            [
                *ask(f"mcastd_vifs{{{CHOSEN}}}", "{{instance}} {{table}} {{family}}"),
                *ask(f"max(mcastd_vifs_limit{{{CHOSEN}}})", "limit", ref="B"),
            ],
        ),
        timeline(
            "Memberships",
            "Group memberships that the kernel holds for joins.",
            Spot(8, 17, 8, 8),
            "short",
            [
                *ask(
                    f"sum by (instance, family) (mcastd_memberships{{{CHOSEN}}}) "
                    f"or 0 * max by (instance, family) (mcastd_memberships_limit{{{CHOSEN}}})",
                    "{{instance}} {{family}}",
                ),
            ],
        ),
        timeline(
            "Interfaces",
            "Interfaces of the router: up, down, or unable to carry multicast.",
            Spot(16, 17, 8, 8),
            "short",
            ask(f"mcastd_interfaces{{{CHOSEN}}}", "{{instance}} {{state}}"),
        ),
    ]


def _router_kernel() -> list[dict[str, Any]]:
    by_op = "by (instance, op)"
    operations = total(by_op, rate("mcastd_kernel_operations_total"))
    failures = total(by_op, rate("mcastd_kernel_operation_failures_total"))
    buckets = total("by (instance, op, le)", rate("mcastd_kernel_operation_duration_seconds_bucket"))
    return [
        row("Kernel", 25),
        timeline(
            "Upcalls",
            "Kernel upcalls per second by kind, and those that were lost.",
            Spot(0, 26, 12, 8),
            "ops",
            [
                *ask(total("by (instance, kind)", rate("mcastd_upcalls_total")), "{{instance}} {{kind}}"),
                *ask(rate("mcastd_upcall_queue_drops_total"), "{{instance}} lost", ref="B"),
            ],
        ),
        timeline(
            "Changes of the kernel's tables",
            "VIFs and entries that were added and removed, per second.",
            Spot(12, 26, 12, 8),
            "ops",
            ask(operations, "{{instance}} {{op}}"),
        ),
        timeline(
            "Changes that the kernel refused",
            "Those of them that failed, per second.",
            Spot(0, 34, 8, 8),
            "ops",
            ask(f"{failures} or 0 * {operations}", "{{instance}} {{op}}"),
        ),
        timeline(
            "Duration of changes",
            "99th percentile of a call, or of a batch of up to 1,000 entries as a whole.",
            Spot(8, 34, 8, 8),
            "s",
            ask(f"histogram_quantile(0.99, {buckets})", "{{instance}} {{op}}"),
        ),
        timeline(
            "Drift",
            "Entries that differ from what is wanted, and those that were put right, per second.",
            Spot(16, 34, 8, 8),
            "short",
            [
                *ask(f"mcastd_drift_routes{{{CHOSEN}}}", "{{instance}} {{kind}}"),
                *ask(
                    total("by (instance, kind)", rate("mcastd_drift_repairs_total")), "{{instance}} {{kind}} repaired/s", ref="B"
                ),
            ],
        ),
    ]


def _router_daemon() -> list[dict[str, Any]]:
    lag = total("by (instance, le)", rate("mcastd_event_loop_lag_seconds_bucket"))
    handling = total(
        "by (instance, grpc_method, le)", rate("grpc_server_handling_seconds_bucket", f'{CHOSEN}, grpc_type="unary"')
    )
    return [
        row("Daemon", 42),
        timeline(
            "Calls",
            "API calls per second that have ended, by method and status.",
            Spot(0, 43, 12, 8),
            "reqps",
            ask(
                total("by (instance, grpc_method, grpc_code)", rate("grpc_server_handled_total")),
                "{{instance}} {{grpc_method}} {{grpc_code}}",
            ),
        ),
        timeline(
            "Duration of calls",
            "99th percentile of unary calls.",
            Spot(12, 43, 12, 8),
            "s",
            ask(f"histogram_quantile(0.99, {handling})", "{{instance}} {{grpc_method}}"),
        ),
        timeline(
            "Event loop lag",
            "99th percentile: what every call waits for beside its own work.",
            Spot(0, 51, 8, 8),
            "s",
            ask(f"histogram_quantile(0.99, {lag})", "{{instance}}"),
        ),
        timeline(
            "Watchers",
            "Watch streams that are open, and objects that wait to be sent to them.",
            Spot(8, 51, 8, 8),
            "short",
            [
                *ask(f"mcastd_watchers{{{CHOSEN}}}", "{{instance}} streams"),
                *ask(f"mcastd_watcher_backlog_events{{{CHOSEN}}}", "{{instance}} waiting", ref="B"),
            ],
        ),
        timeline(
            "Log lines",
            "Lines that the server has logged, per second, by level.",
            Spot(16, 51, 8, 8),
            "ops",
            ask(rate("mcastd_log_messages_total"), "{{instance}} {{level}}"),
        ),
        timeline(
            "Processor",
            "Processor time of the server process; 1 = one core.",
            Spot(0, 59, 8, 8),
            "percentunit",
            ask(rate("process_cpu_seconds_total"), "{{instance}}"),
        ),
        timeline(
            "Memory",
            "Resident memory of the server process.",
            Spot(8, 59, 8, 8),
            "bytes",
            ask(f"process_resident_memory_bytes{{{CHOSEN}}}", "{{instance}}"),
        ),
        timeline(
            "Scrapes",
            "Time that the parts of a scrape take.",
            Spot(16, 59, 8, 8),
            "s",
            ask(f"mcastd_scrape_collector_duration_seconds{{{CHOSEN}}}", "{{instance}} {{collector}}"),
        ),
    ]
