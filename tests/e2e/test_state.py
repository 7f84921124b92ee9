"""What becomes of a daemon whose state directory is damaged, too new, closed or full."""

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e import templates
from tests.e2e.router import Router, bulk
from tests.e2e.session import WITHDRAW, Session
from tests.e2e.view import Watching
from tests.testbed import Sender, Testbed
from tests.testbed.daemon import McastdProcess, route, wait_until

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


@pytest.fixture
def small_disk(testbed: Testbed, directory: Path) -> Iterator[Router]:
    """A router whose daemon has its state on a small disk, in a mount namespace of its own."""
    mount = f'mkdir -p "$0" && chmod 755 "$0" && mount -t tmpfs -o size={DISK},mode=777 state "$0" && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", mount, str(directory / "state")]
    with Router(testbed, Family.IPV4, directory=directory, prefix=prefix, arguments=templates.METRICS) as made:
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


def check_refused(call: Callable[[], object], *texts: str) -> None:
    """A write that can't be stored says so, and what to do."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(refused.value) == "STORE_UNAVAILABLE"
    assert any(text in str(refused.value.details()) for text in texts), refused.value.details()


def check_goes_on(router: Router, sender: Sender, watching: Watching) -> None:
    """Forwarding, reads, Watch and metrics: the one route is there, and news still come."""
    assert len(router.daemon.list_routes()) == len(router.kernel()) == 1
    router.check_leaves(sender, "down1")
    assert templates.metric(router, "mcastd_routes", state="programmed", family="ipv4") == 1
    assert router.daemon.status().limits.routes == 1
    router.namespace.ip("link set dev down2 down")
    watching.until(lambda view: not view.of("interface")["down2",].up)
    router.namespace.ip("link set dev down2 up")
    watching.until(lambda view: view.of("interface")["down2",].up)


def every_write(router: Router) -> list[Callable[[], object]]:
    """Each takes more room than a full disk has; nothing comes of it."""
    daemon, routes = router.daemon, list(bulk(router.family, 5000, router.source, "down1"))
    joins = [t.Join(interface="up", group=one.group) for one in routes[:1000]]
    stub = sv_grpc.JoinServiceStub(daemon.channel)
    return [
        lambda: daemon.replace(routes, options={"owner": "bulk"}),
        lambda: daemon.put(*routes),
        lambda: stub.PutJoins(sv.PutJoinsRequest(joins=joins), timeout=20),
    ]


def test_a_full_disk_is_lived_with_and_healed_without_a_restart(small_disk: Router) -> None:
    """Also by a session that ends meanwhile: its end is written down when there is room."""
    router = small_disk
    sender, server = router.sender(), router.daemon.server_pid()
    router.put(router.route(sender, "down1"))
    with Watching(router.daemon, kinds=[sv.KIND_INTERFACE]) as watching, Session(router.daemon.socket) as session:
        session.open("sdn", hold=1, on_expiry=WITHDRAW)
        filler = fill(disk_of(router))
        for write in every_write(router):
            check_refused(write, "full", "make room")
        session.die()
        check_goes_on(router, sender, watching)

        filler.unlink()
        for write in every_write(router):
            write()
        wait_until(lambda: not next(one for one in router.daemon.status().owners if one.name == "sdn").connected, 20)
        assert len(router.kernel()) == 5001
    assert router.daemon.server_pid() == server
    assert "writes can be stored again" in router.daemon.log()


@pytest.fixture
def failing_disk(testbed: Testbed, directory: Path) -> Iterator[tuple[Router, Path]]:
    """A router whose state is on an ext4 of its own, and the file that makes that have an error: it is read-only then."""
    image = directory / "image"
    image.write_bytes(bytes(DISK * 4))
    subprocess.run(["mkfs.ext4", "-q", "-F", "-e", "remount-ro", str(image)], check=True)
    mount = f'mkdir -p "$0" && mount -o loop {image} "$0" && chmod 777 "$0" && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", mount, str(directory / "state")]
    with Router(testbed, Family.IPV4, directory=directory, prefix=prefix, arguments=templates.METRICS) as made:
        command = ["losetup", "--noheadings", "--output", "NAME", "--associated", str(image)]
        device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        yield made, Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error")


@pytest.mark.skipif(not Path("/sys/fs/ext4/features").exists(), reason="needs ext4, loop devices and a writable /sys")
def test_a_disk_that_becomes_read_only_is_lived_with(failing_disk: tuple[Router, Path]) -> None:
    """As a kernel makes it that finds an error: writes are refused, and all else goes on."""
    router, trigger = failing_disk
    sender, server = router.sender(), router.daemon.server_pid()
    router.put(router.route(sender, "down1"))
    with Watching(router.daemon, kinds=[sv.KIND_INTERFACE]) as watching:
        trigger.write_text("the test")
        for write in every_write(router):
            check_refused(write, "I/O error", "readonly", "read-only", "Read-only")
        check_goes_on(router, sender, watching)
    assert router.daemon.server_pid() == server

    # The next server reads what is stored, with what is in the log alone.
    router.wait_server_after(router.daemon.kill_server())
    with Watching(router.daemon, kinds=[sv.KIND_INTERFACE]) as watching:
        for write in every_write(router):
            check_refused(write, "Read-only file system")
        watching.until(lambda view: view.synced)
        check_goes_on(router, sender, watching)


def test_read_only_state_directory_is_named(testbed: Testbed, directory: Path) -> None:
    """Though there never was a database: everything but writes is served, and these say what to do."""
    state = directory / "state"
    state.mkdir()
    mount = 'mount -t tmpfs -o ro state "$0" && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", mount, str(state)]
    with McastdProcess(testbed.namespace("router"), directory, prefix=prefix) as daemon:
        assert daemon.list_routes() == []
        refusal = f"cannot open {state}/state.db: Read-only file system; mount its file system writable"
        assert daemon.log().count(refusal) == 1
        check_refused(lambda: daemon.put(route("239.1.1.1", "10.0.0.1", "up", "down1")), refusal)
