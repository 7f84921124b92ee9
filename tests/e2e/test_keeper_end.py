"""How everything ends, and what is left then: nothing."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.keeper_bench import KeeperBench, eventually
from tests.testbed import Testbed

StartKeeper = Callable[..., KeeperBench]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_orderly_end_leaves_the_kernel_and_the_disk_empty(
    testbed: Testbed, start_keeper: StartKeeper, number: signal.Signals
) -> None:
    star = testbed.star()
    keeper = start_keeper(namespace=star.router)
    server = keeper.server()
    for family in (4, 6):
        server.ask("add_vif", 0, family, 0, "up")
    assert (keeper.state / "lock").read_text() == f"{keeper.pid}\n"
    keeper.process.send_signal(number)
    server.wait_for("shutdown")
    assert keeper.wait() == 0
    assert " up " not in star.router.command("cat", "/proc/net/ip_mr_vif", "/proc/net/ip6_mr_vif")
    assert list(keeper.socket.parent.iterdir()) == []
    assert list(keeper.state.iterdir()) == []


def test_end_is_in_order_where_nobody_reads_the_log(start_keeper: StartKeeper) -> None:
    reader, writer = os.pipe()
    keeper = start_keeper(
        prefix=("bash", "-c", f'exec "$@" 2>&{writer}', "bash"), pass_fds=(writer,), environment={"PYTHONUNBUFFERED": ""}
    )
    os.close(writer)
    server = keeper.server()
    os.close(reader)
    keeper.process.terminate()
    server.wait_for("shutdown")
    assert keeper.wait() == 0
    assert not list(keeper.state.iterdir())


def test_socket_that_a_killed_server_left_is_removed(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    keeper.server()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(keeper.socket))
    keeper.process.terminate()
    assert keeper.wait() == 0
    assert not keeper.socket.exists()


def test_end_wanted_by_a_client_is_no_death(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    server = keeper.server()
    server.tell("request_shutdown")
    server.tell("exit", 0)
    assert keeper.wait() == 0
    assert not keeper.logged("retry_in_seconds")


def test_impatience_ends_a_server_that_does_not(start_keeper: StartKeeper) -> None:
    """The second signal brings SIGTERM forward; SIGKILL follows soon."""
    keeper = start_keeper()
    server = keeper.server()
    server.ask("disobey")
    keeper.process.send_signal(signal.SIGINT)
    server.wait_for("shutdown")
    began = time.monotonic()
    keeper.process.send_signal(signal.SIGINT)
    eventually(lambda: keeper.logged("signal=SIGTERM"), "SIGTERM")
    assert keeper.wait() == 0
    assert keeper.logged('status="signal SIGKILL"')
    assert time.monotonic() - began < 7  # without impatience it is 10


def test_ctrl_c_in_the_terminal_reaches_the_keeper_alone(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    server = keeper.server()
    assert os.getsid(server.pid) == server.pid
    assert os.getsid(keeper.pid) != server.pid


def test_service_manager_is_told(start_keeper: StartKeeper, directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(20)
        path = directory / "notify"
        manager.bind(str(path))
        path.chmod(0o777)
        keeper = start_keeper(environment={"NOTIFY_SOCKET": str(path)})
        server = keeper.server()
        assert "NOTIFY_SOCKET" not in server.hello["environment"]
        server.ask("ready")
        assert manager.recv(1000).splitlines()[0] == b"READY=1"
        keeper.process.terminate()
        assert manager.recv(1000) == b"STOPPING=1"
        assert keeper.wait() == 0


def test_tables_are_closed_when_asked(testbed: Testbed, start_keeper: StartKeeper) -> None:
    star = testbed.star()
    keeper = start_keeper(namespace=star.router)
    server = keeper.server()
    first = server.ask("open_table", 12)
    assert server.ask("open_table", 12) == first
    server.ask("close_table", 12)
    assert server.ask("vif_map", 12, 4, [])[:2] == ("refused", "NOT_FOUND")
    assert server.ask("open_table", 12) != first


@pytest.mark.parametrize("table", [253, 254])
def test_default_table_has_no_other_number(start_keeper: StartKeeper, table: int) -> None:
    server = start_keeper().server()
    assert server.ask("open_table", table)[:2] == ("refused", "INVALID_VALUE")
