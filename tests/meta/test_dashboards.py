"""Grafana dashboards by the rules of grafana/dashboard-linter, restated here since that is a Go program that no registry has.

Whether the queries return data is seen in tests/e2e/test_prometheus.py.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "grafana"
DASHBOARDS = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(GRAFANA.glob("*.json"))}
UNITS = {"short", "bps", "pps", "ops", "reqps", "s", "bytes", "percentunit"}

every_dashboard = pytest.mark.parametrize("name", DASHBOARDS)


class Panel(NamedTuple):
    """A panel with its dashboard."""

    dashboard: str
    content: dict[str, Any]


def panels() -> list[Panel]:
    """All panels that show data."""
    return [Panel(name, one) for name, board in DASHBOARDS.items() for one in board["panels"] if one["type"] != "row"]


every_panel = pytest.mark.parametrize("panel", panels(), ids=lambda panel: f"{panel.dashboard}-{panel.content['title']}")


def expressions(panel: Panel) -> Iterator[str]:
    """Its queries."""
    return (target["expr"] for target in panel.content["targets"])


def variables(name: str) -> dict[str, dict[str, Any]]:
    """A dashboard's variables."""
    return {one["name"]: one for one in DASHBOARDS[name]["templating"]["list"]}


def concrete(expression: str) -> str:
    """A query as Grafana would send it, with all values chosen."""
    for name, value in (("$__rate_interval", "1m"), ("$__range", "1h"), ("$__interval", "15s")):
        expression = expression.replace(name, value)
    return re.sub(r"\$\{?(job|instance|group|source)\}?", ".+", expression)


def test_all_three_are_there() -> None:
    assert {name: board["uid"] for name, board in DASHBOARDS.items()} == {
        "fleet": "mcastd-fleet",
        "flow": "mcastd-flow",
        "router": "mcastd-router",
    }


@every_dashboard
def test_one_datasource_variable(name: str) -> None:
    sources = [one for one in variables(name).values() if one["type"] == "datasource"]
    assert [(one["name"], one["label"], one["query"]) for one in sources] == [("datasource", "Data Source", "prometheus")]


@every_dashboard
@pytest.mark.parametrize("variable,label", [("job", "Job"), ("instance", "Instance")])
def test_variables_for_job_and_instance(name: str, variable: str, label: str) -> None:
    one = variables(name)[variable]
    assert (one["type"], one["label"], one["multi"], one["allValue"]) == ("query", label, True, ".+")


@every_dashboard
def test_query_variables_are_read_from_the_datasource_when_the_time_changes(name: str) -> None:
    for one in variables(name).values():
        if one["type"] == "query":
            assert one["datasource"]["uid"] == "${datasource}"
            assert one["refresh"] == 2
            assert one["query"]["query"] == one["definition"]


@every_dashboard
def test_it_is_not_edited_in_place(name: str) -> None:
    assert DASHBOARDS[name]["editable"] is False
    assert "id" not in DASHBOARDS[name]


@every_dashboard
def test_links_keep_time_and_variables(name: str) -> None:
    links = DASHBOARDS[name]["links"]
    assert {one["url"] for one in links} == {f"/d/mcastd-{other}" for other in DASHBOARDS if other != name}
    assert all(one["keepTime"] and one["includeVars"] for one in links)


@every_dashboard
def test_panels_do_not_overlap_and_have_numbers_of_their_own(name: str) -> None:
    shown = DASHBOARDS[name]["panels"]
    assert len({one["id"] for one in shown}) == len(shown)
    taken: set[tuple[int, int]] = set()
    for one in shown:
        at = one["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, one["title"]
        taken |= cells


@every_panel
def test_a_panel_has_title_description_unit_and_source(panel: Panel) -> None:
    one = panel.content
    assert one["title"]
    assert one["description"].endswith(".")
    assert one["fieldConfig"]["defaults"]["unit"] in UNITS
    assert one["datasource"]["uid"] == "${datasource}"
    assert one["targets"]
    assert all(target["datasource"]["uid"] == "${datasource}" for target in one["targets"])
    assert len({target["refId"] for target in one["targets"]}) == len(one["targets"])


@every_panel
def test_each_series_is_chosen_by_job_and_instance(panel: Panel) -> None:
    for expression in expressions(panel):
        selectors = re.findall(r"\{([^}]*)\}", expression)
        bare = re.sub(r"by \([^)]*\)", "", expression)
        names = re.findall(r"\b(?:mcastd|grpc|process)_\w+|\bup\b|\bALERTS\b", re.sub(r"\{[^}]*\}", "{}", bare))
        assert len(selectors) == len(names), expression
        assert all('job=~"$job"' in one and 'instance=~"$instance"' in one for one in selectors), expression


@every_panel
def test_counters_are_rated_over_the_rate_interval(panel: Panel) -> None:
    for expression in expressions(panel):
        counters = re.findall(r"\b\w+_(?:total|bucket|sum|count)\{", expression)
        rated = re.findall(r"rate\(\w+_(?:total|bucket|sum|count)\{[^}]*\}\[\$__rate_interval\]\)", expression)
        assert len(counters) == len(rated), expression
        assert re.findall(r"\[[^]]*\]", expression) == ["[$__rate_interval]"] * len(rated)


def test_queries_are_valid(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": concrete(one)} for n, one in enumerate(e for p in panels() for e in expressions(p))]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_provisioning_files_name_what_is_there() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/mcastd.yml").read_text())["providers"]
    compose = yaml.safe_load((ROOT / "deploy/compose.monitoring.yml").read_text())["services"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose
    assert f"../grafana:{provider['options']['path']}:ro" in compose["grafana"]["volumes"]


FLOW = 'table="0",source="10.0.0.1",group="232.1.1.1",iif="up",instance="r1"'


@pytest.mark.parametrize(
    "dashboard,title,series,wanted",
    [
        # The job of /metrics/flows exports the same flow once more.
        ("flow", "Rate", {f'mcastd_flow_bytes_total{{{FLOW},job="{job}"}}': "0+150x20" for job in ("a", "b")}, 80),
        ("flow", "Expected", {f'mcastd_flow_expected{{{FLOW},job="{job}"}}': "1x20" for job in ("a", "b")}, 1),
        (
            "router",
            "Memberships",
            {f'mcastd_memberships{what}{{family="ipv4",job="a",instance="r1"}}': "7x20" for what in ("", "_limit")},
            7,
        ),
    ],
)
def test_nothing_is_counted_twice(dashboard: str, title: str, series: dict[str, str], wanted: int, tmp_path: Path) -> None:
    (panel,) = [one for one in panels() if (one.dashboard, one.content["title"]) == (dashboard, title)]
    (expression,) = map(concrete, expressions(panel))
    checks = [
        {"expr": f"{what}({expression})", "eval_time": "5m", "exp_samples": [{"labels": "{}", "value": value}]}
        for what, value in (("count", 1), ("sum", wanted))
    ]
    given = [{"series": name, "values": values} for name, values in series.items()]
    content = {"tests": [{"interval": "15s", "input_series": given, "promql_expr_test": checks}]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(content))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
