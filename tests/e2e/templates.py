"""What tests of templates share: routes with prefixes, streams to many groups or from many sources, floods, and metrics."""

import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family, exact_key, pack_address
from tests.e2e import spray
from tests.e2e.router import Router, group, key_of
from tests.testbed import Port, Sender
from tests.testbed.daemon import McastdProcess, wait_until

LEARNED = t.ORIGIN_LEARNED
STOP = t.ORIGIN_STOP
TEMPLATE = t.ROUTE_STATE_TEMPLATE
SHARED_TREE = t.WILDCARD_SHARED_TREE

METRICS_PORT = 9464
METRICS = ("--metrics", f"127.0.0.1:{METRICS_PORT}")

EVERY_GROUP = {Family.IPV4: "232.0.0.0/5", Family.IPV6: "ff3e::/32"}
"""A prefix with all groups of `group` in it."""

_SPRAY = Path(spray.__file__)
_LENGTH = {Family.IPV4: 32, Family.IPV6: 128}


def prefix(family: Family, number: int, drop: int) -> str:
    """A prefix of groups that holds group `number`, `drop` bits short of a whole address."""
    bits = _LENGTH[family]
    value = int.from_bytes(pack_address(group(family, number)), "big") >> drop << drop
    text = socket.inet_ntop(socket.AF_INET if bits == 32 else socket.AF_INET6, value.to_bytes(bits // 8, "big"))
    return f"{text}/{bits - drop}" if drop else text


def source_prefix(address: str, drop: int) -> str:
    """A prefix of sources that holds an address."""
    packed = pack_address(address)
    value = int.from_bytes(packed, "big") >> drop << drop
    text = socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, value.to_bytes(len(packed), "big"))
    return f"{text}/{8 * len(packed) - drop}" if drop else text


def template(group: str, iif: str, *oifs: str, source: str = "", **fields: object) -> t.Route:
    """A route with a wildcard or prefix."""
    outgoing = [t.Oif(interface=name) for name in oifs]
    return t.Route(group=group, source=source, iif=iif, oifs=outgoing, **fields)  # type: ignore[arg-type]


def key(one: t.Route) -> t.RouteKey:
    """What a template is deleted by, as the daemon writes it."""
    return t.RouteKey(group=canonical(one.group), source=canonical(one.source), iif=one.iif, table=one.table)


def canonical(text: str) -> str:
    """An address or prefix in the one form that the daemon writes."""
    address, slash, length = text.partition("/")
    if ":" in address:
        address = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address))
    return address + slash + length


def put(router: Router, *templates: t.Route) -> None:
    """PutRoutes, each of which must then be in force."""
    result = router.put(*templates)
    assert not result.changes, result


def learned(daemon: McastdProcess, **selector: object) -> dict[bytes, t.Route]:
    """What ListRoutes says of learned entries and stop filters, by key."""
    chosen = t.Selector(**selector)  # type: ignore[arg-type]
    routes = daemon.list_routes(selector=chosen, learned=True)
    return {key_of(one): one for one in routes if one.status.origin in {LEARNED, STOP}}


def flush(daemon: McastdProcess, **selector: object) -> int:
    """FlushLearned: how many went."""
    request = rs.FlushLearnedRequest(selector=t.Selector(**selector))  # type: ignore[arg-type]
    return daemon.routes.FlushLearned(request, timeout=20).removed


def pin(daemon: McastdProcess, *interfaces: str) -> None:
    """Have upcalls from interfaces that no route names."""
    for name in interfaces:
        daemon.interfaces.SetInterface(sv.SetInterfaceRequest(interface=name, pinned=True), timeout=10)


def wait_entry(router: Router, sender: Sender | bytes, *oifs: str, iif: str = "up", seconds: float = 10) -> None:
    """Wait until the kernel has the entry of a stream, going out there and nowhere else."""
    where = sender if isinstance(sender, bytes) else router.key(sender)
    want = iif, tuple(sorted(oifs))
    wait_until(lambda: router.kernel().get(where) == want, seconds, lambda: f"{router.kernel().get(where)} is not {want}")


def check_learned(router: Router, sender: Sender, *oifs: str) -> None:
    """Send a first packet and, when its entry is there, nine more: each leaves these interfaces and no other."""
    router.check_leaves(sender, *oifs, count=1)
    router.check_leaves(sender, *oifs, count=9)


def packets(router: Router, sender: Sender) -> int:
    """Packets that the kernel's entry of a stream has counted; -1 = there is none."""
    entry = router.dump().by_key.get(router.key(sender))
    return -1 if entry is None or entry.unresolved else entry.packets


def metric(router: Router, name: str, **labels: str) -> float:
    """Sum of the samples of a metric that have these labels; needs METRICS among the daemon's arguments."""

    def fetch() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=60) as answer:
            text: str = answer.read().decode()
        return text

    total, found = 0.0, False
    for line in router.namespace.run(fetch).splitlines():
        match = re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line)
        if match and all(f'{label}="{value}"' in (match[1] or "") for label, value in labels.items()):
            total, found = total + float(match[2]), True
    assert found, f"there is no metric {name} {labels}"
    return total


class Spray(Sender):
    """A stream whose packet n goes to group n, or comes from source n (numbers of `group` and `spray.source`)."""

    def __init__(self, port: Port, family: Family, to: str = "") -> None:
        """Send from a port: to one group from many sources, or (without one) to many groups from the port's own address."""
        self.family = family
        self._to = to
        with port.namespace.entered():
            super().__init__(port.name, to or group(family, 0), spray.PORT, port.address(family), 16, 64)
        port.bed.keep(self)
        self._process: subprocess.Popen[bytes] | None = None
        many = spray.from_sources(self._socket, self.stream, to) if to else spray.to_groups(self._socket, self.stream)
        self._send_one = many

    def key_of(self, number: int) -> bytes:
        """Key of the entry of packet n."""
        if self._to:
            return exact_key(0, pack_address(self._to), pack_address(spray.source(self.family is Family.IPV6, number)))
        return exact_key(0, pack_address(group(self.family, number)), pack_address(self.source))

    def send_numbers(self, numbers: Iterable[int]) -> int:
        """Send these packets now, as fast as it goes; how many."""
        count = 0
        for number in numbers:
            self._send_one(number)
            count += 1
        self.sent += count
        return count

    def spray(self, first: int, count: int, *, rounds: int = 1, rate: float = 0) -> None:
        """Send by a process of its own; 0 rounds = until `stop`, rate 0 = as fast as it goes."""
        numbers = map(str, (self._socket.fileno(), self.stream))
        more = map(str, (first, count, rounds, rate))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SPRAY), *numbers, "sources" if self._to else "groups", *more, self._to],
            pass_fds=(self._socket.fileno(),),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.read(1) == spray.READY

    @property
    def spraying(self) -> bool:
        """Whether the process still sends."""
        return self._process is not None and self._process.poll() is None

    def finish(self, timeout: float = 120) -> int:
        """Wait for the end of the process; how many packets it has sent."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.wait(timeout)
        assert process.stdin is not None
        assert process.stdout is not None
        said = process.stdout.read()
        process.stdin.close()
        process.stdout.close()
        assert process.returncode == 0, process.returncode
        self.sent += int(said)
        return int(said)

    def stop(self) -> int:
        """End the process; how many packets it has sent."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        return self.finish()

    def close(self) -> None:
        """Stop sending."""
        self.stop()
        super().close()
