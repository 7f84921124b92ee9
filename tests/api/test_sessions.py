"""ProgramRoutes on a kernel in memory: opening, operations and acks, order, replays, what ends a session."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from mcastd.api.session import WRITES_MAX
from mcastd.model.address import Family, exact_key, pack_address
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import Access
from mcastd.runtime.executor import INLINE
from mcastd.runtime.tasks import cancel, spawn
from tests.api.bench import good, key_of
from tests.api.rig import Rig, refused, running
from tests.api.talk import Op, Request, Talk
from tests.api.waiting import until

FAMILIES = pytest.mark.parametrize("family", [4, 6])


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(Rig(tmp_path, routes_max=20_000)) as made:
        yield made


async def opened(rig: Rig, owner: str = "sdn", epoch: int = 0, **lease: Any) -> Talk:
    """A session that is up."""
    talk = Talk(rig.routes)
    await talk.open(owner, epoch, **lease)
    return talk


async def owner_of(rig: Rig, name: str = "sdn") -> sv.Owner:
    """What GetStatus says of an owner."""
    status = await rig.status.GetStatus(sv.GetStatusRequest())
    return next((one for one in status.owners if one.name == name), sv.Owner())


async def orphaned(rig: Rig, name: str = "sdn") -> None:
    """Wait until an owner has no session."""
    await until(lambda: rig.engine.desired.owners[name].session == 0)


def groups(routes: list[t.Route]) -> set[str]:
    """Their groups."""
    return {one.group for one in routes}


def held(seconds: float) -> Duration:
    """A duration."""
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


# --- opening ---------------------------------------------------------------------------------------------------------


async def test_the_answer_to_open_says_what_the_owner_has(rig: Rig) -> None:
    await rig.put(good(1), good(2, 6), owner="sdn", epoch=7)
    answer = await Talk(rig.routes).open("sdn", 0)
    assert (answer.owner, answer.epoch, answer.entries) == ("sdn", 7, 2)
    assert answer.instance_id == rig.daemon.info.instance_id
    assert answer.revision == rig.engine.visible_revision


async def test_the_owner_is_the_callers_own_unless_it_says_so(rig: Rig) -> None:
    assert (await Talk(rig.routes).open()).owner == "local"


async def test_epoch_and_lease_are_kept(rig: Rig) -> None:
    await opened(rig, "sdn", 2**64 - 1, hold_time=held(120.5), on_expiry=rs.Lease.ON_EXPIRY_WITHDRAW)
    owner = await owner_of(rig)
    assert (owner.epoch, owner.connected, owner.HasField("hold_until")) == (2**64 - 1, True, False)
    assert owner.lease == rs.Lease(hold_time=held(120.5), on_expiry=rs.Lease.ON_EXPIRY_WITHDRAW)


async def test_no_lease_retains(rig: Rig) -> None:
    talk = await opened(rig)
    assert (await owner_of(rig)).lease == rs.Lease(hold_time=held(0), on_expiry=rs.Lease.ON_EXPIRY_RETAIN)
    await talk.program(good(1))
    await talk.close()
    await orphaned(rig)
    owner = await owner_of(rig)
    assert (owner.connected, owner.entries, owner.stale) == (False, 1, 1)
    assert owner.HasField("hold_until")


@pytest.mark.parametrize("request_", [Request(batch=Request.Batch()), Request(sync_begin={}), Request(sync_end={}), Request()])
async def test_the_first_message_is_open(rig: Rig, request_: Request) -> None:
    talk = Talk(rig.routes)
    await talk.call.write(request_)
    found = await talk.ended()
    assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_SESSION")
    assert "send open" in found.message
    assert found.metadata["value"] == (request_.WhichOneof("request") or "nothing")


async def test_a_stream_of_nothing_is_no_session(rig: Rig) -> None:
    talk = Talk(rig.routes)
    await talk.call.done_writing()
    assert (await talk.ended()).reason == "NO_SESSION"


@pytest.mark.parametrize(
    "lease,field",
    [
        (rs.Lease(hold_time=Duration(seconds=-1)), "open.lease.hold_time"),
        (rs.Lease(hold_time=Duration(nanos=-1)), "open.lease.hold_time"),
        (rs.Lease(hold_time=Duration(nanos=1_000_000_000)), "open.lease.hold_time"),
        (rs.Lease(hold_time=Duration(seconds=366 * 86_400)), "open.lease.hold_time"),
        (rs.Lease(hold_time=Duration(seconds=2**63 - 1)), "open.lease.hold_time"),
        (rs.Lease(on_expiry=9), "open.lease.on_expiry"),  # type: ignore[arg-type]
    ],
)
async def test_a_lease_that_cannot_be_is_refused(rig: Rig, lease: rs.Lease, field: str) -> None:
    talk = Talk(rig.routes)
    await talk.say(open=Request.Open(owner="sdn", lease=lease))
    found = await talk.ended()
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE")
    assert found.metadata["field"] == field
    assert found.metadata["value"]
    assert (await owner_of(rig)).name == ""


@pytest.mark.parametrize("owner", ["config", "kernel", "UPPER", "a" * 64])
async def test_an_owner_that_cannot_be_is_refused(rig: Rig, owner: str) -> None:
    talk = Talk(rig.routes)
    await talk.say(open=Request.Open(owner=owner))
    found = await talk.ended()
    assert (found.reason, found.metadata["field"], found.metadata["value"]) == ("INVALID_VALUE", "open.owner", owner)


async def test_another_owner_needs_admin(tmp_path: Path) -> None:
    async with running(Rig(tmp_path, access=Access.WRITE)) as rig:
        assert (await Talk(rig.routes).open("local")).owner == "local"
        talk = Talk(rig.routes)
        await talk.say(open=Request.Open(owner="sdn"))
        found = await talk.ended()
        assert (found.reason, found.metadata) == ("NOT_ALLOWED", {"need": "admin", "have": "write"})
        assert "open.owner 'sdn'" in found.message


# --- operations ------------------------------------------------------------------------------------------------------


@FAMILIES
async def test_what_was_acked_is_in_the_kernel(rig: Rig, family: int) -> None:
    talk = await opened(rig)
    patch = t.RoutePatch(key=key_of(good(1, family)), add_oifs=[t.Oif(interface="down2")])
    assert await talk.program(good(1, family), good(2, family), patch, key_of(good(2, family)), key_of(good(3, family))) == []
    (listed,) = await rig.listed()
    assert (listed.status.owner, sorted(listed.status.installed_oifs)) == ("sdn", ["down1", "down2"])
    assert len(rig.entries()) == 1
    await talk.close()
    assert len(rig.entries()) == 1


async def test_a_batch_of_nothing_is_acked(rig: Rig) -> None:
    talk = await opened(rig)
    assert await talk.program() == []
    await talk.program(good(1))
    await talk.batch()
    ack = (await talk.hear()).ack
    assert (ack.acked_through, ack.revision) == (1, rig.engine.visible_revision)


async def test_a_malformed_op_disturbs_no_other(rig: Rig) -> None:
    talk = await opened(rig)
    bad = t.Route(group="10.0.0.1", source="10.0.0.2", iif="up")
    found = await talk.program(
        bad,
        good(1),
        good(2, 4, cookie="x" * 65),
        good(3),
        t.RoutePatch(key=key_of(good(1)), add_oifs=[t.Oif(interface="")]),
        t.RouteKey(group="nonsense"),
        t.RoutePatch(key=key_of(good(9))),
        good(4, 6),
        t.Route(),
    )
    assert [(one.id, one.error.reason) for one in found] == [
        (1, "INVALID_GROUP"),
        (3, "INVALID_VALUE"),
        (5, "INVALID_INTERFACE"),
        (6, "INVALID_GROUP"),
        (7, "NOT_FOUND"),
        (9, "INVALID_GROUP"),
    ]
    fields = {one.id: one.error.metadata["field"] for one in found if "field" in one.error.metadata}
    assert fields[1] == "batch.ops[0].put.group"
    assert fields[3] == "batch.ops[2].put.cookie"
    assert fields[5].startswith("batch.ops[4].patch.add_oifs")
    assert fields[6] == "batch.ops[5].delete.group"
    assert groups(await rig.listed()) == {good(1).group, good(3).group, good(4, 6).group}
    await talk.close()


@FAMILIES
async def test_what_is_not_programmed_is_told(rig: Rig, family: int) -> None:
    talk = await opened(rig)
    prefix = "239.7.0.0/16" if family == 4 else "ff3e:7::/32"
    ops = [good(1, family), good(2, family, "down1", "absent0"), good(3, family), t.Route(group=prefix, iif="up")]
    ops[2].iif = "absent0"
    found = await talk.program(*ops)
    states = {one.id: t.RouteState.Name(one.after.status.state) for one in found}
    assert states == {2: "ROUTE_STATE_PARTIAL", 3: "ROUTE_STATE_PENDING", 4: "ROUTE_STATE_TEMPLATE"}
    assert [one.after.status.last_error.reason for one in found] == ["NO_SUCH_INTERFACE", "NO_SUCH_INTERFACE", ""]
    assert not any(one.HasField("error") for one in found), "they have not failed, they wait (RouteChange.error)"
    assert [one.action for one in found] == [rs.RouteChange.ACTION_CREATE] * 3
    again = await talk.program(*ops)
    assert {one.id - 4: t.RouteState.Name(one.after.status.state) for one in again} == states
    assert [one.action for one in again] == [rs.RouteChange.ACTION_NONE] * 3


@FAMILIES
async def test_what_the_kernel_refuses_is_told(rig: Rig, family: int) -> None:
    talk = await opened(rig)
    wanted = exact_key(0, pack_address(good(2, family).group), pack_address(good(2, family).source))
    rig.kernel.refuse("add_mfc", errno.ENOMEM, 1, lambda subject: subject == wanted)
    (found,) = await talk.program(good(1, family), good(2, family), good(3, family))
    assert (found.id, found.error.reason, found.after.status.state) == (2, "KERNEL_ERROR", t.ROUTE_STATE_FAILED)
    assert await talk.program(good(2, family)) == []


async def test_only_the_last_word_about_a_route_counts(rig: Rig) -> None:
    talk = await opened(rig)
    assert await talk.program(good(1, 4, "absent0"), good(1), key_of(good(1)), good(1, 4, "down2")) == []
    (listed,) = await rig.listed()
    assert list(listed.status.installed_oifs) == ["down2"]


async def test_routes_of_others_are_left_alone(rig: Rig) -> None:
    await rig.put(good(1), owner="other")
    talk = await opened(rig)
    (found,) = await talk.program(good(1, 4, "down2"), good(2))
    assert (found.id, found.error.reason, found.error.metadata["owner"]) == (1, "OWNED_BY_OTHER", "other")


@pytest.mark.parametrize("ids", [(0,), (5, 5), (5, 4), (1, 2, 3, 2), (7, 2**64 - 1, 1)])
async def test_ids_grow(rig: Rig, ids: tuple[int, ...]) -> None:
    talk = await opened(rig)
    await talk.say(batch=Request.Batch(ops=[Op(id=number, put=good(at)) for at, number in enumerate(ids, 1)]))
    found = await talk.ended()
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE")
    assert (found.metadata["field"], found.metadata["value"]) == (f"batch.ops[{len(ids) - 1}].id", str(ids[-1]))
    assert "above" in found.message
    assert await rig.listed() == []
    await orphaned(rig)


async def test_ids_grow_from_batch_to_batch_and_what_came_before_is_acked(rig: Rig) -> None:
    talk = await opened(rig)
    await talk.say(batch=Request.Batch(ops=[Op(id=10, put=good(1))]))
    await talk.say(batch=Request.Batch(ops=[Op(id=10, put=good(2))]))
    assert (await talk.hear()).ack.acked_through == 10
    found = await talk.ended()
    assert (found.metadata["field"], found.reason) == ("batch.ops[0].id", "INVALID_VALUE")
    assert "above 10" in found.message
    assert groups(await rig.listed()) == {good(1).group}


@pytest.mark.parametrize(
    "request_,field,words",
    [
        (Request(), "request", "say one of"),
        (Request(open=Request.Open(owner="sdn")), "request", "open already"),
        (Request(batch=Request.Batch(ops=[Op(id=1)])), "batch.ops[0].op", "put, patch and delete"),
        (Request(batch=Request.Batch(ops=[Op(id=n) for n in range(1, 10_002)])), "batch.ops", "10001"),
        (Request(sync_end={}), "request", "sync_begin"),
    ],
)
async def test_what_is_not_the_protocol_ends_the_session(rig: Rig, request_: Request, field: str, words: str) -> None:
    talk = await opened(rig)
    await talk.call.write(request_)
    found = await talk.ended()
    assert found.metadata["field"] == field
    assert words in found.message
    await orphaned(rig)


async def test_a_message_that_is_none_ends_the_session(rig: Rig) -> None:
    method: Any = rig.channel.stream_stream("/mcast.v1.RouteService/ProgramRoutes", None, None)
    call = method()
    await call.write(Request(open=Request.Open(owner="sdn")).SerializeToString())
    await call.read()
    await call.write(b"\xff\xff\xff")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await orphaned(rig)


# --- keys that depend on what came before ----------------------------------------------------------------------------


@FAMILIES
async def test_a_key_without_iif_means_the_template_as_of_its_turn(rig: Rig, family: int) -> None:
    talk = await opened(rig)
    prefix = "239.7.0.0/16" if family == 4 else "ff3e:7::/32"
    one, other = t.Route(group=prefix, iif="up"), t.Route(group=prefix, iif="down1", oifs=[t.Oif(interface="down2")])
    any_iif = t.RouteKey(group=prefix)
    patch = t.RoutePatch(key=any_iif, add_oifs=[t.Oif(interface="down2")])
    found = await talk.program(one, patch, other, any_iif, t.RouteKey(group=prefix, iif="up"), any_iif)
    assert {one.id: one.error.reason for one in found if one.HasField("error")} == {4: "AMBIGUOUS"}
    assert await rig.listed() == []
    assert len(found) == 4, "put, patch, put: templates; ambiguous"


# --- speed, order, back-pressure -------------------------------------------------------------------------------------


def many(first: int) -> list[t.Route]:
    """So many routes that they are programmed in a thread, which a test can hold back."""
    return [good(n) for n in range(first, first + 2 * INLINE)]


async def held_back(rig: Rig) -> tuple[Talk, threading.Event]:
    """A session with a route, and what lets the kernel go on."""
    talk = await opened(rig)
    await talk.program(good(1))
    gate = rig.mroutes[Family.IPV4].gate
    gate.clear()
    return talk, gate


async def test_batches_are_read_while_earlier_ones_are_on_their_way(rig: Rig) -> None:
    talk, gate = await held_back(rig)
    size = 2 * INLINE
    for number in range(10):
        await talk.batch(*many(2 + number * size))
    await until(lambda: len(rig.engine.desired.routes) == 1 + 10 * size)
    reading = spawn(talk.hear(), "read")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(reading), 0.2)
    gate.set()
    assert (await reading).ack.acked_through == 1 + size
    assert await talk.acked(1 + 10 * size) == []


async def test_what_is_under_way_is_bounded(rig: Rig) -> None:
    talk, gate = await held_back(rig)
    size = 2 * INLINE
    for number in range(100):
        await talk.batch(*many(2 + number * size))
    await until(lambda: len(rig.engine.desired.routes) == 1 + WRITES_MAX * size)
    await asyncio.sleep(0.2)
    assert len(rig.engine.desired.routes) == 1 + WRITES_MAX * size
    gate.set()
    assert await talk.acked(1 + 100 * size) == []


async def test_a_long_list_of_exceptions_comes_in_several_acks(rig: Rig) -> None:
    talk = await opened(rig)
    routes = [good(n, 4, *(f"absent{n}-{k}" for k in range(12)), cookie="c" * 60) for n in range(1, 4001)]
    told: list[int] = []
    acks = 0
    for at in range(0, 4000, 2000):
        await talk.batch(*routes[at : at + 2000])
    while not told or told[-1] < 4000:
        ack = (await talk.hear()).ack
        acks += 1
        assert [one.id for one in ack.exceptions] == list(range((told[-1] if told else 0) + 1, ack.acked_through + 1))
        assert ack.ByteSize() < 4 << 20
        told += [one.id for one in ack.exceptions]
    assert acks >= 4


async def test_the_same_again_calls_the_kernel_for_nothing(rig: Rig) -> None:
    talk = await opened(rig)
    routes = [good(n, family) for n in range(1, 1501) for family in (4, 6)]
    assert await talk.program(*routes) == []
    calls: list[int] = []
    for mroute in rig.mroutes.values():
        mroute.program = mroute.delete = lambda *batch: calls.append(len(batch[0]))  # type: ignore[method-assign,assignment]
    assert await talk.program(*routes) == []
    await talk.say(sync_begin={})
    assert await talk.program(*routes) == []
    synced = await talk.end_sync()
    assert (synced.deleted, synced.entries) == (0, 3000)
    assert calls == []


# --- refused as a whole ----------------------------------------------------------------------------------------------


async def test_a_full_disk_refuses_ops_and_not_the_session(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = await opened(rig)
    await talk.program(good(1), good(2))
    full(rig, monkeypatch)
    found = await talk.program(good(3), good(4))
    assert [(one.id, one.error.reason) for one in found] == [(3, "STORE_UNAVAILABLE"), (4, "STORE_UNAVAILABLE")]
    monkeypatch.undo()
    assert await talk.program(good(3)) == []
    await talk.close()


async def test_a_replay_that_was_refused_in_part_sweeps_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = await opened(rig)
    await talk.program(good(1), good(2))
    await talk.say(sync_begin={})
    await until(lambda: rig.engine.desired.stale_entries("sdn") == 2)
    full(rig, monkeypatch)
    await talk.program(good(1), good(2, 4, "down2"))
    monkeypatch.undo()
    synced = await talk.end_sync()
    assert (synced.deleted, synced.entries, synced.error.reason) == (0, 2, "STORE_UNAVAILABLE")
    assert (await owner_of(rig)).stale == 2
    await talk.say(sync_begin={})
    await talk.program(good(1))
    synced = await talk.end_sync()
    assert (synced.deleted, synced.entries, synced.HasField("error")) == (1, 1, False)


async def test_the_limit_of_routes_refuses_the_batch(tmp_path: Path) -> None:
    async with running(Rig(tmp_path, routes_max=2)) as rig:
        talk = await opened(rig)
        found = await talk.program(good(1), good(2), good(3))
        assert [one.error.reason for one in found] == ["ROUTE_LIMIT"] * 3
        assert await talk.program(good(1), good(2)) == []


def full(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the disk refuse what is written."""

    def commit(_intents: object) -> None:
        raise McastdError(Reason.STORE_UNAVAILABLE, "the disk is full")

    monkeypatch.setattr(rig.store, "commit", commit)


