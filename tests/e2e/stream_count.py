"""Counts numbered flows that come in at an interface: losses, duplicates and reorderings of each; a program of its own.

Argument: descriptor of a packet socket. Answers each line on standard input with a line of JSON, and ends when it closes.
Only looks: what the host's own stack makes of the packets does not matter. What this program was too slow for, the kernel counts
(PACKET_STATISTICS): so it is never taken for a loss on the way.
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
UDP = 17
PACKET_OUTGOING = 4
SOL_PACKET, PACKET_STATISTICS = 263, 6
ROUND = 512
"""Packets taken before standard input has its turn."""


class Flow:
    """What has come of one stream."""

    __slots__ = ("count", "duplicates", "gaps", "last", "next", "reordered", "silence", "silent_at")

    def __init__(self, now: float) -> None:
        self.count = self.duplicates = self.reordered = self.next = 0
        self.gaps: set[int] = set()
        self.last = now
        self.silence = self.silent_at = 0.0

    def take(self, number: int, now: float) -> None:
        """One packet came."""
        if number == self.next:
            self.next = number + 1
        elif number > self.next:
            self.gaps.update(range(self.next, number))
            self.next = number + 1
        elif number in self.gaps:
            self.gaps.remove(number)
            self.reordered += 1
        else:
            self.duplicates += 1
            return
        self.count += 1
        if now - self.last > self.silence:
            self.silence, self.silent_at = now - self.last, self.last
        self.last = now


class Counter:
    """Counts what a socket receives."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._flows: dict[int, Flow] = {}
        self._lost = 0

    def take(self) -> None:
        """Take what is there, up to a round."""
        try:
            for _ in range(ROUND):
                packet, address = self._sock.recvfrom(2048)
                if address[2] == PACKET_OUTGOING or len(packet) < 48:
                    continue
                if packet[0] >> 4 == 4 and packet[9] == UDP:
                    at = (packet[0] & 15) * 4 + 8
                elif packet[0] >> 4 == 6 and packet[6] == UDP:
                    at = 48
                else:
                    continue
                if len(packet) < at + PAYLOAD.size:
                    continue
                magic, stream, number, _ = PAYLOAD.unpack_from(packet, at)
                if magic == MAGIC:
                    now = time.monotonic()
                    flow = self._flows.get(stream)
                    if flow is None:
                        flow = self._flows[stream] = Flow(now)
                    flow.take(number, now)
        except BlockingIOError:
            return

    def answer(self) -> str:
        """All that is known."""
        _, dropped = struct.unpack("=II", self._sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))  # it is reset by that
        self._lost += dropped
        flows = {
            stream: {
                "count": one.count,
                "gaps": sorted(one.gaps),
                "duplicates": one.duplicates,
                "reordered": one.reordered,
                "silence": one.silence,
                "silent_at": one.silent_at,
            }
            for stream, one in self._flows.items()
        }
        return json.dumps({"dropped_here": self._lost, "flows": flows})


def main() -> None:
    """Count until standard input closes."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.setblocking(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    counter = Counter(sock)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(0, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        counter.take()
        if 0 in ready:
            if not os.read(0, 4096):
                return
            sys.stdout.write(counter.answer() + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
