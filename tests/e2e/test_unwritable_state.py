"""A server that starts where its state can't be written: it forwards and serves what is stored, and takes writes when it can."""

import contextlib
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from mcastd.model.owner import KERNEL_OWNER
from tests.e2e import templates
from tests.e2e.router import Router
from tests.e2e.session import Session
from tests.e2e.test_nothing_is_lost import Witnessed
from tests.e2e.test_state import check_refused, end, fill
from tests.e2e.view import Watching
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, wait_until

pytestmark = pytest.mark.kernel

DISK = 2 << 20
"""Bytes of the small disk."""

NEW_MOUNTS = ["unshare", "--mount", "--propagation", "private"]


def disk_of(daemon: McastdProcess) -> Path:
    """The state directory as the daemon sees it."""
    return Path(f"/proc/{daemon.process.pid}/root{daemon.state_dir}")


def small_disk(directory: Path) -> list[str]:
    """What starts a daemon with its state on a small disk of its own."""
    mount = f'mkdir -p "$0" && chmod 755 "$0" && mount -t tmpfs -o size={DISK},mode=777 state "$0" && exec "$@"'
    return [*NEW_MOUNTS, "sh", "-c", mount, str(directory / "state")]


def mount(daemon: McastdProcess, *commands: str) -> None:
    """Mount or unmount something as the daemon and its servers will see it; @ is the state directory."""
    enter = ["nsenter", f"--mount=/proc/{daemon.process.pid}/ns/mnt"]
    for command in commands:
        subprocess.run([*enter, *command.replace("@", str(daemon.state_dir)).split()], check=True)


READ_ONLY = "mount --bind @ @", "mount -o remount,bind,ro @"
"""Whoever has a file open goes on writing to it; whoever opens one can't."""


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """The disk is full meanwhile, whatever becomes free there."""
    over = threading.Event()
    fillers: list[Path] = []

    def go_on() -> None:
        while not over.wait(0.01):
            fillers.append(fill_again(disk, len(fillers)))

    fillers.append(fill(disk))
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for one in fillers:
            one.unlink(missing_ok=True)


def fill_again(disk: Path, number: int) -> Path:
    """Take what has become free; the file is one of few, and grows."""
    filler = disk / f"filler{number % 8}"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def kill(router: Router) -> None:
    """Have the keeper start another server, and wait until it serves."""
    router.wait_server_after(router.daemon.kill_server())


def upgrade(router: Router) -> None:
    """Have another server take over, and wait until it serves."""
    before = router.daemon.server_pid()
    router.daemon.process.send_signal(signal.SIGUSR2)
    router.wait_server_after(before)


def trailer(daemon: McastdProcess) -> str:
    """What GetStatus says of conditions."""
    call: Any = daemon.daemon.GetStatus
    _, answered = call.with_call(sv.GetStatusRequest(), timeout=10)
    return str(dict(answered.trailing_metadata() or ()).get("mcastd-condition", ""))


def condition(router: Router) -> float:
    """The condition as a metric."""
    return templates.metric(router, "mcastd_condition", code="STORE_UNAVAILABLE", severity="critical")


def check_serves_and_refuses(router: Router, *texts: str) -> int:
    """Forwarding, reads, Watch and metrics go on, and every kind of write is refused; the revision."""
    daemon, sender = router.daemon, router.sender()
    assert [one.status.owner for one in daemon.list_routes()] == ["local"]
    router.check_leaves(sender, "down1")
    with Watching(daemon, kinds=[sv.KIND_INTERFACE]) as watching:
        watching.until(lambda view: view.synced)
        router.namespace.ip("link set dev down2 down")
        watching.until(lambda view: not view.of("interface")["down2",].up)
        router.namespace.ip("link set dev down2 up")
        watching.until(lambda view: view.of("interface")["down2",].up)
    join = t.Join(interface="up", group=router.sender(2).group)
    setting = sv.SetInterfaceRequest(interface="up", ttl_threshold=2)
    writes: list[Callable[[], object]] = [
        lambda: daemon.put(router.route(2, "down1")),
        lambda: daemon.replace([], options={"owner": "local"}, allow_empty=True),
        lambda: daemon.delete(t.RouteKey(group=sender.group, source=sender.source)),
        lambda: sv_grpc.JoinServiceStub(daemon.channel).PutJoins(sv.PutJoinsRequest(joins=[join]), timeout=20),
        lambda: daemon.interfaces.SetInterface(setting, timeout=20),
        lambda: open_session(router),
    ]
    for write in writes:
        check_refused(write, *texts)
    assert daemon.put(router.route(2, "down1"), validate_only=True).created == 1
    assert condition(router) == 1
    assert trailer(daemon).startswith("STORE_UNAVAILABLE: cannot ")
    assert len(router.kernel()) == 1
    return daemon.status().revision