# --- replays ---------------------------------------------------------------------------------------------------------


@FAMILIES
async def test_a_replay_deletes_what_it_does_not_say_again(rig: Rig, family: int) -> None:
    await rig.put(good(9, family), owner="sdn")
    talk = await opened(rig)
    await talk.program(*(good(n, family) for n in range(1, 5)))
    assert (await owner_of(rig)).stale == 0
    await talk.say(sync_begin={})
    await until(lambda: rig.engine.desired.stale_entries("sdn") == 4)
    assert {one.group for one in await rig.listed() if one.status.stale} == {good(n, family).group for n in range(1, 5)}
    patch = t.RoutePatch(key=key_of(good(2, family)), add_oifs=[t.Oif(interface="down2")])
    await talk.program(good(1, family), patch, good(5, family))
    assert (await owner_of(rig)).stale == 2
    synced = await talk.end_sync()
    assert (synced.deleted, synced.entries, synced.HasField("error")) == (2, 4, False)
    listed = await rig.listed()
    assert groups(listed) == {good(n, family).group for n in (1, 2, 5, 9)}
    assert not any(one.status.stale for one in listed)
    assert len(rig.entries()) == 4


async def test_the_guard_of_a_replay_keeps_what_it_would_delete(rig: Rig) -> None:
    talk = await opened(rig)
    await talk.program(*(good(n) for n in range(1, 5)))
    await talk.say(sync_begin={})
    await talk.program(good(1))
    synced = await talk.end_sync(2)
    assert (synced.deleted, synced.entries, synced.error.reason) == (0, 4, "TOO_MANY_DELETIONS")
    assert dict(synced.error.metadata) == {"would": "3", "max": "2"}
    assert (await owner_of(rig)).stale == 3
    await talk.program(good(2))
    synced = await talk.end_sync(2)
    assert (synced.deleted, synced.entries) == (2, 2)


