"""A steady stream through everything that forwards, counted packet by packet: the witness of tests in which nothing may be lost.

Per family: exact routes to two receivers, templates to the first, a shared tree to the second; and new flows that begin all the
while and go through a template of their own to both. Sender and counters are processes of their own, and packets that a counter
was too slow for are told from those that were lost on the way.
"""

import json
import random
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e import stream_count, stream_send
from tests.e2e.templates import SHARED_TREE, template
from tests.testbed import Port, Star
from tests.testbed.daemon import route, wait_until

RATE = 10_000
"""Packets a second, all flows together."""

NEW_RATE = 20
"""New flows a second."""

BUFFER = 128 << 20
"""Bytes of a counter's buffer: some ten seconds of the stream."""

_EXAMPLES = 20
_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33
_NEW_STREAM = 0x10000
_SOFTNET = Path("/proc/net/softnet_stat")

EXACT, TEMPLATE, TREE, NEW = "exact", "template", "tree", "new"
RECEIVERS = {EXACT: (0, 1), TEMPLATE: (0,), TREE: (1,), NEW: (0, 1)}
"""Which receivers a packet of each kind must reach, once."""

WITHIN = {Family.IPV4: "234.2.0.0/16", Family.IPV6: "ff3e:2:2::/48"}
"""The template of the steady flows of that kind."""

FRESH = {Family.IPV4: "233.0.0.0/8", Family.IPV6: "ff3e:1::/32"}
"""The template of new flows (stream_send.new_group)."""

_COUNTS = {EXACT: 4, TEMPLATE: 4, TREE: 2}
"""Flows of each kind and family."""


class Flow(NamedTuple):
    """One steady flow."""

    stream: int
    family: Family
    group: str
    kind: str


class Verdict(NamedTuple):
    """What came of a stream, over all receivers."""

    sent: int
    """Packets sent, each counted once for each receiver that it is meant for."""
    received: int
    lost: dict[str, int]
    """By kind and receiver, where it is not zero."""
    missing: list[str]
    """Some of the lost ones: kind, stream and receiver, how many came, and the numbers that were overtaken and never came."""
    duplicates: int
    reordered: int
    astray: int
    """Packets that came to a receiver which no route leads to."""
    dropped_here: int
    """Packets that the counters were too slow for: then nothing is proved."""
    dropped_by_the_host: int
    """Packets that the machine's input queues had no room for, whoever they belonged to (softnet_stat)."""
    new_flows: int
    silence: float
    """Longest time without a packet of a steady flow that was under way, in seconds."""
    behind: float
    """How far behind its time the sender was at worst, in seconds."""
    rate_kept: float
    """Which part of its rate the sender kept up: less than 1 where it had to wait for a processor."""

    @property
    def lost_in_all(self) -> int:
        """Packets lost."""
        return sum(self.lost.values())

    def check(self) -> None:
        """AssertionError unless every packet came where it should, once, and the proof is sound."""
        assert self.dropped_here == 0, f"the counters were too slow: {self}"
        assert self.lost == {}, self
        assert (self.duplicates, self.astray) == (0, 0), self
        assert self.received == self.sent, self


