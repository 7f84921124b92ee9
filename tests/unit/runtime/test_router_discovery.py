"""mcastd.runtime.router_discovery: settings and links in, packets out; no socket to be had, no membership."""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcastd.core.router_discovery import FAILURES_MAX, Place
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.event import LinkChanged, LinkGone
from mcastd.model.interface import Link
from mcastd.model.router_discovery import CONTROL_KIND, Message
from mcastd.model.write import SetInterface, WriteOptions
from mcastd.runtime import router_discovery
from mcastd.runtime.router_discovery import RouterDiscovery
from mcastd.runtime.tasks import cancel, spawn
from tests.fakerouter import Router

ALICE = WriteOptions("alice")


class FakeControl:
    """Stands in for ControlSocket: remembers what is sent and joined."""

    room = 2
    """Memberships of a socket."""
    sends = True
    made: "list[FakeControl]"

    def __init__(self, sock: socket.socket, family: Family) -> None:
        self.sock, self.family = sock, family
        self.sent: list[tuple[Message, int, int]] = []
        self.joined: set[int] = set()
        self.solicited: list[int] = []
        FakeControl.made.append(self)

    def fileno(self) -> int:
        """A real descriptor, for the loop."""
        return self.sock.fileno()

    def close(self) -> None:
        """Close it."""
        self.sock.close()

    def send(self, message: Message, ifindex: int, interval: int) -> None:
        """Remember."""
        if not FakeControl.sends:
            raise OSError(errno.EADDRNOTAVAIL, "not now")
        self.sent.append((message, ifindex, interval))

    def receive(self) -> list[int]:
        """Give what the test has put there."""
        self.sock.recv(100)
        return self.solicited

    def join(self, ifindex: int) -> bool:
        """Join while there is room."""
        if ifindex == 66:
            raise OSError(errno.EINVAL, "not this one")
        if len(self.joined) >= FakeControl.room and ifindex not in self.joined:
            return False
        self.joined.add(ifindex)
        return True

    def leave(self, ifindex: int) -> bool:
        """Leave, or fail to."""
        if ifindex == 67:
            raise OSError(errno.EINVAL, "not this one")
        had = ifindex in self.joined
        self.joined.discard(ifindex)
        return had


