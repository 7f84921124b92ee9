"""Metrics of a real daemon: flows with their counters, silence, a restart of the server, hostile names, slow scrapers, users."""

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mcastd.model.address import Family, address_text, pack_address
from tests.e2e.keeper_bench import open_directory
from tests.e2e.router import PROGRAMMED, Router, bulk, group
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("metrics")]

PORT = 9464

CONFIG = f'[metrics]\naddress = ["127.0.0.1:{PORT}"]\nflows_all = true\nflows_top = 3\nsilent_after = 2\n'

ACTIVATOR = """
import os, socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""

Labels = frozenset[tuple[str, str]]


class Scraped:
    """A router with metrics."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def connect(self) -> socket.socket:
        """A connection to the metrics."""
        sock = self.router.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", PORT))
        return sock

    def get(self, path: str, *headers: str) -> str:
        """An answer, head and body."""
        with self.connect() as sock:
            sock.sendall("\r\n".join([f"GET {path} HTTP/1.0", *headers, "", ""]).encode())
            parts = []
            while part := sock.recv(1 << 20):
                parts.append(part)
        return b"".join(parts).decode()

    def samples(self, path: str = "/metrics") -> dict[tuple[str, Labels], float]:
        """All samples."""
        head, _, body = self.get(path).partition("\r\n\r\n")
        assert " 200 " in head.split("\r\n")[0], head
        families = text_string_to_metric_families(body)
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    def flow(self, number: int, name: str, path: str = "/metrics") -> float | None:
        """A flow's sample by the number of its group."""
        name_of_group = address_text(pack_address(group(self.router.family, number)))
        wanted = {("group", name_of_group), ("source", self.router.source)}
        found = [
            value for (one, labels), value in self.samples(path).items() if one == f"mcastd_flow_{name}" and wanted <= labels
        ]
        assert len(found) <= 1
        return found[0] if found else None

    def value(self, name: str, **labels: str) -> float:
        """One sample."""
        return self.samples()[name, frozenset(labels.items())]


@contextmanager
def scraped_router(bed: Testbed, family: Family, directory: Path, text: str = CONFIG) -> Iterator[Scraped]:
    """A router that is scraped."""
    path = directory / "mcastd.toml"
    path.write_text(text)
    with Router(bed, family, directory=directory, arguments=("--config", str(path))) as router:
        yield Scraped(router)


@pytest.fixture
def directory() -> Iterator[Path]:
    with open_directory() as path:
        yield path


@pytest.fixture(params=Family)
def scraped(testbed: Testbed, request: pytest.FixtureRequest, directory: Path) -> Iterator[Scraped]:
    with scraped_router(testbed, request.param, directory) as one:
        yield one


def test_a_flow_from_its_first_packet_over_a_restart(scraped: Scraped) -> None:
    router = scraped.router
    sender = router.sender(1)
    router.put(router.route(sender, "down1"))
    router.wait_state(1, PROGRAMMED)
    sender.send(100)
    wait_until(lambda: scraped.flow(1, "packets_total") == 100, 10)
    size = scraped.flow(1, "bytes_total")
    used = scraped.flow(1, "last_used_timestamp_seconds")
    assert size is not None
    assert used is not None
    assert size >= 100 * 64
    assert abs(used - time.time()) < 10
    family = f"ipv{router.family.value}"
    assert scraped.value("mcastd_interface_receive_packets_total", table="0", family=family, interface="up") >= 100
    assert scraped.value("mcastd_flows", table="0", family=family) == 1
    router.wait_server_after(router.daemon.kill_server())
    wait_until(lambda: "ready\n" in scraped.get("/readyz"), 20)
    assert scraped.flow(1, "packets_total") == 100
    assert scraped.value("mcastd_server_starts_total") == 2
    router.put(router.route(sender, "down1", "down2"))
    sender.send(10)
    wait_until(lambda: scraped.flow(1, "packets_total") == 110, 10)


def test_an_expected_flow_falls_silent_and_comes_back(scraped: Scraped) -> None:
    router = scraped.router
    sender = router.sender(1)
    router.put(*[router.route(n, "down1") for n in range(10, 20)], router.route(sender, "down1", monitored=True))
    assert scraped.flow(1, "expected") == 1
    assert scraped.flow(10, "expected", "/metrics/flows") is None
    condition = {"code": "FLOW_SILENT", "severity": "warning"}
    wait_until(lambda: scraped.value("mcastd_condition", **condition) == 1, 15)
    sender.send(5)
    wait_until(lambda: scraped.value("mcastd_condition", **condition) == 0, 15)
    wait_until(lambda: "a flow that was silent is back" in router.daemon.log(), 15)
    wait_until(lambda: scraped.value("mcastd_flows_silent") == 1, 15)
    assert router.daemon.log().count("a flow that is expected is silent") == 2


