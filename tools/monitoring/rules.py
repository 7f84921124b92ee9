"""Recording rules, named level:metric:operations; job and instance are kept, `_total` is dropped."""

from typing import Any

from tools.monitoring.settings import Settings, duration

_FLOW = "table, family, source, group, iif"


def recording_groups(settings: Settings) -> list[dict[str, Any]]:
    """The groups of rules.yml."""
    window = duration(settings.rate_window)
    chosen = settings.selector

    def rate(metric: str) -> str:
        return f"rate({metric}{{{chosen}}}[{window}])"

    rules: list[tuple[str, str]] = []
    for direction in ("receive", "transmit"):
        for unit in ("bytes", "packets"):
            metric = f"mcastd_interface_{direction}_{unit}"
            by_interface = f"instance_interface:{metric}:rate{window}"
            rules.append((by_interface, f"sum without (table, family) ({rate(f'{metric}_total')})"))
            rules.append((f"instance:{metric}:rate{window}", f"sum without (interface) ({by_interface})"))
    rules += [
        (f"instance:{metric}:rate{window}", f"sum without ({_FLOW}) ({rate(f'{metric}_total')})")
        for metric in ("mcastd_flow_packets", "mcastd_flow_bytes", "mcastd_flow_wrong_interface_packets")
    ]
    rules.append((f"instance_kind:mcastd_upcalls:rate{window}", f"sum without (table, family) ({rate('mcastd_upcalls_total')})"))
    rules.append((f"instance:mcastd_upcall_queue_drops:rate{window}", rate("mcastd_upcall_queue_drops_total")))
    rules.append((f"instance_op:mcastd_kernel_operations:rate{window}", rate("mcastd_kernel_operations_total")))
    rules.append((f"instance_method_code:grpc_server_handled:rate{window}", rate("grpc_server_handled_total")))
    rules.append(
        (
            f"instance:mcastd_event_loop_lag_seconds:p99_rate{window}",
            f"histogram_quantile(0.99, {rate('mcastd_event_loop_lag_seconds_bucket')})",
        )
    )
    rules.append(("instance_state:mcastd_routes:sum", f"sum without (table, family) (mcastd_routes{{{chosen}}})"))
    rules.append(("instance_origin:mcastd_entries:sum", f"sum without (table, family) (mcastd_entries{{{chosen}}})"))
    rules.append(("instance_table_family:mcastd_vifs:ratio", f"mcastd_vifs{{{chosen}}} / mcastd_vifs_limit{{{chosen}}}"))
    rules.append(("instance:mcastd_memberships:ratio", membership_ratio(chosen)))
    return [{"name": "mcastd.rules", "rules": [{"record": name, "expr": expression} for name, expression in rules]}]


def membership_ratio(chosen: str) -> str:
    """What joins hold of what they may; the limit is one for both families."""
    held = f"sum without (family, interface) (mcastd_memberships{{{chosen}}})"
    return f"{held} / max without (family) (mcastd_memberships_limit{{{chosen}}})"
