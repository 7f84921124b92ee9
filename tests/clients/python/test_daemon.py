"""Both clients with a real daemon that dies, hands over, stalls and restarts: nothing in the kernel changes."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from mcast.client import Backoff, Client, Keepalive, Session, SyncClient, View, route_id
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e.keeper_bench import open_directory
from tests.e2e.router import Router
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel

ROUTES = 2500
QUICK = Backoff(0.05, 0.5)
ALIVE = Keepalive(5, 1)


@pytest.fixture(params=list(Family), ids=["ipv4", "ipv6"])
def router(request: pytest.FixtureRequest, testbed: Testbed) -> Iterator[Router]:
    """A router whose daemon runs."""
    with Router(testbed, request.param) as made:
        yield made


def kill(router: Router) -> None:
    """`kill -9` the server, and wait until another one serves."""
    router.wait_server_after(router.daemon.kill_server())


def hand_over(router: Router) -> None:
    """Have another server take over."""
    before = router.daemon.server_pid()
    router.daemon.process.send_signal(signal.SIGUSR2)
    router.wait_server_after(before)


def stall(router: Router) -> None:
    """Stop the server until its clients have noticed."""
    pid = router.daemon.server_pid()
    os.kill(pid, signal.SIGSTOP)
    threading.Event().wait(8)  # keepalive takes 6 s; nothing else tells
    os.kill(pid, signal.SIGCONT)


EVENTS = pytest.mark.parametrize("event", [kill, hand_over, stall])


def wanted(router: Router) -> list[t.Route]:
    return [router.route(number, "down1") for number in range(1, ROUTES + 1)]


async def is_up(session: Session, view: View, instance: str, *, same: bool) -> None:
    """Wait until session and view stand again, and all is acknowledged."""
    async with asyncio.timeout(30):
        while not (session.connected and (same or session.opened.instance_id != instance)):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)
        assert await session.flush() == []
        await view.ready()


@EVENTS
async def test_routes_outlive_what_befalls_the_daemon(router: Router, event: Callable[[Router], None]) -> None:
    address = f"unix:{router.daemon.socket}"
    async with (
        Client(address, backoff=QUICK, keepalive=ALIVE) as client,
        client.view("route") as view,
        client.program("sdn", epoch=3) as session,
    ):
        assert (await session.sync(wanted(router))).entries == ROUTES
        await view.ready()
        notices, instance, streams = router.notices(), session.opened.instance_id, id(session.opened)
        befall = asyncio.to_thread(event, router)
        await befall
        await is_up(session, view, instance, same=event is stall)
        if event is stall:
            async with asyncio.timeout(30):
                while id(session.opened) == streams:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.02)
                await session.flush()
        assert notices.take() == 0
        assert len(view.routes) == ROUTES
        await session.delete(t.RouteKey(group=wanted(router)[0].group, source=router.source))
        await session.put(router.route(ROUTES + 1, "down2"))
        assert await session.flush() == []
        async with asyncio.timeout(10):
            version = 0
            while set(view.routes) != {route_id(one) for one in [*wanted(router)[1:], router.route(ROUTES + 1)]}:
                version = await view.changed(version)
        await view.ready()
        assert not any(route.status.stale for route in view.routes.values())
        assert {one.group: one.status.state for one in view.routes.values()} == {
            one.group: one.status.state for one in (await client.snapshot()).routes
        }


@pytest.mark.parametrize("event", [kill, hand_over])
def test_routes_outlive_it_for_threads_too(router: Router, event: Callable[[Router], None]) -> None:
    with (
        SyncClient(f"unix:{router.daemon.socket}", backoff=QUICK) as client,
        client.view("route") as view,
        client.program("sdn", epoch=3) as session,
    ):
        assert session.sync(wanted(router), timeout=30).entries == ROUTES
        view.ready(30)
        notices, instance = router.notices(), session.opened.instance_id
        event(router)
        wait_until(lambda: session.connected and session.opened.instance_id != instance, 30)
        assert session.flush(30) == []
        view.ready(30)
        assert notices.take() == 0
        assert len(view.routes) == ROUTES
        session.put(router.route(ROUTES + 1, "down2"))
        assert session.flush(30) == []
        wait_until(lambda: len(view.routes) == ROUTES + 1, 10)


async def test_a_write_waits_for_the_next_server(testbed: Testbed) -> None:
    with Router(testbed, Family.IPV4) as router:
        async with Client(f"unix:{router.daemon.socket}", backoff=QUICK, timeout=30) as client:
            await client.put(router.route(1, "down1"))
            os.kill(router.daemon.server_pid(), signal.SIGKILL)
            result = await client.put([router.route(1, "down1"), router.route(2, "down1")])
            assert (result.created, result.unchanged, result.failed) == (1, 1, 0)


async def test_what_was_put_while_the_daemon_was_down_arrives(testbed: Testbed) -> None:
    with open_directory() as directory, Router(testbed, Family.IPV6, directory=directory) as router:
        async with (
            Client(f"unix:{router.daemon.socket}", backoff=QUICK) as client,
            client.program("sdn") as session,
        ):
            await session.sync([router.route(1, "down1"), router.route(2, "down1")])
            router.daemon.close()
            await session.put(router.route(3, "down2"))
            await session.delete(t.RouteKey(group=router.route(1).group, source=router.source))
            flushing = asyncio.ensure_future(session.flush())  # noqa: TID251 - awaited below
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(flushing), 0.3)
            assert not flushing.done()
            await asyncio.to_thread(router.start, directory=directory)
            assert await asyncio.wait_for(flushing, 30) == []
            assert {route_id(one) async for one in client.list()} == {route_id(router.route(n)) for n in (2, 3)}
