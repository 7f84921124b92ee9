"""Panels of dashboards as Grafana has them in JSON."""

from typing import Any, NamedTuple

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}

Query = dict[str, Any]


class Spot(NamedTuple):
    """Where a panel is, in Grafana's grid of 24 columns."""

    x: int
    y: int
    w: int
    h: int


def ask(expression: str, legend: str, ref: str = "A") -> list[Query]:
    """A query over time, in a list, to be put together with others."""
    return [{"datasource": _SOURCE, "expr": expression, "legendFormat": legend, "range": True, "refId": ref}]


def row(title: str, y: int) -> dict[str, Any]:
    """A heading."""
    return {"type": "row", "title": title, "collapsed": False, "gridPos": Spot(0, y, 24, 1)._asdict(), "panels": []}


def timeline(title: str, description: str, spot: Spot, unit: str, queries: list[Query]) -> dict[str, Any]:
    """Lines over time."""
    custom = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": False}
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"], "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return {
        **_panel("timeseries", title, description, spot, unit, queries, options),
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": custom}, "overrides": []},
    }


def stat(title: str, description: str, spot: Spot, unit: str, expression: str, bad_from: float | None = None) -> dict[str, Any]:
    """One number; red from a value on, if there is one."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if bad_from is not None:
        steps.append({"color": "red", "value": bad_from})
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
    }
    return {
        **_panel("stat", title, description, spot, unit, ask(expression, ""), options),
        "fieldConfig": {"defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}}, "overrides": []},
    }


def table(title: str, description: str, spot: Spot, unit: str, expression: str) -> dict[str, Any]:
    """Labels and values of now."""
    query = {"datasource": _SOURCE, "expr": expression, "format": "table", "instant": True, "range": False, "refId": "A"}
    hidden = {"Time": True, "__name__": True}
    return {
        **_panel("table", title, description, spot, unit, [query], {"showHeader": True}),
        "transformations": [{"id": "organize", "options": {"excludeByName": hidden, "indexByName": {}, "renameByName": {}}}],
    }


def _panel(
    kind: str, title: str, description: str, spot: Spot, unit: str, queries: list[Query], options: dict[str, Any]
) -> dict[str, Any]:
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": _SOURCE,
        "gridPos": spot._asdict(),
        "targets": queries,
        "options": options,
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
    }
