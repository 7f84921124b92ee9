"""Tests for `promtool test rules`: for each alert a fault that comes and goes, beside a router that stays just below."""

from typing import Any, NamedTuple

from tools.monitoring.alerts import alerts
from tools.monitoring.settings import Settings

STEP = 30
"""Seconds between two samples."""

_FLOW = 'table="0",family="ipv4",source="10.0.0.1",group="232.1.1.1",iif="eth0"'
_OF_FLOW = {"table": "0", "family": "ipv4", "source": "10.0.0.1", "group": "232.1.1.1", "iif": "eth0"}


class Case(NamedTuple):
    """How one alert is tested. Times in minutes."""

    alert: str
    series: dict[str, str]
    """Samples of the router that has the fault, from minute 10 on, by series without its instance."""
    calm: dict[str, str]
    """Those of one that is just below."""
    labels: dict[str, str]
    """Of the alert, beside job, instance and severity."""
    description: str
    fires: int = 25
    """When it is looked for."""
    clear: int = 55
    """When it must be over."""


def _counter(before: int, then: int, after: int) -> str:
    """A counter that grows so much a step: 10 minutes, 20 minutes, and on."""
    return f"0+{before}x20 {20 * before + then}+{then}x39 {20 * before + 40 * then + after}+{after}x80"


def _gauge(before: float, then: float, after: float) -> str:
    """A gauge: 10 minutes, 20 minutes, and on."""
    return f"{before}x20 {then}x39 {after}x80"


def _flow(packets: str, wrong: str, expected: bool) -> dict[str, str]:
    found = {
        f"mcastd_flow_packets_total{{{_FLOW}": packets,
        f"mcastd_flow_wrong_interface_packets_total{{{_FLOW}": wrong,
        f"mcastd_flow_last_used_timestamp_seconds{{{_FLOW}": f"0+{STEP}x140",
    }
    return {**found, f"mcastd_flow_expected{{{_FLOW}": "1x140"} if expected else found


def _new_flow(begin: int, unused: int) -> dict[str, str]:
    """A flow that is expected from step `begin` on, and comes so many steps later."""
    first, rest = (begin + unused) * STEP, 140 - begin - unused
    wait = f"_x{begin} 0x{unused - 1}"
    return {
        f"mcastd_flow_packets_total{{{_FLOW}": f"{wait} 300+300x{rest}",
        f"mcastd_flow_wrong_interface_packets_total{{{_FLOW}": f"_x{begin} 0x{140 - begin}",
        f"mcastd_flow_last_used_timestamp_seconds{{{_FLOW}": f"{wait} {first}+{STEP}x{rest}",
        f"mcastd_flow_expected{{{_FLOW}": f"_x{begin} 1x{140 - begin}",
    }


def _used(pause: int) -> str:
    """The time of the last packet, with a pause of so many steps from minute 10 on."""
    return f"0+{STEP}x20 {20 * STEP}x{pause - 1} {(21 + pause) * STEP}+{STEP}x{118 - pause}"


def _buckets(fast: int, slow: int) -> dict[str, str]:
    """A histogram of which `slow` of all calls a step, from minute 10 to 30, are later than a quarter of a second."""
    bucket = "mcastd_event_loop_lag_seconds_bucket"
    return {
        f'{bucket}{{le="{le}"': _counter(fast + slow, below, fast + slow) for le, below in (("0.1", fast), ("1.0", fast + slow))
    } | {f'{bucket}{{le="+Inf"': _counter(fast + slow, fast + slow, fast + slow)}


