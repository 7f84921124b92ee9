"""Many watchers of one daemon: a program of its own, so that a busy test does not slow them.

Arguments: path of the daemon's socket, watchers, connections, selector's group ("" = everything), kinds by number.
Writes READY when all have been told all; then, for each line that it reads, the seconds that each event has taken since the time
in the cookie of its route (by the monotonic clock, which is one for all processes), as a JSON list. Ends when its input ends.
"""

import asyncio
import json
import os
import sys
import time
from contextlib import suppress

import grpc

from mcast.v1 import services_pb2 as sv
from mcast.v1 import services_pb2_grpc as sv_grpc
from mcast.v1 import types_pb2 as t

READY = b"+"

_OPTIONS = (("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1))


class Watcher:
    """One of them."""

    def __init__(self, channel: grpc.aio.Channel, request: sv.WatchRequest, seen: list[float]) -> None:
        """Add what it sees to `seen`."""
        self.synced = asyncio.Event()
        self._call = sv_grpc.EventServiceStub(channel).Watch(request)
        self._seen = seen

    async def run(self) -> None:
        """Follow to the end."""
        async for message in self._call:
            now = time.monotonic()
            if self.synced.is_set():
                self._seen += [now - float(event.route.cookie) for event in message.events if event.route.cookie]
            if message.synced:
                self.synced.set()


async def main() -> None:
    """Follow until the input ends."""
    path, group, kinds = sys.argv[1], sys.argv[4], [int(number) for number in sys.argv[5:]]
    count, connections = int(sys.argv[2]), int(sys.argv[3])
    request = sv.WatchRequest(kinds=kinds, selector=t.Selector(group=group))  # type: ignore[arg-type] # They are numbers of kinds.
    channels = [grpc.aio.insecure_channel(f"unix:{path}", options=_OPTIONS) for _ in range(connections)]
    seen: list[float] = []
    watchers = [Watcher(channels[n % connections], request, seen) for n in range(count)]
    tasks = [asyncio.get_running_loop().create_task(one.run()) for one in watchers]
    for one in watchers:
        await one.synced.wait()
    os.write(1, READY)
    while await asyncio.to_thread(sys.stdin.readline):
        os.write(1, json.dumps(seen).encode() + b"\n")
        seen.clear()
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


if __name__ == "__main__":
    asyncio.run(main())