class Streams:
    """The stream of a star with two receivers."""

    def __init__(self, star: Star, rate: float = RATE, new_rate: float = NEW_RATE) -> None:
        """Make the flows known; nothing is sent yet."""
        self._star, self._rate = star, rate
        self.new_rate = new_rate
        """New flows a second; it counts when the stream is started."""
        kinds = [(family, kind, n) for kind, count in _COUNTS.items() for family in Family for n in range(count)]
        self.flows = [Flow(stream, family, _group(family, kind, n), kind) for stream, (family, kind, n) in enumerate(kinds)]
        random.shuffle(self.flows)
        self._stack = ExitStack()
        self._sender: subprocess.Popen[str] | None = None
        self._counters: list[subprocess.Popen[str]] = []
        self._squeezed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def routes(self) -> list[t.Route]:
        """What to program for it."""
        found = []
        for flow in self.flows:
            if flow.kind == EXACT:
                found.append(route(flow.group, self._star.source.address(flow.family), "up", "down1", "down2"))
            elif flow.kind == TREE:
                found.append(template(flow.group, "up", "down2", wildcard=SHARED_TREE))
        for family in Family:
            found.append(template(WITHIN[family], "up", "down1"))
            found.append(template(FRESH[family], "up", "down1", "down2", source=self._star.source.address(family)))
        return found

    def start(self) -> None:
        """Count, and send until `finish`."""
        self._squeezed = _dropped_by_the_host()
        self._counters = [self._start_counter(port) for port in self._star.receivers]
        port = self._star.source
        sockets = {family: _sender_socket(port, family) for family in Family}
        order = {
            "flows": [(flow.stream, flow.family, flow.group) for flow in self.flows],
            "sockets": {family: sock.fileno() for family, sock in sockets.items()},
            "rate": self._rate,
            "new_rate": self.new_rate,
            "new_stream": _NEW_STREAM,
        }
        fds = [sock.fileno() for sock in sockets.values()]
        self._sender = self._program(stream_send.__file__, fds)
        for sock in sockets.values():
            sock.close()
        _tell(self._sender, json.dumps(order))

    def wait_flowing(self, packets: int = 20) -> None:
        """Wait until each steady flow has reached its receivers with so many packets more."""
        first = self._ask()

        def flowing() -> bool:
            now = self._ask()
            return all(
                _count(now[at], flow.stream) >= _count(first[at], flow.stream) + packets
                for flow in self.flows
                for at in RECEIVERS[flow.kind]
            )

        wait_until(flowing, 20, lambda: f"not every flow has come to its receivers: {self._ask()}")

    def finish(self, patience: float = 10) -> Verdict:
        """Stop sending, wait for what is under way, and judge."""
        assert self._sender is not None
        self._sender.terminate()
        assert self._sender.stdout is not None
        said = json.loads(self._sender.stdout.read())  # its input stays open: the end of that means that we are gone
        sent = {int(stream): count for stream, count in said["sent"].items()}

        def judge() -> Verdict:
            return self._judge(sent, said)

        verdict = judge()

        def complete() -> bool:
            nonlocal verdict
            verdict = judge()
            return verdict.received >= verdict.sent

        try:
            wait_until(complete, patience)
        except AssertionError:
            return verdict
        return verdict

    def close(self) -> None:
        """End the processes."""
        self._stack.close()

    def _judge(self, sent: dict[int, int], said: dict[str, Any]) -> Verdict:
        answers = self._ask()
        kinds = {flow.stream: flow.kind for flow in self.flows}
        lost: dict[str, int] = {}
        missing: list[str] = []
        received = wanted = astray = 0
        for at, answer in enumerate(answers):
            for stream, count in sent.items():
                kind, came = kinds.get(stream, NEW), _count(answer, stream)
                if at not in RECEIVERS[kind]:
                    astray += came
                    continue
                wanted, received = wanted + count, received + came
                if came < count:
                    where = f"{kind} at receiver {at + 1}"
                    lost[where] = lost.get(where, 0) + count - came
                    gaps = answer["flows"].get(str(stream), {}).get("gaps", [])
                    missing.append(f"{kind} {stream} at receiver {at + 1}: {came} of {count}, gaps {gaps[:10]}")
        flows = [(int(stream), one) for answer in answers for stream, one in answer["flows"].items()]
        return Verdict(
            sent=wanted,
            received=received,
            lost=lost,
            missing=missing[:_EXAMPLES],
            duplicates=sum(one["duplicates"] for _, one in flows),
            reordered=sum(one["reordered"] for _, one in flows),
            astray=astray,
            dropped_here=sum(answer["dropped_here"] for answer in answers),
            dropped_by_the_host=_dropped_by_the_host() - self._squeezed,
            new_flows=sum(stream >= _NEW_STREAM for stream in sent),
            silence=max((one["silence"] for stream, one in flows if stream < _NEW_STREAM), default=0.0),
            behind=said["behind"],
            rate_kept=said["rate_kept"],
        )

    def _ask(self) -> list[dict[str, Any]]:
        for counter in self._counters:
            _tell(counter, "?")
        answers = []
        for counter in self._counters:
            assert counter.stdout is not None
            answers.append(json.loads(counter.stdout.readline()))
        return answers

    def _start_counter(self, port: Port) -> subprocess.Popen[str]:
        with port.namespace.entered():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
            with sock:
                try:
                    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
                except PermissionError:  # in a user namespace
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
                sock.bind((port.name, _ETH_P_ALL))
                return self._program(stream_count.__file__, [sock.fileno()], str(sock.fileno()))

    def _program(self, path: str, fds: list[int], *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-I", "-S", path, *arguments]
        process = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stack.callback(_end, process)
        return process


def _group(family: Family, kind: str, number: int) -> str:
    """Group of a steady flow: 234.KIND.0.NUMBER or ff3e:2:KIND::NUMBER."""
    place = [EXACT, "", TEMPLATE, TREE].index(kind)
    return f"234.{place}.0.{number + 1}" if family is Family.IPV4 else f"ff3e:2:{place:x}::{number + 1:x}"


def _sender_socket(port: Port, family: Family) -> socket.socket:
    with port.namespace.entered():
        if family is Family.IPV4:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", port.ifindex))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 16)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        else:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, port.ifindex)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 16)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        sock.bind((port.address(family), 0))
    return sock


def _dropped_by_the_host() -> int:
    """Packets that no input queue of any processor had room for, since the host's start."""
    return sum(int(line.split()[1], 16) for line in _SOFTNET.read_text().splitlines())


def _count(answer: dict[str, Any], stream: int) -> int:
    one = answer["flows"].get(str(stream))
    return one["count"] if one else 0


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _end(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
