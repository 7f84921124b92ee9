"""A small HTTP/1.1 server for Prometheus and probes: connections that stay, answers in chunks, TLS, and limits on everything.

A client may read as slowly as it likes: pieces are made as they are taken, and who takes nothing for a while is cut off.
"""

import asyncio
import encodings.idna  # noqa: F401 - the resolver imports it for the first name (not address), when it can't be read any more
import logging
import socket
import ssl
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

from prometheus_client import Counter

from mcastd.telemetry.exposition import accepts_gzip
from mcastd.telemetry.request import HEAD_MAX, PHRASES, BadRequest, Request, Response, parse

CONNECTIONS_MAX = 128
"""At the same time; for one more, the one that has owed a request for longest goes, or the new one if all are being answered."""

HEAD_SECONDS = 10.0
"""For a client to say what it wants, once it has begun; also for the TLS handshake."""

IDLE_SECONDS = 180.0
"""Between two requests; more than the intervals at which people scrape."""

STALL_SECONDS = 10.0
"""How long a client may take nothing of an answer."""

ANSWER_SECONDS = 30.0
"""For a whole answer, where the client does not say how long it waits (X-Prometheus-Scrape-Timeout-Seconds)."""

ANSWER_SECONDS_MAX = 300.0

PIECE = 65_536
"""Bytes that are gathered before they are sent."""

_log = logging.getLogger(__name__)


class Gate(Protocol):
    """Who is let in, and how: the web configuration."""

    def tls(self) -> ssl.SSLContext | None:
        """The context of connections that are made now; None = no TLS."""

    def admits(self, peer: ssl.SSLObject | None) -> bool:
        """Whether a client with this certificate, or none, may talk at all."""

    async def check(self, request: Request) -> Response | None:
        """Why the request is refused; None = it is not."""

    def headers(self) -> dict[str, str]:
        """Headers of every answer."""


class Connection:
    """One client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: "asyncio.Task[object] | None") -> None:
        """It has said nothing yet."""
        self.reader = reader
        self.writer = writer
        self.task = task
        self.idle = True
        """Whether it is its turn: it has not asked for anything yet, or not to the end, or it has been answered."""

    async def head(self, *, first: bool) -> bytes | None:
        """The next request's head, or None at the end; TimeoutError, BadRequest if it takes too long or is too long."""
        self.idle = True
        async with asyncio.timeout(HEAD_SECONDS if first else IDLE_SECONDS):
            begin = await self.reader.read(1)
        if not begin:
            return None
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                head = begin + await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as exc:
            raise BadRequest(431, f"at most {HEAD_MAX} bytes of headers") from exc
        self.idle = False
        return head

    async def send(self, data: bytes) -> None:
        """Send; TimeoutError where the client takes nothing."""
        self.writer.write(data)
        async with asyncio.timeout(STALL_SECONDS):
            await self.writer.drain()


