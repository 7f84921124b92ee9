"""Flows: listed routes with their rates between two samples, what is wrong with them, and their order. Pure.

Counters are the kernel's. It counts a packet that arrives on a wrong interface in packets and bytes too (ip_mr_forward,
net/ipv4/ipmr.c), so what is forwarded is packets less wrong_if.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any, NamedTuple

from mcastd.cli.ctl.plain import nanos_of
from mcastd.cli.ctl.values import NANOS

STALL_SECONDS = 5.0
"""Seconds without a forwarded packet after which a flow is called stalled."""


class Mark(Enum):
    """What is wrong with a flow, as the sign that says so without colour."""

    WRONG_IF = "!"
    STALLED = "-"
    ABSENT = "?"


MARK_WORDS: Mapping[Mark, str] = {Mark.WRONG_IF: "wrong interface", Mark.STALLED: "stalled", Mark.ABSENT: "not as asked"}


@dataclass(slots=True)
class Flow:
    """One (S,G) entry, or the (*,G) of a shared tree."""

    table: int
    group: str
    source: str
    iif: str
    oifs: tuple[str, ...]
    """Interfaces the kernel sends to; where it sends to none, those asked for."""
    installed: bool
    """Whether the kernel sends to them."""
    state: str
    """The route's state, or LEARNED, STOP or FOREIGN for an entry that no owner asked for."""
    owner: str
    monitored: bool
    packets: int = 0
    bytes: int = 0
    wrong_if: int = 0
    packet_rate: float = 0.0
    byte_rate: float = 0.0
    wrong_if_rate: float = 0.0
    idle: float | None = None
    """Seconds since the last packet; None = never one, or no counters."""
    marks: tuple[Mark, ...] = ()

    @property
    def bit_rate(self) -> float:
        """Bits a second."""
        return 8 * self.byte_rate

    def words(self) -> str:
        """What a filter looks at."""
        return " ".join((self.group, self.source or "*", self.iif, *self.oifs, self.state, self.owner)).lower()


class Sort(NamedTuple):
    """An order of flows."""

    name: str
    key: str
    """The key that chooses it."""
    value: Callable[[Flow], Any]
    descending: bool


def _address(text: str) -> tuple[bool, bytes]:
    """Addresses in the order of their numbers, IPv4 first."""
    ipv6 = ":" in text
    try:
        return ipv6, inet_pton(AF_INET6 if ipv6 else AF_INET, text)
    except OSError:  # a prefix, or any source
        return ipv6, text.encode()


SORTS: Sequence[Sort] = (
    Sort("packets", "p", lambda flow: flow.packet_rate, descending=True),
    Sort("bits", "b", lambda flow: flow.byte_rate, descending=True),
    Sort("wrong-if", "w", lambda flow: (flow.wrong_if_rate, flow.wrong_if), descending=True),
    Sort("total", "t", lambda flow: flow.packets, descending=True),
    Sort("group", "g", lambda flow: _address(flow.group), descending=False),
    Sort("source", "s", lambda flow: _address(flow.source), descending=False),
    Sort("iif", "i", lambda flow: flow.iif, descending=False),
)
"""All orders; flows that are equal in one come by bit/s, then by group and source."""


def arrange(
    flows: Iterable[Flow], sort: Sort, words: Sequence[str] = (), *, reverse: bool = False, marked: bool = False
) -> list[Flow]:
    """The flows in which every word occurs (and that are marked, if asked for), in order."""
    chosen = [one for one in flows if (one.marks or not marked) and all(word in one.words() for word in words)]
    chosen.sort(key=lambda one: (_address(one.group), _address(one.source), one.table))
    chosen.sort(key=lambda one: one.byte_rate, reverse=True)
    chosen.sort(key=sort.value, reverse=sort.descending != reverse)
    return chosen


class _Sample(NamedTuple):
    """Counters of one flow at one time, and the rates up to then."""

    time: int
    packets: int
    bytes: int
    wrong_if: int
    rates: tuple[float, float, float]


