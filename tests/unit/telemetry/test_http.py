"""mcastd.telemetry.http: connections that stay, answers in pieces, and that no client holds anybody up."""

import asyncio
import gzip
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry, Counter

from mcastd.telemetry import http
from mcastd.telemetry.http import HttpServer
from mcastd.telemetry.request import HEAD_MAX, PLAIN, Request, Response
from tests.api.waiting import until

PIECE = b"x" * 999 + b"\n"


class Answer:
    """An HTTP response, taken apart."""

    def __init__(self, head: bytes, body: bytes) -> None:
        status, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        self.version, code, self.phrase = status.split(" ", 2)
        self.code = int(code)
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.body = body


async def read_answer(reader: asyncio.StreamReader, *, head: bool = False) -> Answer:
    """The next answer of a connection."""
    answer = Answer(await reader.readuntil(b"\r\n\r\n"), b"")
    if head:
        return answer
    if "content-length" in answer.headers:
        answer.body = await reader.readexactly(int(answer.headers["content-length"]))
    elif answer.headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            answer.body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
    else:
        answer.body = await reader.read()
    return answer


class Bench:
    """A server on a port of its own."""

    def __init__(self) -> None:
        self.counter = Counter("requests", "Requests.", ["code"], registry=CollectorRegistry())
        self.server = HttpServer(self.answer, requests=self.counter)
        self.port = 0
        self.pieces = 10
        self.made = 0
        self.closed = 0
        self.release = asyncio.Event()

    async def answer(self, request: Request) -> Response:
        """/small at once, /big in pieces, anything else not at all."""
        match request.path:
            case "/small":
                return Response(200, b"small\n", headers={"X-Method": request.method})
            case "/big":
                return Response(200, self.stream())
            case "/slow":
                await self.release.wait()
        return Response(404, b"not found\n")

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Pieces, counted."""
        try:
            for _ in range(self.pieces):
                self.made += 1
                yield PIECE
                await asyncio.sleep(0)
        finally:
            self.closed += 1

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def get(self, path: str, *headers: str, method: str = "GET", version: str = "1.1") -> Answer:
        """A request on a connection of its own."""
        reader, writer = await self.connect()
        writer.write("\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", "Connection: close", *headers, "", ""]).encode())
        async with asyncio.timeout(10):
            answer = await read_answer(reader, head=method == "HEAD")
            assert await ended(reader.read) == b""
        writer.close()
        return answer

    async def is_well(self) -> bool:
        """Whether it answers others."""
        return (await self.get("/small")).body == b"small\n"


@pytest.fixture
async def bench(loopback: None) -> AsyncIterator[Bench]:
    one = Bench()
    one.port = await one.server.start("127.0.0.1", 0)
    yield one
    await one.server.stop()


async def ended(read: Callable[[], Awaitable[bytes]]) -> bytes:
    """What came until the end; a reset is an end as well."""
    try:
        return await read()
    except ConnectionResetError:
        return b""


async def test_a_small_answer(bench: Bench) -> None:
    answer = await bench.get("/small")
    assert (answer.version, answer.code, answer.phrase, answer.body) == ("HTTP/1.1", 200, "OK", b"small\n")
    assert (answer.headers["content-type"], answer.headers["connection"]) == (PLAIN, "close")


async def test_pieces_become_chunks(bench: Bench) -> None:
    bench.pieces = 1000
    answer = await bench.get("/big")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body == PIECE * 1000
    assert bench.closed == 1


async def test_old_clients_get_no_chunks(bench: Bench) -> None:
    answer = await bench.get("/big", version="1.0")
    assert "transfer-encoding" not in answer.headers
    assert answer.body == PIECE * 10


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_gzip_on_demand(bench: Bench, version: str) -> None:
    bench.pieces = 1000
    answer = await bench.get("/big", "Accept-Encoding: gzip", version=version)
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(answer.body) == PIECE * 1000
    assert len(answer.body) < 20_000


async def test_a_connection_stays(bench: Bench) -> None:
    reader, writer = await bench.connect()
    for path in ("/small", "/big", "/none", "/small"):
        writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        answer = await read_answer(reader)
        assert (answer.code, answer.headers["connection"]) == (404 if path == "/none" else 200, "keep-alive")
    assert bench.server.connections == 1
    writer.close()
    await until(lambda: bench.server.connections == 0)


async def test_requests_may_come_before_their_turn(bench: Bench) -> None:
    reader, writer = await bench.connect()
    writer.write(b"GET /small HTTP/1.1\r\n\r\n" * 3)
    assert [(await read_answer(reader)).body for _ in range(3)] == [b"small\n"] * 3
    writer.close()


@pytest.mark.parametrize("path", ["/small", "/big", "/nothing"])
async def test_head_is_get_without_the_body(bench: Bench, path: str) -> None:
    get, head = await bench.get(path), await bench.get(path, method="HEAD")
    get.headers.pop("x-method", None)
    head.headers.pop("x-method", None)
    assert (head.code, head.headers, head.body) == (get.code, get.headers, b"")
    assert bench.made in {0, 10}  # for the GET alone


@pytest.mark.parametrize(
    "data,code",
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 413),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_MAX + b"\r\n\r\n", 431),
    ],
)
async def test_what_is_no_request_ends_the_connection(bench: Bench, data: bytes, code: int) -> None:
    reader, writer = await bench.connect()
    writer.write(data)
    answer = await read_answer(reader)
    assert (answer.code, answer.headers["connection"]) == (code, "close")
    assert await ended(reader.read) == b""
    writer.close()
    assert bench.counter.labels(str(code))._value.get() == 1


async def test_headers_up_to_the_limit(bench: Bench) -> None:
    assert (await bench.get("/small", "X: " + "x" * (HEAD_MAX - 200))).code == 200


async def test_a_request_in_pieces_is_one(bench: Bench) -> None:
    reader, writer = await bench.connect()
    for piece in (b"GE", b"T /sma", b"ll HTTP/1.1\r", b"\n\r", b"\n"):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.01)
    assert (await read_answer(reader)).body == b"small\n"
    writer.close()


async def test_half_a_request_is_no_answer_and_no_trace(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = await bench.connect()
    writer.write(b"GET /metrics HTT")
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    assert await bench.is_well()
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


@pytest.mark.parametrize("said", [b"", b"GET /sm"])
async def test_a_client_that_says_too_little_is_cut_off(bench: Bench, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.05)
    reader, writer = await bench.connect()
    writer.write(said)
    async with asyncio.timeout(5):
        assert await ended(reader.read) == b""
    writer.close()
    assert bench.server.connections == 0


async def test_an_idle_client_is_cut_off_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "IDLE_SECONDS", 0.1)
    reader, writer = await bench.connect()
    writer.write(b"GET /small HTTP/1.1\r\n\r\n")
    await read_answer(reader)
    async with asyncio.timeout(5):
        assert await ended(reader.read) == b""
    writer.close()


async def test_pieces_are_made_as_they_are_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 MB are more than any buffer holds: what is not taken is not made, and the generator is closed in the end."""
    monkeypatch.setattr(http, "STALL_SECONDS", 0.3)
    bench.pieces = 100_000
    _, writer = await asyncio.open_connection("127.0.0.1", bench.port, limit=1024)
    writer.write(b"GET /big HTTP/1.1\r\n\r\n")
    await until(lambda: bench.made > 0)
    assert await bench.is_well()
    await until(lambda: bench.server.connections == 0, 20)
    assert bench.made < 50_000
    assert bench.closed == 1
    writer.transport.abort()


