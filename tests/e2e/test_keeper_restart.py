"""The server may die at any time: what the keeper keeps, and how it goes on."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from mcastd.model.address import Family
from tests.e2e.keeper_bench import KeeperBench, eventually
from tests.testbed import Testbed

StartKeeper = Callable[..., KeeperBench]


def test_next_server_gets_the_same_sockets_and_vif_maps(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    first = keeper.server()
    assert first.hello["starts"] == 1
    assert [[table, family] for table, family, _ in first.hello["sockets"]] == [[0, 4], [0, 6]]
    assert first.hello["vif_maps"] == [[0, 4, []], [0, 6, []]]
    opened = first.ask("open_table", 77)
    first.ask("vif_map", 0, 4, [[0, 1, "lo"], [5, 9, "vlan 9"]])
    first.ask("vif_map", 77, 6, [[31, 2**31 - 1, "gone"]])
    os.kill(first.pid, signal.SIGKILL)
    second = keeper.server()
    assert second.hello["starts"] == 2
    assert second.hello["sockets"] == [*first.hello["sockets"], *([77, *one] for one in opened)]
    assert second.hello["vif_maps"] == [
        [0, 4, [[0, 1, "lo"], [5, 9, "vlan 9"]]],
        [0, 6, []],
        [77, 4, []],
        [77, 6, [[31, 2**31 - 1, "gone"]]],
    ]
    assert second.hello["started_at"] == first.hello["started_at"]
    assert second.hello["settings"] == first.hello["settings"]


def test_kernel_entries_survive_the_server(testbed: Testbed, start_keeper: StartKeeper) -> None:
    star = testbed.star()
    keeper = start_keeper(namespace=star.router)
    server = keeper.server()
    for family in (4, 6):
        server.ask("add_vif", 0, family, 0, "up")
    before = star.router.command("cat", "/proc/net/ip_mr_vif", "/proc/net/ip6_mr_vif")
    assert before.count(" up ") == 2
    os.kill(server.pid, signal.SIGKILL)
    keeper.server()
    assert star.router.command("cat", "/proc/net/ip_mr_vif", "/proc/net/ip6_mr_vif") == before


def test_delay_doubles_with_every_early_death(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    delays = []
    for _ in range(4):
        server = keeper.server()
        os.kill(server.pid, signal.SIGKILL)
        died = time.monotonic()
        eventually(keeper.server_waits, "the next server")
        delays.append(time.monotonic() - died)
    for delay, least in zip(delays, [0.1, 0.2, 0.4, 0.8], strict=True):
        assert delay >= least
    log = keeper.log.read_text()
    assert log.count('status="signal SIGKILL"') == 4
    for delay in (0.1, 0.2, 0.4, 0.8):
        assert f"retry_in_seconds={delay}\n" in log


@pytest.mark.parametrize("code", [0, 1])
def test_server_that_ends_unasked_is_started_again(start_keeper: StartKeeper, code: int) -> None:
    keeper = start_keeper()
    keeper.server().tell("exit", code)
    assert keeper.server().hello["starts"] == 2
    assert keeper.logged(f'status="exit code {code}"')


def test_server_that_cannot_use_its_configuration_any_more_is_started_again(start_keeper: StartKeeper) -> None:
    """Some server could: a directory or an address that is gone by now may come back, and the kernel's entries live meanwhile."""
    keeper = start_keeper()
    first = keeper.server()
    first.ask("ready")
    first.tell("exit", 78)
    second = keeper.server()
    assert (second.hello["starts"], second.hello["sockets"]) == (2, first.hello["sockets"])
    second.tell("exit", 78)  # without having been ready itself
    assert keeper.server().hello["starts"] == 3
    log = keeper.log.read_text()
    assert log.count('status="exit code 78"') == 2
    assert "retry_in_seconds=0.1\n" in log
    assert "retry_in_seconds=0.2\n" in log


def test_server_that_cannot_use_its_configuration_ends_the_daemon(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    keeper.server().tell("exit", 78)
    assert keeper.wait() == 78
    assert not keeper.socket.with_suffix(".sock.lock").exists()


@pytest.mark.parametrize("tables", ["[]", "[30]"])
def test_start_waits_for_the_server_of_a_killed_keeper(testbed: Testbed, start_keeper: StartKeeper, tables: str) -> None:
    """It holds copies of the sockets for as long as calls under way have time to end."""
    namespace = testbed.namespace("router")
    keeper = start_keeper(namespace=namespace)
    config = keeper.directory / "mcastd.toml"
    config.write_text(f"[daemon]\ntables = {tables}\n")
    server = keeper.server()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        os.kill(keeper.pid, signal.SIGKILL)
        keeper.wait()
        again = start_keeper("--config", str(config), directory=keeper.directory, namespace=namespace)
        eventually(lambda: again.logged("waiting for whoever holds the table"), "that it waits")
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert again.server().hello["sockets"][0][:2] == [0, Family.IPV4]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("00", id="no header"),
        pytest.param("01010000" + "00000000", id="the keeper's own message"),
        pytest.param("01ff0000" + "00000000", id="no message"),
        pytest.param("01080000" + "00000001" + b'{"table":0}'.hex(), id="half a VIF map"),
        pytest.param("01090000" + "00000001" + b'{"table":"7"}'.hex(), id="wrong type"),
        pytest.param("01090000" + "00000001" + b"nonsense".hex(), id="no JSON"),
    ],
)
def test_server_that_talks_nonsense_is_replaced(start_keeper: StartKeeper, data: str) -> None:
    keeper = start_keeper()
    keeper.server().tell("garbage", data)
    assert keeper.server().hello["starts"] == 2
    assert keeper.logged("what no server may say")


def test_server_follows_the_keeper_into_death(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    server = keeper.server()
    os.kill(keeper.pid, signal.SIGKILL)
    server.wait_for("end")
    keeper.wait()
    again = start_keeper(directory=keeper.directory)  # left locks and files are no hindrance
    assert again.server().hello["sockets"][0][:2] == [0, Family.IPV4]
