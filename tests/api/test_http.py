"""The metrics listener of a real daemon: /metrics, /healthz, /readyz."""

import socket
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.bench import Bench, bench_context, good
from tests.e2e.keeper_bench import open_directory
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("api-http")]

PORT = 9464


@pytest.fixture(scope="module")
def shared_bench(_able: None) -> Iterator[Bench]:
    """A daemon with metrics."""
    yield from bench_context(open_directory(), "--metrics", f"[::1]:{PORT}")


def fetch(bench: Bench, request: str) -> str:
    """Send a request from inside the daemon's namespace; the answer."""
    with bench.router.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        sock.connect(("::1", PORT))
        sock.sendall(request.encode())
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
        return b"".join(parts).decode()


def get(bench: Bench, path: str) -> tuple[str, str]:
    """Status line and body."""
    head, _, body = fetch(bench, f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").partition("\r\n\r\n")
    return head.split("\r\n")[0], body


def metrics(bench: Bench) -> dict[tuple[str, ...], float]:
    """Samples by name and the values of their labels, sorted by label."""
    status, body = get(bench, "/metrics")
    assert status == "HTTP/1.1 200 OK"
    families = list(text_string_to_metric_families(body))
    assert all(family.documentation for family in families)
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_follow_what_is(bench: Bench) -> None:
    before = metrics(bench)
    assert before["mcastd_routes", "ipv4", "programmed", "0"] == 0
    bench.admin.put(good(1), good(2), good(3, 4, "absent0"), good(1, 6))
    after = metrics(bench)
    assert after["mcastd_routes", "ipv4", "programmed", "0"] == 2
    assert after["mcastd_routes", "ipv4", "partial", "0"] == 1
    assert after["mcastd_routes", "ipv6", "programmed", "0"] == 1
    assert after["mcastd_vifs", "ipv4", "0"] == 2
    assert after["mcastd_vifs_limit", "ipv6", "0"] == 32
    assert after["mcastd_kernel_operations_total", "add_mfc"] - before["mcastd_kernel_operations_total", "add_mfc"] == 4


def test_upcalls_are_counted(bench: Bench) -> None:
    name = ("mcastd_upcalls_total", "ipv4", "nocache", "0")
    bench.admin.put(good(1))  # so that there is a VIF on up
    before = metrics(bench)[name]
    sender = bench.star.source.sender("239.66.0.1")
    sender.send(1)
    wait_until(lambda: metrics(bench)[name] == before + 1)
    sender.close()


def test_alive_and_ready(bench: Bench) -> None:
    assert get(bench, "/healthz") == ("HTTP/1.1 200 OK", "alive\n")
    assert get(bench, "/readyz") == ("HTTP/1.1 200 OK", "ready\n")


def test_bad_requests_do_no_harm(bench: Bench) -> None:
    answers = {request: fetch(bench, request).split("\r\n")[0] for request in ("x\r\n\r\n", "POST / HTTP/1.0\r\n\r\n")}
    assert list(answers.values()) == ["HTTP/1.1 400 Bad Request", "HTTP/1.1 405 Method Not Allowed"]
    assert get(bench, "/readyz")[0] == "HTTP/1.1 200 OK"


def test_slow_clients_hold_nobody_up(bench: Bench) -> None:
    slow = [bench.router.socket(socket.AF_INET6, socket.SOCK_STREAM) for _ in range(50)]
    for sock in slow:
        sock.connect(("::1", PORT))
        sock.sendall(b"GET /met")
    assert get(bench, "/readyz")[0] == "HTTP/1.1 200 OK"
    assert bench.admin.put(good(1)).created == 1
    for sock in slow:
        sock.close()


def test_an_address_that_is_taken_is_told(testbed: Testbed) -> None:
    space = testbed.namespace("router")
    with space.socket(socket.AF_INET, socket.SOCK_STREAM) as taken, open_directory() as directory:
        taken.bind(("127.0.0.1", PORT))
        taken.listen()
        daemon = McastdProcess(space, directory, "--metrics", f"127.0.0.1:{PORT}", ready=False)
        assert daemon.process.wait(20) == 78
        assert f"127.0.0.1:{PORT}" in daemon.log()
        assert "Traceback" not in daemon.log()
        daemon.close()
