"""The streams of the fabric: many sources at any hosts, sent by one process; and ears at all hosts, which miss nothing."""

import contextlib
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.testbed import Port
from tests.testbed.traffic import BUFFER, MAGIC, PAYLOAD

HOPS = 16
PORT = 5000

# linux/in.h, linux/in6.h, asm-generic/socket.h, linux/if_packet.h: not in Python's socket module
_IP_TRANSPARENT = 19
_IPV6_TRANSPARENT = 75
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_SO_RXQ_OVFL = 40
_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
_UDP = 17


class Stream:
    """One source that sends to one group."""

    def __init__(self, host: str, port: Port, group: str, source: str) -> None:
        self.host = host
        self.group = group
        self.source = source
        self.number = random.getrandbits(32)
        self.sent = 0
        """Packets, once their sending has stopped."""
        self.socket = _socket(port, group, source)

    @property
    def family(self) -> int:
        """IP version."""
        return 6 if ":" in self.group else 4


class Spray:
    """Streams that a process of its own sends, from now on until stopped."""

    def __init__(self, streams: Sequence[Stream], rate: float) -> None:
        """`rate`: packets a second of each."""
        self._streams = streams
        fds = [stream.socket.fileno() for stream in streams]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("spray.py"))],
            pass_fds=fds,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        order = {"streams": [[fd, one.number, one.sent] for fd, one in zip(fds, streams, strict=True)], "rate": rate}
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """Stop sending; may be called twice."""
        process = self._process
        if process.stdout is None or process.stdout.closed:
            return
        process.send_signal(signal.SIGTERM)
        said = process.stdout.read()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        for stream, count in zip(self._streams, json.loads(said or b"[]"), strict=False):
            stream.sent += count


@dataclass
class Heard:
    """What one host has got of one stream."""

    numbers: set[int] = field(default_factory=set)
    duplicates: int = 0
    first_delay: float = 0.0
    """Seconds from the sending of the first packet that came until it was there."""
    last: float = 0.0
    """When the last one came, seconds since the epoch."""
    gap: float = 0.0
    """The longest time between two packets, since it was last set to 0."""
    hops: set[int] = field(default_factory=set)
    """Routers that its packets have passed, by their TTL."""


class Ears:
    """Hears every packet that comes in at some interfaces, joined or not, in a thread of its own."""

    def __init__(self, hosts: dict[str, Port]) -> None:
        self._heard: dict[tuple[str, int], Heard] = {}
        self._lock = threading.Condition()
        self._overflows = 0
        self._end = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._hosts = {_packets(port): name for name, port in hosts.items()}
        self._thread = threading.Thread(target=self._listen, name="ears", daemon=True)
        self._thread.start()

    def heard(self, host: str, stream: Stream) -> Heard:
        """What a host has got of a stream so far; RuntimeError where packets were lost on the way to us."""
        if self._overflows:
            raise RuntimeError(f"the ears lost {self._overflows} packets themselves: their counts prove nothing")
        with self._lock:
            return self._heard.setdefault((host, stream.number), Heard())

    def reset_gaps(self) -> None:
        """Measure gaps from now on."""
        with self._lock:
            for heard in self._heard.values():
                heard.gap = 0.0

    def close(self) -> None:
        """Stop listening."""
        if self._thread.is_alive():
            os.eventfd_write(self._end, 1)
            self._thread.join()
            os.close(self._end)
            for sock in self._hosts:
                sock.close()

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        by_fd = {sock.fileno(): (sock, name) for sock, name in self._hosts.items()}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._end:
                    return
                sock, name = by_fd[fd]
                with self._lock, contextlib.suppress(BlockingIOError):
                    for _ in range(256):
                        packet, ancillary, _flags, address = sock.recvmsg(256, 256)
                        if address[2] != _PACKET_OUTGOING:
                            self._take(name, packet, ancillary)

    def _take(self, host: str, packet: bytes, ancillary: Iterable[tuple[int, int, bytes]]) -> None:
        came = 0.0
        for _, kind, data in ancillary:
            if kind == _SO_RXQ_OVFL:
                self._overflows = struct.unpack("=I", data)[0]
            elif kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = struct.unpack("@ll", data)
                came = seconds + nanoseconds / 1e9
        if packet[0] >> 4 == 4 and packet[9] == _UDP:
            payload, hops = packet[28:], packet[8]
        elif packet[0] >> 4 == 6 and packet[6] == _UDP:
            payload, hops = packet[48:], packet[7]
        else:
            return
        if len(payload) < PAYLOAD.size or payload[:4] != MAGIC:
            return
        _, stream, number, left = PAYLOAD.unpack_from(payload)
        heard = self._heard.setdefault((host, stream), Heard())
        if number in heard.numbers:
            heard.duplicates += 1
        if heard.last:
            heard.gap = max(heard.gap, came - heard.last)
        else:
            heard.first_delay = came - left / 1e9
        heard.numbers.add(number)
        heard.last = came
        heard.hops.add(HOPS - hops)


def _socket(port: Port, group: str, source: str) -> socket.socket:
    """A socket from which a source sends, with any source address."""
    with port.namespace.entered():
        if ":" in group:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, port.ifindex)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOPS)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        else:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", port.ifindex))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, HOPS)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    sock.bind((source, 0))
    sock.connect((group, PORT))
    return port.bed.close_with(sock)


def _packets(port: Port) -> socket.socket:
    """A socket that sees what comes in at an interface."""
    with port.namespace.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
    except PermissionError:  # in a user namespace
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    sock.setblocking(False)
    sock.bind((port.name, _ETH_P_ALL))
    return sock