def _cases() -> list[Case]:
    stalled = "r1 forwards nothing from 10.0.0.1 to 232.1.1.1 (table 0, from eth0), a route with `monitored`."
    wrong = "r1 drops 1 packets/s from 10.0.0.1 to 232.1.1.1 (table 0, from eth0): they arrive on another one."
    states = 'mcastd_routes{table="0",family="ipv4",state='
    vifs = {"table": "0", "family": "ipv6"}
    return [
        Case("McastdDown", {"up{": _gauge(1, 0, 1)}, {"up{": _gauge(1, 1, 1)}, {}, _down()),
        Case(
            "McastdFlowStalled",
            # It goes on arriving, but on a wrong interface: nothing is forwarded.
            _flow(_counter(300, 30, 300), _counter(0, 30, 0), expected=True),
            _flow(_counter(300, 31, 300), _counter(0, 30, 0), expected=True),
            _OF_FLOW,
            stalled,
        ),
        Case(
            "McastdFlowStalled",
            # A template: nothing is counted for it, and its entries are not used any more.
            {f"mcastd_flow_expected{{{_FLOW}": "1x140", f"mcastd_flow_last_used_timestamp_seconds{{{_FLOW}": _used(pause=40)},
            {f"mcastd_flow_expected{{{_FLOW}": "1x140", f"mcastd_flow_last_used_timestamp_seconds{{{_FLOW}": _used(pause=4)},
            _OF_FLOW,
            stalled,
        ),
        Case(
            "McastdFlowStalled",
            # A route that is made at minute 10 and gets its first packet at 30, beside one that is made at 23 and gets it at 25.
            _new_flow(20, 40),
            _new_flow(46, 5),
            _OF_FLOW,
            stalled,
        ),
        Case(
            "McastdWrongInterfaceTraffic",
            _flow("0x140", _counter(0, 30, 0), expected=False),
            _flow("0x140", _counter(0, 12, 0), expected=False),
            _OF_FLOW,
            wrong,
        ),
        Case(
            "McastdRouteNotInstalled",
            {f'{states}"pending"': _gauge(0, 3, 0), f'{states}"programmed"': "5x140"},
            {f'{states}"pending"': _gauge(0, 0, 0), f'{states}"programmed"': "5x140"},
            {"state": "pending"},
            "3 routes of r1 are pending.",
        ),
        Case(
            "McastdDriftNotRepaired",
            {'mcastd_drift_routes{kind="missing"': _gauge(0, 2, 0)},
            {'mcastd_drift_routes{kind="foreign"': _gauge(0, 2, 0)},
            {"kind": "missing"},
            "2 entries of r1 are missing and can not be put right.",
        ),
        Case(
            "McastdUpcallDrops",
            {"mcastd_upcall_queue_drops_total{": _counter(0, 10, 0)},
            {"mcastd_upcall_queue_drops_total{": "7x140"},
            {},
            "r1 has lost 100 upcalls: new flows start late.",
        ),
        Case(
            "McastdVifTableNearlyFull",
            {'mcastd_vifs{table="0",family="ipv6"': _gauge(4, 28, 4), 'mcastd_vifs_limit{table="0",family="ipv6"': "32x140"},
            {'mcastd_vifs{table="0",family="ipv6"': _gauge(4, 27, 4), 'mcastd_vifs_limit{table="0",family="ipv6"': "32x140"},
            vifs,
            "r1 uses 87.5% of the VIFs of table 0 (ipv6).",
        ),
        Case(
            "McastdMembershipLimitNear",
            _memberships(_gauge(4, 95, 4)),
            _memberships(_gauge(4, 90, 4)),
            {},
            "r1 holds 95% of the memberships that joins may come to.",
        ),
        Case(
            "McastdDesiredStateStale",
            {'mcastd_owner_stale_routes{owner_id="sdn"': _gauge(0, 500, 0)},
            {'mcastd_owner_stale_routes{owner_id="sdn"': "0x30 500x3 0x100"},
            {"owner_id": "sdn"},
            "500 routes of sdn on r1 are stale: it has not said them again.",
        ),
        Case(
            "McastdSourcesRefused",
            {'mcastd_learned_refused_total{table="0",family="ipv6"': _counter(0, 10, 0)},
            {'mcastd_learned_refused_total{table="0",family="ipv6"': "10x140"},
            vifs,
            "r1 has refused 100 sources in table 0 (ipv6): a cap is reached.",
        ),
        Case(
            "McastdCertificateExpiresSoon",
            {'mcastd_tls_certificate_expiry_timestamp_seconds{listener="api"': _gauge(9e6, 864_000 + 1500, 9e6)},
            {'mcastd_tls_certificate_expiry_timestamp_seconds{listener="api"': "2000000x140"},
            {"listener": "api"},
            "The certificate of api of r1 ends in 10d 0h 0m 0s.",
        ),
        Case(
            "McastdTlsFilesUnusable",
            {'mcastd_tls_files_good{listener="tcp:[::]:50051"': _gauge(1, 0, 1)},
            # They are written one after the other: for a moment the key is not that of the certificate.
            {'mcastd_tls_files_good{listener="tcp:[::]:50051"': "1x40 0x8 1x100"},
            {"listener": "tcp:[::]:50051"},
            "tcp:[::]:50051 of r1 goes on with the certificates that it has: the files are unusable.",
        ),
        Case(
            "McastdStateNotWritable",
            {'mcastd_condition{code="STORE_UNAVAILABLE",severity="critical"': _gauge(0, 1, 0)},
            {
                'mcastd_condition{code="STORE_UNAVAILABLE",severity="critical"': "0x48 1x1 0x100",
                'mcastd_condition{code="FLOW_SILENT",severity="warning"': "1x140",
            },
            {},
            "r1 can not write its state: it forwards and answers as before, and refuses all writes.",
        ),
        Case(
            "McastdStateLost",
            {'mcastd_condition{code="ORPHANS",severity="warning"': _gauge(0, 1, 0)},
            {
                'mcastd_condition{code="ORPHANS",severity="warning"': "0x44 1x8 0x100",
                'mcastd_condition{code="FLOW_SILENT",severity="warning"': "1x140",
            },
            {},
            "r1 has lost its state and kept what the kernel held: it has routes or joins of owner kernel.",
        ),
        Case(
            "McastdServerRestarts",
            {"mcastd_server_starts_total{": "1x29 2x1 3x1 4x1 5x100"},
            {"mcastd_server_starts_total{": "1x29 2x1 3x100"},
            {},
            "r1 has started 4 servers in 15m; forwarding goes on.",
        ),
        Case(
            "McastdWatcherResyncs",
            {'mcastd_watcher_resyncs_total{reason="slow_consumer"': "0x29 2x1 4x1 6x1 8x100"},
            {'mcastd_watcher_resyncs_total{reason="unknown"': "0x29 2x1 4x1 6x1 8x100"},
            {},
            "r1 has had 8 watchers begin anew in 15m, too slow.",
        ),
        Case(
            "McastdEventLoopStalled",
            _buckets(98, 2),
            _buckets(1000, 2),
            {},
            "Calls to r1 wait 550ms beside their own work.",
        ),
        Case(
            "McastdScrapeFailed",
            {'mcastd_scrape_collector_success{collector="kernel"': _gauge(1, 0, 1)},
            {'mcastd_scrape_collector_success{collector="kernel"': _gauge(1, 1, 1)},
            {"collector": "kernel"},
            "r1 can not collect kernel: what it exports of it is old or missing.",
        ),
        Case(
            "McastdWebConfigReloadFailed",
            {"mcastd_web_config_last_reload_successful{": _gauge(1, 0, 1)},
            {"mcastd_web_config_last_reload_successful{": _gauge(1, 1, 1)},
            {},
            "r1 serves metrics by the last good web configuration: the file as it is now has an error.",
        ),
    ]