async def test_a_replay_can_begin_anew(rig: Rig) -> None:
    talk = await opened(rig)
    await talk.program(good(1), good(2))
    await talk.say(sync_begin={})
    await talk.program(good(1))
    await talk.say(sync_begin={})
    await talk.program(good(2))
    assert (await talk.end_sync()).deleted == 1
    assert groups(await rig.listed()) == {good(2).group}


async def test_a_replay_takes_its_turn_among_the_ops(rig: Rig) -> None:
    talk = await opened(rig)
    await talk.batch(good(1))
    await talk.say(sync_begin={})
    await talk.batch(good(2))
    await talk.say(sync_end=Request.SyncEnd())
    await talk.batch(good(3))
    answers = [await talk.hear() for _ in range(4)]
    assert [one.WhichOneof("response") for one in answers] == ["ack", "ack", "synced", "ack"]
    assert answers[2].synced.deleted == 1
    assert groups(await rig.listed()) == {good(2).group, good(3).group}


async def test_those_who_watch_hear_of_what_is_stale(rig: Rig) -> None:
    stale: dict[str, bool] = {}

    async def follow() -> None:
        stub = sv_grpc.EventServiceStub(rig.channel)
        async for message in stub.Watch(sv.WatchRequest(kinds=[sv.KIND_ROUTE])):
            stale.update((event.route.group, event.route.status.stale) for event in message.events)

    following = spawn(follow(), "watch")
    talk = await opened(rig)
    await talk.program(good(1), good(2, 6))
    one, two = good(1).group, good(2, 6).group
    await until(lambda: stale == {one: False, two: False})
    await talk.say(sync_begin={})
    await until(lambda: stale == {one: True, two: True})
    await talk.program(good(1))
    await until(lambda: stale == {one: False, two: True})
    await talk.close()
    await until(lambda: stale == {one: True, two: True})
    talk = await opened(rig)
    await until(lambda: stale == {one: False, two: True})
    await talk.close()
    await cancel(following)


