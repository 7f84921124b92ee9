"""mcastd.api.watch: snapshot, changes, resume, pace and end of one call, on an engine in memory and clients that read as told."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.api import events as events_module
from mcastd.api import watch as watch_module
from mcastd.api import watch_request
from mcastd.api.watchers import LOOK
from mcastd.model.errors import McastdError, Reason
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.route import Counters
from mcastd.model.write import DeleteRoutes, PutJoins, PutRoutes, SetInterface, WriteOptions
from tests.fakerouter import Router, route, sg
from tests.fakewatch import CALLER, Client, FakeContext, Server, rest, turns

ALICE = WriteOptions("alice")
ROUTE, INTERFACE, SOURCE, JOIN = sv.KIND_ROUTE, sv.KIND_INTERFACE, sv.KIND_SOURCE, sv.KIND_JOIN
COUNTERS, UPCALL = sv.KIND_COUNTERS, sv.KIND_UPCALL


@pytest.fixture
def router() -> Router:
    """A router with five routes."""
    made = Router("eth0", "eth1")
    put(made, range(5))
    made.write(SetInterface(ALICE, "eth1", True, None, 0))
    made.settle()
    return made


@pytest.fixture
def server(router: Router) -> Server:
    """Its services."""
    return Server(router.engine)


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Callable[..., Client]]:
    """Makes clients, all of which have left when the test ends."""
    made: list[Client] = []

    def make(**request: object) -> Client:
        made.append(Client(**request))
        return made[-1]

    yield make
    for one in made:
        await one.disconnect()


def put(router: Router, numbers: range, cookie: str = "") -> None:
    """Put routes, and have them in the kernel."""
    router.write(PutRoutes(ALICE, [route(sg(number), "eth0", "eth1", cookie=cookie) for number in numbers]))
    router.settle()


async def synced(client: Client, server: Server) -> Client:
    """Connect, and read until all is known."""
    client.connect(server)
    await rest(client)
    assert client.view.synced
    return client


def messages(client: Client) -> list[sv.WatchResponse]:
    """All that waits to be read, without events."""
    out = []
    while (message := client.context.read()) is not None:
        out.append(message)
    return out


async def refused(server: Server, **request: object) -> McastdError:
    """Watch; the error."""
    with pytest.raises(McastdError) as caught:
        await server.events.watch(sv.WatchRequest(**request), FakeContext().as_context(), CALLER)  # type: ignore[arg-type]
    assert len(server.events.hub) == 0
    return caught.value


Make = Callable[..., Client]

# --- where to begin --------------------------------------------------------------------------------------------------


async def test_the_messages_of_a_beginning(router: Router, server: Server, client: Make) -> None:
    one = client(kinds=[ROUTE, INTERFACE])
    one.connect(server)
    await turns(20)
    first, *parts, last = messages(one)
    assert (first.reset, first.synced, first.resume_token, len(first.events)) == (True, False, "", 0)
    assert not any(part.reset or part.synced or part.resume_token for part in parts), "what is not whole has no token"
    assert (last.synced, bool(last.resume_token), len(last.events)) == (True, True, 0)
    assert sum(len(part.events) for part in parts) == 5 + 2
    assert len(router.engine.desired.routes) == 5


async def test_the_kinds_by_default(server: Server, client: Make) -> None:
    one = client()
    await synced(one, server)
    assert {key[0] for key in one.view.objects} == {"route", "interface"}
    (watcher,) = server.events.hub._watchers
    assert watcher._kinds == {ROUTE, INTERFACE, SOURCE}  # type: ignore[attr-defined]


async def test_changes_only(router: Router, server: Server, client: Make) -> None:
    one = await synced(client(kinds=[ROUTE], changes_only=True), server)
    assert (one.view.resets, one.view.messages, one.view.events) == (0, 1, 0)
    assert one.view.token
    put(router, range(5, 6))
    await rest(one)
    assert len(one.view.of("route")) == 1


async def test_changes_only_is_nothing_with_a_token(server: Server, client: Make) -> None:
    one = client(kinds=[ROUTE], changes_only=True)
    one.view.token = "of another life"  # noqa: S105
    await synced(one, server)
    assert (one.view.resets, len(one.view.of("route"))) == (1, 5)


async def test_resume(router: Router, server: Server, client: Make) -> None:
    one = await synced(client(kinds=[ROUTE]), server)
    await one.disconnect()
    put(router, range(4, 7), "new")
    router.write(DeleteRoutes(ALICE, [sg(0)]))
    router.settle()
    events = one.view.events
    await synced(one, server)
    assert (one.view.resets, one.view.events - events) == (1, 4)
    assert one.view.of("route") == await server.listed("route", t.Selector())


async def test_a_token_covers_what_was_told_and_no_more(
    router: Router, server: Server, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client leaves in the middle of a round: what it was told then it is told again."""
    monkeypatch.setattr(watch_module, "EVENTS_MAX", 2)
    one = await synced(client(kinds=[ROUTE]), server)
    token = one.view.token
    put(router, range(5), "new")
    await turns(3)
    one.read(1)
    assert one.view.token == token
    await one.disconnect()
    await synced(one, server)
    assert {found.cookie for found in one.view.of("route").values()} == {"new"}
    assert one.view.resets == 1


