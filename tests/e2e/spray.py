"""Sends numbered packets to many groups, or from many sources: a program of its own, so that a busy test does not slow it.

Arguments: descriptor of a UDP socket that may use any source address, stream, "groups" or "sources", first number, how many,
rounds (0 = until stopped), packets a second (0 = as fast as it goes), group (of "sources").
Packet n goes to group n, or comes from source n. Ends by itself, on SIGTERM, or when its standard input closes; writes READY
when it begins, and how many packets it has sent at the end.
"""

import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable

PAYLOAD = struct.Struct("!4sIQQ")
MAGIC = b"mct1"
PORT = 5000
READY = b"+"
PAUSE = 0.0005
BURST_MAX = 64

_IP_PKTINFO = 8  # linux/in.h, linux/in6.h
_IPV6_PKTINFO = 50


def group(ipv6: bool, number: int) -> str:
    """As tests.e2e.router has them."""
    if ipv6:
        return f"ff3e::{number >> 16:x}:{number & 0xFFFF:x}"
    return f"{232 + (number >> 20)}.{number >> 16 & 15}.{number >> 8 & 255}.{number & 255}"


def source(ipv6: bool, number: int) -> str:
    """A million of them: 172.16.0.0/12, or fd01::/108."""
    if ipv6:
        return f"fd01::{number >> 16:x}:{number & 0xFFFF:x}"
    return f"172.{16 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def to_groups(sock: socket.socket, stream: int) -> Callable[[int], None]:
    """A function that sends packet n to group n."""
    ipv6 = sock.family == socket.AF_INET6

    def send(number: int) -> None:
        sock.sendto(PAYLOAD.pack(MAGIC, stream, number, time.time_ns()), (group(ipv6, number), PORT))

    return send


def from_sources(sock: socket.socket, stream: int, to: str) -> Callable[[int], None]:
    """A function that sends packet n from source n."""
    ipv6, where = sock.family == socket.AF_INET6, (to, PORT)

    def send(number: int) -> None:
        if ipv6:
            info = struct.pack("=16sI", socket.inet_pton(socket.AF_INET6, source(ipv6, number)), 0)
            control = (socket.IPPROTO_IPV6, _IPV6_PKTINFO, info)
        else:
            info = struct.pack("=i4s4s", 0, socket.inet_aton(source(ipv6, number)), bytes(4))
            control = (socket.IPPROTO_IP, _IP_PKTINFO, info)
        sock.sendmsg([PAYLOAD.pack(MAGIC, stream, number, time.time_ns())], [control], 0, where)

    return send


def main() -> None:
    """Send until done or told to stop."""
    sock, stream, what = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
    first, count, rounds = (int(text) for text in sys.argv[4:7])
    rate = float(sys.argv[7])
    send = to_groups(sock, stream) if what == "groups" else from_sources(sock, stream, sys.argv[8])
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    alive = select.poll()
    alive.register(0, select.POLLHUP)
    os.write(1, READY)
    sent, total = 0, count * rounds
    start = time.perf_counter()
    while not stopping and (not rounds or sent < total):
        due = int((time.perf_counter() - start) * rate) + 1 if rate else sent + BURST_MAX
        until = min(due, sent + BURST_MAX, total if rounds else due)
        for n in range(sent, until):
            send(first + n % count)
        sent = until
        if alive.poll(0):
            return
        if rate and sent >= due:
            time.sleep(PAUSE)
    os.write(1, str(sent).encode())


if __name__ == "__main__":
    main()
