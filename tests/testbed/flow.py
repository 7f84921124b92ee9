"""Sends one numbered stream at a steady rate: a program of its own, so that a busy test process does not disturb it.

Arguments: descriptor of a connected UDP socket, stream, first number, how many (-1 = until stopped), packets a second, bytes of
padding.
Ends by itself, on SIGTERM, or when its standard input closes; writes how many packets it has sent.
"""

import os
import select
import signal
import socket
import struct
import sys
import time

PAYLOAD = struct.Struct("!4sIQQ")
MAGIC = b"mct1"
BURST_MAX = 64
PAUSE = 0.0005


def main() -> None:
    """Send until done or told to stop."""
    fd, stream, first, count = (int(text) for text in sys.argv[1:5])
    rate, padding = float(sys.argv[5]), bytes(int(sys.argv[6]))
    sock = socket.socket(fileno=fd)
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this one
    alive = select.poll()
    alive.register(0, select.POLLHUP)
    sent = 0
    start = 0.0
    while not stopping and sent != count:
        # The clock starts with the first packet: a process that had to wait for a processor does not begin with a burst.
        due = int((time.perf_counter() - start) * rate) + 1 if sent else 1
        until = min(due, sent + BURST_MAX)
        if count >= 0:
            until = min(until, count)
        for number in range(first + sent, first + until):
            sock.send(PAYLOAD.pack(MAGIC, stream, number, time.time_ns()) + padding)
        start = start or time.perf_counter()
        sent = until
        if sent >= due:
            if alive.poll(0):
                return
            time.sleep(max(PAUSE, 1 / rate) if rate < 1 / PAUSE else PAUSE)
    os.write(1, str(sent).encode())


main()
