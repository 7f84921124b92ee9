"""How fast Watch tells of new sources, and what those who follow cost the writes they follow.

    python -m tests.bench.bench_watch [routes]

Writes are measured with and without followers, in turns in the same run: ratios count. Runs in namespaces of its own, as root
or in a user namespace.

Followers share the machine with the daemon, so they are of two kinds: clients of gRPC in Python, which cost more than the daemon
does, and those of raw_followers, which cost next to nothing: what is lost to them is the daemon's own doing. So are the server's
processor seconds, which say more than times where the machine does other things as well.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mcast.v1 import services_pb2 as sv
from mcastd.model.address import Family
from tests.bench.bench_bulk import FIRST, OTHER, Client, timed
from tests.e2e.router import bulk, group
from tests.e2e.view import Watching
from tests.testbed import Testbed, become_able
from tests.testbed.bed import Star
from tests.testbed.daemon import McastdProcess, wait_until

WATCHERS = 20
ROUNDS = 3
SOURCES = 300

_FOLLOWER = """
import sys, threading, grpc
from mcast.v1 import services_pb2 as sv
options = (("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1))
request = sv.WatchRequest(kinds=[sv.KIND_ROUTE], changes_only=True).SerializeToString()
ready = threading.Semaphore(0)
def follow():
    channel = grpc.insecure_channel("unix:" + sys.argv[1], options=options)
    first = True
    for _ in channel.unary_stream("/mcast.v1.EventService/Watch")(request):
        if first:
            ready.release()
            first = False
for _ in range(int(sys.argv[2])):
    threading.Thread(target=follow, daemon=True).start()
for _ in range(int(sys.argv[2])):
    ready.acquire()
print("ready", flush=True)
sys.stdin.read()
"""
"""Followers that read as fast as they can and look at nothing: their own time is not the daemon's."""


KINDS = {"raw followers": ["-m", "tests.bench.raw_followers"], "gRPC clients": ["-c", _FOLLOWER]}


class Followers:
    """Followers in a process of their own, while this is entered."""

    def __init__(self, daemon: McastdProcess, kind: str, count: int) -> None:
        self._command = [sys.executable, *KINDS[kind], str(daemon.socket), str(count)]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


class Cost(NamedTuple):
    """What a write has taken."""

    seconds: float
    processor: float
    """Seconds of the server's."""


def processor_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sources(daemon: McastdProcess, star: Star, family: Family) -> Iterator[str]:
    """From a packet's departure at its source to the event at a subscriber."""
    daemon.interfaces.SetInterface(sv.SetInterfaceRequest(interface="up", pinned=True), timeout=10)
    delays: list[float] = []
    with Watching(daemon, kinds=[sv.KIND_SOURCE]) as watching:
        watching.until(lambda view: view.synced)
        for number in range(SOURCES):
            sender = star.source.sender(group(family, 0x200000 + number), hops=16)
            known = len(watching.arrived)
            began = time.monotonic()
            sender.send()
            wait_until(lambda known=known: len(watching.arrived) > known)  # type: ignore[misc]
            delays.append(list(watching.arrived.values())[-1] - began)
    delays.sort()
    median, tail = statistics.median(delays), delays[int(len(delays) * 0.99)]
    yield f"IPv{family.value}: packet to event, {SOURCES} new sources: median {median * 1e3:.2f} ms, p99 {tail * 1e3:.2f} ms"


def writes(daemon: McastdProcess, family: Family, source: str, count: int) -> Iterator[str]:
    """Rewriting all routes, alone and followed."""
    client, pid = Client(daemon, family), daemon.server_pid()
    sets = [client.encode(list(bulk(family, count, source, *oifs))) for oifs in (FIRST, OTHER)]
    client.replace(sets[0])

    def rewritten() -> list[Cost]:
        costs = []
        for part in reversed(sets):
            before = processor_seconds(pid)
            seconds = timed(lambda part=part: client.replace(part))  # type: ignore[misc]
            costs.append(Cost(seconds, processor_seconds(pid) - before))
        return costs

    alone: list[Cost] = []
    followed: dict[str, list[Cost]] = {kind: [] for kind in KINDS}
    caught_up = dict.fromkeys(KINDS, 0.0)
    for _ in range(ROUNDS):
        for kind in KINDS:
            alone += rewritten()
            with Followers(daemon, kind, WATCHERS):
                followed[kind] += rewritten()
                began = time.monotonic()
                wait_until(lambda: not any(one.pending for one in daemon.status().subscribers), 300)
                caught_up[kind] = time.monotonic() - began
    base = [statistics.median(column) for column in zip(*alone, strict=True)]
    yield f"IPv{family.value}: {count} routes rewritten alone: {count / base[0]:,.0f}/s, {base[1]:.2f} s of processor time"
    for kind, costs in followed.items():
        seconds, processor = (statistics.median(column) for column in zip(*costs, strict=True))
        yield (
            f"IPv{family.value}: followed by {WATCHERS} {kind}: {base[0] / seconds:.2f} of that speed, "
            f"{processor / base[1]:.2f} of that processor time; they have all {caught_up[kind]:.1f} s later"
        )
    client.replace(client.encode([]))


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    reason = become_able()
    if reason:
        sys.exit(reason)
    with Testbed() as bed:
        star = bed.star(receivers=3)
        with McastdProcess(star.router) as daemon:
            for family in Family:
                for line in (*sources(daemon, star, family), *writes(daemon, family, star.source.address(family), count)):
                    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
