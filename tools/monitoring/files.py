"""The generated files by path, as text."""

import json
from typing import Any

import yaml

from tools.monitoring.alerts import alert_groups
from tools.monitoring.cases import rule_tests
from tools.monitoring.dashboards import dashboards
from tools.monitoring.rules import recording_groups
from tools.monitoring.settings import Settings

_NOTE = "# Written by `python -m tools.monitoring`: change that, not this.\n"


def files(settings: Settings) -> dict[str, str]:
    """Everything."""
    return {
        "deploy/prometheus/rules.yml": _yaml({"groups": recording_groups(settings)}),
        "deploy/prometheus/alerts.yml": _yaml({"groups": alert_groups(settings)}),
        "deploy/prometheus/alerts_test.yml": _yaml(rule_tests(settings)),
        **{f"grafana/{name}.json": json.dumps(content, indent=2) + "\n" for name, content in dashboards().items()},
    }


class _Dumper(yaml.SafeDumper):
    """Lists indented, as Prometheus' own examples have them, and no aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's signature
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _yaml(content: Any) -> str:
    return _NOTE + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
