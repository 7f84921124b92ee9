"""mcastd.telemetry.http: what it answers, and that no client holds it up."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from mcastd.telemetry import http
from mcastd.telemetry.http import HEAD_MAX, HttpServer
from tests.api.waiting import until

open_metrics: Any = openmetrics.text_string_to_metric_families  # ships no types


class Answer:
    """An HTTP response, taken apart."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        self.version, self.code, self.phrase = status.split(" ", 2)
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


class Bench:
    """A server on a port of its own."""

    def __init__(self) -> None:
        self.ready = True
        self.registry = CollectorRegistry()
        self.counter = Counter("mcastd_things", "Things, by kind.", ["kind"], registry=self.registry)
        self.counter.labels('odd "label" \\ with\nnewline').inc(3)
        self.server = HttpServer(self.registry, lambda: self.ready)
        self.port = 0

    async def send(self, data: bytes, *, half_close: bool = False) -> Answer:
        """Send a request as it is; the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return Answer(answer)

    async def get(self, path: str, *headers: str, method: str = "GET") -> Answer:
        """A well-formed request."""
        return await self.send("\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode())


@pytest.fixture(scope="module")
def loopback() -> None:
    """Where the suite runs in a namespace of its own (without root), its loopback is down at first."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        unreachable = probe.connect_ex(("127.0.0.1", 9))
    if unreachable:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@pytest.fixture
async def bench(loopback: None) -> AsyncIterator[Bench]:
    one = Bench()
    one.port = await one.server.start("127.0.0.1", 0)
    yield one
    await one.server.stop()


async def test_metrics_are_what_prometheus_reads(bench: Bench) -> None:
    answer = await bench.get("/metrics")
    assert (answer.version, answer.code, answer.phrase) == ("HTTP/1.1", "200", "OK")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert answer.headers["connection"] == "close"
    samples = {s.name: s for family in prometheus(answer.body.decode()) for s in family.samples}
    assert samples["mcastd_things_total"].value == 3
    assert samples["mcastd_things_total"].labels == {"kind": 'odd "label" \\ with\nnewline'}


@pytest.mark.parametrize("name", ["Accept", "accept", "ACCEPT"])
async def test_openmetrics_on_demand(bench: Bench, name: str) -> None:
    answer = await bench.get("/metrics", f"{name}: application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert [family.name for family in open_metrics(answer.body.decode())] == ["mcastd_things"]


async def test_a_query_is_ignored(bench: Bench) -> None:
    assert (await bench.get("/metrics?name[]=x")).code == "200"


async def test_alive_and_ready(bench: Bench) -> None:
    assert [(await bench.get(path)).body for path in ("/healthz", "/readyz")] == [b"alive\n", b"ready\n"]
    bench.ready = False
    assert (await bench.get("/healthz")).code == "200"
    answer = await bench.get("/readyz")
    assert (answer.code, answer.phrase, answer.body) == ("503", "Service Unavailable", b"not ready\n")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/nothing"])
async def test_head_is_get_without_the_body(bench: Bench, path: str) -> None:
    get, head = await bench.get(path), await bench.get(path, method="HEAD")
    assert head.body == b""
    assert (head.code, head.headers) == (get.code, get.headers)


@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/", "//metrics", "/../metrics", "*", "http://x/metrics"])
async def test_anything_else_is_not_found(bench: Bench, path: str) -> None:
    answer = await bench.get(path)
    assert answer.code == "404"
    assert b"/metrics" in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
async def test_only_get_and_head(bench: Bench, method: str) -> None:
    answer = await bench.get("/metrics", method=method)
    assert (answer.code, answer.headers["allow"]) == ("405", "GET, HEAD")


@pytest.mark.parametrize(
    "data",
    [b"\r\n\r\n", b"nonsense\r\n\r\n", b"GET /metrics\r\n\r\n", b"GET  /metrics HTTP/1.1\r\n\r\n", b"\xff\xfe\x00 a b\r\n\r\n"],
)
async def test_what_is_no_request_is_a_bad_one(bench: Bench, data: bytes) -> None:
    answer = await bench.send(data)
    assert (answer.code, answer.phrase) == ("400", "Bad Request")


async def test_headers_have_a_limit(bench: Bench) -> None:
    assert (await bench.get("/healthz", "X: " + "x" * (HEAD_MAX - 100))).code == "200"
    answer = await bench.get("/healthz", "X: " + "x" * (HEAD_MAX + 1))
    assert answer.code == "431"
    assert str(HEAD_MAX).encode() in answer.body


async def test_a_request_in_pieces_is_one(bench: Bench) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
    for piece in (b"GE", b"T /heal", b"thz HTTP/1.1\r", b"\n\r", b"\n"):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    assert b"alive" in await reader.read()
    writer.close()


async def test_half_a_request_is_no_answer_and_no_trace(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
    writer.write(b"GET /metrics HTT")
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    assert (await bench.get("/healthz")).code == "200"
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


async def test_a_client_that_says_nothing_is_cut_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
    async with asyncio.timeout(5):
        with_nothing = await ended(reader.read)
    assert with_nothing == b""
    writer.close()
    assert bench.server._clients == set()


async def test_a_large_answer_arrives_whole(bench: Bench) -> None:
    for n in range(5000):
        bench.counter.labels(f"{n}" + "x" * 1000)
    answer = await bench.get("/metrics")
    assert len(answer.body) == int(answer.headers["content-length"]) > 5_000_000


async def test_a_client_that_takes_nothing_is_cut_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 MB are more than the socket's buffers hold, so that the answer is under way until somebody gives up."""
    monkeypatch.setattr(http, "TIMEOUT", 0.2)
    for n in range(30_000):
        bench.counter.labels(f"{n}" + "x" * 1000)
    _, writer = await asyncio.open_connection("127.0.0.1", bench.port, limit=1024)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    await until(lambda: bool(bench.server._clients))
    await until(lambda: not bench.server._clients, 20)
    assert (await bench.get("/healthz")).code == "200"
    writer.transport.abort()


async def test_the_end_does_not_wait_for_clients(bench: Bench) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
    await until(lambda: bool(bench.server._clients))
    async with asyncio.timeout(5):
        await bench.server.stop()
        assert await ended(reader.read) == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", bench.port)


async def test_many_clients_at_once(bench: Bench) -> None:
    answers = await asyncio.gather(*(bench.get("/metrics") for _ in range(50)))
    assert {answer.code for answer in answers} == {"200"}
    assert bench.server._clients == set()


async def test_an_address_in_use_is_an_error(bench: Bench) -> None:
    second = HttpServer(CollectorRegistry(), lambda: True)
    with pytest.raises(OSError, match="in use"):
        await second.start("127.0.0.1", bench.port)
    await second.stop()


async def ended(read: Callable[[], object]) -> object:
    """What came until the end; a reset is an end as well."""
    try:
        return await read()  # type: ignore[misc] # of a StreamReader
    except ConnectionResetError:
        return b""
