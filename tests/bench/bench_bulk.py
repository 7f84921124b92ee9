"""How fast ReplaceRoutes programs the kernel, over gRPC and durable, against a loop in C over the same entries in the same run.

    python -m tests.bench.bench_bulk [routes]

Ratios count, not times: the machine is what it is. Runs in namespaces of its own, as root or in a user namespace.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from mcastd.kernel._native import ffi, lib
from mcastd.kernel.rawsock import open_mroute
from mcastd.model.address import Family
from tests.e2e.router import bulk, key_of
from tests.testbed import Testbed, become_able
from tests.testbed.daemon import McastdProcess

ROUNDS = 3
CHUNK = 1000
FIRST, OTHER = ("down1", "down2"), ("down2", "down3")


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def floor(bed: Testbed, family: Family, routes: list[t.Route]) -> tuple[float, float]:
    """Seconds of the C loop: new entries, and the same entries replaced."""
    with bed.namespace().entered(), open_mroute(family) as sock:
        ipv4 = family is Family.IPV4
        # Parent 0, VIFs 1 and 2: none exists, which the kernel accepts, and which costs it nothing.
        forwarding = bytes(2) + (b"\xff\x01\x01" + b"\xff" * 29 if ipv4 else (6).to_bytes(4, sys.byteorder) + bytes(28))
        prepared = ffi.new("uint8_t[]", (lib.MR_PREPARED4 if ipv4 else lib.MR_PREPARED6) * len(routes))
        prepare, loop = (lib.mr_prepare4, lib.mr_floor4) if ipv4 else (lib.mr_prepare6, lib.mr_floor6)
        prepare(len(routes), b"".join(map(key_of, routes)), forwarding * len(routes), prepared)

        def run() -> None:
            refused = loop(sock.fileno(), len(routes), prepared)
            assert refused == 0, refused

        return timed(run), timed(run)


class Client:
    """Sends sets that are encoded beforehand: a controller's own time is not the daemon's."""

    def __init__(self, daemon: McastdProcess, family: Family) -> None:
        self._owner = f"bulk-{family.value}"
        self._replace = daemon.channel.stream_unary(
            "/mcast.v1.RouteService/ReplaceRoutes",
            request_serializer=None,
            response_deserializer=rs.ReplaceRoutesResponse.FromString,
        )

    def encode(self, routes: list[t.Route]) -> list[bytes]:
        """The messages of a ReplaceRoutes."""
        header = rs.ReplaceRoutesRequest.Header(options=rs.WriteOptions(owner=self._owner), allow_empty=True)
        chunks = (routes[at : at + CHUNK] for at in range(0, len(routes), CHUNK))
        return [
            rs.ReplaceRoutesRequest(header=header).SerializeToString(),
            *(rs.ReplaceRoutesRequest(chunk=rs.ReplaceRoutesRequest.Chunk(routes=chunk)).SerializeToString() for chunk in chunks),
        ]

    def replace(self, messages: list[bytes]) -> rs.WriteResult:
        """Replace the set, and return when the kernel has it."""
        answer: rs.ReplaceRoutesResponse = self._replace(iter(messages), timeout=600)
        assert answer.result.failed == 0, answer
        return answer.result


def run(bed: Testbed, daemon: McastdProcess, family: Family, source: str, count: int) -> Iterator[str]:
    """Measure one family; the lines to print."""
    routes, others = (list(bulk(family, count, source, *oifs)) for oifs in (FIRST, OTHER))
    client = Client(daemon, family)
    nothing, messages, changed = client.encode([]), client.encode(routes), client.encode(others)
    steps: dict[str, list[float]] = {"fresh": [], "unchanged": [], "all oifs changed": [], "all deleted": []}
    floors = []
    for _ in range(ROUNDS):
        floors.append(floor(bed, family, routes))
        for name, part in (("fresh", messages), ("unchanged", messages), ("all oifs changed", changed), ("all deleted", nothing)):
            steps[name].append(timed(lambda part=part: client.replace(part)))  # type: ignore[misc]
    new, replaced = (statistics.median(column) for column in zip(*floors, strict=True))
    yield f"IPv{family.value}: C loop, {count} new entries: {count / new:,.0f}/s; replaced: {count / replaced:,.0f}/s"
    for name, seconds in steps.items():
        compared = replaced if name == "all oifs changed" else new
        taken = statistics.median(seconds)
        yield f"IPv{family.value}: ReplaceRoutes, {name}: {count / taken:,.0f}/s, {compared / taken:.2f} of the C loop"


def main() -> None:
    """Measure and print; medians of some rounds."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    reason = become_able()
    if reason:
        sys.exit(reason)
    with Testbed() as bed:
        star = bed.star(receivers=3)
        with McastdProcess(star.router) as daemon:
            for family in Family:
                for line in run(bed, daemon, family, star.source.address(family), count):
                    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
