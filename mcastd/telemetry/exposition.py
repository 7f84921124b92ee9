"""Exposition: Prometheus' two text formats, which of them a client wants, and how a family and a label are written in each.

What is bounded is encoded by prometheus-client, a family at a time, so that others run in between; flows have an encoder of
their own (mcastd.telemetry.flowtext) that shares the pieces here.
"""

import re
from collections.abc import Container, Iterator
from enum import Enum
from functools import lru_cache

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

_EOF = b"# EOF\n"
_ESCAPED = re.compile(r'[\\"\n]')
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}


class Format(Enum):
    """How the text looks; the value is its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

    @property
    def ending(self) -> bytes:
        """What comes last."""
        return _EOF if self is Format.OPENMETRICS else b""

    def header(self, name: str, kind: str, text: str) -> str:
        """The lines before the samples of a family; `name` without _total or _info, `text` without line ends."""
        if self is Format.TEXT:
            name += {"counter": "_total", "info": "_info"}.get(kind, "")
            kind = "gauge" if kind == "info" else kind
        text = text.replace("\\", "\\\\")
        if self is Format.OPENMETRICS:
            text = text.replace('"', '\\"')
        return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"

    def encode(self, metric: Metric) -> bytes:
        """A family as prometheus-client writes it."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_One(metric))
        if self is Format.TEXT:
            return generate_text(registry)
        text: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
        return text.removesuffix(_EOF)


class _One(Collector):
    """One family, collected already."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def describe(self) -> Iterator[Metric]:
        """Nothing: so nobody collects it for its names."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        yield self._metric


def restrict(metric: Metric, names: Container[str]) -> Metric | None:
    """The family with the samples of these names alone, or None where it has none of them."""
    samples = [sample for sample in metric.samples if sample.name in names]
    if not samples:
        return None
    kept = Metric(metric.name, metric.documentation, metric.type, metric.unit)
    kept.samples = samples
    return kept


def escape(value: str) -> str:
    """A label's value between its quotes."""
    return _ESCAPED.sub(lambda found: _ESCAPES[found[0]], value)


@lru_cache(maxsize=64)
def negotiate(accept: str) -> Format:
    """The format that a client likes best by its Accept header; the older one where it says nothing (of either)."""
    best, quality = Format.TEXT, 0.0
    for kind, parameters, wanted in _items(accept):
        found = _format(kind, parameters)
        if found is not None and wanted > quality:
            best, quality = found, wanted
    return best


@lru_cache(maxsize=64)
def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a client takes gzip by its Accept-Encoding header, and likes it no less than the plain text."""
    found = {kind: wanted for kind, _, wanted in _items(accept_encoding)}
    gzip = found.get("gzip", found.get("x-gzip", found.get("*", 0.0)))
    return gzip > 0 and gzip >= found.get("identity", 0.0)


def _format(kind: str, parameters: dict[str, str]) -> Format | None:
    version = parameters.get("version")
    if kind == "application/openmetrics-text" and version in {None, "0.0.1", "1.0.0"}:
        return Format.OPENMETRICS
    if kind in {"text/plain", "text/*", "*/*"} and version in {None, "0.0.4"}:
        return Format.TEXT
    return None


def _items(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Items of an Accept header (RFC 9110 section 12.4.2): what, its parameters, its weight."""
    for item in header.split(","):
        kind, *rest = (part.strip().lower() for part in item.split(";"))
        parameters = {name.strip(): value.strip().strip('"') for name, _, value in (one.partition("=") for one in rest)}
        if kind:
            yield kind, parameters, _weight(parameters.pop("q", "1"))


def _weight(text: str) -> float:
    return float(text) if re.fullmatch(r"0(\.\d{0,3})?|1(\.0{0,3})?", text) else 0.0
