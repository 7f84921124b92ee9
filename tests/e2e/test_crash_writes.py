"""`kill -9` of the server at random moments of bulk writes: what was acknowledged is there, and nothing that nobody asked for.

Twenty kills in all, in four tests: a keeper starts a server that dies early later and later.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from mcast.v1 import types_pb2 as t
from tests.e2e.router import Router, bulk, key_of

pytestmark = pytest.mark.kernel

KILLS = 5
OWNER = {"owner": "bulk"}

Wanted = dict[bytes, frozenset[str]]
"""Names of the oifs by key."""

_log = logging.getLogger(__name__)


def wanted(routes: list[t.Route]) -> Wanted:
    return {key_of(one): frozenset(oif.interface for oif in one.oifs) for one in routes}


def killed_at_random(router: Router, longest: float, write: Callable[[], None]) -> None:
    """Kill the server while the writing goes on, and wait for the next one."""
    pid = router.daemon.server_pid()
    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(random.uniform(0, longest))  # the moment is what is tried out
    router.daemon.kill_server()
    writer.join()
    router.wait_server_after(pid)


def check_in_force(router: Router) -> Wanted:
    """What is listed is what the kernel has, and all of it is programmed; return it."""
    routes = router.daemon.list_routes()
    listed = wanted(routes)
    assert {one.status.state for one in routes} <= {t.ROUTE_STATE_PROGRAMMED}
    assert router.kernel() == {key: ("up", tuple(sorted(oifs))) for key, oifs in listed.items()}
    return listed


def test_replaced_sets_are_whole(router: Router) -> None:
    """ReplaceRoutes is one transaction: afterwards the last set acknowledged is in force, or the one that was under way."""
    size = 20_000
    sets = [
        list(bulk(router.family, size, router.source, *oifs, first=0x10000 + shift))
        for oifs, shift in ((("down1",), 0), (("down2",), size // 2), (("down1", "down2"), size))
    ]
    began = time.monotonic()
    router.daemon.replace(sets[0], options=OWNER)
    usual = time.monotonic() - began
    writes = Writes(router, sets)
    for _ in range(KILLS):
        killed_at_random(router, 2 * usual, writes.go_on)
        found = check_in_force(router)
        last, under_way = (wanted(writes.set_at(number)) for number in (writes.acknowledged, writes.acknowledged + 1))
        assert found in (last, under_way)
        writes.acknowledged += found == under_way
    _log.info("%d sets of %d routes were acknowledged in %d lives", writes.acknowledged, size, KILLS)


class Writes:
    """Replaces the set by the next of three, again and again: so the last, the one under way and an earlier one differ."""

    def __init__(self, router: Router, sets: list[list[t.Route]]) -> None:
        self.acknowledged = 0
        self._router = router
        self._sets = sets

    def set_at(self, number: int) -> list[t.Route]:
        """The set that is written as this one."""
        return self._sets[number % len(self._sets)]

    def go_on(self) -> None:
        """Write until the server is gone."""
        try:
            while True:
                self._router.daemon.replace(self.set_at(self.acknowledged + 1), options=OWNER)
                self.acknowledged += 1
        except grpc.RpcError:
            return


def test_single_writes_are_kept(router: Router) -> None:
    """Many PutRoutes and DeleteRoutes at once, from several clients, each with keys of its own."""
    clients = [Client(router, 0x10000 * (n + 1)) for n in range(3)]
    for _ in range(KILLS):

        def write() -> None:
            threads = [threading.Thread(target=client.write) for client in clients]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        killed_at_random(router, 0.5, write)
        found = check_in_force(router)
        for client in clients:
            found = client.check(found)
        assert found == {}
    _log.info("%d writes were acknowledged in %d lives", sum(client.writes for client in clients), KILLS)
    assert all(client.writes for client in clients)


class Client:
    """Writes until it is refused, and knows what was acknowledged and what was asked for last."""

    def __init__(self, router: Router, first: int) -> None:
        self.writes = 0
        self._router = router
        self._first = first
        self._acknowledged: Wanted = {}
        self._maybe: Wanted = {}
        """As it is if the write that was under way came through."""
        self._numbers: Iterator[int] = iter(range(1, 1_000_000))

    def write(self) -> None:
        """Put some routes, now and then delete them again, until the server is gone."""
        try:
            while True:
                self._step(next(self._numbers))
                self._acknowledged = self._maybe
                self.writes += 1
        except grpc.RpcError:
            return

    def check(self, found: Wanted) -> Wanted:
        """See that all acknowledged is there, and return what is not this client's."""
        others = set(self._acknowledged) | set(self._maybe)
        own = {key: oifs for key, oifs in found.items() if key in others}
        assert own in (self._acknowledged, self._maybe)
        self._acknowledged = self._maybe = own
        return {key: oifs for key, oifs in found.items() if key not in others}

    def _step(self, number: int) -> None:
        daemon = self._router.daemon
        at = self._first + 50 * (number % 40)
        routes = list(bulk(self._router.family, 50, self._router.source, f"down{1 + number // 40 % 2}", first=at))
        if number % 5:
            self._maybe = self._acknowledged | wanted(routes)
            daemon.put(*routes)
        else:
            gone = wanted(routes).keys()
            self._maybe = {key: oifs for key, oifs in self._acknowledged.items() if key not in gone}
            daemon.delete(*(t.RouteKey(group=one.group, source=one.source) for one in routes))
