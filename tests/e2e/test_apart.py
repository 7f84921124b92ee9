"""Keeper and server apart: the server is another user without any capability, and is let in by its user alone."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcast.v1 import services_pb2 as sv
from mcastd.model.address import Family
from tests.e2e.apart import UID, Apart, process_of, unprivileged
from tests.e2e.keeper_bench import status_of
from tests.e2e.mrd import ADVERTISEMENT, TERMINATION, Neighbour
from tests.e2e.notices import MfcNotices
from tests.e2e.stream import Streams
from tests.testbed import Star, Testbed
from tests.testbed.daemon import McastdProcess, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("heavy")]

RATE = 2000


@pytest.fixture
def star(testbed: Testbed) -> Star:
    """A router with two receivers."""
    return testbed.star(2)


@pytest.fixture
def apart(star: Star, directory: Path) -> Iterator[Apart]:
    """A keeper that waits for servers."""
    with Apart(star.router, directory) as made:
        yield made


def wait_other(server: McastdProcess, before: int) -> int:
    """Wait until another process serves below this one; its pid."""
    wait_until(lambda: process_of(server) not in {0, before}, 20, server.log)
    return process_of(server)


def test_server_without_any_capability_serves(apart: Apart) -> None:
    server = apart.server()
    status = status_of(process_of(server))
    assert status["Uid"].split() == [str(UID)] * 4
    assert {name: int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb")} == dict.fromkeys(
        ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"), 0
    )
    kept = status_of(apart.keeper.pid)
    assert int(kept["CapEff"], 16) == 1 << 12 | 1 << 13  # NET_ADMIN, NET_RAW
    assert server.socket.exists()
    server.close()
    assert not server.socket.exists()
    apart.wait_logged("the server has ended")
    assert apart.keeper.poll() is None  # it waits for the next one
    assert apart.server().serving()


def test_server_killed_and_back_loses_nothing(star: Star, apart: Apart) -> None:
    with Streams(star, RATE) as streams:
        server = apart.server()
        assert server.put(*streams.routes()).failed == 0
        streams.start()
        streams.wait_flowing()
        for _ in range(3):
            os.kill(process_of(server), signal.SIGKILL)
            assert server.process.wait(20) == 128 + signal.SIGKILL
            server = apart.server()  # as whoever runs its container does
        streams.wait_flowing()
        streams.finish().check()


def test_server_that_comes_takes_over_and_the_other_stands_by(star: Star, apart: Apart) -> None:
    with Streams(star, RATE, new_rate=0) as streams:
        first = apart.server()
        assert first.put(*streams.routes()).failed == 0
        streams.start()
        streams.wait_flowing()
        with MfcNotices(star.router, Family.IPV4) as of_ipv4, MfcNotices(star.router, Family.IPV6) as of_ipv6:
            before = process_of(first)
            second = apart.server("--log-level", "debug", ready=False)
            apart.wait_logged("the new server takes over", 2)
            wait_until(lambda: second.log().count("the server serves") == 2, 20, second.log)
            stands_by = wait_other(first, before)
            apart.wait_logged("stand_by=True", 1)
            assert second.serving()
            # It takes its turn when the one that serves is gone.
            os.kill(process_of(second), signal.SIGKILL)
            second.process.wait(20)
            apart.wait_logged("the new server takes over", 3)
            wait_until(first.serving, 20, first.log)
            assert process_of(first) == stands_by
            assert (of_ipv4.take(), of_ipv6.take()) == (0, 0)
        streams.finish().check()


def test_keeper_is_waited_for(star: Star, directory: Path) -> None:
    with Apart(star.router, directory) as apart:
        apart.server()
        apart.keeper.terminate()
        assert apart.keeper.wait(20) == 0
        assert not apart.channel.exists()
        server = apart.server(ready=False)
        wait_until(lambda: "the keeper can't be reached" in server.log(), 20, server.log)
        apart.start_keeper()
        server.wait_ready()


def test_keeper_is_re_executed_while_one_serves_and_one_stands_by(apart: Apart) -> None:
    serves = apart.server()
    pid = process_of(serves)
    apart.server("--stand-by", ready=False)
    apart.wait_logged("stand_by=True")
    apart.keeper.send_signal(signal.SIGUSR1)
    apart.wait_logged("the keeper is re-executed")
    apart.wait_logged("stand_by=True", 2)  # it has come again
    assert (process_of(serves), serves.serving()) == (pid, True)


def test_server_ended_by_signal_says_no_good_bye(star: Star, apart: Apart) -> None:
    """It is the server that ends, not the router: router discovery sends no termination."""
    near = Neighbour(star.receivers[0])
    server = apart.server()
    server.interfaces.SetInterface(sv.SetInterfaceRequest(interface="down1", router_discovery=True), timeout=10)
    for family in Family:
        near.wait(family, ADVERTISEMENT, 3)
    since = time.time()
    server.close()
    apart.server()
    for family in Family:
        near.wait(family, ADVERTISEMENT, since=since)
        assert near.discovery(family, TERMINATION) == []
        assert near.reports(family, since) == []


def test_end_by_a_client_ends_both(apart: Apart) -> None:
    server = apart.server()
    server.daemon.Shutdown(sv.ShutdownRequest(), timeout=10)
    assert server.process.wait(20) == 0
    assert apart.keeper.wait(20) == 0


def test_tables_of_the_servers_configuration_are_open(apart: Apart, directory: Path) -> None:
    config = directory / "mcastd.toml"
    route = 'group = "232.0.0.1"\nsource = "10.0.0.9"\niif = "up"\noifs = ["down1"]\ntable = 77\n'
    config.write_text(f"[daemon]\ntables = [77]\n\n[[route]]\n{route}")
    config.chmod(0o644)
    server = apart.server("--config", str(config))
    assert [one.table for one in server.list_routes()] == [77]
    os.kill(process_of(server), signal.SIGHUP)
    wait_until(lambda: server.log().count("the configuration is in force") == 2, 20, server.log)


def test_only_the_servers_user_is_let_in(star: Star, directory: Path) -> None:
    with Apart(star.router, directory, "--channel", f"{directory}/channel/open.sock,mode=0666") as apart:
        apart.channel = directory / "channel" / "open.sock"
        apart.wait_logged("waiting for a server")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(str(apart.channel))  # as root
            assert sock.recv(100) == b""
        apart.wait_logged('why="only uid 65532 is let in (--user)"')
        assert apart.server().serving()


def test_socket_is_closed_to_others(apart: Apart) -> None:
    apart.wait_logged("waiting for a server")
    info = apart.channel.stat()
    assert (info.st_uid, info.st_mode & 0o777) == (UID, 0o600)


def test_server_of_another_protocol_or_none_is_hung_up_on(apart: Apart) -> None:
    server = apart.server()
    script = "import socket, sys; s = socket.socket(1, 5); s.connect(sys.argv[1]); s.recv(70000)"
    script += "; s.send(b'nonsense'); print(s.recv(9))"
    done = subprocess.run(
        [*unprivileged(), sys.executable, "-c", script, str(apart.channel)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stdout == "b''\n", done
    apart.wait_logged("the new server is not used")
    assert server.serving()


def test_two_keepers_cannot_share_a_socket(star: Star, apart: Apart) -> None:
    apart.wait_logged("waiting for a server")
    first = apart.keeper
    second = apart.start_keeper()
    assert second.wait(20) == 69
    apart.wait_logged("another mcastd")
    apart.keeper = first
