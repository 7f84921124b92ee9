"""Testbed: namespaces joined by veth pairs, cleaned up together."""

import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.testbed.namespace import Namespace
from tests.testbed.traffic import Capture, Direction, Receiver, Sender

T = TypeVar("T", Sender, Receiver, Capture)

_STOP_SECONDS = 5.0
_INDEXES = 100


@dataclass(frozen=True)
class Port:
    """An interface of a namespace, with its addresses; where packets are sent from, received and captured."""

    bed: "Testbed"
    namespace: Namespace
    name: str
    ipv4: str
    ipv6: str

    @property
    def ifindex(self) -> int:
        """The interface's index now."""
        return self.namespace.ifindex(self.name)

    def address(self, family: int) -> str:
        """The address by IP version, 4 or 6."""
        return self.ipv4 if family == 4 else self.ipv6

    def sender(self, group: str, *, port: int = 5000, source: str | None = None, hops: int = 16, size: int = 64) -> Sender:
        """A UDP sender to a group, from the port's own address or any other."""
        own = self.ipv6 if ":" in group else self.ipv4
        with self.namespace.entered():
            return self.bed.keep(Sender(self.name, group, port, source or own, hops, size))

    def receiver(self, group: str, *, port: int = 5000, source: str | None = None) -> Receiver:
        """A UDP receiver that has joined (*,G), or (S,G) where a source is given."""
        with self.namespace.entered():
            return self.bed.keep(Receiver(self.name, group, port, source))

    def capture(self, direction: Direction = Direction.OUT) -> Capture:
        """See what the interface sends ("leaves here"), or receives, of the streams of all senders."""
        with self.namespace.entered():
            return self.bed.keep(Capture(self.name, direction))


@dataclass(frozen=True)
class Star:
    """A router between one source and some receivers, each in a namespace of its own."""

    router: Namespace
    source: Port
    """The source's end of the link to the router."""
    uplink: Port
    """The router's end of it: "up"."""
    receivers: list[Port]
    """The receivers' ends of their links."""
    downlinks: list[Port]
    """The router's ends of them: "down1", "down2" and so on."""


class Testbed:
    """Owns namespaces, traffic and processes; all of it is gone after `close`, also on an error or Ctrl-C in its block."""

    __test__ = False  # not a class of tests

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._subnets = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End everything, in the opposite order of its making; may be called twice."""
        self._stack.close()

    def keep(self, thing: T) -> T:
        """Close it with the testbed."""
        self._stack.callback(thing.close)
        return thing

    def namespace(self, label: str = "namespace") -> Namespace:
        """Make a network namespace."""
        made = Namespace(label)
        self._stack.callback(made.close)
        return made

    def connect(self, a: Namespace, a_name: str, b: Namespace, b_name: str) -> tuple[Port, Port]:
        """Join two namespaces by a veth pair, up, with addresses of both families from a subnet of its own (a is .1, b is .2)."""
        self._subnets += 1
        n = self._subnets
        ipv4, ipv6 = f"10.{n >> 8}.{n & 0xFF}", f"fd00:0:0:{n:x}:"
        # Different indexes: the kernel tells of a veth's carrier at once only where its own and its peer's differ, else up to
        # a second later (linkwatch_urgent_event, net/core/link_watch.c), and until then it drops what is sent.
        first, second = _INDEXES + 2 * n, _INDEXES + 2 * n + 1
        a.ip(
            f"link add name {a_name} index {first} type veth peer name {b_name} index {second} netns /proc/self/fd/{b.fd}",
            f"link set dev {a_name} up",
            pass_fds=(b.fd,),
        )
        b.ip(f"link set dev {b_name} up")
        a.wait_running(a_name)
        b.wait_running(b_name)
        ports = []
        for space, name, host in ((a, a_name, 1), (b, b_name, 2)):
            space.ip(f"addr add {ipv4}.{host}/24 dev {name}", f"addr add {ipv6}:{host}/64 dev {name} nodad")
            ports.append(Port(self, space, name, f"{ipv4}.{host}", f"{ipv6}:{host}"))
        return ports[0], ports[1]

    def star(self, receivers: int = 1) -> Star:
        """Build a router with one source and some receivers."""
        router = self.namespace("router")
        source, uplink = self.connect(self.namespace("source"), "eth0", router, "up")
        ends = [self.connect(self.namespace(f"receiver{n}"), "eth0", router, f"down{n}") for n in range(1, receivers + 1)]
        return Star(router, source, uplink, [near for near, _ in ends], [far for _, far in ends])

    def popen(self, namespace: Namespace, arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process in a namespace; it is ended with the testbed, by SIGTERM, then SIGKILL."""
        process = namespace.popen(arguments, **options)
        self._stack.callback(stop, process)
        return process

    def close_with(self, sock: socket.socket) -> socket.socket:
        """Close a socket with the testbed."""
        self._stack.callback(sock.close)
        return sock


def stop(process: subprocess.Popen[Any], seconds: float = _STOP_SECONDS) -> int:
    """End a process: SIGTERM, and SIGKILL when that does not help in time; its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return process.wait()
