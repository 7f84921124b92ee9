"""A small HTTP server for Prometheus and probes: /metrics, /healthz, /readyz. GET and HEAD, one request a connection."""

import asyncio
import encodings.idna  # noqa: F401 - the resolver imports it for the first name (not address), when it can't be read any more
import logging
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

HEAD_MAX = 16_384
"""Bytes of request line and headers."""

TIMEOUT = 10.0
"""Seconds for a client to say what it wants, and to take the answer."""

_log = logging.getLogger(__name__)


class HttpServer:
    """Serves one registry."""

    def __init__(self, registry: CollectorRegistry, ready: Callable[[], bool]) -> None:
        """`ready` says whether the daemon serves."""
        self._registry = registry
        self._ready = ready
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; the port in use (of interest for port 0). OSError if the address can't be had."""
        self._server = await asyncio.start_server(self._serve, host or None, port, limit=HEAD_MAX)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop listening; answers under way are cut off."""
        if self._server is not None:
            self._server.close()
            for writer in self._clients:
                writer.transport.abort()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            async with asyncio.timeout(TIMEOUT):
                writer.write(await self._read_and_answer(reader))
                writer.close()
                await writer.wait_closed()  # All is sent: so a client that takes nothing is cut off too.
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as exc:
            _log.debug("an HTTP client was cut off", extra={"error": repr(exc)})
        finally:
            writer.transport.abort()
            self._clients.discard(writer)

    async def _read_and_answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(431, "text/plain", b"at most %d bytes of headers\n" % HEAD_MAX, body=True)
        return self._answer(head.decode("latin-1"))

    def _answer(self, head: str) -> bytes:
        request, _, rest = head.partition("\r\n")
        words = request.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            return _response(400, "text/plain", b"that is no HTTP request\n", body=True)
        if words[0] not in {"GET", "HEAD"}:
            return _response(405, "text/plain", b"GET and HEAD alone\n", body=True)
        body = words[0] == "GET"
        match words[1].partition("?")[0]:
            case "/metrics":
                accept = next(
                    (v.strip() for k, _, v in (h.partition(":") for h in rest.split("\r\n")) if k.lower() == "accept"), ""
                )
                encode, content_type = choose_encoder(accept)
                return _response(200, content_type, encode(self._registry), body=body)
            case "/healthz":
                return _response(200, "text/plain", b"alive\n", body=body)
            case "/readyz":
                ready = self._ready()
                return _response(200 if ready else 503, "text/plain", b"ready\n" if ready else b"not ready\n", body=body)
            case _:
                return _response(404, "text/plain", b"/metrics, /healthz or /readyz\n", body=body)


_PHRASES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


def _response(status: int, content_type: str, content: bytes, *, body: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {_PHRASES[status]}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(content)}",
        "Connection: close",
        *(["Allow: GET, HEAD"] if status == 405 else []),
        "\r\n",
    ]
    return "\r\n".join(lines).encode("latin-1") + (content if body else b"")
