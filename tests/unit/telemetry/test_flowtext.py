"""mcastd.telemetry.flowtext: what it writes, read by Prometheus' own parsers, is what prometheus-client would have written."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from mcastd.model.address import Family, address_text, split_key
from mcastd.model.event import LinkChanged
from mcastd.model.write import PutRoutes, WriteOptions
from mcastd.telemetry.exposition import Format
from mcastd.telemetry.flowtext import FAMILIES
from tests.fakerouter import route, sg
from tests.unit.telemetry.counted import Count, Counted, Scraped

LABELS = ["table", "family", "source", "group", "iif"]

PARSERS: dict[Format, Any] = {Format.TEXT: parse_text, Format.OPENMETRICS: parse_openmetrics}
GENERATORS: dict[Format, Any] = {Format.TEXT: generate_latest, Format.OPENMETRICS: generate_openmetrics}


class Official(Collector):
    """The same flows as prometheus-client has them."""

    def __init__(self, scraped: Scraped, iif: str) -> None:
        self.scraped = scraped
        self.iif = iif

    def collect(self) -> list[Metric]:
        """All families."""
        texts = {family.name: family.text for family in FAMILIES}
        packets = CounterMetricFamily("mcastd_flow_packets", texts["mcastd_flow_packets"], labels=LABELS)
        octets = CounterMetricFamily("mcastd_flow_bytes", texts["mcastd_flow_bytes"], labels=LABELS)
        wrong = "mcastd_flow_wrong_interface_packets"
        wrong_if = CounterMetricFamily(wrong, texts[wrong], labels=LABELS)
        used = "mcastd_flow_last_used_timestamp_seconds"
        last_used = GaugeMetricFamily(used, texts[used], labels=LABELS)
        expected = GaugeMetricFamily("mcastd_flow_expected", texts["mcastd_flow_expected"], labels=LABELS)
        info = InfoMetricFamily("mcastd_flow", texts["mcastd_flow"], labels=LABELS)
        counted: Counted = self.scraped.counted
        for key, one in counted.counts.items():
            table, group, source = split_key(key)
            where = [str(table), f"ipv{4 if len(group) == 4 else 6}", address_text(source), address_text(group), self.iif]
            packets.add_metric(where, one.packets)
            octets.add_metric(where, one.octets)
            wrong_if.add_metric(where, one.wrong_if)
            last_used.add_metric(where, round(counted.now - one.idle, 2) if one.packets else 0)
            wish = self.scraped.router.engine.desired.routes.get(key)
            if wish is not None and wish.monitored:
                expected.add_metric(where, 1)
            info.add_metric(where, {"set": wish.owner if wish else "kernel", "name": wish.cookie if wish else ""})
        return [one for one in (packets, octets, wrong_if, last_used, expected, info) if one.samples]


def parsed(text: str, form: Format) -> list[tuple[str, str, str, set[tuple[str, tuple[tuple[str, str], ...], float]]]]:
    """Families of flows with their samples, in order; values as Prometheus has them (the parser keeps whole numbers whole)."""
    return [
        (one.name, one.type, one.documentation, {(s.name, tuple(sorted(s.labels.items())), float(s.value)) for s in one.samples})
        for one in PARSERS[form](text)
    ]


async def check(scraped: Scraped, iif: str, form: Format) -> None:
    """/metrics and /metrics/flows both say what prometheus-client says."""
    registry = CollectorRegistry()
    registry.register(Official(scraped, iif))
    official = parsed(GENERATORS[form](registry).decode(), form)
    names = [family.sample for family in FAMILIES]
    assert parsed(await scraped.text(form, *names), form) == official
    assert parsed(await scraped.every(form), form) == official


NAMES = st.one_of(
    st.sampled_from(['a"b', "a\\b", "\\xff", "\\n", '"', "\\", "é", "{}", "a,b=c", "😀", "'", "#"]),
    st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=15),
)
COUNTS = st.builds(
    Count,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.floats(0, 900, allow_nan=False),
    foreign=st.booleans(),
)
KEYS = st.builds(sg, st.integers(0, 2000), st.sampled_from(Family))


@pytest.mark.parametrize("form", Format)
@settings(max_examples=50, deadline=None)
@given(name=NAMES, cookie=NAMES, counts=st.dictionaries(KEYS, COUNTS, max_size=8), monitored=st.booleans())
async def test_it_says_what_prometheus_client_says(
    form: Format, name: str, cookie: str, counts: dict[bytes, Count], monitored: bool
) -> None:
    scraped = Scraped("up", "down")
    routes = [route(key, "up", "down", cookie=cookie) for key, one in counts.items() if not one.foreign]
    for one in routes:
        one.monitored = monitored
    if routes:
        scraped.router.write(PutRoutes(WriteOptions("alice"), list(routes)))
        scraped.router.settle()
    link = scraped.router.engine.world.by_name["up"]
    scraped.router.engine.links(LinkChanged(replace(link, name=name)))
    scraped.counted.counts = {key: replace(one, ifindex=link.ifindex) for key, one in counts.items()}
    scraped.counted.take()
    await check(scraped, name, form)


async def test_shards_are_parts_of_the_whole() -> None:
    scraped = Scraped("up", "down")
    scraped.counted.counts = {sg(n, family): Count(n, n, foreign=True) for n in range(200) for family in Family}
    scraped.counted.take()
    whole = {line for line in (await scraped.every()).splitlines() if not line.startswith("#")}
    parts = [{line for line in (await scraped.every(shard=(n, 3))).splitlines() if not line.startswith("#")} for n in range(3)]
    assert set.union(*parts) == whole
    assert sum(map(len, parts)) == len(whole) == 400 * 5
    assert all(len(part) > 400 for part in parts)


async def test_only_the_names_asked_for() -> None:
    scraped = Scraped("up", "down")
    scraped.counted.counts = {sg(1): Count(1, 2, 3)}
    scraped.counted.take()
    lines = (await scraped.every(Format.TEXT, "mcastd_flow_bytes_total")).splitlines()
    assert [line.split("{")[0] for line in lines if line[0] != "#"] == ["mcastd_flow_bytes_total"]


async def test_no_flows_are_no_lines() -> None:
    assert await Scraped("up").every() == ""
    assert await Scraped("up").every(Format.OPENMETRICS) == "# EOF\n"


async def test_slices_are_seamless() -> None:
    scraped = Scraped("up", "down", top=5000)
    scraped.counted.counts = {sg(n): Count(1 + n, 2, 3, foreign=True) for n in range(2500)}
    scraped.counted.take()
    await check(scraped, "up", Format.TEXT)
