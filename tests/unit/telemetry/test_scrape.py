"""mcastd.telemetry.scrape: a scrape as Prometheus reads it, the catalogue of docs/metrics.md, and a kernel that refuses."""

import asyncio
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mcastd.model.address import Family
from mcastd.model.write import PutRoutes, WriteOptions
from mcastd.telemetry.exposition import Format
from mcastd.telemetry.rpc import RpcMetrics
from tests.fakerouter import route, sg
from tests.unit.telemetry.counted import Count, Scraped

parse_openmetrics: Any = openmetrics.text_string_to_metric_families  # ships no types

DOCUMENT = Path(__file__).parents[3] / "docs/metrics.md"

SHORT = {"T": ["table", "family"], "F": ["table", "family", "source", "group", "iif"]}


@pytest.fixture
def scraped() -> Scraped:
    """One of everything."""
    one = Scraped("up", "down")
    expected = route(sg(1), "up", "down")
    expected.monitored = True
    one.router.write(PutRoutes(WriteOptions("alice"), [expected, route(sg(2), "up", "down")]))
    one.router.settle()
    one.counted.counts = {sg(1): Count(1, 2, 3), sg(2): Count(4, 5, 6), sg(3): Count(unresolved=True)}
    metrics = one.metrics
    metrics.kernel_operation_failures.labels("add_mfc", "ENOMEM").inc()
    metrics.membership_failures.labels("ENOBUFS").inc()
    metrics.http_requests.labels("200").inc()
    metrics.certificate_expiry.labels("metrics").set(1)
    metrics.tls_files_good.labels("tcp:127.0.0.1:50051").set(1)
    observer = RpcMetrics(metrics.registry).method("unary", "mcast.v1.RouteService", "PutRoutes")
    observer.end(observer.begin(), "OK")
    one.router.engine.joins.held = lambda: {(Family.IPV4, "up"): 3}  # type: ignore[method-assign]
    one.counted.take()
    return one


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels by name, as the document has them."""
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \|([^|]*)\|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    out = {}
    for name, kind, labels in rows:
        words = [word.strip() for word in labels.split(",") if word.strip()]
        out[name] = kind, frozenset(label for word in words for label in SHORT.get(word, [word]))
    assert len(out) == len(rows)
    return out


async def test_the_document_says_what_there_is_and_nothing_else(scraped: Scraped) -> None:
    live = {}
    for family in parse_openmetrics(await scraped.text(Format.OPENMETRICS)):
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = {frozenset(sample.labels) - {"le"} for sample in family.samples}
        assert len(labels) == 1, (family.name, labels)
        live[family.name + suffix] = family.type, next(iter(labels))
    known = documented()
    known.pop("process_open_fds")  # Not where /proc/self/fd can't be read.
    live.pop("process_open_fds", None)
    assert live == known


async def test_both_formats_say_the_same(scraped: Scraped) -> None:
    def samples(families: object) -> set[tuple[str, tuple[tuple[str, str], ...], float]]:
        volatile = ("process_", "mcastd_scrape_", "mcastd_build", "mcastd_config")
        return {
            (s.name, tuple(sorted(s.labels.items())), s.value)
            for family in families  # type: ignore[attr-defined]
            for s in family.samples
            if not s.name.startswith(volatile)
        }

    assert samples(parse_text(await scraped.text())) == samples(parse_openmetrics(await scraped.text(Format.OPENMETRICS)))


async def test_every_family_has_help(scraped: Scraped) -> None:
    assert all(family.documentation for family in parse_text(await scraped.text()))


async def test_promtool_finds_nothing_to_complain_of(scraped: Scraped) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: apt-get install prometheus"
    text = await scraped.text()
    done = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_a_kernel_that_refuses_costs_the_flows_alone(scraped: Scraped) -> None:
    scraped.counted.refuses = True
    samples = {(s.name, *s.labels.values()): s.value for family in parse_text(await scraped.text()) for s in family.samples}
    assert samples["mcastd_scrape_collector_success", "kernel"] == samples["mcastd_scrape_collector_success", "flows"] == 0
    assert samples["mcastd_scrape_collector_success", "state"] == 1
    assert samples["mcastd_routes", "ipv4", "programmed", "0"] == 2
    assert not [name for name in samples if name[0] == "mcastd_flow_packets_total"]


async def test_refused_writes_are_a_condition(scraped: Scraped) -> None:
    for refuses in (True, False):
        scraped.counted.unwritable = refuses
        found = [s for family in parse_text(await scraped.text()) for s in family.samples if s.name == "mcastd_condition"]
        assert {s.labels["severity"]: s.value for s in found if s.labels["code"] == "STORE_UNAVAILABLE"} == {"critical": refuses}


async def test_a_scrape_may_be_restricted(scraped: Scraped) -> None:
    text = await scraped.text(Format.TEXT, "mcastd_vifs", "mcastd_flow_bytes_total", "mcastd_event_loop_lag_seconds_count")
    names = {s.name for family in parse_text(text) for s in family.samples}
    assert names == {"mcastd_vifs", "mcastd_flow_bytes_total", "mcastd_event_loop_lag_seconds_count"}


async def test_scrapes_share_a_sample(scraped: Scraped) -> None:
    before = scraped.counted.taken
    for _ in range(3):
        await scraped.text()
        await scraped.every()
    assert scraped.counted.taken == before


async def test_counts_of_flows(scraped: Scraped) -> None:
    samples = {(s.name, *s.labels.values()): s.value for family in parse_text(await scraped.text()) for s in family.samples}
    assert samples["mcastd_flows", "ipv4", "0"] == 2
    assert samples["mcastd_unresolved_flows", "ipv4", "0"] == 1
    assert samples["mcastd_entries", "ipv4", "configured", "0"] == 2
    assert samples["mcastd_flows_not_exported",] == 0
    assert samples["mcastd_memberships", "ipv4", "up"] == 3
    assert (samples["mcastd_watchers",], samples["mcastd_watcher_backlog_events",]) == (3, 17)
    assert samples["mcastd_watcher_resyncs_total", "unknown"] == 2
    assert samples["mcastd_sources", "no_route", "ipv4", "0"] == 0
    assert samples["mcastd_sources_refused_total",] == 0
    assert samples["mcastd_server_starts_total",] == 2
