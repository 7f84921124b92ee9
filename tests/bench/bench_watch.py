"""How fast Watch tells of new sources, and what those who follow cost the writes they follow.

    python -m tests.bench.bench_watch [routes]

Writes are measured with and without followers, in turns in the same run: ratios count. Runs in namespaces of its own, as root
or in a user namespace.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

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


class Followers:
    """Followers in a process of their own, while this is entered."""

    def __init__(self, daemon: McastdProcess, count: int) -> None:
        self._command = [sys.executable, "-c", _FOLLOWER, str(daemon.socket), str(count)]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


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
    client = Client(daemon, family)
    sets = [client.encode(list(bulk(family, count, source, *oifs))) for oifs in (FIRST, OTHER)]
    client.replace(sets[0])
    alone: list[float] = []
    followed: list[float] = []
    caught_up = 0.0
    for _ in range(ROUNDS):
        alone += [timed(lambda part=part: client.replace(part)) for part in reversed(sets)]  # type: ignore[misc]
        with Followers(daemon, WATCHERS):
            followed += [timed(lambda part=part: client.replace(part)) for part in reversed(sets)]  # type: ignore[misc]
            began = time.monotonic()
            wait_until(lambda: not any(one.pending for one in daemon.status().subscribers), 300)
            caught_up = time.monotonic() - began
    ratio = statistics.median(alone) / statistics.median(followed)
    yield (
        f"IPv{family.value}: {count} routes rewritten: {count / statistics.median(alone):,.0f}/s alone; "
        f"followed by {WATCHERS}: {ratio:.2f} of that; they have all {caught_up:.1f} s later"
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
