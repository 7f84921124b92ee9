"""Writes deploy/prometheus and grafana/*.json; with `--scale 0.02 --output DIR` a copy with shorter durations, for tests."""

import argparse
from pathlib import Path

from tools.monitoring.files import files
from tools.monitoring.settings import Settings

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT, help="directory that stands for the root of the sources")
    parser.add_argument("--selector", default=Settings.selector, help='matchers of the targets, as job="mcastd"')
    parser.add_argument("--runbooks", default=Settings.runbooks, help="address of the runbooks, for runbook_url")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of every duration")
    given = parser.parse_args()
    settings = Settings(selector=given.selector, runbooks=given.runbooks).scaled(given.scale)
    for name, content in files(settings).items():
        path = given.output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
        print(path)


if __name__ == "__main__":
    main()
