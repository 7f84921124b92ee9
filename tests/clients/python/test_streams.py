"""What clients do when streams end, waits are cut short, and somebody closes: no haste, nothing left, nobody waits for ever."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from mcast.client import (
    Backoff,
    Client,
    ConfigurationError,
    Event,
    Lease,
    McastError,
    Put,
    Reset,
    Session,
    StaleEpoch,
    Superseded,
    SyncClient,
    Synced,
    SyncSession,
    Unavailable,
    Watch,
    route,
)
from mcast.client.session import SessionState, Settings
from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import route_service_pb2_grpc as rs_grpc
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from mcastd.runtime.tasks import spawn
from tests.api.rig import Rig, running

QUICK = Backoff(0.02, 0.2)
LOOK_SECONDS = 1.0
HASTE = 100
"""Streams in LOOK_SECONDS: with pauses of 0.1 s on average there are some 20, without any more than 1,000."""


class Abrupt(rs_grpc.RouteServiceServicer, sv_grpc.EventServiceServicer):
    """A daemon whose sessions end as soon as they begin, and whose watch tells 1,000 routes at once."""

    def __init__(self, way: str) -> None:
        """`way`: before it is open, after it, or by a refusal that may pass."""
        self.way = way
        self.opens = 0

    async def ProgramRoutes(self, requests: Any, context: Any) -> AsyncIterator[rs.ProgramRoutesResponse]:  # noqa: N802
        """End."""
        self.opens += 1
        if self.way == "refused":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "later")
        if self.way == "opened":
            await anext(aiter(requests))
            yield rs.ProgramRoutesResponse(opened=rs.ProgramRoutesResponse.Opened(instance_id="one"))

    async def Watch(self, _request: Any, _context: Any) -> AsyncIterator[sv.WatchResponse]:  # noqa: N802
        """One large message, then silence."""
        yield sv.WatchResponse(reset=True, events=[sv.Event(route=route("239.1.1.1"))] * 1000)
        await asyncio.Event().wait()


@asynccontextmanager
async def abrupt(directory: Path, way: str = "opened") -> AsyncIterator[tuple[Abrupt, str]]:
    """Serve it; with its address."""
    server, daemon, address = grpc.aio.server(), Abrupt(way), f"unix:{directory}/abrupt.sock"
    rs_grpc.add_RouteServiceServicer_to_server(daemon, server)
    sv_grpc.add_EventServiceServicer_to_server(daemon, server)
    server.add_insecure_port(address)
    await server.start()
    try:
        yield daemon, address
    finally:
        await server.stop(0)


WAYS = pytest.mark.parametrize("way", ["unopened", "opened", "refused"])


@WAYS
async def test_a_stream_that_ends_is_not_begun_again_in_haste(tmp_path: Path, way: str) -> None:
    async with abrupt(tmp_path, way) as (daemon, address), Client(address, backoff=QUICK) as client:
        session = client.program("sdn")
        opening = spawn(session.__aenter__(), "opening")
        await asyncio.sleep(LOOK_SECONDS)
        assert 2 < daemon.opens < HASTE
        assert len([task for task in asyncio.all_tasks() if "_consume_request_iterator" in repr(task)]) <= 1
        if way == "opened":
            await opening
            await session.__aexit__(ValueError, None, None)
        else:
            opening.cancel()
            await asyncio.wait([opening])


@WAYS
async def test_nor_in_threads(tmp_path: Path, way: str) -> None:
    def work(address: str) -> None:
        with SyncClient(address, backoff=QUICK) as client:
            session = client.program("sdn")
            opening = threading.Thread(target=enter, args=(session,))
            opening.start()
            time.sleep(LOOK_SECONDS)
            session.__exit__(ValueError, None, None)
            opening.join()

    def enter(session: SyncSession) -> None:
        if way == "opened":
            session.__enter__()
            return
        with pytest.raises(McastError, match="the session is closed"):
            session.__enter__()

    async with abrupt(tmp_path, way) as (daemon, address):
        await asyncio.to_thread(work, address)
        assert 2 < daemon.opens < HASTE


def test_pauses_begin_anew_after_a_stream_that_has_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr("random.uniform", lambda _low, high: high)
    state = SessionState(Settings(rs.ProgramRoutesRequest.Open(), True, None, 1.0, Backoff(1.0, 8.0), True))
    error = McastError(grpc.StatusCode.RESOURCE_EXHAUSTED, "later")
    assert [state._pause_after(error) for _ in range(5)] == [1, 2, 4, 8, 8]
    state._stands(rs.ProgramRoutesResponse.Opened(instance_id="one"))
    now[0] += 7
    assert state._pause_after(error) == 8  # it has not stood for long
    state._stands(rs.ProgramRoutesResponse.Opened(instance_id="one"))
    now[0] += 9
    assert [state._pause_after(error) for _ in range(3)] == [1, 2, 4]
    assert state._pause_after(Unavailable(grpc.StatusCode.UNAVAILABLE, "gone")) == 0
    assert state._pause_after(McastError(grpc.StatusCode.PERMISSION_DENIED, "no")) is None


async def until_silent(watch: Watch) -> list[Event]:
    """What is told until nothing comes for a while: the wait for more is cut short."""
    found: list[Event] = []
    with suppress(TimeoutError):
        while True:
            found.append(await asyncio.wait_for(anext(watch), 0.3))
    return found


async def test_a_wait_that_is_cut_short_is_no_end(tmp_path: Path) -> None:
    async with running(Rig(tmp_path)) as rig, Client(f"unix:{tmp_path}/rig.sock", backoff=QUICK) as client:
        watch = client.watch("route")
        assert [type(event) for event in await until_silent(watch)] == [Reset, Synced]
        for n in range(1, 4):
            await rig.put(route(f"239.1.1.{n}", "10.0.0.5", "up", "down1"))
            events = [await asyncio.wait_for(anext(watch), 10), *await until_silent(watch)]
            assert [event for event in events if isinstance(event, Reset)] == []  # it goes on from the token
            groups = {event.object.group for event in events if isinstance(event, Put) and isinstance(event.object, t.Route)}
            assert groups == {f"239.1.1.{n}"}
        await watch.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_what_was_not_entered_says_so() -> None:
    client = Client("unix:/nowhere")
    session, view = client.program("sdn"), client.view("route")
    for wait in (session.put(route("239.1.1.1")), session.sync([]), session.ended(), view.ready(), view.changed(0)):
        with pytest.raises(McastError, match="use it as a context, `async with client"):
            await asyncio.wait_for(wait, 5)
    assert session.pending == 0


def test_nor_in_threads_does_anybody_wait_for_ever() -> None:
    client = SyncClient("unix:/nowhere")
    session, view = client.program("sdn"), client.view("route")
    waits: list[Callable[[], object]] = [
        lambda: session.put(route("239.1.1.1")),
        lambda: session.sync([]),
        session.ended,
        view.ready,
        lambda: view.changed(0),
    ]
    for wait in waits:
        with pytest.raises(McastError, match="use it as a context, `with client"):
            wait()


async def test_a_watch_that_is_closed_tells_nothing_more(tmp_path: Path) -> None:
    def work(address: str) -> None:
        with SyncClient(address, backoff=QUICK) as client:
            watch = client.watch("route")
            heard = 0
            for event in watch:
                heard += isinstance(event, Put)
                if heard == 3:
                    watch.close()
            assert heard == 3
            assert client._watches._links.current().users == 0

    async with abrupt(tmp_path) as (_, address):
        await asyncio.to_thread(work, address)


async def test_a_client_that_is_closed_just_before_a_call_says_so(tmp_path: Path) -> None:
    def work(address: str) -> None:
        client = SyncClient(address, backoff=QUICK)

        def call() -> None:
            with client._calls.use(10) as link:
                client.close()
                link.stubs.routes.ListRoutes(rs.ListRoutesRequest())

        with pytest.raises(McastError, match="is closed: make another"):
            call()

    async def call(client: Client) -> None:
        async with client._calls.use(10) as link:
            await client.close()
            link.stubs.routes.ListRoutes(rs.ListRoutesRequest())

    async with abrupt(tmp_path) as (_, address):
        await asyncio.to_thread(work, address)
        with pytest.raises(McastError, match="is closed: make another"):
            await call(Client(address, backoff=QUICK))


async def test_why_a_view_has_ended_is_told(tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise KeyError("a fault of the program")

    async def follow(client: Client) -> None:
        async with client.view("interface", on_event=fail) as view:
            while True:
                await view.changed(view.version)

    async with running(Rig(tmp_path)), Client(f"unix:{tmp_path}/rig.sock", backoff=QUICK) as client:
        with pytest.raises(McastError, match="the view is closed") as caught:
            await follow(client)
        assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_what_a_callback_raises_is_the_cause_in_threads_too(tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise KeyError("a fault of the program")

    def work(address: str) -> None:
        with SyncClient(address, backoff=QUICK) as client, client.view("interface", on_event=fail) as view:
            with pytest.raises(McastError, match="the view is closed") as caught:
                view.changed(1000, 10)
            assert isinstance(caught.value.__cause__, KeyError)
            session = client.program("sdn", on_exception=fail)
            session.__enter__()
            session.put(route("239.1.1.1", "10.0.0.5", "nowhere", "down1"))
            ended = session.ended(10)
            assert ended is not None
            assert isinstance(ended.__cause__, KeyError)
            session.__exit__(KeyError, None, None)

    async with running(Rig(tmp_path)):
        await asyncio.to_thread(work, f"unix:{tmp_path}/rig.sock")


LEFT = """
import asyncio, sys
from mcast.client import Client