# --- ends ------------------------------------------------------------------------------------------------------------


async def test_an_end_in_order_comes_after_all_acks(rig: Rig) -> None:
    talk = await opened(rig)
    for n in range(1, 40):
        await talk.batch(good(n))
    await talk.call.done_writing()
    assert [one.ack.acked_through for one in await talk.rest()] == list(range(1, 40))
    await orphaned(rig)
    assert len(rig.entries()) == 39


async def test_a_session_that_is_cancelled_ends(rig: Rig) -> None:
    talk = await opened(rig)
    await talk.program(good(1))
    talk.call.cancel()
    await orphaned(rig)
    owner = await owner_of(rig)
    assert (owner.connected, owner.stale) == (False, 1)
    assert [one.status.stale for one in await rig.listed()] == [True]


@pytest.mark.parametrize("epochs", [(0, 0), (41, 41), (41, 42), (41, 0)])
async def test_a_new_session_ends_the_old_one_at_once(rig: Rig, epochs: tuple[int, int]) -> None:
    old = await opened(rig, "sdn", epochs[0])
    await old.program(good(1))
    new = await opened(rig, "sdn", epochs[1])
    found = await old.ended()
    assert (found.code, found.reason) == (grpc.StatusCode.ABORTED, "SUPERSEDED")
    assert found.metadata == {"by": str(max(epochs)), "owner": "sdn"}
    assert await new.program(good(2)) == []
    owner = await owner_of(rig)
    assert (owner.connected, owner.stale, owner.entries) == (True, 0, 2)
    await new.close()


