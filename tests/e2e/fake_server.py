"""A server for tests of the keeper alone: it does what the test tells it and says what it sees, as JSON lines over a Unix socket.

Argument: the path of the test's listening socket.
"""

import asyncio
import contextlib
import importlib
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from mcastd.keeper.channel import CHANNEL_FD, EX_PROTOCOL, PROTOCOL, Message, encode
from mcastd.kernel.mroute import Mroute
from mcastd.model.address import Family
from mcastd.model.errors import McastdError
from mcastd.runtime import privileges
from mcastd.runtime.keeper_client import Callbacks, Hello, KeeperClient, inherited_channel
from mcastd.runtime.preparation import receive_prepare
from mcastd.telemetry import logs

peers: list[socket.socket] = []


def lingering() -> int:
    """A TCP socket whose last close() lasts half a minute: data is on its way that its peer does not take."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.socket()
        sock.connect(listener.getsockname())
        peers.append(listener.accept()[0])
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65_536))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 30))
    return sock.detach()


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
                hand_over=self.on_hand_over,
            ),
        )
        self.obey_shutdown = True
        self.obey_hand_over = True

    def on_hand_over(self, seat: int) -> None:
        """End, unless told not to."""
        self.say("hand over", seat)
        if self.obey_hand_over:
            self.ended.set()

    def say(self, what: str, value: Any) -> None:
        """Tell the test."""
        self.writer.write(json.dumps([what, value]).encode() + b"\n")

    def on_shutdown(self, keep_forwarding: bool) -> None:
        """End, unless told not to."""
        self.say("shutdown", keep_forwarding)
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

    async def do_request_shutdown(self, keep_forwarding: bool = False) -> None:
        self.client.request_shutdown(keep_forwarding=keep_forwarding)

    async def do_disobey(self) -> None:
        self.obey_shutdown = False
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    async def do_garbage(self, data: str) -> None:
        os.write(CHANNEL_FD, bytes.fromhex(data))

    async def do_descriptor(self, message: int, kind: str, count: int = 1) -> None:
        """Send a message with descriptors of some kind, the last of which takes half a minute to close, if it is a TCP socket."""
        body = {"name": "join-1", "note": "", "entries": [], "table": 0, "family": 4}
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=os.dup(CHANNEL_FD)) as channel:
            one = lingering() if kind == "tcp" else os.open(os.devnull, os.O_RDONLY)
            channel.setblocking(True)
            fds = [*[CHANNEL_FD] * (count - 1), one]
            socket.send_fds(channel, [encode(Message(message), 1, body)], fds)
            os.close(one)

    async def do_repeat(self, message: int, body: str, times: int) -> None:
        """Say something again and again, as fast as it is taken, without reading a word."""
        data = encode(Message(message), 0, bytes.fromhex(body))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=os.dup(CHANNEL_FD)) as channel:
            channel.setblocking(True)
            for _ in range(times):
                channel.send(data)

    async def do_close_channel(self) -> None:
        self.client.close()

    async def do_ignore_hand_over(self) -> None:
        self.obey_hand_over = False

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


def misbehave(channel: socket.socket) -> None:
    """Fail before HELLO, as the file beside the test's socket says: a server that is broken in one way or another."""
    how = Path(f"{sys.argv[1]}.broken")
    match how.read_text() if how.exists() else "":
        case "":
            return
        case "exit":
            sys.exit(3)
        case "import":
            importlib.import_module("mcastd.there_is_no_such_module")
        case "protocol":
            sys.exit(EX_PROTOCOL)
        case "hang":
            signal.pause()
        case "hang up":
            channel.close()
            signal.pause()
        case "other protocol":
            channel.send(encode(Message.PREPARED, body={"protocol": PROTOCOL + 1, "tables": [], "stand_by": False}))
            signal.pause()
        case "nonsense":
            channel.send(encode(Message.READY))
            signal.pause()
        case "die later":
            receive_prepare(channel)
            channel.send(encode(Message.PREPARED, body={"protocol": PROTOCOL, "tables": [], "stand_by": False}))
            sys.exit(4)


if __name__ == "__main__":
    found = inherited_channel()
    misbehave(found)
    said = receive_prepare(found).wait_for_hello()
    logs.configure("server", said.settings.log_level)
    privileges.drop(said.settings)
    asyncio.run(main(said, found))
