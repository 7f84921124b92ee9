"""mcastd.api.session: what is under way, what waits, and how a session ends when the client or somebody else ends it."""

import asyncio

import pytest

from mcast.v1 import types_pb2 as t
from mcastd.api import session as module
from mcastd.api.convert import RouteReader
from mcastd.api.ops import OpReader
from mcastd.api.session import WRITES_MAX, Session
from mcastd.model.errors import McastdError, Reason
from mcastd.model.record import Lease, OnExpiry
from mcastd.model.write import BeginSync, EndSync, OpenSession, Program, PutRoutes, WriteOptions
from mcastd.runtime.tasks import spawn
from tests.api.waiting import until
from tests.fakerouter import route, sg
from tests.fakesession import FakeContext, FakeDaemon, Messages, Request, batch

SDN = WriteOptions("sdn", epoch=5)
OVER = McastdError(Reason.SUPERSEDED, "another leads", by=6, owner="sdn")


def puts(first: int, count: int = 1) -> Request:
    """A batch of so many puts."""
    ops = [
        Request.Op(
            id=n, put=t.Route(group=f"239.0.{n >> 8}.{n & 255}", source="10.0.0.1", iif="up", oifs=[t.Oif(interface="down")])
        )
        for n in range(first, first + count)
    ]
    return batch(*ops)


class Run:
    """A session that runs."""

    def __init__(self, *requests: Request) -> None:
        self.daemon = FakeDaemon("up", "down")
        self.daemon.router.write(OpenSession(SDN, 1, Lease(0.0, OnExpiry.RETAIN)))
        self.context = FakeContext()
        self.messages = Messages(*requests)
        ops = OpReader(RouteReader(), lambda _: [], "sdn")
        self.session = Session(self.daemon.as_port(), SDN, 1, ops, self.context.as_context())
        self.task = spawn(self.session.run(aiter(self.messages), 1), "session")

    def acked(self) -> list[int]:
        """Ids that were acknowledged."""
        return [one.ack.acked_through for one in self.context.said if one.HasField("ack")]

    async def end(self) -> None:
        """Close, and wait for the end."""
        self.messages.close()
        await asyncio.wait_for(self.task, 10)

    async def refused(self) -> Reason:
        """Why it ends."""
        with pytest.raises(McastdError) as caught:
            await asyncio.wait_for(self.task, 10)
        return caught.value.reason


async def test_answers_come_in_the_order_of_messages() -> None:
    run = Run(puts(1), Request(sync_begin={}), puts(2), Request(sync_end={}), puts(3, 2))
    await run.end()
    assert run.context.kinds() == ["opened", "ack", "ack", "synced", "ack"]
    assert run.acked() == [1, 2, 4]
    assert [type(write) for write in run.daemon.begun] == [Program, BeginSync, Program, EndSync, Program]


async def test_a_large_batch_is_done_in_slices() -> None:
    run = Run(puts(1, 2500))
    await run.end()
    assert run.acked() == [1000, 2000, 2500]


async def test_what_is_under_way_is_bounded() -> None:
    run = Run()
    run.daemon.gate.clear()
    run.messages.say(*(puts(n) for n in range(1, 41)))
    await until(lambda: len(run.daemon.begun) == WRITES_MAX)
    await asyncio.sleep(0.05)
    assert (len(run.daemon.begun), run.messages.unread()) == (WRITES_MAX, 40 - WRITES_MAX - 1)
    run.daemon.gate.set()
    await run.end()
    assert run.acked() == list(range(1, 41))


async def test_operations_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPS_MAX", 100)
    run = Run()
    run.daemon.gate.clear()
    run.messages.say(puts(1, 60), puts(61, 60), puts(121, 300))
    await until(lambda: len(run.daemon.begun) == 1)
    await asyncio.sleep(0.05)
    assert len(run.daemon.begun) == 1
    run.daemon.gate.set()
    await run.end()
    assert run.acked() == [60, 120, 420], "a batch larger than the bound is done alone"


async def test_the_end_of_a_replay_waits_for_what_came_before() -> None:
    run = Run()
    run.daemon.gate.clear()
    run.messages.say(Request(sync_begin={}), puts(1), Request(sync_end={}))
    await until(lambda: len(run.daemon.begun) == 2)
    await asyncio.sleep(0.05)
    assert [type(write) for write in run.daemon.begun] == [BeginSync, Program]
    run.daemon.gate.set()
    await run.end()
    assert run.context.kinds() == ["opened", "ack", "synced"]