def test_top_flows_and_all_flows(scraped: Scraped) -> None:
    router = scraped.router
    router.put(*[router.route(n, "down1") for n in range(1, 11)])
    scraped.samples()
    senders = [router.sender(n) for n in range(1, 11)]
    for number, sender in enumerate(senders, 1):
        sender.send(5 * number)

    def top() -> set[float]:
        return {value for (name, _), value in scraped.samples().items() if name == "mcastd_flow_packets_total"}

    wait_until(lambda: top() >= {40, 45, 50}, 15)
    assert len(top()) <= 4
    assert scraped.value("mcastd_flows_not_exported") >= 6
    parts = [scraped.samples(f"/metrics/flows?shard={n}/2") for n in range(2)]
    values = sorted(value for part in parts for (name, _), value in part.items() if name == "mcastd_flow_packets_total")
    assert values == [5 * n for n in range(1, 11)]


def test_rates_of_a_single_call(scraped: Scraped) -> None:
    """Somebody has to have taken a sample before: the daemon itself, where nobody else has."""
    router = scraped.router
    sender = router.sender(1)
    router.put(router.route(sender, "down1"))

    def rate() -> float:
        sender.send(20)
        (listed,) = router.daemon.list_routes(counters=True)
        return listed.status.counters.packet_rate

    wait_until(lambda: rate() > 0, 30)
    (listed,) = router.daemon.list_routes(counters=True)
    counters = listed.status.counters
    assert counters.byte_rate > counters.packet_rate * 64


def test_hostile_names_come_out_escaped(testbed: Testbed, directory: Path) -> None:
    with scraped_router(testbed, Family.IPV4, directory) as scraped:
        router = scraped.router
        names = ['a"b', "a\\b", "é€", "a{b}=,"]
        for number, name in enumerate(names, 1):
            router.plug(name)
            router.put(router.route(number, "down1", iif=name, cookie='"\\\n'))
        samples = scraped.samples()
        flows = [dict(labels) for name, labels in samples if name == "mcastd_flow_info"]
        every = [dict(labels) for name, labels in scraped.samples("/metrics/flows") if name == "mcastd_flow_info"]
        assert {one["iif"] for one in every} == set(names)
        assert {one["name"] for one in every} == {'"\\\n'}
        assert {one["iif"] for one in flows} <= set(names)
        carried = {dict(labels)["interface"] for name, labels in samples if name == "mcastd_interface_receive_bytes_total"}
        assert carried >= set(names)


def test_a_slow_scraper_and_one_that_hangs_up_disturb_nobody(testbed: Testbed, directory: Path) -> None:
    with scraped_router(testbed, Family.IPV4, directory) as scraped:
        router = scraped.router
        router.daemon.replace(bulk(Family.IPV4, 20_000, router.source, "down1"))
        slow = [scraped.connect() for _ in range(5)]
        for sock in slow:
            sock.sendall(b"GET /metrics/flows HTTP/1.1\r\n\r\n")
            assert sock.recv(10)
        gone = scraped.connect()
        gone.sendall(b"GET /metrics/flows HTTP/1.1\r\n\r\n")
        gone.recv(10)
        gone.close()
        assert len(scraped.samples("/metrics/flows")) == 5 * 20_000
        assert scraped.value("mcastd_flows", table="0", family="ipv4") == 20_000
        began = time.monotonic()
        assert router.put(router.route(1, "down1")).created == 1
        assert time.monotonic() - began < 2
        for sock in slow:
            sock.close()
        assert "Traceback" not in router.daemon.log()


def test_users(testbed: Testbed, directory: Path) -> None:
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    (directory / "web.yml").write_text(f"basic_auth_users:\n  prometheus: {hashed}\n")
    (directory / "web.yml").chmod(0o644)
    with scraped_router(testbed, Family.IPV4, directory, CONFIG + 'web_config = "web.yml"\n') as scraped:
        assert " 401 " in scraped.get("/metrics").split("\r\n")[0]
        assert " 200 " in scraped.get("/metrics", "Authorization: Basic cHJvbWV0aGV1czpzZWNyZXQ=").split("\r\n")[0]


def test_a_socket_of_the_service_manager_outlives_servers(testbed: Testbed, directory: Path) -> None:
    """As systemd starts it: the socket listens already; who connects while there is no server waits."""
    space = testbed.namespace("router")
    with McastdProcess(space, directory, prefix=(sys.executable, "-c", ACTIVATOR, str(PORT))) as daemon:

        def ask() -> bytes:
            with space.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                sock.settimeout(20)
                sock.connect(("127.0.0.1", PORT))
                sock.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                return b"".join(iter(lambda: sock.recv(4096), b""))

        assert b"alive" in ask()
        daemon.kill_server()
        assert b"alive" in ask()
