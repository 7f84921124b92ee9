"""Orderly ends, whoever asks for them: an empty kernel, no files, exit code 0; and everything back at the next start."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mcast.v1 import services_pb2 as sv
from mcastd.model.address import Family
from tests.e2e.router import Router, group
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, route

pytestmark = pytest.mark.kernel

PATIENCE = 20


def by_sigterm(daemon: McastdProcess) -> None:
    daemon.process.send_signal(signal.SIGTERM)


def by_ctrl_c(daemon: McastdProcess) -> None:
    """A terminal sends it to the foreground process group: every process of the daemon that is in it."""
    assert os.getpgid(daemon.process.pid) == daemon.process.pid
    os.killpg(daemon.process.pid, signal.SIGINT)


def by_rpc(daemon: McastdProcess) -> None:
    daemon.daemon.Shutdown(sv.ShutdownRequest(), timeout=5)


@pytest.fixture
def router(testbed: Testbed, directory: Path) -> Iterator[Router]:
    """Not of one family: both are ended at once."""
    with Router(testbed, Family.IPV4, directory=directory) as made:
        yield made


def entries(router: Router) -> dict[Family, tuple[int, int]]:
    """VIFs and entries in the kernel."""
    found = {}
    for family in Family:
        router.family = family
        found[family] = len(router.vifs()), len(router.dump())
    return found


@pytest.mark.parametrize("end", [by_sigterm, by_ctrl_c, by_rpc])
def test_orderly_end_and_the_next_start(router: Router, end: Callable[[McastdProcess], None]) -> None:
    senders = [router.star.source.sender(group(family, number)) for family in Family for number in range(5)]
    routes = [route(one.group, one.source, "up", "down1") for one in senders]
    elsewhere = [route(one.group, one.source, "up", "down1", table=100) for one in senders]
    router.put(*routes, *elsewhere)
    assert entries(router) == dict.fromkeys(Family, (2, 5))
    before = router.daemon.list_routes()
    first = router.daemon

    end(first)
    assert first.process.wait(PATIENCE) == 0, first.log()
    assert "the server has not ended yet" not in first.log()
    assert entries(router) == dict.fromkeys(Family, (0, 0))
    assert [len(router.dump(100)), *first.socket.parent.iterdir()] == [0]
    assert not (first.state_dir / "lock").exists()
    for sender in senders[::5]:
        router.check_leaves(sender)

    second = router.start(directory=first.directory)
    assert entries(router) == dict.fromkeys(Family, (2, 5))
    after = second.list_routes()
    assert {(one.group, one.table) for one in after} == {(one.group, one.table) for one in before}
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": 20}
    assert second.status().revision > max(one.status.revision for one in before)
    for sender in senders[::5]:
        router.check_leaves(sender, "down1")


def test_end_in_the_midst_of_a_write(router: Router) -> None:
    """What waits is carried out or refused, and the next start has what was acknowledged."""
    sender = router.sender()
    router.put(router.route(sender, "down1"))
    by_rpc(router.daemon)
    by_sigterm(router.daemon)
    by_sigterm(router.daemon)  # impatience does no harm
    assert router.daemon.process.wait(PATIENCE) == 0, router.daemon.log()
    assert entries(router) == dict.fromkeys(Family, (0, 0))