class Bench:
    """A router in memory, its discovery, and the other ends of its sockets."""

    def __init__(self, *interfaces: str) -> None:
        self.router = Router(*interfaces)
        self.refuse = False
        self.asked: list[tuple[str, Family, int]] = []
        self.ends: list[socket.socket] = []
        self.discovery = RouterDiscovery(self.router.engine, self.open_control, restarted=False)

    async def open_control(self, kind: str, family: Family, number: int) -> socket.socket:
        """As the keeper does."""
        self.asked.append((kind, family, number))
        if self.refuse:
            raise McastdError(Reason.NOT_ALLOWED, "no")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        self.ends.append(theirs)
        return ours

    def turn(self, name: str, on: bool = True) -> None:
        """Turn discovery on or off."""
        self.router.write(SetInterface(ALICE, name, router_discovery=on))

    def ifindex(self, name: str) -> int:
        """By name."""
        return self.router.engine.world.by_name[name].ifindex

    def link(self, link: Link) -> None:
        """Tell of a link."""
        self.router.engine.links(LinkChanged(link))

    def sent(self, family: Family = Family.IPV4) -> list[tuple[Message, int]]:
        """What has been sent."""
        return [(message, ifindex) for one in FakeControl.made if one.family is family for message, ifindex, _ in one.sent]

    def joined(self, family: Family = Family.IPV4) -> list[set[int]]:
        """What each socket has joined."""
        return [one.joined for one in FakeControl.made if one.family is family]

    def run(self, scene: Callable[[], Awaitable[None]]) -> None:
        """Play a scene while discovery runs."""

        async def play() -> None:
            task = spawn(self.discovery.run(), "router discovery")
            try:
                await scene()
            finally:
                try:
                    await cancel(task)
                finally:
                    self.discovery.close()
                    for end in self.ends:
                        end.close()

        asyncio.run(play())


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    FakeControl.made, FakeControl.room, FakeControl.sends = [], 2, True
    monkeypatch.setattr(router_discovery, "ControlSocket", FakeControl)
    monkeypatch.setattr(router_discovery, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr("mcastd.core.router_discovery.MAX_INITIAL_ADVERTISEMENT_INTERVAL", 0.02)
    monkeypatch.setattr("mcastd.core.router_discovery.RESPONSE_DELAY_MAX", 0.02)
    return Bench("eth0", "eth1", "eth2")


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


def test_no_socket_is_opened_until_somebody_asks(bench: Bench) -> None:
    async def scene() -> None:
        await asyncio.sleep(0.05)
        assert bench.asked == []
        bench.turn("eth1")
        await until(lambda: len(bench.sent()) == len(bench.sent(Family.IPV6)) == 3)
        assert bench.asked == [(CONTROL_KIND, family, 0) for family in Family]
        assert {ifindex for _, ifindex in bench.sent()} == {bench.ifindex("eth1")}
        assert FakeControl.made[0].sent[0][2] == 20
        bench.turn("eth1", on=False)
        await until(lambda: bench.sent()[3:] == [(Message.TERMINATION, bench.ifindex("eth1"))])
        await until(lambda: bench.joined() == bench.joined(Family.IPV6) == [set()])

    bench.run(scene)


def test_links_as_they_come_and_go(bench: Bench) -> None:
    async def scene() -> None:
        bench.turn("late")
        bench.link(Link(50, "late", up=True, multicast=True))
        await until(lambda: len(bench.sent()) == 3)
        bench.link(Link(50, "late", up=True, multicast=False))
        await until(lambda: bench.sent()[-1] == (Message.TERMINATION, 50))
        bench.link(Link(50, "late", up=True, multicast=True))
        await until(lambda: bench.sent()[-1] == (Message.ADVERTISEMENT, 50))
        bench.link(Link(50, "other", up=True, multicast=True))
        await until(lambda: bench.sent()[-1] == (Message.TERMINATION, 50))
        bench.link(Link(51, "late", up=False, multicast=True))
        await asyncio.sleep(0.05)
        assert bench.sent()[-1] == (Message.TERMINATION, 50)
        bench.link(Link(51, "late", up=True, multicast=True))
        await until(lambda: bench.sent()[-1] == (Message.ADVERTISEMENT, 51))
        bench.router.engine.links(LinkGone(51, "late"))
        await until(lambda: bench.joined() == [set()])
        assert (Message.TERMINATION, 51) not in bench.sent()

    bench.run(scene)


def test_more_sockets_where_one_is_full(bench: Bench) -> None:
    async def scene() -> None:
        for name in ("eth0", "eth1", "eth2"):
            bench.turn(name)
        await until(lambda: bench.joined() == bench.joined(Family.IPV6) == [{1, 2}, {3}])
        bench.turn("eth2", on=False)
        await until(lambda: bench.joined() == [{1, 2}, set()])

    bench.run(scene)


def test_where_no_socket_takes_a_member_no_more_are_opened(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper has so many numbers, and kills a server that asks for another."""
    monkeypatch.setattr(router_discovery, "RETRY_SECONDS", 0.01)
    FakeControl.room = 0

    async def scene() -> None:
        for name in ("eth0", "eth1", "eth2"):
            bench.turn(name)
        await until(lambda: len(bench.sent()) == len(bench.sent(Family.IPV6)) == 9)
        await asyncio.sleep(0.1)
        assert bench.asked == [(CONTROL_KIND, family, 0) for family in Family]
        FakeControl.room = 2
        await until(lambda: sorted(map(len, bench.joined())) == [1, 2])

    with caplog.at_level(logging.WARNING):
        bench.run(scene)
    assert [record.__dict__["error"].rpartition(" ")[2] for record in caplog.records] == list(router_discovery._LIMITS.values())


def test_no_more_sockets_are_asked_for_than_the_keeper_has(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_discovery, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(router_discovery, "CONTROL_NUMBER_MAX", 1)
    FakeControl.room = 1

    async def scene() -> None:
        for name in ("eth0", "eth1", "eth2"):
            bench.turn(name)
        await until(lambda: len(bench.sent()) == len(bench.sent(Family.IPV6)) == 9)
        await asyncio.sleep(0.1)
        assert {number for _, _, number in bench.asked} == {0, 1}

    bench.run(scene)


def test_what_an_older_server_has_joined_is_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def older(sock: socket.socket, family: Family) -> FakeControl:
        made = FakeControl(sock, family)
        made.joined = {1, 2}
        return made

    monkeypatch.setattr(router_discovery, "ControlSocket", older)

    async def scene() -> None:
        bench.turn("eth1")
        await until(lambda: bench.joined() == bench.joined(Family.IPV6) == [{bench.ifindex("eth1")}])

    bench.run(scene)


def test_solicitations_wake_it(bench: Bench) -> None:
    async def scene() -> None:
        bench.turn("eth0")
        await until(lambda: len(bench.sent()) == 3)
        bench.discovery._discovery.solicited(Place(99, Family.IPV4), 0)
        FakeControl.made[0].solicited = [1, 1, 99]
        bench.ends[0].send(b"x")
        await until(lambda: len(bench.sent()) == 4)
        await until(lambda: len(bench.sent(Family.IPV6)) == 3)

    bench.run(scene)


def test_end_of_the_daemon(bench: Bench) -> None:
    async def scene() -> None:
        bench.turn("eth0")
        bench.turn("eth1")
        await until(lambda: len(bench.sent()) >= 2)
        bench.discovery.stop()
        ends = [(Message.TERMINATION, 1), (Message.TERMINATION, 2)]
        assert sorted(bench.sent()[-2:]) == sorted(bench.sent(Family.IPV6)[-2:]) == ends
        count = len(bench.sent())
        await asyncio.sleep(0.05)
        assert len(bench.sent()) == count

    bench.run(scene)


def test_no_socket_to_be_had(bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_discovery, "RETRY_SECONDS", 0.02)
    bench.refuse = True

    async def scene() -> None:
        bench.turn("eth0")
        await until(lambda: len(bench.asked) > 4)
        bench.refuse = False
        await until(lambda: len(bench.sent()) == len(bench.sent(Family.IPV6)) == 3)

    bench.run(scene)
    assert [record.message for record in caplog.records].count("router discovery has no socket; it is tried again") == 2


def test_interface_that_takes_no_member_is_advertised_on(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scene() -> None:
        bench.link(Link(66, "odd", up=True, multicast=True))
        bench.turn("odd")
        await until(lambda: len(bench.sent()) == 3)

    bench.run(scene)
    assert "the routers' group can't be joined" in caplog.text


def test_membership_that_can_not_be_left(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        bench.link(Link(67, "odd", up=True, multicast=True))
        bench.turn("odd")
        await until(lambda: len(bench.sent()) == 3)
        bench.turn("odd", on=False)
        await until(lambda: "the routers' group can't be left" in caplog.text)
        bench.turn("eth0")
        await until(lambda: (Message.ADVERTISEMENT, 1) in bench.sent())

    bench.run(scene)


def test_nothing_can_be_sent(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    FakeControl.sends = False

    async def scene() -> None:
        bench.turn("eth0")
        await until(lambda: "can't advertise" in caplog.text)
        await asyncio.sleep(0.1)

    bench.run(scene)
    warnings = [record for record in caplog.records if "can't advertise" in record.message]
    assert len(warnings) == 2, FAILURES_MAX


def test_broken_socket_is_read_no_further(bench: Bench) -> None:
    async def scene() -> None:
        bench.turn("eth0")
        await until(lambda: len(bench.sent()) == 3)

        def receive() -> list[int]:
            FakeControl.made[0].sock.recv(100)
            raise OSError(errno.ENETDOWN, "down")

        FakeControl.made[0].receive = receive  # type: ignore[method-assign]
        bench.ends[0].send(b"x")
        await asyncio.sleep(0.02)
        bench.turn("eth1")
        await until(lambda: len(bench.sent()) == 6)

    bench.run(scene)


def test_interval_of_the_limits(bench: Bench) -> None:
    async def scene() -> None:
        bench.turn("eth0")
        await until(lambda: len(bench.sent()) == 3)
        made: Any = FakeControl.made[0]
        assert {interval for _, _, interval in made.sent} == {20}

    bench.run(scene)