class HttpServer:
    """Serves pages on any number of addresses."""

    def __init__(
        self, answer: Callable[[Request], Awaitable[Response]], gate: Gate | None = None, requests: Counter | None = None
    ) -> None:
        """`answer` makes the answers; `requests` counts them by status."""
        self._answer = answer
        self._gate = gate
        self._requests = requests
        self._servers: list[asyncio.Server] = []
        self._connections: dict[Connection, None] = {}
        """Those that are idle longest come first."""
        self._turn = asyncio.Lock()
        """Answers in pieces take turns: between two pieces the loop serves everybody else, however many are scraping."""

    @property
    def connections(self) -> int:
        """Clients that are connected."""
        return len(self._connections)

    async def start(self, host: str, port: int) -> int:
        """Listen; the port in use (of interest for port 0). OSError if the address can't be had."""
        server = await asyncio.start_server(self._serve, host or None, port, limit=HEAD_MAX)
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def take(self, listening: socket.socket) -> None:
        """Serve on a socket that listens already."""
        self._servers.append(await asyncio.start_server(self._serve, sock=listening, limit=HEAD_MAX))

    async def stop(self) -> None:
        """Stop listening; answers under way are cut off."""
        for server in self._servers:
            server.close()
        tasks = [one.task for one in self._connections if one.task is not None]
        for one in list(self._connections):
            one.writer.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        self._servers = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        one = Connection(reader, writer, asyncio.current_task())
        try:
            # TLS first: nothing may be awaited before it, or its first bytes would be taken for plain text.
            context = self._gate.tls() if self._gate is not None else None
            if self._room():
                self._connections[one] = None
                if context is not None:
                    await writer.start_tls(context, ssl_handshake_timeout=HEAD_SECONDS)
                await self._talk(one)
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as exc:
            _log.debug("an HTTP client was cut off", extra={"error": repr(exc)})
        except asyncio.CancelledError:
            _log.debug("an HTTP client was cut off by the end")  # Of `stop`, which waits for this: asyncio would log an error.
        finally:
            self._connections.pop(one, None)
            writer.transport.abort()

    def _room(self) -> bool:
        """Make room for one more where there is none."""
        if len(self._connections) >= CONNECTIONS_MAX:
            idle = next((one for one in self._connections if one.idle), None)
            if idle is None:
                return False
            self._connections.pop(idle)
            idle.writer.transport.abort()
        return True

    async def _talk(self, one: Connection) -> None:
        """Answer until the client has enough."""
        one.writer.transport.set_write_buffer_limits(high=2 * PIECE)
        if self._gate is not None and not self._gate.admits(one.writer.get_extra_info("ssl_object")):
            return
        first, more = True, True
        while more:
            try:
                head = await one.head(first=first)
                if head is None:
                    return
                request = parse(head)
            except BadRequest as exc:
                await self._send(one, None, exc.response)
                await _linger(one)
                return
            first, more = False, request.keep_alive
            async with asyncio.timeout(_patience(request)):
                await self._send(one, request, await self._respond(request))
            self._connections[one] = self._connections.pop(one)  # Idle since now: the last in order.
            await asyncio.sleep(0)  # Requests that are here already are read without waiting: others have a turn between them.
        one.writer.close()
        async with asyncio.timeout(STALL_SECONDS):
            await one.writer.wait_closed()

    async def _respond(self, request: Request) -> Response:
        if self._gate is not None:
            refusal = await self._gate.check(request)
            if refusal is not None:
                return refusal
        return await self._answer(request)

    async def _send(self, one: Connection, request: Request | None, response: Response) -> None:
        if self._requests is not None:
            self._requests.labels(str(response.status)).inc()
        stays = request is not None and request.keep_alive
        headers = {"Content-Type": response.content_type, "Connection": "keep-alive" if stays else "close", **response.headers}
        if self._gate is not None:
            headers.update(self._gate.headers())
        body = request is None or request.method != "HEAD"
        content = response.content
        if isinstance(content, bytes):
            headers["Content-Length"] = str(len(content))
            await one.send(_head(response.status, headers) + (content if body else b""))
            return
        gzip = request is not None and accepts_gzip(request.headers.get("accept-encoding", ""))
        chunked = request is not None and not request.http10
        if gzip:
            headers["Content-Encoding"] = "gzip"
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        await one.send(_head(response.status, headers))
        if body:
            await _stream(one, content, self._turn, gzip=gzip, chunked=chunked)


async def _stream(
    one: Connection, content: AsyncGenerator[bytes, None], turn: asyncio.Lock, *, gzip: bool, chunked: bool
) -> None:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31) if gzip else None  # More than level 1 costs far more than it saves.
    gathered: list[bytes] = []
    size = 0

    async def flush() -> None:
        data = b"".join(gathered)
        gathered.clear()
        if data:
            await one.send(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)

    async with aclosing(content) as pieces:
        while True:
            async with turn:
                try:
                    piece = await anext(pieces)
                except StopAsyncIteration:
                    break
                data = packer.compress(piece) if packer is not None else piece
            gathered.append(data)
            size += len(data)
            if size >= PIECE:
                size = 0
                await flush()
    if packer is not None:
        gathered.append(packer.flush())
    await flush()
    if chunked:
        await one.send(b"0\r\n\r\n")


async def _linger(one: Connection) -> None:
    """End a connection of which not all was read: an answer would be lost to the reset that closing at once causes."""
    if one.writer.can_write_eof():
        one.writer.write_eof()
    async with asyncio.timeout(1.0):
        while await one.reader.read(HEAD_MAX):
            pass


def _patience(request: Request) -> float:
    """Seconds for a whole answer; a scraper that gives up is not served for longer."""
    text = request.headers.get("x-prometheus-scrape-timeout-seconds", "")
    try:
        seconds = float(text)
    except ValueError:
        return ANSWER_SECONDS
    return seconds if 0 < seconds <= ANSWER_SECONDS_MAX else ANSWER_SECONDS


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {PHRASES[status]}", *(f"{name}: {value}" for name, value in headers.items()), "\r\n"]
    return "\r\n".join(lines).encode("latin-1")
