"""The three dashboards, Fleet → Router → Flow, by the rules of grafana/dashboard-linter."""

from collections.abc import Sequence
from typing import Any

from tools.monitoring.expressions import CHOSEN, once, rate, total
from tools.monitoring.panels import Spot, ask, row, stat, table, timeline
from tools.monitoring.router import router_panels

_FLOW = f'{CHOSEN}, group=~"$group", source=~"$source"'
_BY_FLOW = "by (instance, table, group, source, iif)"
_BY_ROUTER = "by (job, instance)"

_FLOW_NAME = "{{instance}} {{source}} → {{group}} ({{iif}})"


def dashboards() -> dict[str, Any]:
    """All by file name, without its ending."""
    return {
        "fleet": _dashboard(
            "fleet", "mcastd / Fleet", "All routers: are they up, what do they forward, what is wrong.", _fleet(), []
        ),
        "router": _dashboard(
            "router", "mcastd / Router", "One router, or a few: routes, interfaces, kernel, daemon.", router_panels(), []
        ),
        "flow": _dashboard(
            "flow", "mcastd / Flow", "Flows: rates, packets on wrong interfaces, silence.", _flow(), ["group", "source"]
        ),
    }


def _fleet() -> list[dict[str, Any]]:
    forwarded = total(_BY_ROUTER, rate("mcastd_flow_bytes_total"))
    wrong = total(_BY_ROUTER, rate("mcastd_flow_wrong_interface_packets_total"))
    return [
        row("Now", 0),
        stat("Routers up", "Routers that answer Prometheus.", Spot(0, 1, 4, 4), "short", f"sum(up{{{CHOSEN}}})"),
        stat("Routers down", "Routers that do not.", Spot(4, 1, 4, 4), "short", f"sum(1 - up{{{CHOSEN}}})", bad_from=1),
        stat(
            "Routes not as asked",
            "Routes that are PENDING, PARTIAL or FAILED.",
            Spot(8, 1, 4, 4),
            "short",
            f'sum(mcastd_routes{{{CHOSEN}, state=~"failed|partial|pending"}})',
            bad_from=1,
        ),
        stat(
            "Expected flows that are silent",
            "Routes with `monitored` of which no packet comes.",
            Spot(12, 1, 4, 4),
            "short",
            f"sum(mcastd_flows_silent{{{CHOSEN}}})",
            bad_from=1,
        ),
        stat("Flows", "(S,G) and (*,G) entries in the kernels.", Spot(16, 1, 4, 4), "short", f"sum(mcastd_flows{{{CHOSEN}}})"),
        stat(
            "Fullest VIF table",
            "VIFs used of those there are, in the fullest table of any router.",
            Spot(20, 1, 4, 4),
            "percentunit",
            f"max(mcastd_vifs{{{CHOSEN}}} / mcastd_vifs_limit{{{CHOSEN}}})",
            bad_from=0.85,
        ),
        timeline(
            "Traffic of exported flows",
            "Bits per second that arrive in the flows that routers tell of on /metrics, by router.",
            Spot(0, 5, 12, 8),
            "bps",
            ask(f"8 * {forwarded}", "{{instance}}"),
        ),
        timeline(
            "Packets on wrong interfaces",
            "Packets per second of exported flows that came in on another interface than the route's: they are dropped.",
            Spot(12, 5, 12, 8),
            "pps",
            ask(wrong, "{{instance}}"),
        ),
        timeline(
            "Routes not as asked",
            "Routes that are PENDING, PARTIAL or FAILED, by router.",
            Spot(0, 13, 12, 8),
            "short",
            ask(
                total("by (job, instance, state)", f'mcastd_routes{{{CHOSEN}, state=~"failed|partial|pending"}}'),
                "{{instance}} {{state}}",
            ),
        ),
        timeline(
            "Upcalls",
            "Kernel upcalls per second: new sources, and packets on wrong interfaces.",
            Spot(12, 13, 12, 8),
            "ops",
            ask(total("by (job, instance, kind)", rate("mcastd_upcalls_total")), "{{instance}} {{kind}}"),
        ),
        timeline(
            "Upcalls lost",
            "Upcalls per second that were lost to full queues: the first packets of new flows may be lost with them.",
            Spot(0, 21, 12, 8),
            "ops",
            ask(rate("mcastd_upcall_queue_drops_total"), "{{instance}}"),
        ),
        timeline(
            "Entries in the kernel",
            "By origin: configured, learned from templates, stop filters, foreign.",
            Spot(12, 21, 12, 8),
            "short",
            ask(total("by (job, instance, origin)", f"mcastd_entries{{{CHOSEN}}}"), "{{instance}} {{origin}}"),
        ),
        table(
            "Alerts that fire",
            "Alerts of mcastd; each has a runbook.",
            Spot(0, 29, 12, 8),
            "short",
            f'ALERTS{{{CHOSEN}, alertname=~"Mcastd.*", alertstate="firing"}}',
        ),
        table("Routers", "Versions of what runs.", Spot(12, 29, 12, 8), "short", f"mcastd_build_info{{{CHOSEN}}}"),
    ]


