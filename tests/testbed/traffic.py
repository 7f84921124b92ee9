"""Multicast senders, receivers and captures that know each packet by stream and number, and say when they lost one themselves."""

import contextlib
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

PAYLOAD = struct.Struct("!4sIQQ")
"""Magic, stream, number, nanoseconds since the epoch; tests/testbed/flow.py writes the same."""

MAGIC = b"mct1"

BUFFER = 64 << 20
"""Bytes of a receiver's buffer: some 100,000 packets, so that a busy test process loses none."""

# linux/in.h, linux/in6.h, asm-generic/socket.h: not in Python's socket module
_IP_TRANSPARENT = 19
_IP_MULTICAST_ALL = 49
_IPV6_MULTICAST_ALL = 29
_IPV6_TRANSPARENT = 75
_MCAST_JOIN_GROUP = 42
_MCAST_JOIN_SOURCE_GROUP = 46
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_SO_RXQ_OVFL = 40
_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
_UDP = 17

_FLOW = Path(__file__).with_name("flow.py")


class Sender:
    """Sends one stream of numbered UDP packets to a group."""

    def __init__(self, interface: str, group: str, port: int, source: str, hops: int, size: int) -> None:
        """Made by Port.sender, inside the namespace; `size` in bytes of UDP payload."""
        self.group = group
        self.source = source
        self.stream = random.getrandbits(32)
        self.sent = 0
        """Packets sent so far: their numbers are 0 to sent - 1."""
        self._padding = max(0, size - PAYLOAD.size)
        ifindex = socket.if_nametoindex(interface)
        if ":" in group:
            self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)  # any source address
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, ifindex)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        else:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", ifindex))
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        self._socket.bind((source, 0))
        self._socket.connect((group, port))
        self._flow: Flow | None = None

    def send(self, count: int = 1) -> None:
        """Send packets now, as fast as it goes; they have left this host when it returns."""
        padding = bytes(self._padding)
        for number in range(self.sent, self.sent + count):
            self._socket.send(PAYLOAD.pack(MAGIC, self.stream, number, time.time_ns()) + padding)
        self.sent += count

    def start(self, rate: float, count: int | None = None) -> "Flow":
        """Send `count` packets, or without end, at `rate` a second, by a process of its own, whatever this one does meanwhile."""
        if self._flow is not None and self._flow.running:
            raise RuntimeError("the stream is being sent already")
        self._flow = Flow(self, self._socket.fileno(), rate, count, self._padding)
        return self._flow

    def close(self) -> None:
        """Stop sending."""
        if self._flow is not None:
            self._flow.stop()
        self._socket.close()


class Flow:
    """A stream that a process of its own sends."""

    def __init__(self, sender: Sender, fd: int, rate: float, count: int | None, padding: int) -> None:
        self._sender = sender
        self._count = 0
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                str(_FLOW),
                *map(str, (fd, sender.stream, sender.sent, -1 if count is None else count, rate, padding)),
            ],
            pass_fds=(fd,),
            stdin=subprocess.PIPE,  # its end tells the process that we are gone
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def running(self) -> bool:
        """Whether it still sends."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Stop it; how many packets it has sent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout: float = 60) -> int:
        """Wait for its end; how many packets it has sent."""
        if self._process.stdout is not None and not self._process.stdout.closed:
            self._process.wait(timeout)
            said = self._process.stdout.read()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            if self._process.returncode:
                raise RuntimeError(f"the sending process ended with {self._process.returncode}")
            self._count = int(said)
            self._sender.sent += self._count
        return self._count


@dataclass
class _Stream:
    numbers: set[int] = field(default_factory=set)
    duplicates: int = 0
    delays: list[float] = field(default_factory=list)
    """Seconds from the sender to this host's kernel."""


