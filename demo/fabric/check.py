"""What must be true of what the play shows; each check returns its problems in words, and none when all is well."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from demo.fabric.stage import Fabric
from demo.fabric.streams import Stream
from mcast_controller.topology import Port
from mcast_controller.trees import Flow, Graph

SHOWN = 5


@dataclass(frozen=True)
class Count:
    """What became of some streams, from one packet on."""

    sent: int
    due: int
    """Copies that had to arrive."""
    lost: int
    duplicates: int
    looped: int
    """Copies that have passed more routers than their way has."""
    first: float
    """Seconds from a stream's first packet until all receivers had it, of the slowest stream."""
    gap: float
    """The longest time that a receiver got nothing of a stream it was getting."""

    def problems(self, *, lost: int = 0) -> list[str]:
        """What is wrong, where so many may be lost."""
        found = [f"{self.lost:,} of {self.due:,} copies were lost"] if self.lost > lost else []
        found += [f"{self.duplicates:,} copies came twice"] if self.duplicates else []
        return found + ([f"{self.looped:,} ways were longer than the shortest"] if self.looped else [])


def receivers(fabric: Fabric, stream: Stream) -> list[str]:
    """Hosts that want a stream: all but its own."""
    return [host for host in fabric.hosts if host != stream.host]


def complete(fabric: Fabric, streams: Iterable[Stream]) -> bool:
    """Whether every receiver has got all that was sent."""
    ears = fabric.ears
    return all(len(ears.heard(host, one).numbers) >= one.sent for one in streams for host in receivers(fabric, one))


def begun(fabric: Fabric, streams: Iterable[Stream]) -> bool:
    """Whether every receiver has got something."""
    return all(fabric.ears.heard(host, one).last for one in streams for host in receivers(fabric, one))


def count(fabric: Fabric, streams: Sequence[Stream], since: Mapping[int, int] | None = None) -> Count:
    """Count what was sent and what came; `since`: by stream, the packets before that were counted already."""
    sent = due = lost = duplicates = looped = 0
    first = gap = 0.0
    for stream in streams:
        numbers = set(range((since or {}).get(stream.number, 0), stream.sent))
        sent += len(numbers)
        for host in receivers(fabric, stream):
            heard = fabric.ears.heard(host, stream)
            due += len(numbers)
            lost += len(numbers - heard.numbers)
            duplicates += heard.duplicates
            looped += heard.hops > {3}
            first, gap = max(first, heard.first_delay), max(gap, heard.gap)
    return Count(sent, due, lost, duplicates, looped, first, gap)


def accepted_once(fabric: Fabric) -> list[str]:
    """No router has taken a packet twice: by the kernel's counters, none has forwarded more of a stream than was sent."""
    sent = {(one.group, one.source): one.sent for one in fabric.streams}
    found = []
    for name, daemon in fabric.daemons.items():
        for route in daemon.list_routes(counters=True):
            counters = route.status.counters
            most = sent.get((route.group, route.source), 0)
            if counters.packets - counters.wrong_if > most:
                found.append(f"{name} took {counters.packets - counters.wrong_if:,} packets of {route.group}, sent were {most:,}")
    return found[:SHOWN]


def revisions(fabric: Fabric, owner: str) -> dict[str, int]:
    """By router: the revision of the last change of what an owner asks for."""
    return {name: one.revision for name, daemon in fabric.daemons.items() for one in daemon.status().owners if one.name == owner}


def untouched(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """No router has been told anything new."""
    return [f"{name} was told something new" for name, revision in before.items() if after.get(name) != revision]


def spine_of(fabric: Fabric, stream: Stream) -> str:
    """The spine over which a stream goes while all links work."""
    leaf = stream.host.replace("h", "leaf")
    wanted = [fabric.topology.segments[host] for host in receivers(fabric, stream)]
    tree = Graph(fabric.topology).tree(Flow(stream.group, stream.source), Port(leaf, "hosts"), wanted)
    return next(name for name in tree.entries if name in fabric.spines)