def _down() -> str:
    return "r1 has not answered Prometheus for a while. What it has programmed may still be forwarded."


def _memberships(held: str) -> dict[str, str]:
    return {
        'mcastd_memberships{family="ipv4",interface="eth0"': held,
        'mcastd_memberships{family="ipv6",interface="eth0"': "0x140",
        'mcastd_memberships_limit{family="ipv4"': "100x140",
        'mcastd_memberships_limit{family="ipv6"': "100x140",
    }


def rule_tests(settings: Settings) -> dict[str, Any]:
    """The content of alerts_test.yml."""
    known = {one.name: one for one in alerts(settings)}
    tests = []
    for case in _cases():
        one = known[case.alert]
        told = {
            "exp_labels": {"job": "mcastd", "instance": "r1", "severity": one.severity, **case.labels},
            "exp_annotations": {
                "summary": one.summary,
                "description": case.description,
                "runbook_url": f"{settings.runbooks}/{one.name}.md",
            },
        }
        tests.append(
            {
                "name": case.alert,
                "interval": f"{STEP}s",
                "input_series": [
                    {"series": _with(name, instance), "values": values}
                    for instance, given in (("r1", case.series), ("calm", case.calm))
                    for name, values in given.items()
                ],
                "alert_rule_test": [
                    {"eval_time": "9m", "alertname": case.alert, "exp_alerts": []},
                    {"eval_time": f"{case.fires}m", "alertname": case.alert, "exp_alerts": [told]},
                    {"eval_time": f"{case.clear}m", "alertname": case.alert, "exp_alerts": []},
                ],
            }
        )
    return {"rule_files": ["alerts.yml"], "evaluation_interval": f"{STEP}s", "tests": tests}


def _with(name: str, instance: str) -> str:
    """A series with job and instance."""
    return f'{name}{"" if name.endswith("{") else ","}job="mcastd",instance="{instance}"}}'
