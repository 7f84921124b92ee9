"""Starting: what is refused, with which exit code and words, and what it costs."""

import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.keeper_bench import KeeperBench, eventually, run_to_end, status_of
from tests.testbed import Testbed
from tests.testbed.rights import is_root

StartKeeper = Callable[..., KeeperBench]


def places(directory: Path, sock: str = "run", state: str = "state") -> list[str]:
    return ["serve", "--listen", f"unix:{directory}/{sock}/mcastd.sock", "--state-dir", f"{directory}/{state}"]


def test_second_daemon_on_a_socket_path_is_refused(testbed: Testbed, start_keeper: StartKeeper, directory: Path) -> None:
    keeper = start_keeper()
    server = keeper.server()
    done = run_to_end(testbed.namespace(), *places(directory, state="state2"))
    assert done.returncode == 69
    assert f"(pid {keeper.pid}) has {keeper.socket}.lock" in done.stderr
    assert server.ask("open_table", 3)  # the first one is as it was


def test_refused_daemon_leaves_no_directory(testbed: Testbed, start_keeper: StartKeeper, directory: Path) -> None:
    namespace = testbed.namespace("router")
    keeper = start_keeper(namespace=namespace)
    keeper.server()
    (directory / "mine").mkdir(mode=0o777)
    (directory / "mine").chmod(0o777)
    assert run_to_end(testbed.namespace(), *places(directory, state="state2")).returncode == 69
    assert run_to_end(namespace, *places(directory, sock="mine", state="state3")).returncode == 69
    assert not (directory / "state2").exists()
    assert not (directory / "state3").exists()
    assert (directory / "mine").exists()  # it was there before


def test_second_daemon_on_a_state_directory_is_refused(testbed: Testbed, start_keeper: StartKeeper, directory: Path) -> None:
    keeper = start_keeper()
    keeper.server()
    done = run_to_end(testbed.namespace(), *places(directory, sock="run2"))
    assert done.returncode == 69
    assert f"(pid {keeper.pid}) has {keeper.state}/lock" in done.stderr
    assert not (directory / "run2").exists()  # nor the lock that it had taken there


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("table", [0, 40])
def test_table_in_use_is_refused(testbed: Testbed, directory: Path, family: int, table: int) -> None:
    namespace = testbed.namespace()
    config = directory / "mcastd.toml"
    config.write_text(f"[daemon]\ntables = [{table}]\n" if table else "")
    kind, protocol = (socket.AF_INET, socket.IPPROTO_IGMP) if family == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    level = socket.IPPROTO_IP if family == 4 else socket.IPPROTO_IPV6
    with namespace.socket(kind, socket.SOCK_RAW, protocol) as other:
        if table:
            other.setsockopt(level, 209, table)  # MRT_TABLE
        other.setsockopt(level, 200, 1)  # MRT_INIT
        done = run_to_end(namespace, *places(directory), "--config", str(config))
    assert done.returncode == 69
    assert f"table {table} of IPv{family}" in done.stderr
    assert done.stderr.count("waiting for whoever holds the table") == 1
    assert ("another table" in done.stderr) == (table != 0)
    assert not (directory / "run").exists()


def test_daemon_that_waits_for_a_table_can_be_ended(testbed: Testbed, start_keeper: StartKeeper) -> None:
    namespace = testbed.namespace("router")
    with namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP) as other:
        other.setsockopt(socket.IPPROTO_IP, 200, 1)  # MRT_INIT
        keeper = start_keeper(namespace=namespace)
        eventually(lambda: keeper.logged("waiting for whoever holds the table"), "that it waits")
        keeper.process.terminate()
        assert keeper.wait() == 0
    assert not keeper.socket.parent.exists()


def test_tables_of_the_file_are_open_from_the_start(start_keeper: StartKeeper, directory: Path) -> None:
    config = directory / "mcastd.toml"
    config.write_text("[daemon]\ntables = [30, 7]\n")
    hello = start_keeper("--config", str(config)).server().hello
    assert [one[:2] for one in hello["sockets"]] == [[0, 4], [0, 6], [30, 4], [30, 6], [7, 4], [7, 6]]


def test_file_where_a_directory_belongs_is_refused(testbed: Testbed, directory: Path) -> None:
    (directory / "run").touch()
    done = run_to_end(testbed.namespace(), *places(directory))
    assert done.returncode == 78
    assert f"{directory}/run" in done.stderr


