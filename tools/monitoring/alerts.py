"""Alerts, each with what `promtool test rules` and its runbook need; symptoms first."""

from typing import Any, NamedTuple

from tools.monitoring.rules import membership_ratio
from tools.monitoring.settings import Settings, duration

_TABLE = "table {{ $labels.table }} ({{ $labels.family }})"
_NOT_INSTALLED = 'state=~"failed|partial|pending"'


class Alert(NamedTuple):
    """One alert."""

    name: str
    expression: str
    """Keeps job and instance, by which an alert says whose it is."""
    wait: float
    """Seconds that it must last (`for`)."""
    severity: str
    summary: str
    description: str


def alerts(settings: Settings) -> list[Alert]:
    """All of them."""
    return [*_symptoms(settings), *_limits(settings), *_daemon(settings)]


def _symptoms(settings: Settings) -> list[Alert]:
    """What viewers notice."""
    chosen = settings.selector
    stall, window = duration(settings.stall_window), duration(settings.rate_window)
    arrived, wrong = f"mcastd_flow_packets_total{{{chosen}}}", f"mcastd_flow_wrong_interface_packets_total{{{chosen}}}"
    forwarded = f"({arrived} - {wrong}) - ({arrived} offset {stall} - {wrong} offset {stall})"
    silent = f"time() - mcastd_flow_last_used_timestamp_seconds{{{chosen}}} > {settings.stall_window:g}"
    flow = "{{ $labels.source }} to {{ $labels.group }} (table {{ $labels.table }}, from {{ $labels.iif }})"
    return [
        Alert(
            "McastdDown",
            f"up{{{chosen}}} == 0",
            settings.soon,
            "critical",
            "mcastd does not answer",
            "{{ $labels.instance }} has not answered Prometheus for a while. What it has programmed may still be forwarded.",
        ),
        Alert(
            "McastdFlowStalled",
            # Equal counters, not a rate of 0: an entry that is made anew counts from 0. A template has no counters, only a time.
            # A route that is new has that long to see its first packet.
            f"mcastd_flow_expected{{{chosen}}} == 1 and mcastd_flow_expected{{{chosen}}} offset {stall} "
            f"and ({forwarded} == 0 or {silent})",
            settings.soon,
            "critical",
            "An expected flow has stopped",
            f"{{{{ $labels.instance }}}} forwards nothing from {flow}, a route with `monitored`.",
        ),
        Alert(
            "McastdWrongInterfaceTraffic",
            f"rate({wrong}[{window}]) > {settings.wrong_interface_rate:g}",
            settings.later,
            "warning",
            "Packets arrive on a wrong interface",
            f"{{{{ $labels.instance }}}} drops {{{{ $value | humanize }}}} packets/s from {flow}: they arrive on another one.",
        ),
        Alert(
            "McastdRouteNotInstalled",
            f"sum without (table, family) (mcastd_routes{{{chosen}, {_NOT_INSTALLED}}}) > 0",
            settings.later,
            "warning",
            "Routes are not in the kernel as asked",
            "{{ $value }} routes of {{ $labels.instance }} are {{ $labels.state }}.",
        ),
        Alert(
            "McastdDriftNotRepaired",
            f'mcastd_drift_routes{{{chosen}, kind=~"different|missing"}} > 0',
            settings.soon,
            "warning",
            "The kernel does not have what mcastd has put there",
            "{{ $value }} entries of {{ $labels.instance }} are {{ $labels.kind }} and can not be put right.",
        ),
        Alert(
            "McastdUpcallDrops",
            f"increase(mcastd_upcall_queue_drops_total{{{chosen}}}[{window}]) > 0",
            0,
            "warning",
            "Upcalls are lost",
            "{{ $labels.instance }} has lost {{ $value | humanize }} upcalls: new flows start late.",
        ),
    ]


