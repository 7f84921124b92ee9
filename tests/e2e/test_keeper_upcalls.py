"""What the kernel reports reaches the server, whatever the server does meanwhile; and the order against VIF maps."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from mcastd.model.address import pack_address
from tests.e2e.keeper_bench import KeeperBench, ServerEnd, eventually
from tests.testbed import Star, Testbed

StartKeeper = Callable[..., KeeperBench]

PREFIX = {4: "232.1.{high}.{low}", 6: "ff3e::{high:x}:{low:x}"}
NOCACHE = 1

both_families = pytest.mark.parametrize("family", [4, 6])


def group(family: int, number: int) -> str:
    return PREFIX[family].format(high=number >> 8, low=number & 0xFF)


def send_new_flows(star: Star, family: int, first: int, count: int) -> list[str]:
    """One packet to each of some groups without entry; the groups as records have them."""
    groups = [group(family, number) for number in range(first, first + count)]
    for one in groups:
        sender = star.source.sender(one)
        sender.send()
        sender.close()
    return [pack_address(one).hex() for one in groups]


@pytest.fixture
def star(testbed: Testbed) -> Star:
    return testbed.star()


@pytest.fixture
def server_on_star(star: Star, start_keeper: StartKeeper) -> tuple[KeeperBench, ServerEnd]:
    """A keeper on the star's router whose link to the source is VIF 3 in both families."""
    keeper = start_keeper(namespace=star.router)
    server = keeper.server()
    for family in (4, 6):
        server.ask("add_vif", 0, family, 3, "up")
    return keeper, server


@both_families
def test_upcall_has_all_its_fields(star: Star, server_on_star: tuple[KeeperBench, ServerEnd], family: int) -> None:
    _, server = server_on_star
    (sent,) = send_new_flows(star, family, 1, 1)
    ((table, ip, kind, vif, where, source, when),) = server.upcalls(1)
    assert (table, ip, kind, vif, where) == (0, family, NOCACHE, 3, sent)
    assert source == pack_address(star.source.address(family)).hex()
    assert abs(when - time.time()) < 60


@both_families
def test_upcalls_wait_while_there_is_no_server(star: Star, server_on_star: tuple[KeeperBench, ServerEnd], family: int) -> None:
    keeper, server = server_on_star
    for _ in range(4):  # so that the next pause is 1.6 s
        os.kill(server.pid, signal.SIGKILL)
        server = keeper.server()
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: keeper.logged("retry_in_seconds=1.6"), "the death of the fifth server")
    sent = send_new_flows(star, family, 0, 5)
    assert not keeper.server_waits()
    assert [record[4] for record in keeper.server().upcalls(5)] == sent


@both_families
def test_stuck_server_stops_nothing(star: Star, server_on_star: tuple[KeeperBench, ServerEnd], family: int) -> None:
    """More than the channel's buffers hold waits in the keeper, in order, and nothing is lost."""
    keeper, server = server_on_star
    os.kill(server.pid, signal.SIGSTOP)
    sent: list[str] = []
    for part in range(5):
        sent += send_new_flows(star, family, part * 1000, 1000)
    os.kill(server.pid, signal.SIGCONT)
    assert [record[4] for record in server.upcalls(5000)] == sent
    assert keeper.process.poll() is None


@both_families
def test_vif_map_is_acknowledged_after_all_queued_upcalls(
    star: Star, server_on_star: tuple[KeeperBench, ServerEnd], family: int
) -> None:
    keeper, server = server_on_star
    os.kill(keeper.pid, signal.SIGSTOP)  # the kernel queues upcalls meanwhile
    sent = send_new_flows(star, family, 0, 300)
    server.tell("vif_map", 0, family, [[4, 7, "new"]])
    os.kill(keeper.pid, signal.SIGCONT)
    server.wait_for("answer")
    assert [record[4] for record in server.upcalls_heard()] == sent


def test_map_of_a_table_that_is_not_open_is_refused(server_on_star: tuple[KeeperBench, ServerEnd]) -> None:
    _, server = server_on_star
    assert server.ask("vif_map", 9, 4, [])[:2] == ("refused", "NOT_FOUND")
