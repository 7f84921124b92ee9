"""mcastd.telemetry.exposition: which format a client gets, and that escaping is what Prometheus undoes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from mcastd.telemetry.exposition import Format, accepts_gzip, escape, negotiate, restrict

parse_openmetrics: Any = openmetrics.text_string_to_metric_families  # ships no types

PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize(
    "accept,form",
    [
        ("", Format.TEXT),
        ("*/*", Format.TEXT),
        ("text/plain", Format.TEXT),
        ("text/plain; version=0.0.4", Format.TEXT),
        ("text/html, application/xhtml+xml", Format.TEXT),
        ("application/openmetrics-text", Format.OPENMETRICS),
        ("Application/OpenMetrics-Text; Version=1.0.0", Format.OPENMETRICS),
        ('application/openmetrics-text; version="0.0.1"', Format.OPENMETRICS),
        ("application/openmetrics-text; version=2.0.0", Format.TEXT),
        ("application/openmetrics-text;q=0", Format.TEXT),
        ("application/openmetrics-text;q=0.4, text/plain;q=0.5", Format.TEXT),
        ("application/openmetrics-text;q=0.5, text/plain;q=0.4", Format.OPENMETRICS),
        ("application/openmetrics-text;q=2, text/plain;q=0.4", Format.TEXT),
        (", ;;=, application/openmetrics-text", Format.OPENMETRICS),
        (PROMETHEUS_2_42, Format.OPENMETRICS),
        (PROMETHEUS_3, Format.OPENMETRICS),
    ],
)
def test_the_client_gets_what_it_likes_best(accept: str, form: Format) -> None:
    assert negotiate(accept) is form


@pytest.mark.parametrize(
    "header,wanted",
    [
        ("", False),
        ("gzip", True),
        ("GZIP, deflate, br", True),
        ("x-gzip", True),
        ("deflate", False),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0.5, identity;q=0.8", False),
        ("identity;q=0.5, gzip;q=0.8", True),
    ],
)
def test_gzip_is_for_those_who_ask(header: str, wanted: bool) -> None:
    assert accepts_gzip(header) is wanted


@given(st.text())
def test_any_header_has_an_answer(header: str) -> None:
    assert negotiate(header) in Format
    assert accepts_gzip(header) in {True, False}


HOSTILE = ['a"b', "a\\b", "a\nb", "\\xff", '\\"', "\\n", "é😀", '"} 1\n', "{}=,"]


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("value", HOSTILE)
def test_escapes_are_undone_by_the_parsers(form: Format, value: str) -> None:
    header = form.header("mcastd_things", "counter", "Things.")
    text = f'{header}mcastd_things_total{{kind="{escape(value)}"}} 3\n{form.ending.decode()}'
    parse = prometheus if form is Format.TEXT else parse_openmetrics
    ((sample,),) = [family.samples for family in parse(text)]
    assert (sample.name, sample.labels, sample.value) == ("mcastd_things_total", {"kind": value}, 3)


@pytest.mark.parametrize("form", Format)
def test_headers_are_those_of_prometheus_client(form: Format) -> None:
    text = 'It says "so" and \\so.'
    for metric in (CounterMetricFamily("x", text), GaugeMetricFamily("x", text), InfoMetricFamily("x", text)):
        assert form.encode(metric).decode() == form.header("x", metric.type, text)


@pytest.mark.parametrize("form", Format)
def test_a_family_alone_has_no_end(form: Format) -> None:
    assert form.encode(GaugeMetricFamily("x", "X.", value=1)).endswith(b"\nx 1.0\n")


def test_restricted_to_names() -> None:
    metric = GaugeMetricFamily("x", "X.", labels=["a"])
    metric.add_metric(["1"], 1)
    kept = restrict(metric, {"x", "y"})
    assert kept is not None
    assert (kept.name, kept.type, kept.documentation, kept.samples) == ("x", "gauge", "X.", metric.samples)
    assert restrict(metric, {"y"}) is None
