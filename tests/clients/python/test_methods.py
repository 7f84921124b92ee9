"""Every method of both clients against a daemon in the test's process; what is refused, and how a session ends."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcast.client import (
    Backoff,
    Client,
    ConfigurationError,
    DeadlineExceeded,
    Delete,
    InvalidRequest,
    ItemsFailed,
    Keepalive,
    Lease,
    McastError,
    NotFound,
    OpResult,
    OwnedByOther,
    Put,
    RevisionMismatch,
    Session,
    StaleEpoch,
    Superseded,
    SyncClient,
    Synced,
    SyncSession,
    SyncView,
    TooManyDeletions,
    Unavailable,
    View,
    route,
    route_id,
)
from mcast.v1 import types_pb2 as t
from tests.api.rig import Rig, running

QUICK = Backoff(0.02, 0.2)
GROUPS = {4: "239.1.{}.{}", 6: "ff3e::{:x}:{:x}"}
SOURCES = {4: "10.0.0.5", 6: "fd00::5"}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A daemon that serves."""
    async with running(Rig(tmp_path, routes_max=20_000)) as made:
        yield made


@pytest.fixture
async def client(rig: Rig, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of it."""
    async with Client(f"unix:{tmp_path}/rig.sock", backoff=QUICK) as made:
        yield made


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> int:
    """Both, one after the other."""
    return int(request.param)


def flow(number: int, family: int = 4, oif: str = "down1") -> t.Route:
    """A route by number."""
    return route(GROUPS[family].format(number >> 8, number & 255), SOURCES[family], "up", oif)


def key(number: int, family: int = 4) -> t.RouteKey:
    """Its key."""
    return route_id(flow(number, family)).key()


async def test_routes(client: Client, family: int) -> None:
    flows = [flow(n, family) for n in range(1, 1501)]
    assert (await client.put(flows[0])).raise_for_failures().created == 1
    assert (await client.replace(one for one in flows)).created == 1499

    async def some() -> AsyncIterator[t.Route]:
        for one in flows[:1200]:
            yield one

    assert (await client.replace(some(), max_deletions=300)).deleted == 300
    assert len([one async for one in client.list()]) == 1200
    snapshot = await client.snapshot(t.Selector(group=flows[3].group))
    assert [route_id(one) for one in snapshot.routes] == [route_id(flows[3])]
    assert (snapshot.revision > 0, bool(snapshot.resume_token)) == (True, True)
    patch = t.RoutePatch(key=key(4, family), add_oifs=[t.Oif(interface="down2")])
    assert (await client.patch(patch)).updated == 1
    async with client.watch("route", resume_token=snapshot.resume_token) as watch:
        event = await anext(watch)
        assert isinstance(event, Put)
        assert isinstance(event.object, t.Route)
        assert len(event.object.oifs) == 2
        assert isinstance(await anext(watch), Synced)
    assert (await client.delete([key(1, family), key(2, family)])).deleted == 2
    assert (await client.delete(selector=t.Selector(group=flows[2].group))).deleted == 1
    assert (await client.delete(all=True)).deleted == 1197
    assert await client.flush_learned() == 0


async def test_everything_else(client: Client) -> None:
    result = await client.put_joins(t.Join(interface="up", group="239.1.1.1"))
    assert result.raise_for_failures().failures == []
    assert [join.group async for join in client.joins()] == ["239.1.1.1"]
    assert await client.delete_joins([t.Join(interface="up", group="239.1.1.1")]) >= result.revision
    assert {one.name for one in await client.interfaces()} == {"up", "down1", "down2"}
    assert (await client.set_interface("up", pinned=True)).pinned
    assert [source async for source in client.sources()] == []
    assert (await client.status()).version
    async with client.view(("interface", "join")) as view:
        await view.ready()
        assert view.interfaces["up"].pinned
        version = view.version
        await client.put_joins(t.Join(interface="down1", group="239.1.1.1"))
        await asyncio.wait_for(view.changed(version), 5)
        assert [one.interface for one in view.joins] == ["down1"]


async def test_refusals_have_classes(client: Client) -> None:
    bad = route("10.1.1.1", "10.0.0.5", "up")
    with pytest.raises(InvalidRequest) as invalid:
        await client.put(bad)
    assert (invalid.value.reason, list(invalid.value.fields)) == ("INVALID_GROUP", ["routes[0].group"])
    assert not invalid.value.retryable
    await client.put(flow(1), owner="alice")
    result = await client.put(flow(1), owner="bob")
    with pytest.raises(ItemsFailed) as failed:
        result.raise_for_failures()
    assert (failed.value.reason, failed.value.count) == ("OWNED_BY_OTHER", 1)
    missing = await client.patch(t.RoutePatch(key=key(9), add_oifs=[t.Oif(interface="down1")]))
    assert [change.error.reason for change in missing.failures] == ["NOT_FOUND"]
    waiting = await client.put(flow(2, oif="later"))
    assert (waiting.raise_for_failures().failed, len(waiting.changes)) == (0, 1)
    with pytest.raises(RevisionMismatch):
        await client.put(flow(3), if_revision=1)
    await client.replace([flow(n) for n in range(20, 25)], owner="alice")
    with pytest.raises(TooManyDeletions) as guarded:
        await client.replace([flow(30)], owner="alice", max_deletions=2)
    assert (guarded.value.would, guarded.value.max) == (5, 2)
    assert {NotFound, OwnedByOther} < set(McastError.__subclasses__())


async def test_a_session_gives_way_and_stays_away(client: Client) -> None:
    first = await client.program("sdn", epoch=3).__aenter__()
    await first.put(flow(1))
    await first.flush()
    with pytest.raises(StaleEpoch) as stale:
        await client.program("sdn", epoch=2).__aenter__()
    assert stale.value.highest == 3
    async with client.program("sdn", epoch=4, lease=Lease(0, withdraw=False)):
        assert isinstance(await asyncio.wait_for(first.ended(), 5), Superseded)
        with pytest.raises(Superseded):
            await first.put(flow(2))
    with pytest.raises(Superseded) as over:
        await first.__aexit__(None, None, None)
    assert over.value.by == 4


async def test_exceptions_of_operations(client: Client, family: int) -> None:
    told: list[OpResult] = []
    async with client.program("sdn", on_exception=told.append) as session:
        last = await session.put([flow(1, family), flow(2, family, "later"), route("239.1.1.1", "10.0.0.5", "")])
        assert await session.flush() == []
        assert [(one.id, one.refused, one.state) for one in told] == [
            (last - 1, False, t.ROUTE_STATE_PARTIAL),
            (last, True, t.ROUTE_STATE_UNSPECIFIED),
        ]
        assert isinstance(told[1].error, InvalidRequest)
        with pytest.raises(TooManyDeletions):
            await session.sync([flow(9, family)], max_deletions=1)
        assert (await session.sync([flow(9, family)])).deleted == 2
    with pytest.raises(McastError, match="closed"):
        await session.put(flow(1))


async def test_a_body_that_fails_is_what_is_raised(client: Client) -> None:
    async def body() -> None:
        async with client.program("sdn") as session:
            await session.put(flow(1))
            raise KeyError

    with pytest.raises(KeyError):
        await body()


async def test_a_callback_that_fails_ends_the_session(client: Client) -> None:
    def fail(_result: OpResult) -> None:
        raise KeyError

    session = await client.program("sdn", on_exception=fail).__aenter__()
    await session.put(flow(2, oif="later"))
    assert "closed" in str(await asyncio.wait_for(session.ended(), 5))
    with pytest.raises(McastError, match="closed"):
        await session.put(flow(1))
    with pytest.raises(KeyError):
        await session.__aexit__(None, None, None)


async def test_nobody_there(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/none.sock"
    async with Client(address, timeout=0.3, backoff=QUICK) as client:
        with pytest.raises(Unavailable, match=r"none\.sock: .*No such file"):
            await client.put(flow(1))
    async with Client(address, wait_for_ready=False) as client:
        for call in (client.status(), anext(client.watch()), client.program().__aenter__()):
            with pytest.raises(Unavailable):
                await asyncio.wait_for(call, 5)
    with pytest.raises(McastError, match="closed"):
        await client.status()

    def threads() -> None:
        with SyncClient(address, timeout=0.3, backoff=QUICK) as client, pytest.raises(Unavailable, match="No such file"):
            client.put(flow(1))
        with SyncClient(address, wait_for_ready=False) as client, pytest.raises(Unavailable):
            next(client.watch())

    await asyncio.to_thread(threads)


async def test_a_client_waits_for_the_daemon(tmp_path: Path) -> None:
    async with Client(f"unix:{tmp_path}/rig.sock", backoff=QUICK) as client:
        asking = asyncio.gather(client.status(), client.put(flow(1)))
        await asyncio.sleep(0.1)
        assert not asking.done()
        async with running(Rig(tmp_path)):
            _, result = await asyncio.wait_for(asking, 10)
            assert result.created == 1


async def test_a_write_that_takes_too_long(client: Client, rig: Rig) -> None:
    for mroute in rig.mroutes.values():
        mroute.gate.clear()
    with pytest.raises(DeadlineExceeded):
        await client.put([flow(n) for n in range(1, 600)], timeout=0.3)


async def test_threads(rig: Rig, tmp_path: Path, family: int) -> None:
    def work() -> None:
        with SyncClient(f"unix:{tmp_path}/rig.sock", backoff=QUICK) as client:
            assert client.put(flow(1, family)).created == 1
            assert client.replace(flow(n, family) for n in range(1, 1201)).created == 1199
            assert len(list(client.list())) == 1200
            snapshot = client.snapshot()
            with client.watch("route", resume_token=snapshot.resume_token) as watch:
                assert isinstance(next(watch), Synced)
                client.delete(key(1, family))
                assert isinstance(next(watch), Delete)
            with client.view("route") as view:
                view.ready(10)
                with client.program("sdn", epoch=1) as session:
                    session.put([flow(n, family) for n in range(2000, 4000)])
                    session.delete(key(2000, family))
                    assert session.flush(20) == []
                    assert session.sync([flow(2001, family), flow(2002, family)], timeout=20).deleted == 1997
                    version = 0
                    while len(view.routes) != 1201:
                        version = view.changed(version, 10)
                    assert session.ended(0.05) is None
            assert [one.name for one in client.interfaces("up")] == ["up"]
            assert list(client.joins()) == list(client.sources()) == []

    await asyncio.to_thread(work)


@pytest.mark.parametrize("ours,theirs", [(Client, SyncClient), (Session, SyncSession), (View, SyncView)])
def test_both_clients_have_the_same_methods(ours: type, theirs: type) -> None:
    assert public(ours) == public(theirs)


def public(kind: type) -> set[str]:
    """Names of methods and properties."""
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}


def test_settings_that_make_no_sense_are_refused() -> None:
    for make in (lambda: Backoff(0, 1), lambda: Backoff(2, 1), lambda: Keepalive(1), lambda: Client().watch("rubbish")):
        with pytest.raises(ConfigurationError):
            make()


def test_pauses_are_spread_and_bounded() -> None:
    pauses = Backoff(0.1, 1.0).pauses()
    first = [next(pauses) for _ in range(50)]
    assert first[0] <= 0.1
    assert max(first) <= 1.0
    assert len(set(first)) == 50
