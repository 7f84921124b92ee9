"""mcastd.api.program: opening a session, whose is up, and that every end is told."""

import asyncio

import pytest
from google.protobuf.duration_pb2 import Duration

from mcast.v1 import route_service_pb2 as rs
from mcastd.api.convert import RouteReader
from mcastd.api.ports import Caller
from mcastd.api.program import HOLD_MAX, Sessions, opening
from mcastd.model.errors import McastdError, Reason
from mcastd.model.record import Lease, OnExpiry
from mcastd.model.settings import Access
from mcastd.model.write import OpenSession
from mcastd.runtime.tasks import spawn
from tests import fakesession
from tests.api.waiting import until
from tests.fakesession import FakeContext, FakeDaemon, Messages, Request

ADMIN = Caller(Access.ADMIN, "local")


class Runs:
    """Sessions of one daemon."""

    def __init__(self) -> None:
        self.daemon = FakeDaemon("up", "down")
        self.sessions = Sessions(self.daemon.as_port(), RouteReader(), lambda _: [])

    def begin(self, *requests: Request) -> "tuple[asyncio.Task[None], FakeContext, Messages]":
        """One more."""
        context, messages = FakeContext(), Messages(*requests)
        return spawn(self.sessions.program(aiter(messages), context.as_context(), ADMIN), "session"), context, messages


async def reason_of(task: "asyncio.Task[None]") -> Reason:
    """Why it ends."""
    with pytest.raises(McastdError) as caught:
        await asyncio.wait_for(task, 10)
    return caught.value.reason


@pytest.mark.parametrize(
    "lease,expected",
    [
        (None, Lease(0.0, OnExpiry.RETAIN)),
        (rs.Lease(), Lease(0.0, OnExpiry.RETAIN)),
        (rs.Lease(hold_time=Duration(seconds=2, nanos=500_000_000)), Lease(2.5, OnExpiry.RETAIN)),
        (rs.Lease(on_expiry=rs.Lease.ON_EXPIRY_WITHDRAW), Lease(0.0, OnExpiry.WITHDRAW)),
        (rs.Lease(hold_time=Duration(seconds=int(HOLD_MAX))), Lease(HOLD_MAX, OnExpiry.RETAIN)),
    ],
)
def test_leases(lease: rs.Lease | None, expected: Lease) -> None:
    options, found = opening(Request(open=Request.Open(owner="sdn", epoch=3, lease=lease)), ADMIN)
    assert found == expected
    assert (options.owner, options.epoch) == ("sdn", 3)


@pytest.mark.parametrize("request_", [None, Request(), Request(sync_begin={})])
def test_a_session_begins_with_open(request_: Request | None) -> None:
    with pytest.raises(McastdError) as caught:
        opening(request_, ADMIN)
    assert caught.value.reason is Reason.NO_SESSION
    assert "open" in str(caught.value)


def test_an_owner_of_somebody_else_needs_admin() -> None:
    with pytest.raises(McastdError) as caught:
        opening(fakesession.opening("sdn"), Caller(Access.WRITE, "local"))
    assert caught.value.reason is Reason.NOT_ALLOWED


async def test_the_end_is_told_whatever_ends_it() -> None:
    runs = Runs()
    closed, _, messages = runs.begin(fakesession.opening("one"))
    messages.close()
    await asyncio.wait_for(closed, 10)
    wrong, _, _ = runs.begin(fakesession.opening("two"), Request())
    assert await reason_of(wrong) is Reason.INVALID_VALUE
    cancelled, context, _ = runs.begin(fakesession.opening("three"))
    await until(lambda: context.kinds() == ["opened"])
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert runs.daemon.ended == [("one", 1), ("two", 2), ("three", 3)]
    assert len(runs.sessions) == 0


async def test_the_end_of_one_that_is_cancelled_while_it_opens_is_told() -> None:
    """Whether it was begun by then, nobody knows."""
    runs = Runs()
    runs.daemon.gate.clear()
    task, _, _ = runs.begin(fakesession.opening("sdn"))
    await until(lambda: len(runs.daemon.begun) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert runs.daemon.ended == [("sdn", 1)]


async def test_a_new_session_ends_the_old_one() -> None:
    runs = Runs()
    old, _, _ = runs.begin(fakesession.opening("sdn", epoch=1))
    await until(lambda: len(runs.sessions) == 1)
    _, other, _ = runs.begin(fakesession.opening("other"))
    new, context, messages = runs.begin(fakesession.opening("sdn", epoch=2))
    assert await reason_of(old) is Reason.SUPERSEDED
    await until(lambda: context.kinds() == other.kinds() == ["opened"])
    assert len(runs.sessions) == 2
    messages.close()
    await asyncio.wait_for(new, 10)


async def test_of_two_that_open_at_once_the_later_one_is_up() -> None:
    runs = Runs()
    runs.daemon.gate.clear()
    first, _, _ = runs.begin(fakesession.opening("sdn"))
    second, context, messages = runs.begin(fakesession.opening("sdn"))
    await until(lambda: [type(write) for write in runs.daemon.begun] == [OpenSession, OpenSession])
    runs.daemon.gate.set()
    assert await reason_of(first) is Reason.SUPERSEDED
    await until(lambda: context.kinds() == ["opened"])
    messages.close()
    await asyncio.wait_for(second, 10)


async def test_the_servers_end_ends_all() -> None:
    runs = Runs()
    tasks = [runs.begin(fakesession.opening(owner))[0] for owner in ("one", "two")]
    await until(lambda: len(runs.sessions) == 2)
    runs.sessions.end()
    assert [await reason_of(task) for task in tasks] == [Reason.SHUTTING_DOWN] * 2
    late, _, _ = runs.begin(fakesession.opening("three"))
    assert await reason_of(late) is Reason.SHUTTING_DOWN
    assert {owner for owner, _ in runs.daemon.ended} == {"one", "two", "three"}
