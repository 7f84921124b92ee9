"""Memberships and the end of the server: a crash or a restart puts nothing on the wire, an orderly end leaves every group."""

import logging
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e.mrd import Heard, Neighbour
from tests.e2e.router import Router
from tests.netns.memberships import FilterTable, group_table, source_table
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel

_REPORTS = {Family.IPV4: {0x12, 0x16, 0x17, 0x22}, Family.IPV6: {131, 132, 143}}
"""Reports, and leaves of IGMPv2 and MLDv1."""
_LABELS = {Family.IPV4: bytes([239, 2]), Family.IPV6: bytes.fromhex("ff15000000000000000000000002")}
"""What every group of this test begins with, as it is in reports."""

_SETTLED = 1.5
"""Seconds without a report after which the kernel has repeated all (RFC 3376 8.11, RFC 3810 9.14: 2 within a second)."""

_log = logging.getLogger(__name__)


def group(family: Family, number: int) -> str:
    return f"239.2.{number >> 8}.{number & 255}" if family is Family.IPV4 else f"ff15::2:{number:x}"


def source(family: Family, number: int) -> str:
    return f"10.9.{number >> 8}.{number & 255}" if family is Family.IPV4 else f"fd09::{number + 1:x}"


class Member:
    """A router that joins on "up", and a neighbour there that hears it."""

    def __init__(self, bed: Testbed, directory: Path) -> None:
        self.router = Router(bed, Family.IPV4, 1, directory=directory)
        self.router.namespace.sysctl("net/ipv4/igmp_max_memberships", "20")
        self.neighbour = Neighbour(self.router.star.source)

    def call(self, request: sv.PutJoinsRequest | sv.DeleteJoinsRequest) -> None:
        """PutJoins or DeleteJoins, of which nothing fails."""
        stub = sv_grpc.JoinServiceStub(self.router.daemon.channel)
        if isinstance(request, sv.PutJoinsRequest):
            assert list(stub.PutJoins(request, timeout=60).joins) == []
        else:
            stub.DeleteJoins(request, timeout=60)

    def heard(self, family: Family, since: float) -> list[Heard]:
        """Reports of the test's groups."""
        self.neighbour._listen()
        kinds, label = _REPORTS[family], _LABELS[family]
        return [
            m for m in self.neighbour._heard if m.family is family and m.time >= since and m.kind in kinds and label in m.body
        ]

    def has_heard(self, family: Family, count: int, since: float = 0) -> bool:
        """Whether so many have come."""
        return len(self.heard(family, since)) >= count

    def has_joined(self, family: Family, interface: str) -> bool:
        """Whether the interface has joined any group of the test."""
        return any(one.startswith(_LABELS[family]) for one in group_table(self.router.namespace, family, interface))

    def settle(self) -> float:
        """Wait until the kernel has repeated its reports; when that was."""

        def quiet() -> bool:
            last = max((one.time for family in Family for one in self.heard(family, 0)), default=0.0)
            return time.time() - last > _SETTLED

        wait_until(quiet, 30)
        return time.time()

    def state(self, family: Family) -> tuple[set[bytes], FilterTable]:
        """Groups and sources joined on "up"."""
        namespace = self.router.namespace
        return group_table(namespace, family, "up"), source_table(namespace, family)


@pytest.fixture
def member(testbed: Testbed, directory: Path) -> Iterator[Member]:
    made = Member(testbed, directory)
    yield made
    made.router.close()


def joins(count: int) -> list[t.Join]:
    """Half of them source-specific, half of them of each family."""
    return [
        t.Join(interface="up", group=group(family, number), source=source(family, number) if number % 2 else "")
        for family in Family
        for number in range(count // 2)
    ]


def test_two_thousand_memberships_outlive_the_server_in_silence(member: Member, directory: Path) -> None:
    wanted = joins(2000)
    began = time.monotonic()
    member.call(sv.PutJoinsRequest(joins=wanted))
    _log.info("2,000 joins took %.3f s", time.monotonic() - began)
    before = {family: member.state(family) for family in Family}
    for family in Family:
        assert len([one for one in before[family][0] if one.startswith(_LABELS[family])]) == 1000
        assert len(before[family][1]) == 500
        wait_until(partial(member.has_heard, family, 1), 10)
    since = member.settle()
    pid = member.router.daemon.kill_server()
    for family in Family:
        assert member.state(family) == before[family]
    member.router.wait_server_after(pid)
    for family in Family:
        assert member.state(family) == before[family]
    time.sleep(_SETTLED)  # a report would have come by then, and its repetition
    assert [one for family in Family for one in member.heard(family, since)] == []
    # What was taken over can be left, and what was left is heard.
    member.call(sv.DeleteJoinsRequest(joins=wanted[:2]))
    wait_until(lambda: len(member.heard(Family.IPV4, since)) >= 2, 10)
    assert len(member.state(Family.IPV4)[0]) == len(before[Family.IPV4][0]) - 2
    member.router.daemon.close()
    for family in Family:
        assert not any(one.startswith(_LABELS[family]) for one in member.state(family)[0])
        wait_until(partial(member.has_heard, family, 3, since), 10)
    # And a new daemon joins what is stored.
    member.router.start(directory=directory)
    for family, gone in ((Family.IPV4, 2), (Family.IPV6, 0)):
        assert len([one for one in member.state(family)[0] if one.startswith(_LABELS[family])]) == 1000 - gone


def test_only_the_difference_is_heard_after_a_crash(member: Member) -> None:
    """The interface of some memberships goes while there is no server, and comes back: they are joined there, no others."""
    member.call(sv.PutJoinsRequest(joins=joins(40)))
    member.router.plug("other")
    member.call(sv.PutJoinsRequest(joins=[t.Join(interface="other", group=group(family, 900)) for family in Family]))
    since = member.settle()
    pid = member.router.daemon.kill_server()
    member.router.namespace.ip("link del other")
    member.router.wait_server_after(pid)
    member.router.plug("other")
    for family in Family:
        wait_until(partial(member.has_joined, family, "other"), 10)
    assert [one for family in Family for one in member.heard(family, since)] == []


def test_repeated_crashes_lose_and_leak_nothing(member: Member) -> None:
    member.call(sv.PutJoinsRequest(joins=joins(200)))
    before = {family: member.state(family) for family in Family}
    keeper = Path(f"/proc/{member.router.daemon.process.pid}/fd")
    counts = []
    for _ in range(3):
        counts.append(len(list(keeper.iterdir())))
        member.router.wait_server_after(member.router.daemon.kill_server())
        for family in Family:
            assert member.state(family) == before[family]
    assert len(set(counts)) == 1, counts