@pytest.mark.parametrize("kinds", [[ROUTE, SOURCE], [ROUTE, UPCALL]])
async def test_a_token_for_other_kinds_does_not_fit(server: Server, client: Make, kinds: list[sv.Kind]) -> None:
    one = await synced(client(kinds=[ROUTE]), server)
    other = client(kinds=kinds)
    other.view.token = one.view.token
    await synced(other, server)
    assert other.view.resets == 1


async def test_a_token_for_more_kinds_fits(server: Server, client: Make) -> None:
    more, one = await synced(client(kinds=[ROUTE, SOURCE, UPCALL]), server), client(kinds=[ROUTE])
    one.view.token = more.view.token
    await synced(one, server)
    assert one.view.resets == 0


async def test_a_token_that_the_log_has_outgrown(router: Router, server: Server, client: Make) -> None:
    one = await synced(client(kinds=[ROUTE]), server)
    await one.disconnect()
    for log in router.engine.feed.logs.values():
        log._max = 2
    put(router, range(9), "new")
    await synced(one, server)
    assert (one.view.resets, len(one.view.of("route"))) == (2, 9)


async def test_what_changes_during_a_snapshot_is_told_before_it_is_synced(
    router: Router, server: Server, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "EVENTS_MAX", 1)
    one = client(kinds=[ROUTE])
    one.connect(server)
    await turns(2)
    router.write(DeleteRoutes(ALICE, [sg(4), sg(0)]))
    put(router, range(5, 7))
    while not one.view.synced:
        await turns(1)
        one.read(1)
    assert one.view.of("route") == await server.listed("route", t.Selector())


# --- what is told ----------------------------------------------------------------------------------------------------


async def test_changes_are_merged_while_nobody_reads(router: Router, server: Server, client: Make) -> None:
    one = await synced(client(kinds=[ROUTE]), server)
    one.context.room = 0
    put(router, range(1), "first")
    await turns(5)
    for number in range(10):
        put(router, range(1), str(number))
    (seen,) = server.events.hub.subscribers()
    assert seen.pending == 10
    assert seen.HasField("blocked")
    one.context.room = 1000
    events = one.view.events
    await rest(one)
    assert (one.view.events - events, one.view.coalesced) == (2, 9)
    assert one.view.of("route")["0", "239.1.0.0", "10.0.0.1", ""].cookie == "9"
    (seen,) = server.events.hub.subscribers()
    assert (seen.pending, seen.coalesced, seen.HasField("blocked")) == (0, 9, False)
    assert seen.peer == "unix: eve"


async def test_large_messages_are_split(router: Router, server: Server, client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "MESSAGE_BYTES", 300)
    one = await synced(client(kinds=[ROUTE]), server)
    put(router, range(5), "x" * 50)
    await turns(10)
    found = messages(one)
    assert len(found) > 2
    assert all(message.ByteSize() < 300 + 200 for message in found)
    assert [bool(message.resume_token) for message in found] == [False] * (len(found) - 1) + [True], "with the last alone"


async def test_a_join_is_told(router: Router, server: Server, client: Make) -> None:
    one = await synced(client(kinds=[JOIN]), server)
    key = JoinKey("alice", "none", b"\xef\1\1\1", 32, b"", 0)
    router.write(PutJoins(ALICE, [JoinRecord(key)]))
    await rest(one)
    assert one.view.of("join") == await server.listed("join", t.Selector())
    other = await synced(client(kinds=[JOIN], selector=t.Selector(owner="bob")), server)
    assert not other.view.objects