def _limits(settings: Settings) -> list[Alert]:
    """What will be noticed when nobody does anything."""
    chosen, window = settings.selector, duration(settings.rate_window)
    return [
        Alert(
            "McastdVifTableNearlyFull",
            f"mcastd_vifs{{{chosen}}} / mcastd_vifs_limit{{{chosen}}} > {settings.vif_ratio:g}",
            settings.later,
            "warning",
            "Few VIFs are left",
            f"{{{{ $labels.instance }}}} uses {{{{ $value | humanizePercentage }}}} of the VIFs of {_TABLE}.",
        ),
        Alert(
            "McastdMembershipLimitNear",
            f"{membership_ratio(chosen)} > {settings.membership_ratio:g}",
            settings.later,
            "warning",
            "Few memberships are left",
            "{{ $labels.instance }} holds {{ $value | humanizePercentage }} of the memberships that joins may come to.",
        ),
        Alert(
            "McastdDesiredStateStale",
            f"mcastd_owner_stale_routes{{{chosen}}} > 0",
            settings.later,
            "warning",
            "A controller is away",
            "{{ $value }} routes of {{ $labels.owner_id }} on {{ $labels.instance }} are stale: it has not said them again.",
        ),
        Alert(
            "McastdSourcesRefused",
            " or ".join(f"increase(mcastd_{what}_refused_total{{{chosen}}}[{window}]) > 0" for what in ("learned", "stops")),
            0,
            "warning",
            "New sources are refused",
            f"{{{{ $labels.instance }}}} has refused {{{{ $value | humanize }}}} sources in {_TABLE}: a cap is reached.",
        ),
        Alert(
            "McastdCertificateExpiresSoon",
            f"mcastd_tls_certificate_expiry_timestamp_seconds{{{chosen}}} - time() < {settings.certificate:g}",
            settings.later,
            "warning",
            "A certificate ends soon",
            "The certificate of {{ $labels.listener }} of {{ $labels.instance }} ends in {{ $value | humanizeDuration }}.",
        ),
        Alert(
            "McastdTlsFilesUnusable",
            f"mcastd_tls_files_good{{{chosen}}} == 0",
            settings.later,
            "warning",
            "Certificate files can not be used",
            "{{ $labels.listener }} of {{ $labels.instance }} goes on with the certificates that it has: the files are unusable.",
        ),
    ]


def _daemon(settings: Settings) -> list[Alert]:
    """What is wrong with the daemon itself."""
    chosen, window = settings.selector, duration(settings.rate_window)
    restarts = duration(settings.restart_window)
    return [
        Alert(
            "McastdServerRestarts",
            f"increase(mcastd_server_starts_total{{{chosen}}}[{restarts}]) > {settings.restarts}",
            0,
            "warning",
            "The server process ends again and again",
            f"{{{{ $labels.instance }}}} has started {{{{ $value | humanize }}}} servers in {restarts}; forwarding goes on.",
        ),
        Alert(
            "McastdStateNotWritable",
            f"{_condition(chosen, 'STORE_UNAVAILABLE')} == 1",
            settings.soon,
            "critical",
            "Writes are refused: the state can not be written",
            "{{ $labels.instance }} can not write its state: it forwards and answers as before, and refuses all writes.",
        ),
        Alert(
            "McastdStateLost",
            f"{_condition(chosen, 'ORPHANS')} == 1",
            settings.later,
            "warning",
            "Routes or joins have lost their owner",
            "{{ $labels.instance }} has lost its state and kept what the kernel held: it has routes or joins of owner kernel.",
        ),
        Alert(
            "McastdWatcherResyncs",
            "sum without (reason) (increase("
            f'mcastd_watcher_resyncs_total{{{chosen},reason=~"too_old|slow_consumer"}}[{restarts}])) > {settings.resyncs}',
            0,
            "warning",
            "Watchers do not keep up",
            f"{{{{ $labels.instance }}}} has had {{{{ $value | humanize }}}} watchers begin anew in {restarts}, too slow.",
        ),
        Alert(
            "McastdEventLoopStalled",
            f"histogram_quantile(0.99, rate(mcastd_event_loop_lag_seconds_bucket{{{chosen}}}[{window}])) > {settings.loop_lag:g}",
            settings.later,
            "warning",
            "The event loop is late",
            "Calls to {{ $labels.instance }} wait {{ $value | humanizeDuration }} beside their own work.",
        ),
        Alert(
            "McastdScrapeFailed",
            f"mcastd_scrape_collector_success{{{chosen}}} == 0",
            settings.later,
            "warning",
            "A part of the metrics is missing",
            "{{ $labels.instance }} can not collect {{ $labels.collector }}: what it exports of it is old or missing.",
        ),
        Alert(
            "McastdWebConfigReloadFailed",
            f"mcastd_web_config_last_reload_successful{{{chosen}}} == 0",
            settings.later,
            "warning",
            "The web configuration file can not be used",
            "{{ $labels.instance }} serves metrics by the last good web configuration: the file as it is now has an error.",
        ),
    ]


def _condition(chosen: str, code: str) -> str:
    """A condition, without the labels that say which."""
    return f'sum without (code, severity) (mcastd_condition{{{chosen}, code="{code}"}})'


def alert_groups(settings: Settings) -> list[dict[str, Any]]:
    """The groups of alerts.yml."""
    return [{"name": "mcastd.alerts", "rules": [_rule(one, settings) for one in alerts(settings)]}]


def _rule(one: Alert, settings: Settings) -> dict[str, Any]:
    return {
        "alert": one.name,
        "expr": one.expression,
        **({"for": duration(one.wait)} if one.wait else {}),
        "labels": {"severity": one.severity},
        "annotations": {
            "summary": one.summary,
            "description": one.description,
            "runbook_url": f"{settings.runbooks}/{one.name}.md",
        },
    }