async def test_a_replay_that_could_not_begin_does_not_end() -> None:
    run = Run()
    run.daemon.refusal = McastdError(Reason.STORE_UNAVAILABLE, "the disk is full")
    run.messages.say(Request(sync_begin={}), puts(1), Request(sync_end={}))
    await run.end()
    assert run.context.said[-1].synced.error.reason == "STORE_UNAVAILABLE"
    assert EndSync not in map(type, run.daemon.begun)


async def test_what_failed_before_a_replay_is_none_of_its_business() -> None:
    run = Run()
    run.daemon.refusal = McastdError(Reason.STORE_UNAVAILABLE, "the disk is full")
    run.messages.say(puts(1), Request(sync_begin={}), Request(sync_end={}))
    await run.end()
    assert not run.context.said[-1].synced.HasField("error")


@pytest.mark.parametrize("reason", [Reason.SUPERSEDED, Reason.SHUTTING_DOWN])
async def test_it_is_ended_after_what_was_read_is_answered(reason: Reason) -> None:
    run = Run(puts(1))
    run.daemon.gate.clear()
    await until(lambda: len(run.daemon.begun) == 1)
    run.session.stop(McastdError(reason, "over"))
    run.messages.say(puts(2))
    await asyncio.sleep(0.05)
    run.daemon.gate.set()
    assert await run.refused() is reason
    assert run.acked() == [1]
    assert len(run.daemon.begun) == 1


async def test_it_is_ended_before_it_has_read_anything() -> None:
    run = Run(puts(1))
    run.session.stop(OVER)
    assert await run.refused() is Reason.SUPERSEDED
    assert run.context.kinds() == ["opened"]


async def test_it_is_ended_while_it_waits_for_room() -> None:
    run = Run()
    run.daemon.gate.clear()
    run.messages.say(*(puts(n) for n in range(1, 41)))
    await until(lambda: len(run.daemon.begun) == WRITES_MAX)
    run.session.stop(OVER)
    run.daemon.gate.set()
    assert await run.refused() is Reason.SUPERSEDED
    assert run.acked() == list(range(1, WRITES_MAX + 1))


async def test_the_first_reason_counts() -> None:
    run = Run()
    run.session.stop(OVER)
    run.session.stop(McastdError(Reason.SHUTTING_DOWN, "over"))
    assert await run.refused() is Reason.SUPERSEDED


async def test_who_does_not_read_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    run = Run()
    await until(lambda: run.context.kinds() == ["opened"])
    run.context.reads.clear()
    run.messages.say(puts(1))
    assert await run.refused() is Reason.SLOW_CONSUMER


async def test_who_does_not_read_does_not_hold_up_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_PATIENCE", 0.05)
    run = Run()
    await until(lambda: run.context.kinds() == ["opened"])
    run.context.reads.clear()
    run.messages.say(puts(1))
    await until(lambda: len(run.daemon.begun) == 1)
    await asyncio.sleep(0.01)
    run.session.stop(OVER)
    assert await run.refused() is Reason.SUPERSEDED


async def test_a_client_that_is_gone_ends_it_without_a_word() -> None:
    run = Run()
    await until(lambda: run.context.kinds() == ["opened"])
    run.context.gone = True
    run.messages.say(puts(1), puts(2))
    await asyncio.wait_for(run.task, 10)
    assert run.context.kinds() == ["opened"]


async def test_a_later_leader_is_told_as_one() -> None:
    run = Run()
    await until(lambda: run.context.kinds() == ["opened"])
    run.daemon.router.write(PutRoutes(WriteOptions("sdn", epoch=9), [route(sg(900), "up", "down", owner="sdn")]))
    run.messages.say(puts(1))
    with pytest.raises(McastdError) as caught:
        await asyncio.wait_for(run.task, 10)
    assert caught.value.reason is Reason.SUPERSEDED
    assert caught.value.problem.metadata == {"by": "9", "owner": "sdn"}


async def test_cancelling_it_cancels_what_was_not_begun() -> None:
    run = Run(puts(1))
    run.daemon.gate.clear()
    await until(lambda: len(run.daemon.begun) == 1)
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    run.daemon.gate.set()
    assert run.daemon.engine.desired.entries.get("sdn", 0) == 0
