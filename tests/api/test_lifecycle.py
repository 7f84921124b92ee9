"""Start, sockets and end of the daemon as a client sees them."""

import grp
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from tests.api.bench import Bench, Client, good, refused
from tests.e2e.keeper_bench import open_directory
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, wait_until
from tests.testbed.rights import is_root

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("api-lifecycle")]

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def test_status_says_what_runs(own_bench: Bench) -> None:
    admin = own_bench.admin
    empty = admin.status()
    assert (empty.limits.routes, empty.limits.routes_max, empty.limits.vifs_used, empty.limits.vifs_max) == (0, 1_000_000, 0, 32)
    assert list(empty.owners) == []
    admin.put(good(1), good(2, 4, "down1", "down2"), epoch=3)
    own_bench.write.put(good(3))
    now = own_bench.view.status()
    assert (now.instance_id, now.start_time, now.version) == (empty.instance_id, empty.start_time, empty.version)
    assert now.revision > empty.revision
    assert (now.limits.routes, now.limits.vifs_used) == (3, 3)
    alice, local = now.owners
    assert (alice.name, alice.entries, alice.epoch, alice.connected) == ("alice", 1, 0, False)
    assert (local.name, local.entries, local.epoch, local.stale) == ("local", 2, 3, 0)
    assert empty.revision < local.revision < alice.revision <= now.revision
    assert {"ipv6", "globs", "replace"} <= set(now.features)
    assert abs(now.start_time.ToSeconds() - Path(f"/proc/{own_bench.daemon.process.pid}").stat().st_ctime) < 60


def test_shutdown_ends_the_daemon_in_order(own_bench: Bench) -> None:
    bench = own_bench
    bench.admin.put(good(1), good(1, 6))
    assert bench.admin.daemon.Shutdown(sv.ShutdownRequest(), timeout=10) == sv.ShutdownResponse()
    assert bench.daemon.process.wait(15) == 0, bench.daemon.log()
    with bench.router.entered():
        assert Path("/proc/thread-self/net/ip_mr_cache").read_text().count("\n") == 1, "the kernel's table is empty"
        assert Path("/proc/thread-self/net/ip6_mr_cache").read_text().count("\n") == 1
    assert not bench.daemon.socket.exists()
    assert "Traceback" not in bench.daemon.log()


def test_shutdown_cannot_keep_forwarding_where_nobody_holds_it(own_bench: Bench) -> None:
    found = refused(lambda: own_bench.admin.daemon.Shutdown(sv.ShutdownRequest(keep_forwarding=True), timeout=10))
    assert (found.code, found.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED")
    assert found.metadata["field"] == "keep_forwarding"
    assert own_bench.daemon.serving()


def test_health_says_not_serving_before_the_end(own_bench: Bench) -> None:
    """A watcher of health hears NOT_SERVING while calls that are under way are still answered."""
    heard: dict[str, list[int]] = {"": [], "mcast.v1.RouteService": []}

    def follow(service: str) -> None:
        try:
            for answer in own_bench.view.health.Watch(health_pb2.HealthCheckRequest(service=service)):
                heard[service].append(answer.status)
        except grpc.RpcError:
            return  # the daemon has ended

    threads = [threading.Thread(target=follow, args=(service,)) for service in heard]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(seen == [SERVING] for seen in heard.values()))
    own_bench.admin.daemon.Shutdown(sv.ShutdownRequest(), timeout=10)
    for thread in threads:
        thread.join(20)
    assert heard == {"": [SERVING, NOT_SERVING], "mcast.v1.RouteService": [SERVING, NOT_SERVING]}


def test_the_end_does_not_wait_for_a_client_that_sends_nothing(own_bench: Bench) -> None:
    gate = threading.Event()

    def requests() -> Iterator[rs.ReplaceRoutesRequest]:
        gate.wait(30)
        yield from ()

    call = own_bench.admin.routes.ReplaceRoutes.future(requests())
    own_bench.admin.status()
    own_bench.admin.daemon.Shutdown(sv.ShutdownRequest(), timeout=10)
    assert own_bench.daemon.process.wait(15) == 0
    gate.set()
    assert call.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


@pytest.mark.usefixtures("_able")
@pytest.mark.parametrize(
    "grouped", [False, pytest.param(True, marks=pytest.mark.skipif(not is_root(), reason="needs other groups"))]
)
def test_sockets_have_the_mode_and_the_group_asked_for(grouped: bool) -> None:
    group = next(one for one in grp.getgrall() if one.gr_gid not in {0, 65534} and one.gr_gid < 60_000)
    with Testbed() as bed, open_directory() as directory:
        run = directory / "run"
        arguments = ["--listen", f"unix:{run}/world.sock,mode=0666,access=view"]
        if grouped:
            arguments += ["--listen", f"unix:{run}/group.sock,group={group.gr_name},access=write"]
            arguments += ["--listen", f"unix:{run}/both.sock,mode=640,group={group.gr_name}"]
        with McastdProcess(bed.namespace("router"), directory, *arguments) as daemon:
            found = {path.name: path.stat() for path in run.iterdir() if path.suffix == ".sock"}
            own = daemon.socket.stat().st_gid
            modes = {"mcastd.sock": (0o600, own), "world.sock": (0o666, own)}
            if grouped:
                modes |= {"group.sock": (0o660, group.gr_gid), "both.sock": (0o640, group.gr_gid)}
            assert {name: (stat.S_IMODE(one.st_mode), one.st_gid) for name, one in found.items()} == modes
            assert own != group.gr_gid
            for name, access in {"world.sock": "view", "group.sock": "write"}.items():
                if name not in modes:
                    continue
                client = Client(run / name)
                assert client.status().version
                denied = refused(lambda client=client: client.daemon.Shutdown(sv.ShutdownRequest(), timeout=5))  # type: ignore[misc]
                assert denied.metadata == {"need": "admin", "have": access}
                client.close()
        assert [path.name for path in run.iterdir() if path.suffix == ".sock"] == []


@pytest.mark.skipif(not is_root(), reason="needs a second user")
def test_the_mode_of_a_socket_is_what_lets_callers_in(own_bench: Bench) -> None:
    """A user who is neither the server's nor in the socket's group cannot connect to a socket of mode 0600."""
    code = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)\n"
        "sock = socket.socket(socket.AF_UNIX)\n"
        "try: sock.connect(sys.argv[1])\n"
        "except PermissionError: sys.exit(13)\n"
    )
    process = own_bench.router.popen([sys.executable, "-c", code, str(own_bench.daemon.socket)])
    assert process.wait(10) == 13


def test_interfaces_that_come_heal_routes_while_the_api_serves(own_bench: Bench) -> None:
    nowhere = good(1)
    nowhere.iif = "new0"
    own_bench.admin.put(nowhere)
    revision = own_bench.admin.status().revision
    own_bench.router.ip("link add new0 type veth peer name new1", "link set new0 up", "link set new1 up")
    wait_until(lambda: own_bench.view.listed()[0].status.state == t.ROUTE_STATE_PROGRAMMED)
    (one,) = own_bench.view.listed()
    assert one.status.revision > revision
    assert not one.status.HasField("last_error")
