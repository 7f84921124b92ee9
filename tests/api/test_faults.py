"""Faults: a kernel that refuses or is slow, a disk that fails, a ceiling that is reached, an end that comes in between."""

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.api import binding
from mcastd.api.convert import RouteReader
from mcastd.model.address import Family, exact_key, pack_address
from mcastd.model.route import Route
from mcastd.model.write import Outcome, PutRoutes, SetInterface, Write, WriteOptions
from mcastd.runtime.tasks import spawn
from tests.api.bench import SOURCES, good, group, intents, key_of, stream
from tests.api.rig import Rig, refused, running
from tests.api.waiting import until


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A daemon that serves, with room for 1,000 routes."""
    async with running(Rig(tmp_path)) as one:
        yield one


def key(number: int, family: int = 4) -> bytes:
    """The key of a route of the bench, as the kernel has it."""
    return exact_key(0, pack_address(group(number, family)), pack_address(SOURCES[family]))


def refuse(rig: Rig, number: int, times: int = 1, call: str = "add_mfc") -> None:
    """Let the kernel refuse the entry of a route."""
    rig.kernel.refuse(call, errno.ENOMEM, times, lambda subject: subject == key(number))


# --- a kernel that refuses -------------------------------------------------------------------------------------------


async def test_what_the_kernel_refuses_fails_alone(rig: Rig) -> None:
    refuse(rig, 2)
    result = await rig.put(good(1), good(2), good(3))
    assert (result.created, result.failed) == (3, 1)
    (change,) = result.changes
    assert (change.id, change.error.reason, change.error.code) == (1, "KERNEL_ERROR", 13)
    assert dict(change.error.metadata) == {"errno": str(errno.ENOMEM), "call": "MRT_ADD_MFC"}
    assert group(2) in change.error.message
    states = {one.group: one.status.state for one in await rig.listed()}
    assert states == {
        group(1): t.ROUTE_STATE_PROGRAMMED,
        group(2): t.ROUTE_STATE_FAILED,
        group(3): t.ROUTE_STATE_PROGRAMMED,
    }
    failed = await rig.listed(selector=t.Selector(states=[t.ROUTE_STATE_FAILED]))
    assert [one.status.last_error.reason for one in failed] == ["KERNEL_ERROR"]


async def test_a_refused_route_is_tried_again_when_it_is_put_again(rig: Rig) -> None:
    refuse(rig, 1)
    assert (await rig.put(good(1))).failed == 1
    result = await rig.put(good(1))
    assert (result.unchanged, result.failed, list(result.changes)) == (1, 0, [])
    assert (await rig.listed())[0].status.state == t.ROUTE_STATE_PROGRAMMED


async def test_a_refused_route_is_tried_again_when_interfaces_change(rig: Rig) -> None:
    refuse(rig, 1)
    await rig.put(good(1))
    rig.link(9, "new0")
    await until(lambda: key(1) in rig.entries())
    (one,) = await rig.listed()
    assert one.status.state == t.ROUTE_STATE_PROGRAMMED
    assert not one.status.HasField("last_error")


async def test_a_vif_that_the_kernel_refuses_is_told(rig: Rig) -> None:
    rig.kernel.refuse("add_vif", errno.ENOBUFS, 1, lambda ifindex: ifindex == 2)
    result = await rig.put(good(1))
    (change,) = result.changes
    assert (result.failed, change.HasField("error"), change.after.status.state) == (0, False, t.ROUTE_STATE_PARTIAL)
    why = change.after.status.last_error
    assert (why.reason, why.metadata["call"], why.metadata["interface"]) == ("KERNEL_ERROR", "MRT_ADD_VIF", "down1")


@pytest.mark.parametrize("family", [4, 6])
async def test_all_or_nothing_undoes_what_was_done(rig: Rig, family: int) -> None:
    await rig.put(good(1, family, cookie="old"), good(2, family, "down1", "down2"))
    routes, kernel = intents(await rig.listed()), rig.entries()
    rig.kernel.refuse("add_mfc", errno.ENOMEM, 1, lambda subject: subject == key(4, family))
    wanted = [good(1, family, "down2"), good(2, family), good(3, family), good(4, family), good(5, family)]
    found = await refused(rig.put(*wanted, all_or_nothing=True))
    assert (found.code, found.reason) == (grpc.StatusCode.INTERNAL, "KERNEL_ERROR")
    assert found.metadata == {"errno": str(errno.ENOMEM), "call": "MRT_ADD_MFC"}
    assert "item 3" in found.message
    assert "put back" in found.message
    assert intents(await rig.listed()) == routes
    assert rig.entries() == kernel
    assert {one.status.state for one in await rig.listed()} == {t.ROUTE_STATE_PROGRAMMED}
    assert (await rig.put(*wanted, all_or_nothing=True)).created == 3


async def test_all_or_nothing_puts_back_what_was_first(rig: Rig) -> None:
    """A route that the request names three times ends as it was before the request, not before its last item."""
    await rig.put(good(1, cookie="first"))
    refuse(rig, 9)
    steps = [good(1, cookie="second"), good(1, cookie="third"), good(2, cookie="a"), good(2, cookie="b"), good(9)]
    assert (await refused(rig.put(*steps, all_or_nothing=True))).reason == "KERNEL_ERROR"
    assert intents(await rig.listed()) == [good(1, cookie="first")]


async def test_all_or_nothing_gives_back_what_was_taken_over(rig: Rig) -> None:
    await rig.put(good(1), good(2), owner="bob")
    refuse(rig, 3)
    wanted = [good(1), good(2, 4, "down2"), good(3)]
    assert (await refused(rig.put(*wanted, take_over=True, all_or_nothing=True))).reason == "KERNEL_ERROR"
    assert [one.status.owner for one in await rig.listed()] == ["bob", "bob"]
    assert intents(await rig.listed()) == [good(1), good(2)]


async def test_all_or_nothing_of_a_set(rig: Rig) -> None:
    await rig.replace([good(n) for n in range(1, 6)])
    refuse(rig, 7)
    wanted = [good(n) for n in range(3, 9)]
    found = await refused(rig.replace(wanted, options=rs.WriteOptions(all_or_nothing=True)))
    assert found.reason == "KERNEL_ERROR"
    assert sorted(one.group for one in await rig.listed()) == sorted(group(n) for n in range(1, 6))
    assert set(rig.entries()) == {key(n) for n in range(1, 6)}


async def test_all_or_nothing_of_patches(rig: Rig) -> None:
    await rig.put(good(1), good(2))
    kernel = rig.entries()
    refuse(rig, 2)
    patches = [t.RoutePatch(key=key_of(good(n)), add_oifs=[t.Oif(interface="down2")]) for n in (1, 2)]
    request = rs.PatchRoutesRequest(patches=patches, options=rs.WriteOptions(all_or_nothing=True))
    assert (await refused(rig.routes.PatchRoutes(request))).reason == "KERNEL_ERROR"
    assert rig.entries() == kernel
    assert intents(await rig.listed()) == [good(1), good(2)]


async def test_all_or_nothing_counts_what_had_failed_before(rig: Rig) -> None:
    """An item that is as asked already, but that the kernel refused before and refuses again, is a failure too."""
    rig.kernel.refuse("add_mfc", errno.ENOMEM, 100, lambda subject: subject == key(2))
    await rig.put(good(2))
    found = await refused(rig.put(good(1), good(2), all_or_nothing=True))
    assert found.reason == "KERNEL_ERROR"
    assert [one.group for one in await rig.listed()] == [group(2)]


async def test_all_or_nothing_lets_later_writes_alone(rig: Rig) -> None:
    """What somebody has written between a write and its undo stays, and is told of."""
    await rig.put(good(1, cookie="old"))
    refuse(rig, 9)
    write = PutRoutes(WriteOptions("local", all_or_nothing=True), [_model(good(1, cookie="mine")), _model(good(9))])
    outcome = await rig.daemon.writer.write(write)
    await rig.put(good(1, cookie="later"))
    assert await rig.daemon.undo(write, outcome) == 1
    assert intents(await rig.listed()) == [good(1, cookie="later")]


async def test_all_or_nothing_is_undone_though_the_caller_has_left(rig: Rig) -> None:
    refuse(rig, 9)
    routes = [_model(good(n)) for n in (1, 2, 9)]
    write = spawn(rig.daemon.write(PutRoutes(WriteOptions("local", all_or_nothing=True), routes)), "write")
    while not rig.engine.desired.routes:  # noqa: ASYNC110 - the very next moment counts
        await asyncio.sleep(0)
    write.cancel()
    await until(lambda: not rig.engine.desired.routes and not rig.entries())


def _model(message: t.Route) -> Route:
    return RouteReader().read([message], "local")[0]


async def test_all_or_nothing_does_not_mind_what_waits_for_its_interface(rig: Rig) -> None:
    waiting = good(1)
    waiting.iif = "absent0"
    result = await rig.put(waiting, good(2), all_or_nothing=True)
    assert (result.created, result.failed) == (2, 0)


async def test_a_dry_run_asks_the_kernel_nothing(rig: Rig) -> None:
    changes = rig.kernel.mfc_changes, rig.kernel.vif_changes
    result = await rig.put(good(1), validate_only=True, all_or_nothing=True)
    assert result.created == 1
    assert (rig.kernel.mfc_changes, rig.kernel.vif_changes) == changes


async def test_a_table_of_another_program_is_told_of(rig: Rig) -> None:
    result = await rig.put(good(1, table=7))
    (change,) = result.changes
    assert (change.error.reason, change.error.code) == ("MROUTE_SOCKET_BUSY", 14)
    assert (change.after.status.state, result.failed) == (t.ROUTE_STATE_FAILED, 1)


async def test_what_the_configuration_says_of_an_interface_yields_to_anybody(rig: Rig) -> None:
    async def threshold() -> int:
        answer = await rig.interfaces.ListInterfaces(sv.ListInterfacesRequest(interface="down1"))
        return int(answer.interfaces[0].ttl_threshold)

    async def say(owner: str, ttl: int) -> int:
        await rig.daemon.write(SetInterface(WriteOptions(owner), "down1", ttl_threshold=ttl))
        return await threshold()

    await rig.put(good(1))
    assert await say("config", 5) == 5
    assert rig.kernel.paths(key(1)) == (1, {2: 5})
    assert await say("alice", 9) == 9
    assert await say("config", 7) == 9
    assert await say("bob", 11) == 11
    assert rig.kernel.paths(key(1)) == (1, {2: 11})


# --- ceilings --------------------------------------------------------------------------------------------------------


async def test_routes_max_is_a_ceiling(rig: Rig) -> None:
    assert (await rig.put(*[good(n) for n in range(1, 1001)])).created == 1000
    before = await rig.snapshot()
    found = await refused(rig.put(good(1001), good(1002)))
    assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ROUTE_LIMIT")
    assert found.metadata == {"limit": "1000", "would": "1002"}
    assert "routes_max" in found.message
    assert await rig.snapshot() == before
    assert (await rig.put(good(1000, 4, "down2"))).updated == 1


async def test_a_set_beyond_routes_max_is_refused_before_it_is_whole(rig: Rig) -> None:
    await rig.put(good(1))
    before = await rig.snapshot()
    sent = 0

    async def requests() -> AsyncIterator[rs.ReplaceRoutesRequest]:
        nonlocal sent
        for part in stream([good(n) for n in range(1, 20_001)], chunk=100):
            yield part
            sent += 1
            await asyncio.sleep(0)

    found = await refused(rig.routes.ReplaceRoutes(requests()))
    while found.code is grpc.StatusCode.INTERNAL and not found.reason:
        # gRPC's own, where the client was just sending: the trailers are lost then.
        sent = 0
        found = await refused(rig.routes.ReplaceRoutes(requests()))
    assert sent < 200
    assert (found.code, found.reason, found.metadata) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "ROUTE_LIMIT",
        {"limit": "1000"},
    )
    assert await rig.snapshot() == before
    assert (await rig.replace([good(n) for n in range(1, 1001)])).created == 999


# --- a disk that fails -----------------------------------------------------------------------------------------------


async def test_what_cannot_be_stored_is_refused_and_not_done(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.put(good(1))
    before, kernel = await rig.snapshot(), rig.entries()
    aside = rig.state_dir.with_name("aside")
    rig.state_dir.rename(aside)
    found = await refused(rig.put(good(2)))
    assert (found.code, found.reason, found.retry_seconds) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", 1)
    assert [one.group for one in await rig.listed()] == [group(1)]
    assert rig.entries() == kernel
    assert "can't be stored" in caplog.text
    aside.rename(rig.state_dir)
    assert (await rig.put(good(2))).created == 1
    assert (await rig.snapshot())[0] > before[0]


# --- deadlines -------------------------------------------------------------------------------------------------------


async def test_a_unary_call_is_answered_within_the_cap(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert binding.UNARY_SECONDS_MAX == 30
    monkeypatch.setattr(binding, "UNARY_SECONDS_MAX", 0.2)
    never: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def write(_write: Write) -> Outcome:
        return await never

    monkeypatch.setattr(rig.daemon, "write", write)
    for timeout in (20, None):
        found = await refused(rig.routes.PutRoutes(rs.PutRoutesRequest(routes=[good(1)]), timeout=timeout))
        assert (found.code, found.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "TIMEOUT")
        assert "0.2 s" in found.message
        assert "list the routes" in found.message
        never = asyncio.get_running_loop().create_future()


async def test_streams_are_not_capped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "UNARY_SECONDS_MAX", 0.05)

    async def requests() -> AsyncIterator[rs.ReplaceRoutesRequest]:
        for part in stream([good(1), good(2)], chunk=1):
            yield part
            await asyncio.sleep(0.06)  # longer than the cap, each time: what is tested is that this does not matter

    assert (await rig.routes.ReplaceRoutes(requests())).result.created == 2


async def test_a_write_that_a_client_gives_up_takes_its_course(rig: Rig) -> None:
    routes = [good(n) for n in range(1, 101)]
    mroute = rig.mroutes[Family.IPV4]
    mroute.gate.clear()
    found = await refused(rig.put(*routes, timeout=0.1))
    assert found.code == grpc.StatusCode.DEADLINE_EXCEEDED
    cancelled = rig.routes.PutRoutes(rs.PutRoutesRequest(routes=[good(200)]))
    await until(mroute.held_back.is_set)
    await rig.status.GetStatus(sv.GetStatusRequest(), timeout=5)  # a slow kernel holds no reader up
    cancelled.cancel()
    mroute.gate.set()
    result = await rig.put(*routes)
    assert (result.unchanged, result.failed) == (100, 0)
    assert {key(n) for n in range(1, 101)} <= set(rig.entries())


async def test_an_answer_waits_for_the_kernel(rig: Rig) -> None:
    mroute = rig.mroutes[Family.IPV4]
    mroute.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(rig.put(*[good(n) for n in range(1, 101)]))
        await until(mroute.held_back.is_set)
        listed = await rig.listed()
        assert {one.status.state for one in listed} == {t.ROUTE_STATE_PENDING}, "in force, on disk, not in the kernel"
        assert not waiting.done()
        mroute.gate.set()
    assert waiting.result().created == 100
    assert len(rig.entries()) == 100


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_a_shutdown_is_passed_on(rig: Rig) -> None:
    await rig.status.Shutdown(sv.ShutdownRequest())
    assert rig.keeper.shutdown_requested
    assert rig.ended.is_set()


async def test_writes_after_the_end_say_so(tmp_path: Path) -> None:
    async with running(Rig(tmp_path)) as rig:
        await rig.put(good(1))
        writer = rig.daemon.writer
        writer._closed = True
        found = await refused(rig.put(good(2)))
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert "try again" in found.message
