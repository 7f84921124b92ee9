"""A real Prometheus (Debian package prometheus) in a namespace, with mcastd's rules and alerts in a copy with short durations."""

import http.client
import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

import yaml

from tests.testbed.bed import stop
from tests.testbed.daemon import wait_until
from tests.testbed.namespace import Namespace
from tools.monitoring.files import files
from tools.monitoring.settings import Settings

PORT = 9090
INTERVAL = "500ms"
"""Between two scrapes, and two looks at the rules; mcastd reads the kernel's counters once a second at most."""


class Prometheus:
    """Scrapes the job mcastd; use it as a context."""

    def __init__(self, namespace: Namespace, targets: Mapping[str, str], settings: Settings, interval: str = INTERVAL) -> None:
        """Start it; `targets` are HOST:PORT by the name that becomes the label instance, `interval` that of scrapes."""
        self._namespace = namespace
        self._made = tempfile.TemporaryDirectory(prefix="mcastd-prometheus-")
        directory = Path(self._made.name)
        for name, content in files(settings).items():
            if name.startswith("deploy/prometheus/"):
                (directory / Path(name).name).write_text(content)
        groups = [{"targets": [address], "labels": {"instance": name}} for name, address in targets.items()]
        config = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": ["rules.yml", "alerts.yml"],
            "scrape_configs": [{"job_name": "mcastd", "static_configs": groups}],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._log = (directory / "log").open("w+")
        self._process = namespace.popen(
            [
                "prometheus",
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address=127.0.0.1:{PORT}",
                "--log.level=warn",
            ],
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
        try:
            wait_until(self._ready, 30, lambda: f"Prometheus does not serve; its log:\n{self.log()}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        stop(self._process)
        self._log.close()
        self._made.cleanup()

    def log(self) -> str:
        """What it has logged so far."""
        return Path(self._log.name).read_text()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of a query now, as a list of series with metric and value."""
        answer = json.loads(self._get(f"/api/v1/query?{urlencode({'query': expression}, quote_via=quote)}"))
        assert answer["status"] == "success", (expression, answer)
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def firing(self) -> set[tuple[str, str]]:
        """Alerts that fire now, each with its instance."""
        answer = json.loads(self._get("/api/v1/alerts"))
        labels = [one["labels"] for one in answer["data"]["alerts"] if one["state"] == "firing"]
        return {(one["alertname"], one["instance"]) for one in labels}

    def unhealthy_rules(self) -> list[str]:
        """Rules that could not be evaluated, with their errors."""
        answer = json.loads(self._get("/api/v1/rules"))
        rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
        return [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] == "err"]

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"Prometheus has ended; its log:\n{self.log()}")
        try:
            return self._get("/-/ready").startswith("Prometheus")
        except OSError:
            return False

    def _get(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
        try:
            with self._namespace.entered():
                connection.connect()
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()