def open_session(router: Router) -> None:
    """Open a session and leave it."""
    with Session(router.daemon.socket) as session:
        session.open("sdn")


def check_takes_writes(router: Router, revision: int, number: int) -> int:
    """The same server takes writes by itself; what it takes is there after it; the revision, above `revision`."""
    server = router.daemon.server_pid()
    wait_until(lambda: condition(router) == 0, 20, router.daemon.log)
    assert trailer(router.daemon) == ""
    router.put(router.route(number, "down2"))
    open_session(router)
    assert router.daemon.server_pid() == server
    written = router.daemon.status().revision
    kill(router)
    assert router.daemon.status().revision > written > revision
    assert router.status(number).revision > revision
    assert router.states() == {"ROUTE_STATE_PROGRAMMED": number}
    return router.daemon.status().revision


@pytest.fixture
def on_small_disk(testbed: Testbed, family: Family, directory: Path) -> Iterator[Router]:
    """A router whose daemon has its state on a small disk, and one route."""
    with Router(testbed, family, directory=directory, prefix=small_disk(directory), arguments=templates.METRICS) as made:
        made.put(made.route(made.sender(), "down1"))
        yield made


@pytest.fixture
def on_disk(testbed: Testbed, family: Family, directory: Path) -> Iterator[Router]:
    """A router whose daemon sees mounts that nobody else does, and one route."""
    with Router(testbed, family, directory=directory, prefix=NEW_MOUNTS, arguments=templates.METRICS) as made:
        made.put(made.route(made.sender(), "down1"))
        yield made


@pytest.mark.parametrize("replace", [kill, upgrade])
def test_a_server_starts_on_a_full_disk(on_small_disk: Router, replace: Callable[[Router], None]) -> None:
    """Revisions never run back though the start can't be counted, over several of these."""
    router = on_small_disk
    revision = router.daemon.status().revision
    with filled(disk_of(router.daemon)):
        for _ in range(2):
            replace(router)
            refused = check_serves_and_refuses(router, "full", "make room")
            assert refused > revision
            revision = refused
        assert router.daemon.log().count("writes are refused because they can't be stored") == 2
    check_takes_writes(router, revision, 2)


@pytest.mark.parametrize("replace", [kill, upgrade])
def test_a_server_starts_on_a_read_only_disk(on_disk: Router, replace: Callable[[Router], None]) -> None:
    router = on_disk
    revision = router.daemon.status().revision
    mount(router.daemon, *READ_ONLY)
    for _ in range(2):
        replace(router)
        refused = check_serves_and_refuses(router, "Read-only file system; mount its file system writable")
        assert refused > revision
        revision = refused
    mount(router.daemon, "umount @")
    revision = check_takes_writes(router, revision, 2)

    # The same once more: the count that was stored then is above all that was used.
    mount(router.daemon, *READ_ONLY)
    replace(router)
    assert router.daemon.status().revision > revision
    mount(router.daemon, "umount @")
    router.daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: condition(router) == 0, 20, router.daemon.log)


def test_a_daemon_starts_where_it_may_only_read(on_disk: Router) -> None:
    """As after a reboot with a disk that has become read-only: what is stored is programmed."""
    router = on_disk
    first, revision = router.daemon, router.daemon.status().revision
    end(first)
    bind = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    prefix = [*NEW_MOUNTS, "sh", "-c", bind, str(first.state_dir)]
    second = router.start(directory=first.directory, prefix=prefix, arguments=templates.METRICS)
    refused = check_serves_and_refuses(router, "Read-only file system")
    assert refused > revision
    mount(second, "mount -o remount,bind,rw @")
    check_takes_writes(router, refused, 2)


