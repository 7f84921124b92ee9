"""SIGUSR2: another server beside the one that serves. What the keeper does, whatever the new one is like."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from mcastd.model.address import Family
from tests.e2e.keeper_bench import KeeperBench, ServerEnd, eventually
from tests.e2e.router import group
from tests.testbed import Testbed

StartKeeper = Callable[..., KeeperBench]


def upgrade(keeper: KeeperBench) -> None:
    """Ask for another server."""
    os.kill(keeper.pid, signal.SIGUSR2)


def broken(keeper: KeeperBench, how: str) -> None:
    """Have servers that are started from now on fail like this; "" = not at all."""
    (keeper.directory / "fake.broken").write_text(how)


def still_serves(server: ServerEnd) -> bool:
    """Whether the keeper answers it."""
    return server.ask("vif_map", 0, 4, [[7, 1, "lo"]]) is None


def test_new_server_gets_everything_when_the_old_one_has_let_go(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    old = keeper.server()
    old.ask("vif_map", 0, 4, [[5, 9, "vlan 9"]])
    old.ask("ready")
    opened = old.ask("open_table", 77)
    upgrade(keeper)
    assert old.wait_for("hand over") == 2
    new = keeper.server()
    assert (new.hello["starts"], new.pid != old.pid) == (2, True)
    assert new.hello["sockets"] == [*old.hello["sockets"], *([77, *one] for one in opened)]
    assert [0, 4, [[5, 9, "vlan 9"]]] in new.hello["vif_maps"]
    assert still_serves(new)
    eventually(lambda: keeper.logged("the old server has ended"), "the old one's end")
    assert not keeper.logged("has died")
    upgrade(keeper)
    assert new.wait_for("hand over") == 1  # the seat of the first is free again
    assert keeper.server().hello["starts"] == 3


def test_old_server_is_asked_only_when_the_new_one_is_prepared(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    old = keeper.server()
    broken(keeper, "hang")
    upgrade(keeper)
    eventually(lambda: keeper.logged("a new one is started"), "the new one")
    assert still_serves(old)
    upgrade(keeper)
    eventually(lambda: keeper.logged('why="one is under way"'), "that the second is refused")
    assert "hand over" not in [what for what, _ in old.heard]


@pytest.mark.parametrize(
    "how,why",
    [
        ("exit", 'status="exit code 3"'),
        ("import", 'status="exit code 1"'),
        ("protocol", "it speaks another protocol, have the keeper re-executed"),
        ("other protocol", "it speaks protocol 2, and this keeper 1"),
        ("hang", "it was not prepared within 6 s"),
        ("nonsense", "it said READY where it has to wait"),
    ],
)
def test_broken_server_is_not_used(start_keeper: StartKeeper, how: str, why: str) -> None:
    keeper = start_keeper(environment={"MCASTD_TEST_PREPARE_SECONDS": "6" if how == "hang" else "30"})
    old = keeper.server()
    old.ask("ready")
    broken(keeper, how)
    upgrade(keeper)
    eventually(lambda: keeper.logged("not used: it has ended before it was prepared") and keeper.logged(why), why)
    assert still_serves(old)
    broken(keeper, "")
    upgrade(keeper)
    assert old.wait_for("hand over")
    assert keeper.server().hello["starts"] == 2
    assert not keeper.logged("retry_in_seconds")


def test_server_that_hangs_up_before_it_is_prepared_is_killed(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    old = keeper.server()
    broken(keeper, "hang up")
    upgrade(keeper)
    eventually(lambda: keeper.logged("the new server is not used"), "its end")
    assert still_serves(old)


def test_new_server_that_dies_after_the_hand_over_is_followed_by_another(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    old = keeper.server()
    old.ask("ready")
    broken(keeper, "die later")
    upgrade(keeper)
    old.wait_for("hand over")
    broken(keeper, "")
    assert keeper.server().hello["sockets"] == old.hello["sockets"]


def test_old_server_that_does_not_let_go_is_ended(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    old = keeper.server()
    old.ask("ignore_hand_over")
    old.ask("disobey")  # not even SIGTERM
    began = time.monotonic()
    upgrade(keeper)
    old.wait_for("hand over")
    assert keeper.server().hello["starts"] == 2
    assert time.monotonic() - began >= 10
    assert keeper.logged("signal=SIGKILL")


def test_new_server_takes_over_when_the_old_one_dies_meanwhile(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    old = keeper.server()
    upgrade(keeper)
    eventually(lambda: keeper.logged("a new one is started"), "the new one")
    os.kill(old.pid, signal.SIGKILL)
    assert keeper.server().hello["starts"] == 2
    assert not keeper.logged("retry_in_seconds")


def test_server_is_started_where_there_is_none(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    first = keeper.server()
    broken(keeper, "exit")
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: keeper.logged("retry_in_seconds=1.6"), "a long delay")
    broken(keeper, "")
    upgrade(keeper)
    keeper.server()
    assert keeper.logged("there is none, it is started now")


@pytest.mark.parametrize("prepared", [False, True])
def test_end_during_an_upgrade_ends_both(start_keeper: StartKeeper, prepared: bool) -> None:
    keeper = start_keeper()
    old = keeper.server()
    if prepared:
        old.ask("ignore_hand_over")
    else:
        broken(keeper, "hang")
    upgrade(keeper)
    eventually(lambda: keeper.logged("is asked to hand over" if prepared else "a new one is started"), "the upgrade")
    keeper.process.terminate()
    old.wait_for("shutdown")
    assert keeper.wait() == 0
    assert not keeper.socket.exists()


def test_upcalls_of_the_hand_over_are_told_to_the_new_server(testbed: Testbed, start_keeper: StartKeeper) -> None:
    star = testbed.star()
    keeper = start_keeper(namespace=star.router)
    old = keeper.server()
    old.ask("add_vif", 0, 4, 0, "up")
    old.ask("ignore_hand_over")
    upgrade(keeper)
    old.wait_for("hand over")
    os.kill(old.pid, signal.SIGSTOP)
    flow = star.source.sender(group(Family.IPV4, 1)).start(50)
    os.kill(old.pid, signal.SIGKILL)
    assert keeper.server().upcalls(1)[0][:2] == [0, 4]
    flow.stop()
