"""mcastd.telemetry.request: heads taken apart, and refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.telemetry.request import PHRASES, BadRequest, parse


def test_a_request_taken_apart() -> None:
    found = parse(b"\r\nGET /metrics?name[]=a&name[]=b&x= HTTP/1.1\r\nHost: x\r\nACCEPT:  text/plain \r\naccept: */*\r\n\r\n")
    assert (found.method, found.path, found.http10, found.keep_alive) == ("GET", "/metrics", False, True)
    assert found.query == {"name[]": ["a", "b"], "x": [""]}
    assert found.headers == {"host": "x", "accept": "text/plain, */*"}


@pytest.mark.parametrize(
    "head,stays",
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
    ],
)
def test_who_stays(head: bytes, stays: bool) -> None:
    assert parse(head).keep_alive is stays


@pytest.mark.parametrize(
    "head,status",
    [
        (b"\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\n\r\n", 400),
        (b"\xff\xfe\x00 a b\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nno header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nfolded: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nname : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nname: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        (b"GET /?" + b"a=1&" * 2000 + b" HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_what_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(head)
    assert caught.value.response.status == status
    assert status in PHRASES


@given(st.binary())
def test_nothing_crashes_it(head: bytes) -> None:
    with suppress(BadRequest):
        assert parse(head + b"\r\n\r\n").method


@pytest.mark.parametrize(
    "target,path,query",
    [
        ("http://router:9464/metrics", "/metrics", {}),
        ("HTTPS://[::1]/metrics?name[]=a", "/metrics", {"name[]": ["a"]}),
        ("/http://x/", "/http://x/", {}),
    ],
)
def test_a_target_as_proxies_are_given_it(target: str, path: str, query: dict[str, list[str]]) -> None:
    request = parse(f"GET {target} HTTP/1.1\r\n\r\n".encode())
    assert (request.path, request.query) == (path, query)
