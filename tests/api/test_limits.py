"""Limits and disturbances: messages that are too large, clients that leave, many writers at once."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from mcastd.kernel import mfc_dump
from mcastd.model.address import Family
from tests.api.bench import Bench, Client, good, group, refused, stream
from tests.testbed.daemon import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("api-limits")]

ROOT = str(Path(__file__).parents[2])


def in_kernel(bench: Bench) -> set[bytes]:
    """Keys of the kernel's IPv4 entries."""
    with bench.router.entered():
        return {entry.key for entry in mfc_dump.dump(Family.IPV4, 0)}


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_a_message_over_4_mib_is_refused_and_harms_nobody(bench: Bench) -> None:
    huge = [good(1, cookie="c" * (5 << 20))]
    before = bench.snapshot()
    done: list[int] = []
    stop = threading.Event()

    def others() -> None:
        with contextlib.closing(Client(bench.daemon.socket)) as client:
            while not stop.is_set():
                client.status()
                done.append(1)

    thread = threading.Thread(target=others)
    thread.start()
    for _ in range(5):
        for call in (
            lambda: bench.admin.put(*huge),
            lambda: bench.admin.replace([good(2), *huge]),
            lambda: bench.admin.routes.ReplaceRoutes(stream([good(2), *huge], chunk=1), timeout=20),
        ):
            assert refused(call).code == grpc.StatusCode.RESOURCE_EXHAUSTED
    stop.set()
    thread.join(20)
    assert len(done) > 10
    assert bench.snapshot() == before
    assert bench.admin.put(good(1)).created == 1, "the connection still serves"


def test_just_under_4_mib_is_taken(bench: Bench) -> None:
    routes = [good(n, cookie="c" * 64) for n in range(1, 10_001)]
    fat = rs.PutRoutesRequest(routes=routes)
    fat.options.owner = "local"
    fat.MergeFromString(b"\xfa\x7f" + _varint((4 << 20) - fat.ByteSize() - 6) + bytes((4 << 20) - fat.ByteSize() - 6))
    assert (4 << 20) - 10 < fat.ByteSize() <= 4 << 20
    assert bench.admin.routes.PutRoutes(fat, timeout=30).result.created == 10_000


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def test_a_long_set_comes_in_any_chunks(bench: Bench) -> None:
    routes = [good(n) for n in range(1, 3001)]
    assert bench.admin.routes.ReplaceRoutes(stream(routes, chunk=1), timeout=60).result.created == 3000
    assert bench.admin.routes.ReplaceRoutes(stream(routes, chunk=3000), timeout=60).result.unchanged == 3000
    assert len(in_kernel(bench)) == 3000


def test_a_set_of_empty_chunks_is_empty(bench: Bench) -> None:
    messages = [rs.ReplaceRoutesRequest(header=rs.ReplaceRoutesRequest.Header())]
    messages += [rs.ReplaceRoutesRequest(chunk=rs.ReplaceRoutesRequest.Chunk())] * 3
    assert refused(lambda: bench.admin.routes.ReplaceRoutes(iter(messages), timeout=10)).reason == "EMPTY_SET"


# --- clients that leave ----------------------------------------------------------------------------------------------


def unfinished(routes: list[t.Route], sent: threading.Event, go: threading.Event) -> Iterator[rs.ReplaceRoutesRequest]:
    """A stream that stops after its chunks until told to go on."""
    yield from stream(routes)
    sent.set()
    go.wait(30)


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.01, 0.05])
def test_a_cancelled_replacement_changes_nothing(bench: Bench, delay: float) -> None:
    base = [good(n) for n in range(1, 2001)]
    bench.admin.replace(base)
    before = bench.snapshot()
    for _ in range(20):
        sent, go = threading.Event(), threading.Event()
        call: Any = bench.admin.routes.ReplaceRoutes.future(unfinished(base[:1000], sent, go))
        assert sent.wait(10)
        time.sleep(delay)  # how far the server has read by then differs; no answer may depend on it
        call.cancel()
        go.set()
    # A write that went wrong would be in the queue before this one, which comes on the same connection.
    assert bench.admin.replace(base).unchanged == 2000
    assert bench.snapshot() == before


def test_a_replacement_that_runs_out_of_time_changes_nothing(bench: Bench) -> None:
    base = [good(n) for n in range(1, 1001)]
    bench.admin.replace(base)
    before = bench.snapshot()
    for _ in range(10):
        sent, go = threading.Event(), threading.Event()
        found = refused(lambda sent=sent, go=go: bench.admin.routes.ReplaceRoutes(unfinished(base[:500], sent, go), timeout=0.05))  # type: ignore[misc]
        go.set()
        assert found.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert bench.admin.replace(base).unchanged == 1000
    assert bench.snapshot() == before