async def main():
    async with Client(sys.argv[1]) as client:
        async for event in client.watch("route"):
            break

asyncio.run(main())
"""


async def test_a_loop_that_is_left_makes_no_noise_at_the_end_of_the_program(tmp_path: Path) -> None:
    async with abrupt(tmp_path) as (_, address):
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", LEFT, address]
        path = os.pathsep.join(sys.path)
        environment = os.environ | {"PYTHONPATH": path, "GRPC_VERBOSITY": "NONE"}
        program = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
        _, said = await asyncio.wait_for(program.communicate(), 60)
        assert (program.returncode, said.decode()) == (0, "")


def give_way(one: SyncClient, other: SyncClient) -> None:
    """Lead, until somebody else does."""
    with one.program("sdn", epoch=1) as session, other.program("sdn", epoch=2) as successor:
        assert isinstance(session.ended(10), Superseded)
        with pytest.raises(Superseded):
            session.put(route("239.1.1.1", "10.0.0.5", "up", "down1"))
        with pytest.raises(StaleEpoch):
            one.program("sdn", epoch=1).__enter__()
        assert successor.ended(0.1) is None


async def test_a_session_in_threads_gives_way_and_says_so(tmp_path: Path) -> None:
    def work(address: str) -> None:
        with SyncClient(address, backoff=QUICK) as one, SyncClient(address, backoff=QUICK) as other:
            with pytest.raises(Superseded) as caught:
                give_way(one, other)
            assert caught.value.by == 2

    async with running(Rig(tmp_path)):
        await asyncio.to_thread(work, f"unix:{tmp_path}/rig.sock")


@pytest.mark.parametrize("bad", [object(), "239.1.1.1"])
async def test_what_stands_before_something_that_is_no_route_is_sent(tmp_path: Path, bad: Any) -> None:
    async with (
        running(Rig(tmp_path)) as rig,
        Client(f"unix:{tmp_path}/rig.sock", backoff=QUICK) as client,
        client.program("sdn") as session,
    ):
        with pytest.raises(AttributeError):
            await session.put([route("239.1.1.1", "10.0.0.5", "up", "down1"), bad])
        assert await asyncio.wait_for(session.flush(), 10) == []
        assert len(await rig.listed()) == 1


@pytest.mark.parametrize("no_seconds", [float("nan"), float("inf"), 1e300], ids=str)
def test_a_lease_of_no_time_is_refused(no_seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="can't be used as seconds"):
        Client().program("sdn", lease=Lease(no_seconds))


def test_sessions_of_both_kinds_share_their_state() -> None:
    assert Session.__mro__[1] is SyncSession.__mro__[1] is SessionState
