"""Rules, alerts, their runbooks and the compose file: current, valid, and each alert tested by promtool."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.monitoring.alerts import alerts
from tools.monitoring.cases import rule_tests
from tools.monitoring.files import files
from tools.monitoring.settings import Settings, duration

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]

ALERTS = {one.name: one for one in alerts(Settings())}


def promtool(*arguments: str | Path, where: Path = PROMETHEUS) -> "subprocess.CompletedProcess[str]":
    """Run promtool (Debian package prometheus)."""
    return subprocess.run(["promtool", *arguments], cwd=where, capture_output=True, text=True, check=False, timeout=60)


def load(path: Path) -> Any:
    """A YAML file."""
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize("name", files(Settings()))
def test_files_are_current(name: str) -> None:
    assert (ROOT / name).read_text("utf-8") == files(Settings())[name], "python -m tools.monitoring"


def test_the_program_writes_them_elsewhere_too(tmp_path: Path) -> None:
    given = ["--output", str(tmp_path), "--scale", "0.02", "--selector", 'job="x"', "--runbooks", "https://docs.example/r"]
    subprocess.run([sys.executable, "-m", "tools.monitoring", *given], cwd=ROOT, check=True, capture_output=True, timeout=60)
    written = (tmp_path / "deploy/prometheus/alerts.yml").read_text("utf-8")
    assert 'up{job="x"} == 0' in written
    assert 'job="mcastd"' not in written
    assert "for: 1200ms" in written
    assert "runbook_url: https://docs.example/r/McastdDown.md" in written
    done = promtool("check", "rules", "rules.yml", "alerts.yml", where=tmp_path / "deploy/prometheus")
    assert done.returncode == 0, done.stderr


def test_rules_and_configuration_are_valid() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_and_clear_as_their_cases_say() -> None:
    done = promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_case_is_found(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text((PROMETHEUS / "alerts.yml").read_text().replace("> 0.85", "> 0.95"))
    (tmp_path / "alerts_test.yml").write_text((PROMETHEUS / "alerts_test.yml").read_text())
    done = promtool("test", "rules", "alerts_test.yml", where=tmp_path)
    assert done.returncode == 1
    assert "McastdVifTableNearlyFull" in done.stdout + done.stderr


def test_each_alert_has_a_case_that_fires_stays_calm_and_clears() -> None:
    tests = rule_tests(Settings())["tests"]
    assert {one["name"] for one in tests} == set(ALERTS)
    for one in tests:
        assert [bool(at["exp_alerts"]) for at in one["alert_rule_test"]] == [False, True, False]
        assert any("calm" in series["series"] for series in one["input_series"])


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_complete(name: str) -> None:
    alert = ALERTS[name]
    assert re.fullmatch(r"Mcastd([A-Z][a-z]+)+", name)
    assert alert.severity in {"warning", "critical"}
    assert "{{ $labels.instance }}" in alert.description


def test_recording_rules_are_named_by_level_metric_and_operations() -> None:
    for group in load(PROMETHEUS / "rules.yml")["groups"]:
        for rule in group["rules"]:
            level, metric, operations = rule["record"].split(":")
            assert level.startswith("instance")
            assert not metric.endswith("_total")
            assert metric in rule["expr"]
            assert operations


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_a_runbook_says_what_it_must(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text("utf-8")
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS


@pytest.mark.parametrize("name", ALERTS)
def test_a_runbook_that_restarts_the_daemon_says_what_that_does(name: str) -> None:
    """With the keeper ends what the kernel has."""
    text = (RUNBOOKS / f"{name}.md").read_text("utf-8")
    restarts = re.findall(r"systemctl restart mcastd|restart the daemon", text)
    assert len(re.findall(r"interrupts?\s+forwarding", text)) >= len(restarts)


def test_the_list_of_alerts_has_all_of_them() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| \[(\w+)\]\(runbooks/\1\.md\) \| (\w+) \|", text, re.MULTILINE))
    assert listed == {name: one.severity for name, one in ALERTS.items()}


def commands() -> list[tuple[str, str]]:
    """The mcastctl commands in runbooks."""
    found = []
    for path in sorted(RUNBOOKS.glob("*.md")):
        text = path.read_text("utf-8")
        lines = re.findall(r"^    (mcastctl .+)$", text, re.MULTILINE)
        found += [(path.stem, line) for line in lines]
    return found


@pytest.mark.parametrize("name,line", commands())
def test_commands_in_runbooks_exist(name: str, line: str) -> None:
    words = line.partition("#")[0].replace("'", "").split()
    plain = [word for word in words[1:] if re.fullmatch(r"[a-z-]+", word)]
    command = plain[:1] if plain[0] in {"top", "status", "reload", "watch"} else plain[:2]
    done = subprocess.run(
        [sys.executable, "-m", "mcastd.cli.ctl.main", *command, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for flag in (word for word in words if word.startswith("--")):
        assert flag in done.stdout, f"{name}: {line}"


def test_the_compose_file_is_valid() -> None:
    path = ROOT / "deploy" / "compose.monitoring.yml"
    # The schema of github.com/compose-spec/compose-spec comes with the package; nothing is fetched.
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_uses_what_is_there() -> None:
    path = ROOT / "deploy" / "compose.monitoring.yml"
    for service in load(path)["services"].values():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"])
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith(".") or (path.parent / source).is_dir()


def test_durations_are_as_promql_has_them() -> None:
    assert [duration(seconds) for seconds in (86_400, 7_200, 300, 90, 1.5)] == ["1d", "2h", "5m", "90s", "1500ms"]
