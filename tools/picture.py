"""Makes docs/images/prometheus-flow.png: `python -m tools.picture` (as root, two minutes or so).

A router in network namespaces forwards a flow whose rate changes, a real Prometheus scrapes it, and headless Chromium takes a
picture of its expression browser. Needs the Debian packages prometheus, chromium and fonts-dejavu-core.
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote, urlencode

from mcastd.model.address import Family
from tests.e2e.prometheus import PORT, Prometheus
from tests.e2e.router import Router
from tests.testbed import Testbed, become_able
from tests.testbed.namespace import Namespace
from tools.monitoring.settings import Settings

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "prometheus-flow.png"
METRICS_PORT = 9464
EXPRESSION = "8 * rate(mcastd_flow_bytes_total[10s])"
RATES = (400, 900, 150, 600)
"""Packets per second of the first flow, one after the other."""

STEP = 28.0
"""Seconds of each."""


def main() -> None:
    """Make the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path, nargs="?", default=PICTURE)
    picture: Path = parser.parse_args().picture
    reason = become_able()
    if reason:
        raise SystemExit(f"no network namespaces can be made here: {reason}")
    with Testbed() as bed, Router(bed, Family.IPV4, arguments=("--metrics", f"0.0.0.0:{METRICS_PORT}")) as router:
        monitor = bed.namespace("monitor")
        _, far = bed.connect(monitor, "router", router.namespace, "mgmt")
        with Prometheus(monitor, {"r1": f"{far.ipv4}:{METRICS_PORT}"}, Settings().scaled(0.1), "2s"):
            send(router)
            picture.parent.mkdir(parents=True, exist_ok=True)
            take(monitor, page(), picture)
    print(picture, picture.stat().st_size, "bytes")


def send(router: Router) -> None:
    """Forward two flows, of which one changes its rate."""
    first, second = router.sender(1), router.sender(2)
    router.put(router.route(first, "down1", "down2"), router.route(second, "down2"))
    second.start(250)
    for rate in RATES:
        flow = first.start(rate)
        time.sleep(STEP)
        flow.stop()


def page() -> str:
    """The address of the graph."""
    query = {"g0.expr": EXPRESSION, "g0.tab": "0", "g0.stacked": "0", "g0.range_input": "2m", "g0.step_input": "1"}
    return f"http://127.0.0.1:{PORT}/graph?{urlencode(query, quote_via=quote)}"


def take(namespace: Namespace, address: str, picture: Path) -> None:
    """Have Chromium show a page and save what it shows."""
    with tempfile.TemporaryDirectory(prefix="mcastd-chromium-") as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        size = ["--window-size=1100,900", "--virtual-time-budget=8000", f"--user-data-dir={profile}"]
        command = ["chromium", *options, *size, f"--screenshot={picture}", address]
        with namespace.entered():
            subprocess.run(command, check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main()
