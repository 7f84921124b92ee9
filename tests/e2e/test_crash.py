"""`kill -9` of the server under traffic: nothing of it is to be seen on the wire, in the kernel, or in what is known."""

import logging
import subprocess
import sys
import time

import pytest

from tests.e2e.keeper_bench import ROOT
from tests.e2e.router import Router

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("heavy")]

RATE = 10_000
"""Packets a second."""

KILLS = 2

_log = logging.getLogger(__name__)


def seconds_of_imports() -> float:
    """What the better part of a start costs here and now: a busy machine takes longer for all."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import mcastd.runtime.server"], cwd=ROOT, check=True)
    return time.monotonic() - began


def test_no_packet_is_lost_when_the_server_is_killed(router: Router) -> None:
    sender = router.sender()
    routes = [router.route(number, "down1", "down2") for number in range(1, 1001)]
    router.put(*routes)
    receivers = [port.receiver(sender.group) for port in router.star.receivers]
    listed = router.daemon.list_routes()

    flow = sender.start(RATE)
    receivers[0].wait(sender, RATE // 10)
    away = []
    with router.notices() as notices:
        for _ in range(KILLS):
            killed = router.daemon.kill_server()
            began = time.monotonic()
            router.wait_server_after(killed)
            away.append(time.monotonic() - began)
            after = router.daemon.list_routes()
            assert [(one.group, one.status.state) for one in after] == [(one.group, one.status.state) for one in listed]
        assert notices.take() == 0
        receivers[0].wait(sender, receivers[0].count(sender) + RATE // 10)
        sent = flow.stop()
        for receiver in receivers:
            receiver.wait(sender)
            assert receiver.missing(sender) == []
        assert router.dump().by_key[router.key(sender)].packets == sent
        # The witness is awake: it sees a change where there is one.
        router.put(router.route(sender, "down1"))
        assert notices.take() == 1
    _log.info("the server was back after %s s; %d packets, none lost", away, sent)
    assert min(away) < max(4, 5 * seconds_of_imports())