async def test_a_client_that_hangs_up_disturbs_nobody(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.pieces = 100_000
    _, writer = await asyncio.open_connection("127.0.0.1", bench.port, limit=1024)
    writer.write(b"GET /big HTTP/1.1\r\n\r\n")
    await until(lambda: bench.made > 0)
    writer.transport.abort()
    await until(lambda: bench.server.connections == 0, 20)
    assert bench.closed == 1
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


async def test_the_scraper_says_how_long_it_waits(bench: Bench) -> None:
    reader, writer = await bench.connect()
    writer.write(b"GET /slow HTTP/1.1\r\nX-Prometheus-Scrape-Timeout-Seconds: 0.1\r\n\r\n")
    async with asyncio.timeout(5):
        assert await ended(reader.read) == b""
    writer.close()


@pytest.mark.parametrize("seconds,patience", [("5", 5), ("0", 30), ("-1", 30), ("nan", 30), ("inf", 30), ("x", 30), ("1e9", 30)])
def test_nonsense_about_time_is_ignored(seconds: str, patience: float) -> None:
    request = Request("GET", "/", {}, {"x-prometheus-scrape-timeout-seconds": seconds}, http10=False)
    assert http._patience(request) == patience


async def test_the_longest_idle_makes_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 3)
    clients = [await bench.connect() for _ in range(3)]
    for reader, writer in clients:
        writer.write(b"GET /small HTTP/1.1\r\n\r\n")
        await read_answer(reader)
    clients[0][1].write(b"GET /small HTTP/1.1\r\n\r\n")
    await read_answer(clients[0][0])
    assert await bench.is_well()
    assert await ended(clients[1][0].read) == b""
    for reader, writer in (clients[0], clients[2]):
        writer.write(b"GET /small HTTP/1.1\r\n\r\n")
        assert (await read_answer(reader)).code == 200
    for _, writer in clients:
        writer.close()