class Tally:
    """Counts what a socket receives, by stream and number, in a thread of its own."""

    def __init__(self, sock: socket.socket, where: str) -> None:
        """Made by its subclasses."""
        self.where = where
        self._socket = sock
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
        except PermissionError:  # in a user namespace: net.core.rmem_max is the limit (4 MB, some 6,000 packets)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setblocking(False)
        self._streams: dict[int, _Stream] = {}
        self._overflows = 0
        self._changed = threading.Condition()
        self._end = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._read, name=where, daemon=True)
        self._thread.start()

    def count(self, sender: Sender) -> int:
        """How many different packets of a sender came."""
        return len(self._stream(sender).numbers)

    def missing(self, sender: Sender) -> list[int]:
        """Numbers of packets that were sent and did not come."""
        return sorted(set(range(sender.sent)) - self._stream(sender).numbers)

    def duplicates(self, sender: Sender) -> int:
        """How many packets came again."""
        return self._stream(sender).duplicates

    def delays(self, sender: Sender) -> list[float]:
        """Seconds from the sending process to this host's kernel, in the order of arrival."""
        return self._stream(sender).delays

    def wait(self, sender: Sender, count: int | None = None, timeout: float = 5) -> None:
        """Wait until so many packets of a sender have come (None = all it has sent); AssertionError says what is missing."""
        want = sender.sent if count is None else count
        if not self.wait_until(lambda: self.count(sender) >= want, timeout):
            missing = self.missing(sender)
            raise AssertionError(f"{self.where}: {self.count(sender)} of {want} packets came; first missing: {missing[:10]}")

    def wait_until(self, condition: Callable[[], bool], timeout: float = 5) -> bool:
        """Wait until something about the count is true; False = it was not in time."""
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    def close(self) -> None:
        """Stop receiving; the counts stay."""
        if self._end >= 0:
            os.eventfd_write(self._end, 1)
            self._thread.join()
            os.close(self._end)
            self._end = -1
            self._socket.close()

    def _stream(self, sender: Sender) -> _Stream:
        if self._overflows:
            raise RuntimeError(f"{self.where} lost {self._overflows} packets itself: its counts prove nothing")
        return self._streams.get(sender.stream) or _Stream()

    def _payload(self, packet: bytes, address: Any) -> bytes:
        """The UDP payload of what was read; empty = it does not count."""
        raise NotImplementedError

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._end, select.POLLIN)
        while not any(fd == self._end for fd, _ in poll.poll()):
            with self._changed:
                # The lock is given back now and then, also under a stream that never pauses.
                with contextlib.suppress(BlockingIOError):
                    for _ in range(256):
                        self._take(*self._socket.recvmsg(2048, 256))
                self._changed.notify_all()

    def _take(self, packet: bytes, ancillary: list[tuple[int, int, bytes]], _flags: int, address: Any) -> None:
        arrived = 0
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL:
                self._overflows = struct.unpack("=I", data)[0]
            elif level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = struct.unpack("@ll", data)
                arrived = seconds * 10**9 + nanoseconds
        payload = self._payload(packet, address)
        if len(payload) < PAYLOAD.size:
            return
        magic, stream_id, number, left = PAYLOAD.unpack_from(payload)
        if magic != MAGIC:
            return
        stream = self._streams.setdefault(stream_id, _Stream())
        if number in stream.numbers:
            stream.duplicates += 1
        stream.numbers.add(number)
        stream.delays.append((arrived - left) / 1e9)


class Receiver(Tally):
    """Has joined a group on an interface, from any source or one, and counts what it gets."""

    def __init__(self, interface: str, group: str, port: int, source: str | None) -> None:
        """Made by Port.receiver, inside the namespace."""
        ifindex = socket.if_nametoindex(interface)
        ipv6 = ":" in group
        sock = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        level = socket.IPPROTO_IPV6 if ipv6 else socket.IPPROTO_IP
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(level, _IPV6_MULTICAST_ALL if ipv6 else _IP_MULTICAST_ALL, 0)  # only what this socket has joined
        sock.bind((group, port))
        super().__init__(sock, f"receiver of {group} on {interface}")
        request = struct.pack("@I4x", ifindex) + _sockaddr(group)
        if source is None:
            sock.setsockopt(level, _MCAST_JOIN_GROUP, request)
        else:
            sock.setsockopt(level, _MCAST_JOIN_SOURCE_GROUP, request + _sockaddr(source))

    def _payload(self, packet: bytes, address: Any) -> bytes:  # noqa: ARG002 - captures look at it
        return packet


class Direction(Enum):
    """Which packets of an interface a capture counts."""

    OUT = "out"
    IN = "in"


class Capture(Tally):
    """Sees every packet that leaves (or enters) an interface, joined or not."""

    def __init__(self, interface: str, direction: Direction) -> None:
        """Made by Port.capture, inside the namespace."""
        self._outgoing = direction is Direction.OUT
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
        sock.bind((interface, _ETH_P_ALL))
        super().__init__(sock, f"capture of what goes {direction.value} at {interface}")

    def _payload(self, packet: bytes, address: Any) -> bytes:
        if (address[2] == _PACKET_OUTGOING) is not self._outgoing or len(packet) < 48:
            return b""
        if packet[0] >> 4 == 4 and packet[9] == _UDP:
            return packet[(packet[0] & 0xF) * 4 + 8 :]
        if packet[0] >> 4 == 6 and packet[6] == _UDP:
            return packet[48:]
        return b""


def _sockaddr(address: str) -> bytes:
    """Return struct sockaddr_storage (linux/socket.h) of an address."""
    if ":" in address:
        packed = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, socket.inet_pton(socket.AF_INET6, address), 0)
    else:
        packed = struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(address))
    return packed.ljust(128, b"\0")
