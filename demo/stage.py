"""What the demo plays on: five namespaces, the streams between them, and mcastd in the one in the middle."""

import json
import os
import pwd
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.calls import Controller, Route
from demo.interrupts import Interrupts
from demo.traffic import Traffic
from tests.testbed import Star, Testbed
from tests.testbed.daemon import McastdProcess

RECEIVERS = 3

_CAPABILITIES = {2: "DAC_READ_SEARCH", 5: "KILL", 6: "SETGID", 7: "SETUID", 12: "NET_ADMIN", 13: "NET_RAW"}  # linux/capability.h


@dataclass(frozen=True)
class Process:
    """One of mcastd's processes, as /proc shows it."""

    name: str
    pid: int
    user: str
    capabilities: tuple[str, ...]


@dataclass
class Stage:
    """All there is to act with."""

    star: Star
    mcastd: McastdProcess
    controller: Controller
    traffic: Traffic
    interrupts: Interrupts
    routes: dict[str, Route]
    """By group: the routes as they are asked for at the moment."""
    user: str
    """Whose processes have uid 0 here: somebody else's name in a user namespace."""

    def processes(self) -> list[Process]:
        """The keeper and the server, as they are now."""
        return [self._process("keeper", self.mcastd.process.pid), self._process("server", self.mcastd.server_pid())]

    def kernel_entries(self) -> list[Route]:
        """The router's multicast forwarding entries of both families, as `ip` finds them: mcastd is not asked."""
        found = []
        for family in ("-4", "-6"):
            for entry in json.loads(self.star.router.command("ip", "-json", family, "mroute") or "[]"):
                oifs = tuple(sorted(one["oif"] for one in entry.get("multipath", [])))
                found.append(Route(entry["dst"], entry["src"], entry.get("iif", ""), oifs))
        return found

    def _process(self, name: str, pid: int) -> Process:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
        uid, held = int(status["Uid"][0]), int(status["CapPrm"][0], 16)
        names = tuple(_CAPABILITIES.get(bit, str(bit)) for bit in range(64) if held >> bit & 1)
        return Process(name, pid, self.user if uid == 0 else user_name(uid), names)


@contextmanager
def build(interrupts: Interrupts, user: str) -> Iterator[Stage]:
    """Build everything and start mcastd, without waiting for it; all is gone after the block. `user` is Stage.user."""
    with tempfile.TemporaryDirectory(prefix="mcastd-demo-") as directory, Testbed() as bed:
        star = bed.star(RECEIVERS)
        with McastdProcess(star.router, Path(directory), ready=False) as mcastd:
            routes = {route.group: route for route in first_routes(star)}
            traffic = Traffic(star, list(routes), interrupts)
            yield Stage(star, mcastd, Controller(mcastd), traffic, interrupts, routes, user)


def first_routes(star: Star) -> list[Route]:
    """Two routes a family: one to a single receiver, one to all. The last leads to all, see Traffic."""
    everywhere = tuple(port.name for port in star.downlinks)
    one, other = everywhere[:1], everywhere[-1:]
    return [
        Route("232.1.1.1", star.source.ipv4, star.uplink.name, one),
        Route("232.1.1.2", star.source.ipv4, star.uplink.name, everywhere),
        Route("ff3e::1", star.source.ipv6, star.uplink.name, other),
        Route("ff3e::2", star.source.ipv6, star.uplink.name, everywhere),
    ]


def user_name(uid: int | None = None) -> str:
    """Name of a user, by default of our own."""
    number = os.getuid() if uid is None else uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
