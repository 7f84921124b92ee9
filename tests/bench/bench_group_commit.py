"""What unary writers cost that write at once, each one route a call: calls a second, and how often the disk is synchronized.

    python -m tests.bench.bench_group_commit [writes]

The daemon's own process is counted by strace (fdatasync and fsync), in a second run, since that slows it down.
"""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import route_service_pb2_grpc as rs_grpc
from mcastd.model.address import Family
from tests.e2e.router import bulk
from tests.testbed import Testbed, become_able
from tests.testbed.daemon import McastdProcess, wait_until

WRITERS = (1, 4, 16, 64)


async def _write(socket: str, source: str, writers: int, writes: int) -> None:
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        put = rs_grpc.RouteServiceStub(channel).PutRoutes

        async def one(writer: int) -> None:
            for route in bulk(Family.IPV4, writes // writers, source, "down1", first=writer * writes):
                answer = await put(rs.PutRoutesRequest(routes=[route], options=rs.WriteOptions(owner=f"w{writer}")))
                assert answer.result.failed == 0, answer

        await asyncio.gather(*(one(writer) for writer in range(writers)))


def syncs(daemon: McastdProcess, socket: str, source: str, writers: int, writes: int) -> int:
    """How often the server synchronizes its files for these writes."""
    command = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync", "-p", str(daemon.server_pid())]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        status = Path(f"/proc/{daemon.server_pid()}/status")
        wait_until(lambda: f"TracerPid:\t{strace.pid}" in status.read_text(), 10)
        asyncio.run(_write(socket, source, writers, writes))
        strace.terminate()
        _, text = strace.communicate(timeout=20)
    return sum(int(calls) for calls in re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+).*sync$", text, re.MULTILINE))


def run(bed: Testbed, writes: int) -> Iterator[str]:
    """Measure; the lines to print."""
    star = bed.star(receivers=2)
    source = star.source.address(Family.IPV4)
    for writers in WRITERS:
        with McastdProcess(star.router) as daemon:
            began = time.perf_counter()
            asyncio.run(_write(str(daemon.socket), source, writers, writes))
            seconds = time.perf_counter() - began
        with McastdProcess(star.router) as daemon:
            count = syncs(daemon, str(daemon.socket), source, writers, writes)
        yield f"{writers:3} writers: {writes / seconds:7,.0f} writes/s, {count} syncs, {count / writes:.2f} for a write"


def main() -> None:
    """Measure and print."""
    reason = become_able()
    if reason:
        sys.exit(reason)
    writes = int(sys.argv[1]) if len(sys.argv) > 1 else 3200
    with Testbed() as bed:
        for line in run(bed, writes):
            print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