@pytest.fixture
def mounts(directory: Path) -> Iterator[list[str]]:
    """What starts a daemon with its state on a small disk that outlives it."""
    command = [*small_disk(directory), "sh", "-c", "echo; exec sleep infinity"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
        holder.terminate()


def test_a_daemon_starts_on_a_full_disk(testbed: Testbed, family: Family, directory: Path, mounts: list[str]) -> None:
    """It has nothing from before, and can't even write into its lock who has it."""
    with Router(testbed, family, directory=directory, prefix=mounts, arguments=templates.METRICS) as router:
        router.put(router.route(router.sender(), "down1"))
        revision, disk = router.daemon.status().revision, Path(f"{mounts[1].removeprefix('--mount=').removesuffix('ns/mnt')}root")
        end(router.daemon)
        with filled(disk / str(router.daemon.state_dir).lstrip("/")):
            router.start(directory=directory, prefix=mounts, arguments=templates.METRICS)
            refused = check_serves_and_refuses(router, "full", "make room")
            assert refused > revision
        check_takes_writes(router, refused, 2)


EMPTY = "mount -t tmpfs -o ro,mode=777 empty @"


def owners(router: Router) -> list[str]:
    """Of all routes."""
    return [one.status.owner for one in router.daemon.list_routes()]


def test_without_a_database_what_the_kernel_holds_is_kept_in_memory(on_disk: Router) -> None:
    router = on_disk
    sender = router.sender()
    mount(router.daemon, EMPTY)
    notices, revision = router.notices(), router.daemon.status().revision
    for _ in range(2):
        kill(router)
        assert router.daemon.status().revision > revision
        revision = router.daemon.status().revision
        assert owners(router) == [KERNEL_OWNER]
        router.check_leaves(sender, "down1")
        check_refused(lambda: router.daemon.put(router.route(2, "down1")), "Read-only file system")
    assert notices.take() == 0
    server = router.daemon.server_pid()
    mount(router.daemon, "mount -o remount,rw @")
    wait_until(lambda: condition(router) == 0, 20, router.daemon.log)
    assert (disk_of(router.daemon) / "state.db").exists()
    assert router.daemon.server_pid() == server
    kill(router)
    assert router.daemon.status().revision > revision
    assert owners(router) == [KERNEL_OWNER]
    assert notices.take() == 0
    router.put(router.route(sender, "down2"))  # An owner takes it.
    assert owners(router) == ["local"]
    router.check_leaves(sender, "down2")


def test_a_state_that_comes_late_is_loaded(on_disk: Router) -> None:
    """The directory was empty, since its disk was not mounted yet: what it holds takes the place of what was found."""
    router = on_disk
    sender = router.sender()
    mount(router.daemon, EMPTY)
    kill(router)
    assert owners(router) == [KERNEL_OWNER]
    notices, server, revision = router.notices(), router.daemon.server_pid(), router.daemon.status().revision
    mount(router.daemon, "umount @")
    router.wait_server_after(server)
    assert owners(router) == ["local"]
    assert router.daemon.status().revision > revision
    assert "another one: a server is started that loads it" in router.daemon.log()
    assert notices.take() == 0
    router.check_leaves(sender, "down1")


def test_an_unwritable_directory_is_lived_with(testbed: Testbed, family: Family, directory: Path) -> None:
    """Permissions count for the server, which is not root; given back they are found by themselves."""
    with Router(testbed, family, directory=directory, arguments=templates.METRICS) as router:
        router.put(router.route(router.sender(), "down1"))
        state = router.daemon.state_dir
        owner = state.stat()
        if owner.st_uid == 0:
            pytest.skip("the server is root here, whom no permission keeps out")
        database = state / "state.db"
        end(router.daemon)
        for path in (state, database):
            path.chmod(path.stat().st_mode & ~0o222)
        router.start(directory=directory, arguments=templates.METRICS)
        revision = check_serves_and_refuses(router, "Permission denied; make the directory and the files in it")
        for path in (state, database):
            path.chmod(path.stat().st_mode | 0o200)
        check_takes_writes(router, revision, 2)


@pytest.mark.xdist_group("heavy")
@pytest.mark.timeout(180)
def test_no_packet_is_lost_by_servers_that_start_on_a_full_disk(testbed: Testbed, directory: Path) -> None:
    witnessed = Witnessed(testbed, directory)
    try:
        daemon = witnessed.start(prefix=small_disk(directory))
        witnessed.flow()
        with filled(disk_of(daemon)):
            for _ in range(2):
                before = daemon.kill_server()
                witnessed.wait_next_server(before)
                before = daemon.server_pid()
                daemon.process.send_signal(signal.SIGUSR2)
                witnessed.wait_next_server(before)
            with pytest.raises(grpc.RpcError, match="full"):
                daemon.put(*witnessed.streams.routes()[:1], owner="another", take_over=True)
        witnessed.finish()
    finally:
        witnessed.close()
