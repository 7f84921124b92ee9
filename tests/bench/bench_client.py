"""What the client library costs: routes a second through a session, beside bare stubs, with a server that only acks and a daemon.

python -m tests.bench.bench_client [ROUTES]     needs root: the daemon runs in a namespace of its own
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from statistics import median

import grpc

from mcast.client import Client
from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import route_service_pb2_grpc as rs_grpc
from mcast.v1 import types_pb2 as t
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, route

ROUNDS = 5

Request = rs.ProgramRoutesRequest
Response = rs.ProgramRoutesResponse

Program = Callable[[str, list[t.Route]], Awaitable[None]]


class Acker(rs_grpc.RouteServiceServicer):
    """Acknowledges, and does nothing else."""

    async def ProgramRoutes(  # noqa: N802 - the contract's name
        self, requests: AsyncIterator[Request], _context: object
    ) -> AsyncIterator[Response]:
        """Carry out one session."""
        async for request in requests:
            match request.WhichOneof("request"):
                case "open":
                    yield Response(opened=Response.Opened(instance_id="x"))
                case "batch":
                    yield Response(ack=Response.Ack(acked_through=request.batch.ops[-1].id))
                case "sync_end":
                    yield Response(synced=Response.Synced())


def routes_of(count: int) -> list[t.Route]:
    """So many routes."""
    return [route(f"232.{n >> 16}.{n >> 8 & 255}.{n & 255}", "10.0.0.5", "up", "down1") for n in range(count)]


async def stubs(address: str, routes: list[t.Route]) -> None:
    """Program with the stub alone, as fast as that can be written."""
    async with grpc.aio.insecure_channel(address) as channel:

        async def requests() -> AsyncIterator[Request]:
            yield Request(open=Request.Open(owner="bench"))
            for at in range(0, len(routes), 1000):
                request = Request()
                add = request.batch.ops.add
                for number, one in enumerate(routes[at : at + 1000], at + 1):
                    add(id=number, put=one)
                yield request

        async for answer in rs_grpc.RouteServiceStub(channel).ProgramRoutes(requests()):
            if answer.ack.acked_through == len(routes):
                break


async def session(address: str, routes: list[t.Route]) -> None:
    """Program with a session of the library."""
    async with Client(address) as client, client.program("bench") as program:
        await program.put(routes)
        assert await program.flush() == []


async def replay(address: str, routes: list[t.Route]) -> None:
    """The same, as a replay."""
    async with Client(address) as client, client.program("bench") as program:
        await program.sync(routes)


async def compare(what: str, address: str, routes: list[t.Route]) -> None:
    """Time each, one after the other, several times."""
    ways: list[Program] = [stubs, session, replay]
    took: dict[str, list[float]] = {way.__name__: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            began = time.perf_counter()
            await way(address, routes)
            took[way.__name__].append(time.perf_counter() - began)
    base = median(took["stubs"])
    for name, seconds in took.items():
        one = median(seconds)
        print(f"{what:8} {name:8} {len(routes) / one:10,.0f} routes/s   {base / one:5.2f} of the stubs' speed")  # noqa: T201 - it talks to a person


async def main(count: int) -> None:
    """Against both servers."""
    routes = routes_of(count)
    with tempfile.TemporaryDirectory() as directory:
        server = grpc.aio.server()
        rs_grpc.add_RouteServiceServicer_to_server(Acker(), server)
        address = f"unix:{Path(directory) / 'acker.sock'}"
        server.add_insecure_port(address)
        await server.start()
        await compare("acker", address, routes)
        await server.stop(0)
    with Testbed() as bed, McastdProcess(bed.star(2).router) as daemon:
        await compare("mcastd", f"unix:{daemon.socket}", routes)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