async def test_where_all_are_at_work_one_more_is_turned_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 2)
    busy = [await bench.connect() for _ in range(2)]
    for _, writer in busy:
        writer.write(b"GET /slow HTTP/1.1\r\n\r\n")
    await until(lambda: bench.server.connections == 2)
    reader, writer = await bench.connect()
    assert await ended(reader.read) == b""
    bench.release.set()
    for _, one in [*busy, (reader, writer)]:
        one.transport.abort()
    await until(lambda: bench.server.connections == 0)
    assert await bench.is_well()


async def test_the_end_does_not_wait_for_clients(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    clients = [await bench.connect() for _ in range(3)]
    clients[0][1].write(b"GET /slow HTTP/1.1\r\n\r\n")
    clients[1][1].write(b"GET /small HTTP/1.1\r\n\r\n")
    await read_answer(clients[1][0])
    await until(lambda: bench.server.connections == 3)
    async with asyncio.timeout(5):
        await bench.server.stop()
        assert [await ended(reader.read) for reader, _ in clients] == [b""] * 3
    for _, writer in clients:
        writer.close()
    with pytest.raises(ConnectionRefusedError):
        await bench.connect()
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


async def test_many_clients_at_once(bench: Bench) -> None:
    answers = await asyncio.gather(*(bench.get("/big") for _ in range(50)))
    assert {answer.body for answer in answers} == {PIECE * 10}
    assert bench.server.connections == 0


async def test_an_address_in_use_is_an_error(bench: Bench) -> None:
    second = HttpServer(bench.answer)
    with pytest.raises(OSError, match="in use"):
        await second.start("127.0.0.1", bench.port)
    await second.stop()


async def test_several_addresses_and_a_socket_that_listens_already(bench: Bench) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    bench.port = listening.getsockname()[1]
    await bench.server.take(listening)
    assert await bench.is_well()
    bench.port = await bench.server.start("127.0.0.1", 0)
    assert await bench.is_well()


async def test_who_never_finishes_asking_makes_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 3)
    slow = [await bench.connect() for _ in range(3)]
    for _, writer in slow:
        writer.write(b"GET /small HT")
    await until(lambda: bench.server.connections == 3)
    assert await bench.is_well()
    assert await ended(slow[0][0].read) == b""
    slow[2][1].write(b"TP/1.1\r\n\r\n")
    assert (await read_answer(slow[2][0])).code == 200
    for _, writer in slow:
        writer.close()


async def test_requests_that_wait_in_line_hold_nobody_up(bench: Bench) -> None:
    """Hundreds of them are read at once: between any two the loop serves others."""
    _, writer = await bench.connect()
    writer.write(b"GET /small HTTP/1.1\r\n\r\n" * 500)
    answered = bench.counter.labels("200")
    worst = 0
    while (before := int(answered._value.get())) < 500:
        await asyncio.sleep(0)
        worst = max(worst, int(answered._value.get()) - before)
    assert worst <= 2
    writer.close()


async def test_many_answers_in_pieces_take_turns(bench: Bench) -> None:
    """However many scrape, not more than one piece or two are made before others have their turn."""
    bench.pieces = 300
    answers = asyncio.gather(*(bench.get("/big") for _ in range(10)))
    await until(lambda: bench.made > 0)
    worst = 0
    while not answers.done():
        before = bench.made
        await asyncio.sleep(0)
        worst = max(worst, bench.made - before)
    assert {answer.body for answer in await answers} == {PIECE * 300}
    assert worst <= 2
