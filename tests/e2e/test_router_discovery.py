"""Router discovery (RFC 4286) of a real daemon, heard by its neighbours: what is sent when, byte for byte, and what is not."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcast.v1 import services_pb2 as sv
from mcastd.model.address import Family
from tests.e2e.mrd import ADVERTISEMENT, SNOOPERS, TERMINATION, Neighbour, checksum_is_right, no_more
from tests.e2e.router import Router
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel

SLACK = 0.4
"""Seconds that a busy machine may be late."""

START = 2.0
"""MaxInitialAdvertisementInterval."""


@pytest.fixture
def both(testbed: Testbed, directory: Path) -> Iterator[Router]:
    """A router for tests that look at both families at once."""
    with Router(testbed, Family.IPV4, directory=directory) as made:
        yield made


def switch(router: Router, name: str, on: bool = True) -> bool:
    """Turn discovery on or off; whether it is on by what the daemon answers."""
    request = sv.SetInterfaceRequest(interface=name, router_discovery=on)
    return router.daemon.interfaces.SetInterface(request, timeout=10).interface.router_discovery


def test_advertisement_and_termination_byte_for_byte(router: Router, family: Family) -> None:
    near, here = Neighbour(router.star.receivers[0]), router.star.downlinks[0]
    assert switch(router, "down1") is True
    heard = near.wait(family, ADVERTISEMENT)[0]
    alert = {Family.IPV4: bytes.fromhex("94040000"), Family.IPV6: bytes.fromhex("3a00050200000100")}[family]
    if family is Family.IPV4:
        assert heard.body.hex() == "3014cfeb00000000"  # interval 20 s, no querier
        assert (heard.header[0], heard.header[8], heard.header[9]) == (0x46, 1, 2)  # 24 bytes, TTL 1, IGMP
        assert heard.header[20:] == alert
        assert heard.source == socket.inet_aton(here.ipv4)
    else:
        assert heard.body[:2] + heard.body[4:] == bytes([151, 20, 0, 0, 0, 0])
        assert (heard.header[6], heard.header[7]) == (0, 1)  # a hop-by-hop header, hop limit 1
        assert heard.header[40:] == alert
        shown = router.namespace.command("ip", "-6", "-o", "addr", "show", "dev", "down1", "scope", "link")
        assert socket.inet_ntop(socket.AF_INET6, heard.source) + "/64" in shown.split()
    assert heard.destination == SNOOPERS[family]
    assert checksum_is_right(heard)

    assert switch(router, "down1", on=False) is False
    gone = near.wait(family, TERMINATION)[0]
    expected = {Family.IPV4: "3200cdff", Family.IPV6: "9900"}[family]
    assert gone.body.hex().startswith(expected)
    assert len(gone.body) == 4
    assert gone.destination == SNOOPERS[family]
    assert gone.header[20 if family is Family.IPV4 else 40 :] == alert
    assert gone.header[8 if family is Family.IPV4 else 7] == 1
    assert checksum_is_right(gone)
    no_more(lambda: near.discovery(family, ADVERTISEMENT, since=gone.time), 0, START + SLACK)


def test_burst_then_interval(testbed: Testbed, directory: Path) -> None:
    config = directory / "mcastd.toml"
    config.write_text("[daemon]\nrouter_discovery_interval = 4\n")
    with Router(testbed, Family.IPV4, directory=directory, arguments=("--config", str(config))) as router:
        near = Neighbour(router.star.receivers[0])
        far = Neighbour(router.star.receivers[1])
        began = time.time()
        switch(router, "down1")
        for family in Family:
            times = [one.time for one in near.wait(family, ADVERTISEMENT, 5, seconds=20)]
            gaps = [later - earlier for earlier, later in zip([began, *times], times, strict=False)]
            assert gaps[0] < 0.5 + START + SLACK  # the daemon looks twice a second
            assert max(gaps[1:3]) < START + SLACK
            assert all(3.9 - 0.05 < gap < 4.1 + SLACK for gap in gaps[3:5]), gaps
            assert near.discovery(family, ADVERTISEMENT)[0].body[1] == 4
            assert far.discovery(family, ADVERTISEMENT) == []


def test_solicitation_is_answered_once_after_a_random_delay(both: Router) -> None:
    near = Neighbour(both.star.receivers[0])
    switch(both, "down1")
    for family in Family:
        near.wait(family, ADVERTISEMENT, 3)
    delays = []
    for _ in range(3):
        for family in Family:
            since = near.solicit(family)
            near.solicit(family)
            heard = near.wait(family, ADVERTISEMENT, since=since)
            delays.append(heard[0].time - since)
    assert max(delays) < 1 + SLACK
    assert max(delays) - min(delays) > 0.01
    counts = {family: len(near.discovery(family, ADVERTISEMENT)) for family in Family}
    assert counts == {Family.IPV4: 6, Family.IPV6: 6}


def test_interface_that_asks_for_nothing_answers_nothing(both: Router) -> None:
    asked, other = (Neighbour(port) for port in both.star.receivers)
    switch(both, "down1")
    for family in Family:
        asked.wait(family, ADVERTISEMENT, 3)
        other.solicit(family)
    no_more(lambda: [one for family in Family for one in other.discovery(family, ADVERTISEMENT)], 0, 1 + SLACK)
    assert other.reports(Family.IPV4, 0) == []


@pytest.mark.parametrize("end", ["SIGTERM", "Shutdown"])
def test_terminations_at_an_orderly_end(both: Router, end: str) -> None:
    nears = [Neighbour(port) for port in both.star.receivers]
    for name in ("down1", "down2"):
        switch(both, name)
    for near in nears:
        for family in Family:
            near.wait(family, ADVERTISEMENT)
    if end == "SIGTERM":
        both.daemon.process.terminate()
    else:
        both.daemon.daemon.Shutdown(sv.ShutdownRequest(), timeout=10)
    assert both.daemon.process.wait(15) == 0
    for near in nears:
        for family in Family:
            gone = near.wait(family, TERMINATION)
            assert len(gone) == 1
            assert near.discovery(family, ADVERTISEMENT, since=gone[0].time) == []


def test_killed_server_says_nothing_and_its_successor_little(both: Router) -> None:
    near = Neighbour(both.star.receivers[0])
    switch(both, "down1")
    for family in Family:
        near.wait(family, ADVERTISEMENT, 3)
        assert near.reports(family, 0)  # the routers' group was joined, and that is heard
    since = time.time()
    for _ in range(2):
        both.wait_server_after(both.daemon.kill_server())
    for family in Family:
        near.wait(family, ADVERTISEMENT, since=since)
    no_more(lambda: [one for family in Family for one in near.discovery(family, ADVERTISEMENT, since)], 4, 2 * START)
    for family in Family:
        assert near.discovery(family, TERMINATION) == []
        assert near.reports(family, since) == []
        asked = near.solicit(family)
        near.wait(family, ADVERTISEMENT, since=asked, seconds=1 + SLACK + 1)


def test_turned_off_while_the_server_was_away_is_left(both: Router) -> None:
    """What an older server has joined and nobody wants is left when the next one takes the socket."""
    near = Neighbour(both.star.receivers[0])
    for name in ("down1", "down2"):
        switch(both, name)
    near.wait(Family.IPV4, ADVERTISEMENT)
    wait_until(lambda: members(both, "down1") == {Family.IPV4, Family.IPV6})
    pid = both.daemon.server_pid()
    os.kill(pid, signal.SIGSTOP)
    both.namespace.ip("link set dev down1 name elsewhere")
    os.kill(pid, signal.SIGKILL)
    both.wait_server_after(pid)
    wait_until(lambda: members(both, "elsewhere") == set())
    assert members(both, "down2") == {Family.IPV4, Family.IPV6}


def members(router: Router, name: str) -> set[Family]:
    """Families in which an interface is a member of the routers' group."""
    shown = router.namespace.command("ip", "maddr", "show", "dev", name).split()
    texts = {Family.IPV4: "224.0.0.2", Family.IPV6: "ff02::2"}
    return {family for family in Family if texts[family] in shown}