def without_audit(log: str) -> list[str]:
    """The lines of a log that are not about who did what."""
    return [line for line in log.splitlines() if "logger=mcastd.audit" not in line]


def test_a_replacement_whose_client_is_killed_changes_nothing(bench: Bench) -> None:
    base = [good(n) for n in range(1, 101)]
    bench.admin.replace(base)
    before = bench.snapshot()
    code = (
        "import os, sys, time, grpc\n"
        "from tests.api.bench import Client, good, stream\n"
        "from pathlib import Path\n"
        "def requests():\n"
        "    yield from stream([good(1)])\n"
        "    sys.stdin.readline()\n"
        "    os.kill(os.getpid(), 9)\n"
        "call = Client(Path(sys.argv[1])).routes.ReplaceRoutes.future(requests())\n"
        "time.sleep(60)\n"
    )
    log = without_audit(bench.daemon.log())
    for _ in range(3):
        client = subprocess.Popen([sys.executable, "-c", code, bench.daemon.socket], stdin=subprocess.PIPE, cwd=ROOT)
        assert client.stdin is not None
        client.stdin.write(b"\n")
        client.stdin.close()
        assert client.wait(30) == -9
    for _ in range(20):
        assert bench.admin.replace(base).unchanged == 100
    assert bench.snapshot() == before
    assert without_audit(bench.daemon.log()) == log, "a client that leaves is nothing to talk about, but for the audit log"


def test_a_write_that_runs_out_of_time_leaves_a_healthy_daemon(bench: Bench) -> None:
    """What was begun is done whole, or was not begun."""
    for n in range(10):
        routes = [good(at, cookie=str(n)) for at in range(1, 10_001)]
        with contextlib.suppress(grpc.RpcError):
            bench.admin.routes.PutRoutes(rs.PutRoutesRequest(routes=routes), timeout=0.01 + n * 0.01)
    final = [good(at, cookie="final") for at in range(1, 10_001)]
    result = bench.admin.put(*final)
    assert result.updated + result.created + result.unchanged == 10_000
    assert {one.cookie for one in bench.admin.listed()} == {"final"}
    assert len(in_kernel(bench)) == 10_000
    assert bench.daemon.serving()
    assert "Traceback" not in bench.daemon.log()


def test_a_list_that_nobody_reads_on_holds_nobody_up(bench: Bench) -> None:
    bench.admin.put(*[good(n, cookie="c" * 64) for n in range(1, 10_001)])
    lists: list[Any] = [bench.view.routes.ListRoutes(rs.ListRoutesRequest(), timeout=60) for _ in range(10)]
    for one in lists:
        next(one)
    began = time.monotonic()
    bench.admin.put(good(10_001))
    assert time.monotonic() - began < 5
    for one in lists:
        one.cancel()


# --- many at once ----------------------------------------------------------------------------------------------------


def test_50_writers_are_all_acknowledged_and_in_the_kernel(bench: Bench) -> None:
    """Each has a connection of its own, writes 20 single routes, and finds each in force when it is answered."""

    def write(which: int) -> set[str]:
        with contextlib.closing(Client(bench.daemon.socket)) as client:
            for n in range(20):
                result = client.put(good(1 + which * 20 + n, 4, "down1" if n % 2 else "down2"), return_changes=True)
                assert (result.created, len(result.changes)) == (1, 1)
                assert result.changes[0].after.status.state == t.ROUTE_STATE_PROGRAMMED
            return {group(1 + which * 20 + n) for n in range(20)}

    with ThreadPoolExecutor(50) as pool:
        written = set().union(*pool.map(write, range(50)))
    assert {one.group for one in bench.view.listed()} == written
    assert len(written) == len(in_kernel(bench)) == 1000


def test_writers_of_one_route_leave_it_as_one_of_them_asked(bench: Bench) -> None:
    choices = [("down1",), ("down2",), ("down1", "down2")]

    def write(which: int) -> None:
        for n in range(20):
            bench.admin.put(good(1, 4, *choices[(which + n) % 3]))

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(write, range(12)))
    (one,) = bench.view.listed()
    assert one.status.state == t.ROUTE_STATE_PROGRAMMED
    assert tuple(one.status.installed_oifs) == tuple(oif.interface for oif in one.oifs)
    with bench.router.entered():
        dump = mfc_dump.dump(Family.IPV4, 0)
    (entry,) = dump
    indexes = sorted(bench.router.ifindex(name) for name in one.status.installed_oifs)
    assert [index for index, _ in dump.paths_of(entry)[1]] == indexes


def test_many_connections_come_and_go(bench: Bench) -> None:
    pid = bench.daemon.server_pid()
    descriptors = Path(f"/proc/{pid}/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        clients = [Client(bench.daemon.socket) for _ in range(40)]
        for client in clients:
            client.status()
        for client in clients:
            client.close()
    wait_until(lambda: len(list(descriptors.iterdir())) <= before + 2, 15)
