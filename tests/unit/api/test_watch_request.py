"""mcastd.api.watch_request: what a client may ask of Watch, what is taken for granted, and what is refused with its field."""

import pytest

from mcast.v1 import services_pb2 as sv
from mcastd.api import watch_request
from mcastd.model.errors import McastdError, Reason


def test_what_is_not_said() -> None:
    request = sv.WatchRequest()
    assert watch_request.kinds(request) == {sv.KIND_ROUTE, sv.KIND_INTERFACE, sv.KIND_SOURCE}
    assert watch_request.heartbeat(request) == 30


@pytest.mark.parametrize("seconds", [1.0, 2.5, 3600.0])
def test_what_is_said(seconds: float) -> None:
    request = sv.WatchRequest(kinds=[sv.KIND_JOIN, sv.KIND_UPCALL, sv.KIND_JOIN])
    request.heartbeat_interval.FromNanoseconds(int(seconds * 1e9))
    assert watch_request.kinds(request) == {sv.KIND_JOIN, sv.KIND_UPCALL}
    assert watch_request.heartbeat(request) == seconds


def test_every_kind_of_the_contract_is_known() -> None:
    kinds = [number for number in sv.Kind.values() if number]
    assert watch_request.kinds(sv.WatchRequest(kinds=kinds)) == set(kinds)  # type: ignore[arg-type] # They are numbers.


@pytest.mark.parametrize(
    "field, reason, kinds",
    [
        ("kinds[1]", Reason.INVALID_VALUE, [sv.KIND_ROUTE, 77]),
        ("kinds[0]", Reason.INVALID_VALUE, [sv.KIND_UNSPECIFIED]),
        ("kinds", Reason.TOO_MANY_ITEMS, [sv.KIND_ROUTE] * (watch_request.KINDS_MAX + 1)),
    ],
)
def test_kinds_that_are_refused(field: str, reason: Reason, kinds: list[sv.Kind]) -> None:
    with pytest.raises(McastdError) as caught:
        watch_request.kinds(sv.WatchRequest(kinds=kinds))
    assert (caught.value.reason, caught.value.problem.metadata["field"]) == (reason, field)


@pytest.mark.parametrize("nanoseconds", [0, 999_999_999, 3_600_000_000_001])
def test_a_silence_that_is_refused(nanoseconds: int) -> None:
    request = sv.WatchRequest()
    request.heartbeat_interval.FromNanoseconds(nanoseconds)
    with pytest.raises(McastdError) as caught:
        watch_request.heartbeat(request)
    assert caught.value.problem.metadata["field"] == "heartbeat_interval"
    assert "1s to 3600s" in str(caught.value)
