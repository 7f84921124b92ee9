"""Pages of the metrics listener: what is answered to a path."""

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from mcastd.model.errors import McastdError
from mcastd.telemetry.exposition import Format, negotiate
from mcastd.telemetry.request import Request, Response
from mcastd.telemetry.scrape import Scraper

SHARDS_MAX = 1024

FLOWS_AT_ONCE = 16
"""Answers of every flow under way: each holds a sample of the kernel's counters until it is sent, and may be read slowly."""

_SHARD = re.compile(r"(\d{1,4})/(\d{1,4})")

_HTML = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>mcastd</title></head>
<body><h1>mcastd</h1><ul>
<li><a href="/metrics">/metrics</a>: the daemon, its tables, and the flows that carry most</li>
<li><a href="/metrics/flows">/metrics/flows</a>: every flow ({flows}); ?shard=0/4 is the first of four parts</li>
<li><a href="/healthz">/healthz</a>: the server process answers</li>
<li><a href="/readyz">/readyz</a>: the kernel holds what is wanted, and the API answers</li>
</ul></body></html>
"""


class Pages:
    """Answers requests."""

    def __init__(self, scraper: Scraper, ready: Callable[[], bool], *, flows_all: bool) -> None:
        """`ready` says whether the daemon serves; `flows_all` whether /metrics/flows is on."""
        self._scraper = scraper
        self._ready = ready
        self._flows_all = flows_all

    async def answer(self, request: Request) -> Response:
        """The answer; its pieces are made while they are sent."""
        if request.method not in {"GET", "HEAD"}:
            return Response(405, b"GET and HEAD alone\n", headers={"Allow": "GET, HEAD"})
        match request.path:
            case "/metrics" | "/metrics/flows":
                return await self._metrics(request)
            case "/healthz":
                return Response(200, b"alive\n")
            case "/readyz":
                ready = self._ready()
                return Response(200 if ready else 503, b"ready\n" if ready else b"not ready\n")
            case "/":
                text = _HTML.format(flows="on" if self._flows_all else "off: setting metrics.flows_all")
                return Response(200, text.encode(), "text/html; charset=utf-8")
            case _:
                return Response(404, b"/metrics, /metrics/flows, /healthz or /readyz\n")

    async def _metrics(self, request: Request) -> Response:
        form = negotiate(request.headers.get("accept", ""))
        names = frozenset(request.query.get("name[]", ()))
        if request.path == "/metrics":
            return await self._begin(request, form, self._scraper.metrics(form, names))
        if not self._flows_all:
            return Response(404, b"every flow is not exported: set metrics.flows_all = true in the configuration\n")
        shard = _shard(request.query.get("shard", ["0/1"])[-1])
        if shard is None:
            text = f"shard is NUMBER/COUNT with NUMBER from 0 to COUNT - 1, COUNT from 1 to {SHARDS_MAX}: 0/4, 1/4, 2/4, 3/4\n"
            return Response(400, text.encode())
        if self._scraper.under_way >= FLOWS_AT_ONCE:
            return Response(503, b"too many scrapes of every flow at once: try again\n", headers={"Retry-After": "1"})
        return await self._begin(request, form, self._scraper.every_flow(form, names, shard))

    @staticmethod
    async def _begin(request: Request, form: Format, pieces: AsyncGenerator[bytes, None]) -> Response:
        """Make the first piece before the status is sent: what can't be had fails here."""
        headers = {"Vary": "Accept, Accept-Encoding", "Cache-Control": "no-store"}
        if request.method == "HEAD":
            return Response(200, pieces, form.value, headers)  # Which are not made.
        try:
            first = await anext(pieces, b"")
        except McastdError as exc:
            return Response(503, f"{exc}\n".encode())
        return Response(200, _after(first, pieces), form.value, headers)


async def _after(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece


def _shard(text: str) -> tuple[int, int] | None:
    found = _SHARD.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= SHARDS_MAX or int(found[1]) >= int(found[2]):
        return None
    return int(found[1]), int(found[2])