async def test_upcalls_are_told_each_and_what_was_skipped_counted(
    router: Router, server: Server, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await synced(client(kinds=[UPCALL], selector=t.Selector(interface="eth0")), server)
    for number, name in ((100, "eth0"), (101, "eth1"), (102, "eth0")):
        router.packet(sg(number), name)
    router.settle()
    router.engine.feed.upcalls_noted()
    await rest(one)
    assert [(u.group, u.interface) for u in one.view.upcalls] == [("239.1.0.100", "eth0"), ("239.1.0.102", "eth0")]
    await one.disconnect()
    monkeypatch.setattr("mcastd.core.feed.RING_MAX", 2)
    monkeypatch.setattr("mcastd.core.feed._RING_CUT", 1)
    for number in range(200, 210):
        router.packet(sg(number), "eth0")
    router.settle()
    await synced(one, server)
    assert one.view.resets == 1
    assert one.view.skipped + len(one.view.upcalls) == 12
    assert one.view.skipped == 7


async def test_a_new_life_says_that_upcalls_were_missed(router: Router, server: Server, client: Make) -> None:
    one = await synced(client(kinds=[UPCALL]), server)
    await one.disconnect()
    assert one.view.skipped == 0
    router.boot()
    router.settle()
    again = Server(router.engine)
    await synced(one, again)
    assert (one.view.resets, one.view.skipped) == (2, 1)


async def test_upcalls_that_the_kernel_dropped(server: Server, client: Make, router: Router) -> None:
    one = await synced(client(kinds=[SOURCE]), server)
    server.daemon.lost = 7
    router.engine.feed.upcalls_lost()
    await rest(one)
    assert one.view.lost == 7
    await one.disconnect()
    server.daemon.lost = 9
    await synced(one, server)
    assert one.view.lost == 7, "since the last message"


async def test_counters_are_sampled(server: Server, client: Make) -> None:
    server.daemon.counted = {sg(1): Counters(5, 500, 0, 0.0)}
    one = await synced(client(kinds=[COUNTERS], sample_interval={"seconds": 1}), server)
    assert [(found.key.group, found.counters.packets) for found in one.view.samples] == [("239.1.0.1", 5)]
    assert server.daemon.polls == 1
    server.daemon.counted = {sg(1): Counters(6, 600, 0, 0.0)}
    await asyncio.sleep(1.05)
    await rest(one)
    assert [found.counters.packets for found in one.view.samples] == [5, 6]


async def test_silence_is_broken_by_a_token(server: Server, client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_request, "HEARTBEAT", 0.05)
    one = await synced(client(kinds=[ROUTE]), server)
    count = one.view.messages
    await asyncio.sleep(0.2)
    found = messages(one)
    assert 2 <= len(found) <= 5
    assert all(message.resume_token and not message.events and not message.synced for message in found)
    assert count > 0


async def test_a_heartbeat_moves_the_token_past_what_was_left_out(router: Router, server: Server, client: Make) -> None:
    one = await synced(client(kinds=[ROUTE], selector=t.Selector(owner="bob"), heartbeat_interval={"seconds": 1}), server)
    token = one.view.token
    put(router, range(5), "new")
    await rest(one)
    assert one.view.token == token
    await asyncio.sleep(1.05)
    await rest(one)
    assert one.view.token != token


# --- pace ------------------------------------------------------------------------------------------------------------


async def test_bulk_waits_for_writes_and_single_routes_do_not(
    router: Router, server: Server, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "BULK", 3)
    one = await synced(client(kinds=[ROUTE]), server)
    server.daemon.writing = True
    server.events.hub.pacer.spent(0.05)
    put(router, range(2), "few")
    await rest(one)
    assert [found.cookie for found in one.view.of("route").values()].count("few") == 2
    put(router, range(5), "many")
    await rest(one)
    assert [found.cookie for found in one.view.of("route").values()].count("many") == 0
    while [found.cookie for found in one.view.of("route").values()].count("many") < 5:
        await asyncio.sleep(0.01)
        one.read()
    assert server.daemon.writing, "its turn comes, also if writes never end"


@pytest.mark.parametrize("kinds", [[ROUTE, INTERFACE], [INTERFACE, COUNTERS]])
async def test_a_turn_that_comes_late_is_given_back(
    router: Router, server: Server, client: Make, kinds: list[sv.Kind], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was for was told meanwhile, when a write was over and something else had woken the watcher."""
    monkeypatch.setattr(watch_module, "BULK", 3)
    one = await synced(client(kinds=kinds), server)
    (watcher,) = server.events.hub._watchers
    server.daemon.writing = True
    put(router, range(5), "many")
    await rest(one)
    server.events.hub.pacer.wait(watcher)
    server.daemon.writing = False
    router.engine.feed.interfaces(["eth1"])
    await rest(one)
    assert watcher in server.events.hub.pacer._waiting
    await asyncio.sleep(2 * LOOK)
    await rest(one)
    assert watcher not in server.events.hub.pacer._waiting
    assert not watcher.turn
    put(router, range(5), "more")
    await rest(one)
    assert {found.cookie for found in one.view.of("route").values()} <= {"more"}


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_an_orderly_end(router: Router, server: Server, client: Make) -> None:
    one = await synced(client(kinds=[ROUTE]), server)
    server.events.hub.end()
    assert one.task is not None
    with pytest.raises(McastdError) as caught:
        await one.task
    one.task = None
    assert caught.value.reason is Reason.SHUTTING_DOWN
    (last,) = messages(one)
    assert last.resume_token
    assert len(server.events.hub) == 0
    assert not any(log.lanes for log in router.engine.feed.logs.values())


async def test_who_does_not_read_is_ended(router: Router, server: Server, client: Make) -> None:
    server.events.hub.patience = 0.05
    one = await synced(client(kinds=[ROUTE]), server)
    one.context.room = 0
    put(router, range(5), "new")
    assert one.task is not None
    with pytest.raises(McastdError) as caught:
        await one.task
    one.task = None
    assert caught.value.reason is Reason.SLOW_CONSUMER
    assert caught.value.problem.metadata["seconds"] == "0.05"
    assert len(server.events.hub) == 0
    await synced(one, server)
    assert one.view.resets == 1
    assert {found.cookie for found in one.view.of("route").values()} == {"new"}


async def test_a_client_that_hangs_up_leaves_nothing_behind(router: Router, server: Server, client: Make) -> None:
    one = await synced(client(kinds=[ROUTE, SOURCE, UPCALL]), server)
    one.context.hang_up()
    put(router, range(5), "new")
    assert one.task is not None
    await one.task
    assert len(server.events.hub) == 0
    assert not any(log.lanes for log in router.engine.feed.logs.values())


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field, request_",
    [
        ("kinds[2]", {"kinds": [ROUTE, SOURCE, 7]}),
        ("kinds[0]", {"kinds": [0]}),
        ("kinds[0]", {"kinds": [-1]}),
        ("kinds", {"kinds": [1] * 100_000}),
        ("heartbeat_interval", {"heartbeat_interval": {"nanos": 999_999_999}}),
        ("heartbeat_interval", {"heartbeat_interval": {"seconds": 3601}}),
        ("heartbeat_interval", {"heartbeat_interval": {"seconds": -5}}),
        ("heartbeat_interval", {"heartbeat_interval": {"seconds": 2**62}}),
        ("heartbeat_interval", {"heartbeat_interval": {"seconds": -(2**63), "nanos": -(2**31)}}),
        ("sample_interval", {"kinds": [COUNTERS], "sample_interval": {"seconds": -1}}),
        ("selector.group", {"selector": t.Selector(group="239.1.1.1/40")}),
        ("selector.source", {"selector": t.Selector(source="x")}),
        ("selector.interface", {"selector": t.Selector(interface="x" * 100)}),
        ("selector.states", {"selector": t.Selector(states=[99])}),  # type: ignore[list-item]
        ("selector.table", {"selector": t.Selector(table=2**32 - 1)}),
    ],
)
async def test_bad_requests_name_the_field_and_leave_nothing(server: Server, field: str, request_: dict[str, object]) -> None:
    error = await refused(server, **request_)
    assert error.problem.metadata["field"] == field
    assert field.partition("[")[0] in str(error)
    assert not any(log.lanes for log in server.daemon.engine.feed.logs.values())
