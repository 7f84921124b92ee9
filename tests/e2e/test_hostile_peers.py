"""Peers that mean no good leave forwarding, the Unix socket and other clients as they were, and nothing behind."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import grpc
import pytest

from tests.e2e.hostile import ATTACKS
from tests.e2e.keeper_bench import ROOT, open_directory
from tests.e2e.secured import PORT, PRINCIPALS, Secured, descriptors, resident
from tests.testbed import Testbed
from tests.testbed.daemon import route, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("heavy")]

SECONDS = 3.0
"""Of each attack, beyond its beginning."""

RATE = 500
"""Packets a second that must pass all the while."""

LATENCY = 3.0
"""Seconds that one of a hundred GetStatus may take, on a machine that other tests keep busy too; docs/security.md has figures."""

FULL = os.environ.get("MCASTD_TEST_FULL") == "1"
"""All attacks, which take minutes; without it some of each kind."""

UNENCRYPTED = [name for name in ATTACKS if name not in {"half_open", "slow_handshake"}]
WITHIN_TLS = [name for name in UNENCRYPTED if name != "random_bytes"]

MEMORY = 1 << 30
"""Bytes that the server may take beside what it had: gRPC reads all that a fast sender has sent before it looks at it."""

KEPT = 512 << 20
"""Bytes that its allocator may keep of them: 1,000 connections within TLS alone leave 120 MiB."""

GONE_SECONDS = 20.0
"""After which nothing of an attack is left: more than a handshake may take."""

STRANGERS = ("random_bytes", "idle", "half_open", "slow_handshake", "bad_frames", "slow_preface")
"""Attacks without a certificate; all are tried with one, and through a plain address."""

_log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def secured(_able: None) -> Iterator[Secured]:
    """One daemon for all of them."""
    with Testbed() as bed, open_directory() as directory, Secured(bed, directory) as made:
        made.configure(PRINCIPALS + '\n[[principal]]\nname = "enemy"\nowner = "enemy"\n')
        made.start("--listen", f"tcp:127.0.0.1:{PORT + 1},plain=yes,access=view")
        yield made


@pytest.fixture(scope="module")
def memory(secured: Secured) -> int:
    """Of the server before all attacks."""
    assert secured.daemon is not None
    secured.daemon.status()
    return resident(secured.daemon.server_pid())


@contextmanager
def attack(secured: Secured, name: str, kind: str) -> Iterator[None]:
    """It is under way."""
    host, address = secured.host, secured.star.uplink.ipv6 if len(name) % 2 else secured.star.uplink.ipv4
    files: list[str] = []
    port = PORT
    if kind == "certificate":
        enemy = secured.pki.named("enemy")
        files = [str(enemy.cert), str(enemy.key), str(secured.pki.ca)]
    elif kind == "plain":
        host, address, port = secured.star.router, "127.0.0.1", PORT + 1
    command = [sys.executable, "-m", "tests.e2e.hostile", name, address, str(port), *files]
    process = host.popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def latencies(secured: Secured, seconds: float) -> list[float]:
    """What GetStatus takes through the Unix socket, sorted."""
    assert secured.daemon is not None
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        secured.daemon.status()
        found.append(time.monotonic() - began)
        time.sleep(0.005)
    return sorted(found)


def p99(values: list[float]) -> float:
    """The latency that one of a hundred exceeds."""
    return values[len(values) * 99 // 100]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "name,kind",
    [
        *((name, "stranger") for name in STRANGERS),
        *((name, "certificate") for name in WITHIN_TLS if FULL or name in {"idle", "rapid_reset", "settings_flood"}),
        *((name, "plain") for name in UNENCRYPTED if FULL or name == "rapid_reset"),
    ],
)
def test_nobody_is_disturbed(secured: Secured, memory: int, name: str, kind: str) -> None:
    daemon, star = secured.daemon, secured.star
    assert daemon is not None
    sender = star.source.sender("239.1.1.1")
    daemon.put(route("239.1.1.1", star.source.ipv4, "up", "down1"))
    receiver = star.receivers[0].receiver("239.1.1.1")
    server, calm = daemon.server_pid(), latencies(secured, 0.5)
    before = descriptors(server)
    friend = secured.remote("alice", 6)
    flow = sender.start(RATE)
    with attack(secured, name, kind):
        found = latencies(secured, SECONDS)
        assert friend.call("status").returncode == 0
        under_way = descriptors(server), resident(server)
    count = flow.stop()
    receiver.wait(sender, count)
    assert receiver.missing(sender) == []
    assert p99(found) < LATENCY
    wait_until(lambda: settled(secured, before), GONE_SECONDS, lambda: f"{descriptors(server)} descriptors, before {before}")
    assert daemon.server_pid() == server
    after = resident(server) - memory
    _log.info(
        "%s of %s: p99 %.1f ms (calm %.1f ms), %d descriptors, %d MiB, then %d MiB more than at first",
        *(name, kind, 1000 * p99(found), 1000 * p99(calm), under_way[0], under_way[1] >> 20, after >> 20),
    )
    assert under_way[1] - memory < MEMORY
    assert after < KEPT


def settled(secured: Secured, before: int) -> bool:
    """Whether no connection of an attack is left."""
    assert secured.daemon is not None
    with suppress(grpc.RpcError):
        secured.daemon.status()
    return descriptors(secured.daemon.server_pid()) <= before + 2


def test_all_is_as_before(secured: Secured) -> None:
    """Nothing was restarted, nothing failed."""
    assert secured.daemon is not None
    log = secured.daemon.log_path.read_text(errors="replace")
    # gRPC itself stumbles where a peer has gone in the middle of an answer that it would not take.
    assert [line for line in log.splitlines() if "Traceback" in line and "logger=grpc._cython.cygrpc" not in line] == []
    assert "level=critical" not in log
    assert log.count("the server serves") == 1
