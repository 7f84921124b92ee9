"""A server for tests of the keeper alone: it does what the test tells it and says what it sees, as JSON lines over a Unix socket.

Argument: the path of the test's listening socket.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from mcastd.keeper.channel import CHANNEL_FD
from mcastd.kernel.mroute import Mroute
from mcastd.model.address import Family
from mcastd.model.errors import McastdError
from mcastd.runtime import privileges
from mcastd.runtime.keeper_client import Callbacks, Hello, KeeperClient, inherited_channel
from mcastd.telemetry import logs


class FakeServer:
    """Obeys."""

    def __init__(self, hello: Hello, channel: socket.socket, writer: asyncio.StreamWriter) -> None:
        self.hello = hello
        self.sockets = dict(hello.sockets)
        self.writer = writer
        self.ended = asyncio.Event()
        self.client = KeeperClient(
            channel,
            Callbacks(
                upcalls=lambda records: self.say(
                    "upcalls", [[r.table, r.family, r.kind, r.vif, r.group.hex(), r.source.hex(), r.time] for r in records]
                ),
                losses=lambda losses: self.say("losses", losses),
                shutdown=self.on_shutdown,
                end=self.on_end,
            ),
        )
        self.obey_shutdown = True

    def say(self, what: str, value: Any) -> None:
        """Tell the test."""
        self.writer.write(json.dumps([what, value]).encode() + b"\n")

    def on_shutdown(self) -> None:
        """End, unless told not to."""
        self.say("shutdown", None)
        if self.obey_shutdown:
            self.ended.set()

    def on_end(self) -> None:
        """End: the keeper is gone."""
        self.say("end", None)
        self.ended.set()

    def see(self) -> dict[str, Any]:
        """What a server that has just started is."""
        status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
        return {
            "pid": os.getpid(),
            "status": status,
            "fds": {path.name: str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()},
            "environment": dict(os.environ),
            "starts": self.hello.starts,
            "started_at": self.hello.started_at,
            "started_monotonic": self.hello.started_monotonic,
            "settings": self.hello.settings.to_json(),
            "sockets": [[table, family, os.fstat(sock.fileno()).st_ino] for (table, family), sock in self.sockets.items()],
            "vif_maps": [[table, family, entries] for (table, family), entries in self.hello.vif_maps.items()],
        }

    async def obey(self, command: str, *arguments: Any) -> Any:
        """Do one thing: the method of that name."""
        return await getattr(self, f"do_{command}")(*arguments)

    async def do_vif_map(self, table: int, family: int, entries: list[list[Any]]) -> None:
        await self.client.set_vif_map(table, Family(family), tuple((vif, ifindex, name) for vif, ifindex, name in entries))

    async def do_open_table(self, table: int) -> list[list[int]]:
        opened = await self.client.open_table(table)
        self.sockets.update({(table, family): sock for family, sock in opened.items()})
        return [[family, os.fstat(sock.fileno()).st_ino] for family, sock in opened.items()]

    async def do_close_table(self, table: int) -> None:
        for family in Family:
            sock = self.sockets.pop((table, family), None)
            if sock is not None:
                sock.close()
        await self.client.close_table(table)

    async def do_add_vif(self, table: int, family: int, vif: int, name: str) -> None:
        mroute = Mroute(self.sockets[table, Family(family)], Family(family), table)
        mroute.add_vif(vif, socket.if_nametoindex(name))

    async def do_ready(self) -> None:
        self.client.ready()

    async def do_request_shutdown(self) -> None:
        self.client.request_shutdown()

    async def do_disobey(self) -> None:
        self.obey_shutdown = False
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    async def do_garbage(self, data: str) -> None:
        os.write(CHANNEL_FD, bytes.fromhex(data))

    async def do_close_channel(self) -> None:
        self.client.close()

    async def do_exit(self, code: int) -> None:
        os._exit(code)


async def main(hello: Hello, channel: socket.socket) -> None:
    """Serve the test until the end."""
    reader, writer = await asyncio.open_unix_connection(sys.argv[1])
    server = FakeServer(hello, channel, writer)
    server.say("hello", server.see())

    async def commands() -> None:
        while line := await reader.readline():
            command, *arguments = json.loads(line)
            try:
                server.say("answer", await server.obey(command, *arguments))
            except McastdError as exc:
                server.say("refused", [exc.reason, str(exc)])

    async with asyncio.TaskGroup() as group:
        task = group.create_task(commands())
        await server.ended.wait()
        task.cancel()
    await writer.drain()
    writer.close()


if __name__ == "__main__":
    found = inherited_channel()
    said = KeeperClient.receive_hello(found)
    logs.configure("server", said.settings.log_level)
    privileges.drop(said.settings)
    asyncio.run(main(said, found))