def test_late_renamed_and_made_again(both: Router) -> None:
    switch(both, "late")
    near = Neighbour(both.plug("late"))
    for family in Family:
        near.wait(family, ADVERTISEMENT)

    both.namespace.ip("link set dev late name other")
    for family in Family:
        gone = near.wait(family, TERMINATION)[-1]
        assert near.discovery(family, ADVERTISEMENT, since=gone.time) == []
    since = time.time()
    both.namespace.ip("link set dev other name late")
    for family in Family:
        near.wait(family, ADVERTISEMENT, since=since)

    both.namespace.ip("link del late")
    near = Neighbour(both.plug("late"))
    for family in Family:
        near.wait(family, ADVERTISEMENT, 3)
        asked = near.solicit(family)
        near.wait(family, ADVERTISEMENT, since=asked, seconds=1 + SLACK + 1)


def test_interface_that_loses_multicast_ends(both: Router) -> None:
    near = Neighbour(both.star.receivers[0])
    switch(both, "down1")
    for family in Family:
        near.wait(family, ADVERTISEMENT)
    both.namespace.ip("link set dev down1 multicast off")
    for family in Family:
        near.wait(family, TERMINATION)
    since = time.time()
    both.namespace.ip("link set dev down1 multicast on")
    for family in Family:
        near.wait(family, ADVERTISEMENT, since=since)


def test_more_interfaces_than_a_socket_may_join(both: Router) -> None:
    """net.ipv4.igmp_max_memberships is for each socket: more sockets are opened."""
    both.namespace.sysctl("net/ipv4/igmp_max_memberships", "2")
    names = [f"port{n}" for n in range(5)]
    nears = {name: Neighbour(both.plug(name)) for name in names}
    for name in names:
        switch(both, name)
    wait_until(lambda: all(members(both, name) == {Family.IPV4, Family.IPV6} for name in names))
    for near in nears.values():
        near.wait(Family.IPV4, ADVERTISEMENT, 3)
        asked = near.solicit(Family.IPV4)
        near.wait(Family.IPV4, ADVERTISEMENT, since=asked, seconds=1 + SLACK + 1)


def test_settings_of_owners(both: Router) -> None:
    """It is remembered, shown, and "config" yields to others."""

    def shown() -> bool:
        listed = both.daemon.interfaces.ListInterfaces(sv.ListInterfacesRequest(interface="down1"), timeout=10)
        return listed.interfaces[0].router_discovery

    assert shown() is False
    switch(both, "down1")
    both.wait_server_after(both.daemon.kill_server())
    assert shown() is True
    assert "router-discovery" in both.daemon.status().features


def test_no_packet_is_taken_for_an_upcall(both: Router) -> None:
    """The second raw socket beside that of multicast routing: each gets its own packets only."""
    near = Neighbour(both.star.receivers[0])
    switch(both, "down1")
    near.wait(Family.IPV4, ADVERTISEMENT)
    for family in Family:
        for _ in range(200):
            near.solicit(family)
    near.wait(Family.IPV4, ADVERTISEMENT, 1, since=time.time())
    assert both.daemon.status().limits.kernel_upcalls_lost == 0
    assert "no upcall" not in both.daemon.log()