@pytest.mark.parametrize("what", ["a file", "a directory", "a symbolic link"])
def test_what_is_no_socket_at_the_path_is_refused_and_stays(testbed: Testbed, directory: Path, what: str) -> None:
    (directory / "run").mkdir(mode=0o777)
    (directory / "run").chmod(0o777)
    path = directory / "run" / "mcastd.sock"
    match what:
        case "a file":
            path.write_text("precious")
        case "a directory":
            path.mkdir()
        case _:
            path.symlink_to("/nonexistent")
    done = run_to_end(testbed.namespace(), *places(directory))
    assert done.returncode == 78
    assert f"{path} is {what}, not a socket: remove it" in done.stderr
    assert [one.name for one in (directory / "run").iterdir()] == ["mcastd.sock"]


@pytest.mark.skipif(not is_root(), reason="needs root outside of user namespaces")
@pytest.mark.parametrize("made", [False, True])
def test_read_only_file_system_is_called_so(testbed: Testbed, directory: Path, made: bool) -> None:
    if made:
        for name in ("run", "state"):
            (directory / name).mkdir(mode=0o777)
            (directory / name).chmod(0o777)
    mount = f'mount --bind {directory} {directory} && mount -o remount,bind,ro {directory} && exec "$@"'
    done = run_to_end(testbed.namespace(), *places(directory), prefix=("unshare", "-m", "sh", "-c", mount, "sh"))
    assert done.returncode == 78
    assert "read-only file system" in done.stderr.lower()
    assert "mount it writable" in done.stderr
    assert f"{directory}/run" in done.stderr


def test_locked_out_by_a_strangers_lock_file(testbed: Testbed, directory: Path) -> None:
    """A link where the lock belongs is not followed: whoever may write there could have root write anywhere."""
    target = directory / "precious"
    target.write_text("precious")
    keeper_state = directory / "state"
    keeper_state.mkdir(mode=0o777)
    keeper_state.chmod(0o777)
    (keeper_state / "lock").symlink_to(target)
    done = run_to_end(testbed.namespace(), *places(directory))
    assert done.returncode == 78
    assert f"{keeper_state}/lock can't be opened: it is a symbolic link; remove it if it is a stale one" in done.stderr
    assert target.read_text() == "precious"


@pytest.mark.parametrize(
    "arguments", [["serve", "--nonsense"], [], ["serve", "--listen", "tcp:[::1]:1"], ["serve", "--metrics", "x"]]
)
def test_wrong_command_line(testbed: Testbed, arguments: list[str]) -> None:
    assert run_to_end(testbed.namespace(), *arguments).returncode == 64


def test_environment_and_flags_reach_the_server(start_keeper: StartKeeper, directory: Path) -> None:
    keeper = start_keeper(
        "--metrics",
        "127.0.0.1:0",
        environment={"MCASTD_METRICS": "[::1]:9", "MCASTD_LOG_LEVEL": "debug", "MCASTD_LISTEN": "unix:/x"},
    )
    settings = keeper.server().hello["settings"]
    assert (settings["metrics"], settings["log_level"]) == ("127.0.0.1:0", "debug")
    assert [listen["path"] for listen in settings["listens"]] == [f"{directory}/run/mcastd.sock"]


def test_keeper_is_small(start_keeper: StartKeeper) -> None:
    keeper = start_keeper()
    keeper.server().ask("ready")
    resident = int(status_of(keeper.pid)["VmRSS"].split()[0])
    assert resident < 20 * 1024, f"{resident} kB"
    maps = Path(f"/proc/{keeper.pid}/maps").read_text()
    assert "grpc" not in maps
    assert status_of(keeper.pid)["Threads"] == "1"


def test_keeper_starts_soon(testbed: Testbed, start_keeper: StartKeeper, directory: Path) -> None:
    """Budget 100 ms on two idle cores; here compared with the bare interpreter beside it, which a busy machine slows alike."""
    namespace = testbed.namespace()
    bare, keeper = [], []
    for turn in range(5):
        began = time.monotonic()
        namespace.command(sys.executable, "-c", "import argparse, logging, json, socket, selectors, dataclasses, tomllib")
        bare.append(time.monotonic() - began)
        (directory / str(turn)).mkdir(mode=0o755)
        one = start_keeper(directory=directory / str(turn), namespace=testbed.namespace())
        eventually(lambda one=one: one.logged("the server is started"), "the server's start")  # type: ignore[misc]
        keeper.append(time.monotonic() - one.started_at)
        one.close()
    assert statistics.median(keeper) < 8 * statistics.median(bare)
