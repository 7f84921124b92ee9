"""mcastd.telemetry.pages: what is answered to a path."""

import pytest

from mcastd.telemetry import pages
from mcastd.telemetry.pages import Pages
from mcastd.telemetry.request import Request, Response
from tests.fakerouter import sg
from tests.unit.telemetry.counted import Count, Scraped


class Bench:
    """Pages, asked without a network."""

    def __init__(self, *, flows_all: bool = True) -> None:
        self.ready = True
        self.scraped = Scraped("up", "down")
        self.scraped.counted.counts = {sg(1): Count(1, 2, 3)}
        self.pages = Pages(self.scraped.scraper, lambda: self.ready, flows_all=flows_all)

    async def get(self, path: str, method: str = "GET", accept: str = "", **query: str) -> tuple[Response, str]:
        """The answer, and its text."""
        parameters = {name: [value] for name, value in query.items()}
        response = await self.pages.answer(Request(method, path, parameters, {"accept": accept}, http10=False))
        if isinstance(response.content, bytes):
            return response, response.content.decode()
        return response, b"".join([part async for part in response.content]).decode()


async def test_alive_and_ready() -> None:
    bench = Bench()
    assert [(await bench.get(path))[1] for path in ("/healthz", "/readyz")] == ["alive\n", "ready\n"]
    bench.ready = False
    assert (await bench.get("/healthz"))[0].status == 200
    assert ((await bench.get("/readyz"))[0].status, (await bench.get("/readyz"))[1]) == (503, "not ready\n")


@pytest.mark.parametrize("path", ["/metrics", "/metrics/flows"])
async def test_the_format_asked_for(path: str) -> None:
    bench = Bench()
    text, body = await bench.get(path)
    assert (text.content_type, "mcastd_flow_bytes_total{" in body) == ("text/plain; version=0.0.4; charset=utf-8", True)
    form, body = await bench.get(path, accept="application/openmetrics-text")
    assert (form.content_type, body.endswith("# EOF\n")) == (
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
        True,
    )


async def test_names_restrict() -> None:
    bench = Bench()
    for path in ("/metrics", "/metrics/flows"):
        _, body = await bench.get(path, **{"name[]": "mcastd_flow_bytes_total"})
        assert body.count("\n") == 3


async def test_every_flow_is_off_unless_asked_for() -> None:
    response, body = await Bench(flows_all=False).get("/metrics/flows")
    assert (response.status, "flows_all" in body) == (404, True)


@pytest.mark.parametrize("shard", ["0/1", "3/4", "0/1024"])
async def test_shards(shard: str) -> None:
    assert (await Bench().get("/metrics/flows", shard=shard))[0].status == 200


@pytest.mark.parametrize("shard", ["", "1", "1/1", "4/4", "0/0", "-1/2", "0/1025", "a/b", "0/1/2", "0 /2"])
async def test_shards_that_are_none(shard: str) -> None:
    response, body = await Bench().get("/metrics/flows", shard=shard)
    assert (response.status, "0/4" in body) == (400, True)


async def test_head_makes_nothing() -> None:
    bench = Bench()
    assert (await bench.get("/metrics", "HEAD"))[0].status == 200
    response = await bench.pages.answer(Request("HEAD", "/metrics/flows", {}, {}, http10=False))
    assert response.status == 200
    assert bench.scraped.counted.taken == 1  # by the text that this test has asked for itself


async def test_a_kernel_that_refuses_is_told_where_nothing_else_is_to_be_had() -> None:
    bench = Bench()
    bench.scraped.counted.refuses = True
    response, body = await bench.get("/metrics/flows")
    assert (response.status, "no memory" in body) == (503, True)
    assert (await bench.get("/metrics"))[0].status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
async def test_only_get_and_head(method: str) -> None:
    response, _ = await Bench().get("/metrics", method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/metric", "/metrics/", "//metrics", "/../metrics", "*", "http://x/metrics"])
async def test_anything_else_is_not_found(path: str) -> None:
    response, body = await Bench().get(path)
    assert (response.status, "/metrics" in body) == (404, True)


async def test_the_first_page_names_the_others() -> None:
    response, body = await Bench(flows_all=False).get("/")
    assert response.content_type.startswith("text/html")
    assert all(path in body for path in ("/metrics", "/metrics/flows", "/healthz", "/readyz", "flows_all"))


async def test_too_many_who_read_every_flow_slowly_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them holds a sample of the kernel's counters."""
    monkeypatch.setattr(pages, "FLOWS_AT_ONCE", 2)
    bench = Bench()
    request = Request("GET", "/metrics/flows", {}, {}, http10=False)
    slow = [await bench.pages.answer(request) for _ in range(2)]
    response, text = await bench.get("/metrics/flows")
    assert (response.status, response.headers["Retry-After"], "try again" in text) == (503, "1", True)
    assert (await bench.get("/metrics"))[0].status == 200
    content = slow[0].content
    assert not isinstance(content, bytes)
    assert [part async for part in content]
    assert (await bench.get("/metrics/flows"))[0].status == 200