class FlowBook:
    """Makes flows of listed routes, and remembers their counters until the next list."""

    def __init__(self, stall_seconds: float = STALL_SECONDS) -> None:
        """Call a flow stalled after so many seconds."""
        self._stall = stall_seconds
        self._samples: dict[tuple[int, str, str], _Sample] = {}

    def update(self, routes: Iterable[Any], states: Mapping[int, str], origins: Mapping[int, str]) -> list[Flow]:
        """The flows of all listed routes (messages); `states` and `origins` name the contract's numbers, as PROGRAMMED."""
        before, self._samples = self._samples, {}
        flows = []
        for route in routes:
            state = states.get(route.status.state, "")
            if state == "TEMPLATE" and not route.status.HasField("counters"):
                continue  # a pattern: what it has made is listed on its own
            origin = origins.get(route.status.origin, "")
            flows.append(self._flow(route, origin if origin in {"LEARNED", "STOP", "FOREIGN"} else state, before))
        return flows

    def _flow(self, route: Any, state: str, before: Mapping[tuple[int, str, str], _Sample]) -> Flow:
        status = route.status
        key = (route.table, route.group, route.source)
        installed = tuple(status.installed_oifs)
        counters = status.counters if status.HasField("counters") else None
        sample = _Sample(0, 0, 0, 0, (0.0, 0.0, 0.0))
        idle = None
        if counters is not None:
            sample = self._samples[key] = _sample(counters, before.get(key))
            last = nanos_of(counters.last_used)
            idle = max(0, sample.time - last) / NANOS if last else None
        flow = Flow(
            *key,
            iif=route.iif,
            oifs=installed or tuple(oif.interface for oif in route.oifs),
            installed=bool(installed) or not route.oifs,
            state=state,
            owner=status.owner,
            monitored=route.monitored,
            packets=sample.packets,
            bytes=sample.bytes,
            wrong_if=sample.wrong_if,
            packet_rate=sample.rates[0],
            byte_rate=sample.rates[1],
            wrong_if_rate=sample.rates[2],
            idle=idle,
        )
        since = nanos_of(status.install_time)
        flow.marks = tuple(self._marks(flow, (sample.time - since) / NANOS if since and sample.time else None))
        return flow

    def _marks(self, flow: Flow, age: float | None) -> Iterable[Mark]:
        """What is wrong; `age` = seconds since the entry was made, None = unknown."""
        if flow.wrong_if_rate > 0:
            yield Mark.WRONG_IF
        if flow.state in {"PARTIAL", "PENDING", "FAILED"}:
            yield Mark.ABSENT
        # A stop filter, and an entry that drops on purpose, has nothing to forward.
        if flow.oifs and flow.installed and flow.state in {"PROGRAMMED", "PARTIAL", "LEARNED"} and self._silent(flow, age):
            yield Mark.STALLED

    def _silent(self, flow: Flow, age: float | None) -> bool:
        if flow.packet_rate > flow.wrong_if_rate:
            return False
        if flow.packets == flow.wrong_if:
            # Never a packet forwarded: a fault only where one is expected.
            return flow.monitored and age is not None and age >= self._stall
        return flow.wrong_if_rate > 0 or (flow.idle is not None and flow.idle >= self._stall)


def _sample(counters: Any, before: _Sample | None) -> _Sample:
    """Counters with their rates: since the last list, of a flow that is new the daemon's own."""
    time = nanos_of(counters.sample_time)
    values = (counters.packets, counters.bytes, counters.wrong_if)
    if before is None:
        return _Sample(time, *values, (counters.packet_rate, counters.byte_rate, 0.0))
    if time <= before.time:
        return _Sample(before.time, *values, before.rates)
    seconds = (time - before.time) / NANOS
    old = before[1:4]
    # An entry that was made anew counts from 0.
    restarted = any(new < was for new, was in zip(values, old, strict=True))
    packets, octets, wrong_if = (new if restarted else new - was for new, was in zip(values, old, strict=True))
    return _Sample(time, *values, (packets / seconds, octets / seconds, wrong_if / seconds))
