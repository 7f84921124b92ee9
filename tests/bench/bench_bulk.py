"""How fast ReplaceRoutes and sessions program the kernel, over gRPC and durable, against a loop in C in the same run.

    python -m tests.bench.bench_bulk [routes] [replace|session]

The loop is over the same entries.

Ratios count, not times: the machine is what it is. Runs in namespaces of its own, as root or in a user namespace.
"""

import os
import queue
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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


class Clock:
    """Times steps, and what processor time the server takes for each."""

    def __init__(self, daemon: McastdProcess) -> None:
        self._stat = Path(f"/proc/{daemon.server_pid()}/stat")
        self.taken: dict[str, list[tuple[float, float]]] = {}

    def step(self, name: str, call: Callable[[], object]) -> None:
        """One step."""
        before = self._processor()
        seconds = timed(call)
        self.taken.setdefault(name, []).append((seconds, self._processor() - before))

    def _processor(self) -> float:
        fields = self._stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # proc(5): utime and stime


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


Messages = list[bytes]


class SessionClient:
    """Programs over a session, with messages that are encoded beforehand; each step is a replay of one."""

    def __init__(self, daemon: McastdProcess, family: Family) -> None:
        self._messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        program = daemon.channel.stream_stream(
            "/mcast.v1.RouteService/ProgramRoutes",
            request_serializer=None,
            response_deserializer=rs.ProgramRoutesResponse.FromString,
        )
        self._answers: Iterator[rs.ProgramRoutesResponse] = iter(program(iter(self._messages.get, b"")))
        self._next_id = 1
        opening = rs.ProgramRoutesRequest.Open(owner=f"session-{family.value}")
        self._messages.put(rs.ProgramRoutesRequest(open=opening).SerializeToString())
        assert next(self._answers).HasField("opened")

    def close(self) -> None:
        """End the session."""
        self._messages.put(b"")
        assert list(self._answers) == []

    def encode(self, ops: list[rs.ProgramRoutesRequest.Op], *, sync: bool) -> Messages:
        """The messages of these operations, in a replay if that is wanted; they get the next ids, so encode in order."""
        for op in ops:
            op.id = self._next_id
            self._next_id += 1
        batches = [rs.ProgramRoutesRequest.Batch(ops=ops[at : at + CHUNK]) for at in range(0, len(ops), CHUNK)]
        messages = [rs.ProgramRoutesRequest(batch=batch).SerializeToString() for batch in batches]
        if not sync:
            return messages
        begin = rs.ProgramRoutesRequest(sync_begin=rs.ProgramRoutesRequest.SyncBegin())
        end = rs.ProgramRoutesRequest(sync_end=rs.ProgramRoutesRequest.SyncEnd())
        return [begin.SerializeToString(), *messages, end.SerializeToString()]

    def send(self, messages: Messages, last: int, *, sync: bool) -> None:
        """Send, and return when all is acknowledged."""
        for message in messages:
            self._messages.put(message)
        for answer in self._answers:
            assert not answer.ack.exceptions, answer
            assert not answer.synced.HasField("error"), answer
            if answer.HasField("synced") or (not sync and answer.ack.acked_through == last):
                return

    @property
    def last_id(self) -> int:
        """Of what was encoded last."""
        return self._next_id - 1


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
    clock = Clock(daemon)
    floors = []
    for _ in range(ROUNDS):
        floors.append(floor(bed, family, routes))
        for name, part in (("fresh", messages), ("unchanged", messages), ("all oifs changed", changed), ("all deleted", nothing)):
            clock.step(name, lambda part=part: client.replace(part))  # type: ignore[misc]
    yield from _told("ReplaceRoutes", family, count, floors, clock.taken)


def run_session(bed: Testbed, daemon: McastdProcess, family: Family, source: str, count: int) -> Iterator[str]:
    """Measure a session of one family; the lines to print."""
    routes, others = (list(bulk(family, count, source, *oifs)) for oifs in (FIRST, OTHER))
    op = rs.ProgramRoutesRequest.Op
    keys = [t.RouteKey(group=route.group, source=route.source) for route in routes]
    client = SessionClient(daemon, family)
    plan: list[tuple[str, Callable[[], list[rs.ProgramRoutesRequest.Op]], bool]] = [
        ("fresh", lambda: [op(put=route) for route in routes], False),
        ("unchanged", lambda: [op(put=route) for route in routes], False),
        ("replay of the same", lambda: [op(put=route) for route in routes], True),
        ("all oifs changed", lambda: [op(put=route) for route in others], False),
        ("all deleted", lambda: [op(delete=key) for key in keys], False),
    ]
    clock = Clock(daemon)
    floors = []
    for _ in range(ROUNDS):
        floors.append(floor(bed, family, routes))
        for name, ops, sync in plan:
            messages = client.encode(ops(), sync=sync)
            last = client.last_id
            clock.step(name, lambda messages=messages, last=last, sync=sync: client.send(messages, last, sync=sync))  # type: ignore[misc]
    client.close()
    yield from _told("session", family, count, floors, clock.taken)


def _told(
    what: str, family: Family, count: int, floors: list[tuple[float, float]], steps: dict[str, list[tuple[float, float]]]
) -> Iterator[str]:
    """The lines to print; a replay makes no kernel call, so it is compared with what new entries take."""
    new, replaced = (statistics.median(column) for column in zip(*floors, strict=True))
    yield f"IPv{family.value}: C loop, {count} new entries: {count / new:,.0f}/s; replaced: {count / replaced:,.0f}/s"
    for name, rounds in steps.items():
        compared = replaced if name == "all oifs changed" else new
        taken, processor = (statistics.median(column) for column in zip(*rounds, strict=True))
        speed = f"{count / taken:,.0f}/s in {taken:.3f} s, {compared / taken:.2f} of the C loop"
        yield f"IPv{family.value}: {what}, {name}: {speed}; {processor:.2f} s of processor time in the server"


def main() -> None:
    """Measure and print; medians of some rounds."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    wanted = sys.argv[2:] or ["replace", "session"]
    reason = become_able()
    if reason:
        sys.exit(reason)
    with Testbed() as bed:
        star = bed.star(receivers=3)
        with McastdProcess(star.router) as daemon:
            for family in Family:
                for name, measure in (("replace", run), ("session", run_session)):
                    if name in wanted:
                        for line in measure(bed, daemon, family, star.source.address(family), count):
                            print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
