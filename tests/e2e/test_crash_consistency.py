"""Four clients write at full speed, routes by calls and by sets, joins, and a session, while the server is killed at random.

Afterwards all that was acknowledged is there, in what is listed and in the kernel, and no write is there by half.
MCASTD_TEST_KILLS says how often (the default is for every day; 50 is a proof).
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import grpc
import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family, pack_address
from tests.e2e.router import Router, bulk, group
from tests.e2e.session import Session
from tests.e2e.test_crash_writes import check_in_force, wanted
from tests.netns.memberships import group_table

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("heavy")]

KILLS = int(os.environ.get("MCASTD_TEST_KILLS", "5"))
LONGEST = 0.4
"""Seconds of writing before a kill, at most."""
SLOTS = 10
"""Places that a client writes to, one after the other."""
SIZE = 40
"""Routes of one write."""
JOINS = 8

OURS = (bytes((232,)), bytes((0xFF, 0x3E)))
"""What the groups of the test begin with."""

State = Mapping[bytes, frozenset[str]]

_log = logging.getLogger(__name__)


class Writer:
    """Writes until the server is gone; knows what was acknowledged, and what it comes to if the last write came through."""

    owner: str

    def __init__(self, router: Router, number: int) -> None:
        self.router = router
        self.first = 0x10000 * (number + 1)
        self.writes = 0
        self.acknowledged: State = {}
        self.maybe: State = {}
        self._numbers: Iterator[int] = iter(range(1 << 30))

    def go_on(self) -> None:
        """Write until the server is gone."""
        try:
            self.begin()
            while True:
                self.step(next(self._numbers))
                self.acknowledged = self.maybe
                self.writes += 1
        except (grpc.RpcError, StopIteration):
            self.end()

    def begin(self) -> None:
        """There is a server."""

    def end(self) -> None:
        """It is gone."""

    def step(self, number: int) -> None:
        """One write: set `maybe` to what it comes to, then do it."""
        raise NotImplementedError

    def check(self, found: State) -> None:
        """See that what is there is all acknowledged, with the last write or without it."""
        assert found in (self.acknowledged, self.maybe)
        self.acknowledged = self.maybe = found

    def slot(self, number: int) -> list[t.Route]:
        """The routes of a write: the same keys come again with other oifs."""
        at = self.first + SIZE * (number % SLOTS)
        return list(bulk(self.router.family, SIZE, self.router.source, f"down{1 + number // SLOTS % 2}", first=at))

    def without(self, routes: list[t.Route]) -> State:
        """What is acknowledged but for the keys of these."""
        gone = wanted(routes).keys()
        return {key: oifs for key, oifs in self.acknowledged.items() if key not in gone}


def deletes(number: int) -> bool:
    """Whether a write is to delete."""
    return number % 5 == 4


class Calls(Writer):
    """PutRoutes and DeleteRoutes."""

    owner = "calls"

    def step(self, number: int) -> None:
        """A slot."""
        routes, daemon = self.slot(number), self.router.daemon
        if deletes(number):
            self.maybe = self.without(routes)
            daemon.delete(*keys_of(routes))
        else:
            self.maybe = {**self.acknowledged, **wanted(routes)}
            daemon.put(*routes)


class Sets(Writer):
    """ReplaceRoutes."""

    owner = "sets"

    def step(self, number: int) -> None:
        """Some slots as a set."""
        routes = [one for at in range(number, number + 1 + number % 7) for one in self.slot(at)]
        self.maybe = wanted(routes)
        self.router.daemon.replace(routes, options={"owner": self.owner})


class Controller(Writer):
    """A session, opened anew after each crash; it does not replay: what was acknowledged is there."""

    owner = "controller"
    _session: Session | None = None

    def begin(self) -> None:
        """Open it."""
        self._session = Session(self.router.daemon.socket)
        self._session.open(self.owner, epoch=1 + self.writes, hold=3600)

    def end(self) -> None:
        """It is gone."""
        if self._session is not None:
            self._session.die()

    def step(self, number: int) -> None:
        """A slot as one batch."""
        assert self._session is not None
        routes = self.slot(number)
        if deletes(number):
            self.maybe = self.without(routes)
            assert self._session.program(keys_of(routes)) == []
        else:
            self.maybe = {**self.acknowledged, **wanted(routes)}
            assert self._session.program(routes) == []


class Joiner(Writer):
    """PutJoins and DeleteJoins; its state has the groups, packed."""

    owner = "joiner"

    def step(self, number: int) -> None:
        """Some joins."""
        stub = sv_grpc.JoinServiceStub(self.router.daemon.channel)
        numbers = range(self.first + JOINS * (number % SLOTS), self.first + JOINS * (number % SLOTS + 1))
        groups = [group(self.router.family, at) for at in numbers]
        joins = [t.Join(interface="up", group=one, owner=self.owner) for one in groups]
        options = rs.WriteOptions(owner=self.owner)
        if deletes(number):
            self.maybe = {key: on for key, on in self.acknowledged.items() if key not in set(map(pack_address, groups))}
            stub.DeleteJoins(sv.DeleteJoinsRequest(joins=joins, options=options), timeout=60)
        else:
            self.maybe = {**self.acknowledged, **{pack_address(one): frozenset({"up"}) for one in groups}}
            answer = stub.PutJoins(sv.PutJoinsRequest(joins=joins, options=options), timeout=60)
            assert list(answer.joins) == []

    def found(self) -> State:
        """What is listed, which is what the kernel has joined."""
        stub = sv_grpc.JoinServiceStub(self.router.daemon.channel)
        answers = list(stub.ListJoins(sv.ListJoinsRequest(), timeout=60))
        listed = {pack_address(one.group): frozenset({one.interface}) for answer in answers for one in answer.joins}
        joined = {one for one in group_table(self.router.namespace, self.router.family, "up") if one.startswith(OURS)}
        assert joined == set(listed)
        return listed


def keys_of(routes: list[t.Route]) -> list[t.RouteKey]:
    return [t.RouteKey(group=one.group, source=one.source) for one in routes]


def killed_while(router: Router, *work: Callable[[], None]) -> None:
    """Kill the server while these go on, and wait for the next one."""
    pid = router.daemon.server_pid()
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    time.sleep(random.uniform(0, LONGEST))  # the moment is what is tried out
    router.daemon.kill_server()
    for thread in threads:
        thread.join()
    router.wait_server_after(pid)


@pytest.mark.timeout(60 + 12 * KILLS)
def test_what_was_acknowledged_is_there_and_nothing_by_half(router: Router) -> None:
    writers = [Calls(router, 0), Sets(router, 1), Controller(router, 2)]
    joiner = Joiner(router, 3)
    for _ in range(KILLS):
        killed_while(router, *(one.go_on for one in (*writers, joiner)))
        found = check_in_force(router)
        for writer in writers:
            own = {key: oifs for key, oifs in found.items() if _number(router, key) >> 16 == writer.first >> 16}
            writer.check(own)
            found = {key: oifs for key, oifs in found.items() if key not in own}
        assert found == {}
        joiner.check(joiner.found())
    _log.info("%s writes were acknowledged in %d lives", {one.owner: one.writes for one in (*writers, joiner)}, KILLS)
    assert all(one.writes for one in (*writers, joiner))


def _number(router: Router, key: bytes) -> int:
    """The number of a route's group (tests.e2e.router.group)."""
    size = 4 if router.family is Family.IPV4 else 16
    packed = key[4 : 4 + size]
    return int.from_bytes(packed[-4:], "big") - int.from_bytes(pack_address(group(router.family, 0))[-4:], "big")
