"""Sends many numbered streams at once, each at the same rate: a program of its own, which a busy parent does not disturb.

Standard input gives one line of JSON: {"streams": [[descriptor, stream, first number], ...], "rate": packets a second of each}.
All streams begin at once; then their packets are spread evenly. Ends on SIGTERM, or when standard input closes; writes how many
packets of each it has sent.
"""

import json
import os
import select
import signal
import socket
import struct
import sys
import time

PAYLOAD = struct.Struct("!4sIQQ")
MAGIC = b"mct1"
PAUSE = 0.0005
BURST_MAX = 64
"""Packets sent at once: far fewer than an input queue of the kernel holds (net.core.netdev_max_backlog, 1,000)."""


def main() -> None:
    """Send until told to stop."""
    order = json.loads(sys.stdin.readline())
    streams = [(socket.socket(fileno=fd), stream, first) for fd, stream, first in order["streams"]]
    rate = order["rate"] * len(streams)
    stopping: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this one
    alive = select.poll()
    alive.register(0, select.POLLHUP)
    sent = 0
    start = time.perf_counter()
    while not stopping:
        due = max(len(streams), int((time.perf_counter() - start) * rate))
        for n in range(sent, min(due, sent + BURST_MAX)):
            sock, stream, first = streams[n % len(streams)]
            sock.send(PAYLOAD.pack(MAGIC, stream, first + n // len(streams), time.time_ns()))
        sent = min(due, sent + BURST_MAX)
        if alive.poll(0):
            return
        time.sleep(PAUSE)
    whole, more = divmod(sent, len(streams))
    os.write(1, json.dumps([whole + (n < more) for n in range(len(streams))]).encode())


main()
