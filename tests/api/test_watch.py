"""Watch and ListSources against requests that are wrong or hostile: each is answered by its name, and nobody else notices."""

import base64
from typing import Any

import grpc
import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from tests.api.bench import Bench, good, refused
from tests.e2e.view import Watching
from tests.testbed.daemon import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("api-watch")]

HUGE = 3_900_000
"""Characters; a message may have 4 MiB."""


def watch(bench: Bench, **request: Any) -> object:
    """Watch until it is refused."""
    return list(bench.view.events.Watch(sv.WatchRequest(**request), timeout=20))


@pytest.mark.parametrize(
    "field, request_",
    [
        ("kinds[0]", {"kinds": [7]}),
        ("kinds[3]", {"kinds": [1, 2, 3, -7]}),
        ("kinds", {"kinds": [1] * HUGE}),
        ("kinds", {"kinds": [77] * HUGE}),
        ("heartbeat_interval", {"heartbeat_interval": {"seconds": -1}}),
        ("heartbeat_interval", {"heartbeat_interval": {"nanos": -1}}),
        ("heartbeat_interval", {"heartbeat_interval": {"seconds": 2**63 - 1, "nanos": 2**31 - 1}}),
        ("heartbeat_interval", {"heartbeat_interval": {"seconds": -(2**63), "nanos": -(2**31)}}),
        ("sample_interval", {"kinds": [5], "sample_interval": {"seconds": -1}}),
        ("sample_interval", {"kinds": [5], "sample_interval": {}}),
        ("sample_interval", {"kinds": [5], "sample_interval": {"seconds": 2**62}}),
        ("selector.group", {"selector": t.Selector(group="x" * HUGE)}),
        ("selector.group", {"selector": t.Selector(group="239.1.1.1/-1")}),
        ("selector.source", {"selector": t.Selector(source="10.0.0.1/8/8")}),
        ("selector.interface", {"selector": t.Selector(interface="*" * HUGE)}),
        ("selector.interface", {"selector": t.Selector(interface="a b")}),
        ("selector.table", {"selector": t.Selector(table=2**32 - 1)}),
        ("selector.states", {"selector": {"states": [99]}}),
    ],
    ids=range(18),
)
def test_what_is_wrong_is_named_and_disturbs_nobody(bench: Bench, field: str, request_: dict[str, Any]) -> None:
    with Watching(bench.daemon, kinds=[sv.KIND_ROUTE]) as other:
        other.until(lambda view: view.synced)
        found = refused(lambda: watch(bench, **request_))
        assert found.code is grpc.StatusCode.INVALID_ARGUMENT
        assert found.metadata["field"] == field
        assert set(found.fields) == {field}
        assert len(found.message) < 1000, "it is not sent back whole"
        if field.startswith("selector"):
            request = sv.ListSourcesRequest(selector=request_["selector"])
            if field != "selector.states":
                assert refused(lambda: list(bench.view.events.ListSources(request, timeout=20))).metadata["field"] == field
        bench.admin.put(good())
        other.until(lambda view: len(view.of("route")) == 1)
        assert len(bench.admin.status().subscribers) == 1


@pytest.mark.parametrize(
    "token", ["x" * HUGE, "A" * HUGE, base64.b64encode(bytes(range(256)) * 100).decode(), "\0", "\N{PILE OF POO}", "A" * 76]
)
def test_any_token_is_answered(bench: Bench, token: str) -> None:
    bench.admin.put(good())
    with Watching(bench.daemon, kinds=[sv.KIND_ROUTE], resume_token=token) as watching:
        watching.until(lambda view: view.synced)
        assert (watching.view.resets, len(watching.view.of("route"))) == (1, 1)
        assert len(watching.view.token) < 100


def test_kinds_may_be_named_twice(bench: Bench) -> None:
    bench.admin.put(good())
    with Watching(bench.daemon, kinds=[sv.KIND_ROUTE] * 5) as watching:
        watching.until(lambda view: view.synced)
        assert watching.view.events == 1


def test_a_request_that_is_no_watch_request(bench: Bench) -> None:
    stub = bench.view.channel.unary_stream("/mcast.v1.EventService/Watch", bytes, bytes)
    assert refused(lambda: list(stub(b"\xff" * 100, timeout=10))).code is not grpc.StatusCode.OK
    assert not bench.admin.status().subscribers


def test_hundreds_that_come_and_go_at_once_leave_nothing(bench: Bench) -> None:
    bench.admin.put(good())
    for _ in range(5):
        calls = [bench.view.events.Watch(sv.WatchRequest()) for _ in range(100)]
        for call in calls[::2]:
            next(iter(call))
        for call in calls:
            call.cancel()  # type: ignore[no-untyped-call] # The stubs lack its type.
    wait_until(lambda: not bench.admin.status().subscribers, 20)
