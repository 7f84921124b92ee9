"""What a scrape of many flows costs: wall time, the API's calls meanwhile, memory over many scrapes; and the encoder's ratio.

    python -m tests.bench.bench_scrape [flows [scrapes]]

The flows are in a real kernel. The encoder is compared with prometheus-client's in the same run: ratios count, not times.
"""

import asyncio
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from mcast.v1 import services_pb2 as sv
from mcastd.model.address import Family
from mcastd.telemetry.exposition import Format
from mcastd.telemetry.flows import FlowRow
from mcastd.telemetry.flowtext import page_text
from tests.e2e.router import bulk
from tests.testbed import Testbed, become_able
from tests.testbed.daemon import McastdProcess
from tests.testbed.namespace import Namespace

PORT = 9464

CONFIG = f'[metrics]\naddress = ["127.0.0.1:{PORT}"]\nflows_all = true\n'


def scrape(space: Namespace, path: str, *headers: str) -> tuple[float, int]:
    """Seconds and bytes of one scrape; what comes is thrown away, as fast as it comes."""
    buffer, size = bytearray(1 << 20), 0
    with space.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(60)
        began = time.perf_counter()
        sock.connect(("127.0.0.1", PORT))
        sock.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]).encode())
        while count := sock.recv_into(buffer):
            size += count
        return time.perf_counter() - began, size


class Caller:
    """Calls GetStatus over and over, in a thread, and remembers how long each took."""

    def __init__(self, daemon: McastdProcess) -> None:
        self.seconds: list[float] = []
        self._daemon = daemon
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            began = time.perf_counter()
            self._daemon.daemon.GetStatus(sv.GetStatusRequest(), timeout=30)
            self.seconds.append(time.perf_counter() - began)

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        return sorted(self.seconds)[int(share * (len(self.seconds) - 1))] * 1e3


def memory(pid: int) -> int:
    """Resident KiB of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def measure(space: Namespace, daemon: McastdProcess, scrapes: int) -> None:
    """Print what scrapes cost."""
    cases = (
        ("/metrics, text", "/metrics", ()),
        ("/metrics/flows, text", "/metrics/flows", ()),
        ("/metrics/flows, gzip", "/metrics/flows", ("Accept-Encoding: gzip",)),
        ("/metrics/flows?shard=0/4, gzip", "/metrics/flows?shard=0/4", ("Accept-Encoding: gzip",)),
    )
    with Caller(daemon) as idle:
        time.sleep(3)
    say(f"API calls without scrapes: p50 {idle.percentile(0.5):.2f} ms, p99 {idle.percentile(0.99):.2f} ms")
    for name, path, headers in cases:
        scrape(space, path, *headers)
        with Caller(daemon) as caller:
            found = []
            for _ in range(8):
                time.sleep(1.1)  # a new sample each
                found.append(scrape(space, path, *headers))
        seconds = statistics.median(taken for taken, _ in found)
        say(
            f"{name}: {seconds:.3f} s, {found[-1][1] / 1e6:.1f} MB; API calls meanwhile p50 {caller.percentile(0.5):.2f} ms, "
            f"p99 {caller.percentile(0.99):.2f} ms, max {caller.percentile(1):.1f} ms"
        )
    pid, sizes = daemon.server_pid(), []
    for number in range(scrapes):
        scrape(space, "/metrics/flows", "Accept-Encoding: gzip")
        scrape(space, "/metrics")
        if number % 10 == 9:
            sizes.append(memory(pid))
    say(f"memory of the server over {scrapes} scrapes of each, every tenth, MiB: {[size >> 10 for size in sizes]}")


class Official(Collector):
    """The same flows, as prometheus-client would have them."""

    def __init__(self, rows: list[tuple[list[str], FlowRow]]) -> None:
        self._rows = rows

    def collect(self) -> "list[CounterMetricFamily | GaugeMetricFamily]":
        labels = ["table", "family", "source", "group", "iif"]
        packets = CounterMetricFamily("mcastd_flow_packets", "Packets.", labels=labels)
        octets = CounterMetricFamily("mcastd_flow_bytes", "Bytes.", labels=labels)
        wrong = CounterMetricFamily("mcastd_flow_wrong_interface_packets", "Packets.", labels=labels)
        used = GaugeMetricFamily("mcastd_flow_last_used_timestamp_seconds", "Time.", labels=labels)
        info = GaugeMetricFamily("mcastd_flow_info", "Whose.", labels=[*labels, "set", "name"])
        for values, row in self._rows:
            packets.add_metric(values, row.packets)
            octets.add_metric(values, row.octets)
            wrong.add_metric(values, row.wrong_if)
            used.add_metric(values, row.last_used)
            info.add_metric([*values, "local", ""], 1)
        return [packets, octets, wrong, used, info]


def ratio(count: int) -> None:
    """Print how much longer prometheus-client takes for the text of so many flows."""
    rows = []
    for n in range(count):
        values = ["0", "ipv4", "10.0.0.1", f"232.{n >> 16}.{n >> 8 & 255}.{n & 255}", "up"]
        text = ",".join(
            f'{name}="{value}"' for name, value in zip(("table", "family", "source", "group", "iif"), values, strict=True)
        )
        rows.append((values, FlowRow(f"{{{text}}}", 'set="local",name=""', n, 100 * n, 0, 1.8e9 + n, expected=False)))

    async def ours() -> int:
        return sum([len(part) async for part in page_text([row for _, row in rows], Format.TEXT, ())])

    began = time.perf_counter()
    asyncio.run(ours())
    own = time.perf_counter() - began
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Official(rows))
    began = time.perf_counter()
    generate_latest(registry)
    theirs = time.perf_counter() - began
    say(f"encoding {count} flows of 5 series: {own:.3f} s, prometheus-client {theirs:.3f} s: 1 to {theirs / own:.0f}")


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)  # noqa: T201


def main() -> None:
    """Measure and print."""
    flows, scrapes = ([int(word) for word in sys.argv[1:]] + [100_000, 100][len(sys.argv) - 1 :])[:2]
    reason = become_able()
    if reason:
        sys.exit(reason)
    ratio(flows)
    with Testbed() as bed, tempfile.TemporaryDirectory() as directory:
        star = bed.star(receivers=2)
        config = Path(directory) / "mcastd.toml"
        config.write_text(CONFIG)
        Path(directory).chmod(0o755)
        with McastdProcess(star.router, Path(directory), "--config", str(config)) as daemon:
            daemon.replace(bulk(Family.IPV4, flows, star.source.address(4), "down1", "down2"))
            measure(star.router, daemon, scrapes)


if __name__ == "__main__":
    main()
