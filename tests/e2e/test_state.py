"""What becomes of a daemon whose state directory is damaged, too new, closed or full."""

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from mcastd.model.address import Family
from tests.e2e.router import Router, bulk
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess

pytestmark = pytest.mark.kernel

DATABASE = "state.db"
DISK = 2 << 20
"""Bytes of the small disk: the database and some log."""


@pytest.fixture
def router(testbed: Testbed, directory: Path) -> Iterator[Router]:
    """One family is enough: the state is that of both."""
    with Router(testbed, Family.IPV4, directory=directory) as made:
        yield made


def end(daemon: McastdProcess) -> None:
    daemon.process.terminate()
    assert daemon.process.wait(20) == 0


def reason_of(error: grpc.RpcError) -> str:
    """Return ErrorInfo.reason of a refused call."""
    metadata: Any = error.trailing_metadata()
    (packed,) = [value for name, value in metadata if name == "grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(packed).details[0].Unpack(info)
    return str(info.reason)


def damage(path: Path) -> None:
    """Overwrite the header and the pages after it."""
    with path.open("r+b") as file:
        file.write(os.urandom(8192))


def make_newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize("spoil,label", [(damage, "corrupt"), (make_newer, "newer-v99")])
def test_unusable_database_is_set_aside(router: Router, spoil: Callable[[Path], None], label: str) -> None:
    sender = router.sender()
    router.put(router.route(sender, "down1"))
    first = router.daemon
    end(first)
    spoil(first.state_dir / DATABASE)

    second = router.start(directory=first.directory)
    assert second.list_routes() == []
    aside = min(path for path in first.state_dir.iterdir() if f".{label}-" in path.name)  # it has its log beside it
    notice = next(line for line in second.log().splitlines() if "the stored state could not be used" in line)
    assert aside.name in notice
    assert "level=error" in notice

    # It can be written to, and keeps what is written.
    router.put(router.route(sender, "down2"))
    end(second)
    router.start(directory=first.directory)
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": 1}
    router.check_leaves(sender, "down2")


def test_forwarding_goes_on_when_the_database_is_damaged_and_the_server_killed(router: Router) -> None:
    """Nobody wants the entries any more: they go, and the daemon serves, with the message."""
    sender = router.sender()
    router.put(router.route(sender, "down1"))
    server = router.daemon.server_pid()
    os.kill(server, signal.SIGSTOP)
    damage(router.daemon.state_dir / DATABASE)
    os.kill(server, signal.SIGKILL)
    router.wait_server_after(server)
    assert router.daemon.list_routes() == []
    assert router.kernel() == {}
    assert "the stored state could not be used" in router.daemon.log()


@pytest.fixture
def small_disk(testbed: Testbed, directory: Path) -> Iterator[Router]:
    """A router whose daemon has its state on a small disk, in a mount namespace of its own."""
    mount = f'mkdir -p "$0" && chmod 755 "$0" && mount -t tmpfs -o size={DISK},mode=777 state "$0" && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", mount, str(directory / "state")]
    with Router(testbed, Family.IPV4, directory=directory, prefix=prefix) as made:
        yield made


def disk_of(router: Router) -> Path:
    """The state directory as the daemon sees it."""
    return Path(f"/proc/{router.daemon.process.pid}/root{router.daemon.state_dir}")


def fill(disk: Path) -> Path:
    """Fill it up to the last byte."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    return filler


def test_full_disk_refuses_writes_and_forwarding_goes_on(small_disk: Router) -> None:
    router = small_disk
    sender = router.sender()
    router.put(router.route(sender, "down1"))
    filler = fill(disk_of(router))

    with pytest.raises(grpc.RpcError) as refused:
        router.daemon.replace(bulk(router.family, 5000, router.source, "down1"), options={"owner": "bulk"})
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(refused.value) == "STORE_UNAVAILABLE"
    assert "full" in str(refused.value.details())
    assert len(router.daemon.list_routes()) == len(router.kernel()) == 1
    router.check_leaves(sender, "down1")

    # The server comes back even so, or waits until it can; either way packets flow, and with room all is well again.
    router.daemon.kill_server()
    router.check_leaves(sender, "down1")
    filler.unlink()
    router.daemon.wait_ready()
    router.daemon.replace(bulk(router.family, 5000, router.source, "down1"), options={"owner": "bulk"})
    assert len(router.daemon.list_routes()) == len(router.kernel()) == 5001
    router.check_leaves(sender, "down1")


def test_read_only_state_directory_is_named(testbed: Testbed, directory: Path) -> None:
    state = directory / "state"
    state.mkdir()
    mount = 'mount -t tmpfs -o ro state "$0" && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", mount, str(state)]
    with McastdProcess(testbed.namespace("router"), directory, prefix=prefix, ready=False) as daemon:
        assert daemon.process.wait(20) == os.EX_CONFIG
        assert str(state) in daemon.log()
        assert "--state-dir" in daemon.log()