def _flow() -> list[dict[str, Any]]:
    age = f"time() - ({once(_BY_FLOW, f'mcastd_flow_last_used_timestamp_seconds{{{_FLOW}}}')} > 0)"
    return [
        row("Flows", 0),
        timeline(
            "Rate",
            "Bits per second that arrive, by flow.",
            Spot(0, 1, 12, 10),
            "bps",
            ask(f"8 * {once(_BY_FLOW, rate('mcastd_flow_bytes_total', _FLOW))}", _FLOW_NAME),
        ),
        timeline(
            "Packets",
            "Packets per second that arrive, by flow.",
            Spot(12, 1, 12, 10),
            "pps",
            ask(once(_BY_FLOW, rate("mcastd_flow_packets_total", _FLOW)), _FLOW_NAME),
        ),
        timeline(
            "Packets on wrong interfaces",
            "Packets per second that came in on another interface than the route's: they are dropped.",
            Spot(0, 11, 12, 8),
            "pps",
            ask(once(_BY_FLOW, rate("mcastd_flow_wrong_interface_packets_total", _FLOW)), _FLOW_NAME),
        ),
        timeline(
            "Time since the last packet",
            "Of flows that had one.",
            Spot(12, 11, 12, 8),
            "s",
            ask(age, _FLOW_NAME),
        ),
        stat(
            "Expected",
            "Routes with `monitored` among them: the alert McastdFlowStalled watches them.",
            Spot(0, 19, 6, 4),
            "short",
            f"count({once(_BY_FLOW, f'mcastd_flow_expected{{{_FLOW}}}')} == 1)",
        ),
        stat(
            "Flows without series",
            "Flows of which /metrics does not tell; /metrics/flows does where it is on.",
            Spot(6, 19, 6, 4),
            "short",
            f"sum(mcastd_flows_not_exported{{{CHOSEN}}})",
        ),
        table(
            "Whose they are",
            "Owner (set) and cookie (name) of each flow.",
            Spot(12, 19, 12, 8),
            "short",
            f"mcastd_flow_info{{{_FLOW}}}",
        ),
        table(
            "Largest flows",
            "The 20 flows with the most bits per second.",
            Spot(0, 23, 12, 8),
            "bps",
            f"topk(20, 8 * {once(_BY_FLOW, rate('mcastd_flow_bytes_total', _FLOW))})",
        ),
    ]


def _dashboard(name: str, title: str, description: str, panels: list[dict[str, Any]], more: Sequence[str]) -> dict[str, Any]:
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    return {
        "uid": f"mcastd-{name}",
        "title": title,
        "description": description,
        "tags": ["mcastd"],
        "editable": False,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "utc",
        "links": [_link(other) for other in ("fleet", "router", "flow") if other != name],
        "templating": {"list": [_DATASOURCE, *_variables(more)]},
        "panels": panels,
    }


def _link(name: str) -> dict[str, Any]:
    return {
        "title": name.capitalize(),
        "type": "link",
        "url": f"/d/mcastd-{name}",
        "icon": "dashboard",
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
    }


_DATASOURCE = {
    "name": "datasource",
    "label": "Data Source",
    "type": "datasource",
    "query": "prometheus",
    "hide": 0,
    "multi": False,
    "includeAll": False,
    "refresh": 1,
    "regex": "",
    "current": {},
    "options": [],
}


def _variables(more: Sequence[str]) -> list[dict[str, Any]]:
    found = [_variable("job", "mcastd_build_info"), _variable("instance", 'mcastd_build_info{job=~"$job"}')]
    return [*found, *(_variable(name, f"mcastd_flow_info{{{CHOSEN}}}") for name in more)]


def _variable(name: str, series: str) -> dict[str, Any]:
    query = f"label_values({series}, {name})"
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "regex": "",
        "sort": 1,
        "hide": 0,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
    }