async def test_a_stale_leader_cannot_open(rig: Rig) -> None:
    new = await opened(rig, "sdn", 42)
    old = Talk(rig.routes)
    await old.say(open=Request.Open(owner="sdn", epoch=41))
    found = await old.ended()
    assert (found.code, found.reason, found.metadata["highest"]) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "STALE_EPOCH",
        "42",
    )
    assert await new.program(good(1)) == []


async def test_a_unary_write_of_a_later_leader_ends_the_session(rig: Rig) -> None:
    talk = await opened(rig, "sdn", 41)
    await talk.program(good(1))
    await rig.put(good(2), owner="sdn", epoch=42)
    await talk.batch(good(3))
    found = await talk.ended()
    assert (found.code, found.reason, found.metadata["by"]) == (grpc.StatusCode.ABORTED, "SUPERSEDED", "42")
    await orphaned(rig)
    assert groups(await rig.listed()) == {good(1).group, good(2).group}


async def test_a_unary_write_of_a_stale_leader_is_refused(rig: Rig) -> None:
    await opened(rig, "sdn", 42)
    assert (await refused(rig.put(good(1), owner="sdn", epoch=41))).reason == "STALE_EPOCH"


async def test_owners_have_sessions_of_their_own(rig: Rig) -> None:
    one, other = await opened(rig, "one", 5), await opened(rig, "other", 1)
    assert await one.program(good(1)) == await other.program(good(2)) == []
    await one.close()
    await orphaned(rig, "one")
    assert await other.program(good(3)) == []
    assert {o.name: o.connected for o in (await rig.status.GetStatus(sv.GetStatusRequest())).owners} == {
        "one": False,
        "other": True,
    }


async def test_the_end_of_the_server_ends_sessions_after_their_acks(rig: Rig) -> None:
    talk, gate = await held_back(rig)
    size = 2 * INLINE
    await talk.batch(*many(2))
    await until(lambda: len(rig.engine.desired.routes) == 1 + size)
    stopping = spawn(rig.listeners.stop(5), "stop")
    await asyncio.sleep(0.05)
    gate.set()
    assert await talk.acked(1 + size) == []
    found = await talk.ended()
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    await stopping
    await orphaned(rig)
    assert len(rig.entries()) == 1 + size
