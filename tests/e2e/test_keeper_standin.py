"""While the keeper is executed anew its stand-in answers upcalls: flows that begin meanwhile lose nothing."""

import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e.router import Router
from tests.testbed.daemon import route, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("heavy")]

ROOT = Path(__file__).parents[2]

FLOWS = 4_000
PACKETS = 10
"""Of each flow; the kernel keeps four that wait."""

BETWEEN_FLOWS = 0.0005
"""Seconds; the keeper is away for 0.15 s of each execution, so for some hundred beginnings."""

STRIDE = 40
"""Beginnings between two packets of a flow, so 20 ms: no flow loses a packet if each upcall is answered within 80 ms."""

DONE = 'msg="the keeper is re-executed"'
ANSWERED = re.compile(r'msg="upcalls were answered meanwhile" .*upcalls=([0-9]+)')


def test_flows_that_begin_meanwhile_lose_nothing(router: Router) -> None:
    everything = "232.0.0.0/8" if router.family is Family.IPV4 else "ff3e::/32"
    router.put(route(everything, "", "up", "down1"))
    command = [sys.executable, "-m", "tests.e2e.test_keeper_standin", str(int(router.family)), router.source]
    with router.star.source.namespace.popen(command, cwd=ROOT) as sender:
        while sender.poll() is None:
            execute_anew(router)
    assert sender.returncode == 0
    wait_until(lambda: len(router.daemon.list_routes(learned=True)) == FLOWS + 1, 10, router.daemon.log)
    learned = [one for one in router.daemon.list_routes(learned=True, counters=True, max_age={}) if one.source]
    short = {one.group: one.status.counters.packets for one in learned if one.status.counters.packets != PACKETS}
    assert (len(learned), short) == (FLOWS, {})
    assert answered(router) > 50, router.daemon.log()
    assert "strange ones" not in router.daemon.log()
    # What the stand-in has made counts like what the keeper itself makes: all of it goes with the template.
    assert router.daemon.delete(t.RouteKey(group=everything)).failed == 0
    wait_until(lambda: not router.daemon.list_routes(learned=True), 10, router.daemon.log)


def execute_anew(router: Router) -> None:
    before = router.daemon.log().count(DONE)
    os.kill(router.daemon.process.pid, signal.SIGUSR1)
    wait_until(lambda: router.daemon.log().count(DONE) > before, 20, router.daemon.log)


def answered(router: Router) -> int:
    """Upcalls that stand-ins have answered so far."""
    return sum(map(int, ANSWERED.findall(router.daemon.log())))


def send(family: int, address: str) -> None:
    """Begin one flow after the other, and go on with those that have begun."""
    ipv4 = family == Family.IPV4
    sock = socket.socket(socket.AF_INET if ipv4 else socket.AF_INET6, socket.SOCK_DGRAM)
    if ipv4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 16)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 16)
    sock.bind((address, 0))
    begun = time.perf_counter()
    for turn in range(FLOWS + (PACKETS - 1) * STRIDE):
        for flow in range(turn, turn - PACKETS * STRIDE, -STRIDE):
            if 0 <= flow < FLOWS:
                sock.sendto(bytes(20), (f"232.9.{flow >> 8}.{flow & 255}" if ipv4 else f"ff3e::9:{flow:x}", 5000))
        while time.perf_counter() < begun + turn * BETWEEN_FLOWS:
            pass


if __name__ == "__main__":
    send(int(sys.argv[1]), sys.argv[2])
