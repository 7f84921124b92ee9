"""Sends many numbered flows at one steady rate, and begins short new ones all the while: a program of its own.

Standard input gives one line of JSON: descriptors of the sockets by family, flows [stream, family, group], packets a second in
all, new flows a second, and the first number of theirs. Ends on SIGTERM, or when standard input closes; then writes how many
packets of each stream it has sent, how far behind its time it was at worst, and which part of the rate it kept up.

A new flow's first two packets follow each other at once, the others later: the kernel keeps four at most that wait for an entry.
"""

import heapq
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
PORT = 5000
BURST_MAX = 64
"""Packets sent at once; far below what an input queue of the kernel holds (net.core.netdev_max_backlog, 1,000).

A sender that had to wait longer for a processor leaves out what it missed: sent in a burst it would be lost before the router.
"""

PAUSE = 0.0005
NEW_AFTER = (0.0, 0.0, 0.2, 0.4)
"""Seconds after its beginning at which a new flow's packets are sent."""


def new_group(family: int, number: int) -> str:
    """The group of a new flow: 233.0.0.0/8 and ff3e:1::/32 are theirs."""
    if family == 4:
        return f"233.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return f"ff3e:1::{number >> 16:x}:{number & 0xFFFF:x}"


class Senders:
    """Sends packets and counts them."""

    def __init__(self, sockets: dict[int, socket.socket]) -> None:
        self.sent: dict[int, int] = {}
        self._sockets = sockets

    def send(self, stream: int, family: int, group: str) -> None:
        """Send the next packet of a stream."""
        number = self.sent.get(stream, 0)
        self._sockets[family].sendto(PAYLOAD.pack(MAGIC, stream, number, time.time_ns()), (group, PORT))
        self.sent[stream] = number + 1


def main() -> None:
    """Send until told to stop."""
    order = json.loads(sys.stdin.readline())
    flows, rate, new_rate, new_stream = order["flows"], order["rate"], order["new_rate"], order["new_stream"]
    senders = Senders({int(family): socket.socket(fileno=fd) for family, fd in order["sockets"].items()})
    stopping: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    alive = select.poll()
    alive.register(0, select.POLLHUP)
    waiting: list[tuple[float, int, int, str]] = []
    sent = begun = 0
    behind = missed = 0.0
    start = time.perf_counter()
    while not stopping:
        now = time.perf_counter() - start
        due = int((now - missed) * rate)
        behind = max(behind, (due - sent) / rate)
        if due > sent + BURST_MAX:
            missed += (due - sent - BURST_MAX) / rate
            due = sent + BURST_MAX
        for n in range(sent, due):
            senders.send(*flows[n % len(flows)])
        sent = max(sent, due)
        if begun < now * new_rate:
            stream, family = new_stream + begun, (4, 6)[begun % 2]
            begun += 1
            for after in NEW_AFTER:
                heapq.heappush(waiting, (now + after, stream, family, new_group(family, stream)))
        while waiting and waiting[0][0] <= now:
            senders.send(*heapq.heappop(waiting)[1:])
        if alive.poll(0):
            return
        time.sleep(PAUSE)
    rate_kept = 1 - missed / (time.perf_counter() - start)
    os.write(1, json.dumps({"sent": senders.sent, "behind": behind, "rate_kept": rate_kept}).encode())


if __name__ == "__main__":
    main()
