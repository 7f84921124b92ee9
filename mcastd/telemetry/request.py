"""HTTP/1.1 requests and responses as values, and the reading of a request's head (RFC 9112); no sockets here."""

import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

HEAD_MAX = 16_384
"""Bytes of request line and headers."""

PHRASES: Mapping[int, str] = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}

_LINE = re.compile(r"([!-~]+) ([!-~]+) HTTP/(\d)\.(\d)")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")

_ABSOLUTE = re.compile(r"^https?://[^/?]+(?=[/?])", re.IGNORECASE)

PLAIN = "text/plain; charset=utf-8"


@dataclass(slots=True)
class Response:
    """What is answered: at once, or as pieces that are made while they are sent.

    A generator of pieces waits for nothing between two of them: it only lets others run.
    """

    status: int
    content: bytes | AsyncGenerator[bytes, None]
    content_type: str = PLAIN
    headers: dict[str, str] = field(default_factory=dict)


class BadRequest(ValueError):  # noqa: N818 - the name of the status
    """A request that is refused before anybody looks at what it wants; the connection is of no use afterwards."""

    def __init__(self, status: int, text: str) -> None:
        """Refuse with this status, saying so."""
        super().__init__(text)
        self.response = Response(status, f"{text}\n".encode())


@dataclass(frozen=True, slots=True)
class Request:
    """What a client wants."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    """By name in lower case; those that came more than once joined by commas."""
    http10: bool
    """Whether it knows neither chunks nor connections that stay."""

    @property
    def keep_alive(self) -> bool:
        """Whether the connection is to stay."""
        return not self.http10 and "close" not in self.headers.get("connection", "").lower()


def parse(head: bytes) -> Request:
    """A request from its head, the empty line included; raises BadRequest."""
    first, *lines = head.decode("latin-1").lstrip("\r\n").removesuffix("\r\n\r\n").split("\r\n")
    found = _LINE.fullmatch(first)
    if found is None:
        raise BadRequest(400, "that is no HTTP request")
    if found[3] != "1":
        raise BadRequest(505, "HTTP/1.1 is spoken here")
    headers: dict[str, str] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise BadRequest(400, "that is no HTTP header")
        name = header[1].lower()
        headers[name] = f"{headers[name]}, {header[2]}" if name in headers else header[2]
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise BadRequest(413, "no request here has a body")
    # A proxy's form names scheme and host as well (RFC 9112 section 3.2.2).
    path, _, query = _ABSOLUTE.sub("", found[2]).partition("?")
    try:
        parameters = parse_qs(query, keep_blank_values=True, max_num_fields=1000)
    except ValueError as exc:
        raise BadRequest(400, "the query has too many parameters") from exc
    return Request(found[1], path, parameters, headers, found[4] == "0")
