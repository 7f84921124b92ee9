"""The streams of the demo: sent by the source, awaited by every receiver, counted from one look to the next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from demo.calls import Route
from demo.interrupts import Interrupts
from tests.testbed import Flow, Receiver, Sender, Star

SETTLE_SECONDS = 3.0
"""How long what was sent may take to arrive: far more than it ever does."""


@dataclass(frozen=True)
class Arrival:
    """What one receiver got of a stream since the last look."""

    receiver: str
    wanted: bool
    """Whether a route leads the stream here."""
    packets: int
    duplicates: int
    first_missing: int | None
    """Number of the first packet that did not come."""


@dataclass(frozen=True)
class Count:
    """What became of a stream since the last look."""

    group: str
    sent: int
    arrivals: tuple[Arrival, ...]

    @property
    def due(self) -> int:
        """Packets that had to arrive, over all receivers."""
        return self.sent * sum(arrival.wanted for arrival in self.arrivals)

    @property
    def arrived(self) -> int:
        """How many of them did."""
        return sum(arrival.packets for arrival in self.arrivals if arrival.wanted)


@dataclass
class _Ear:
    """One receiver's count of one stream."""

    name: str
    downlink: str
    receiver: Receiver
    count: int = 0
    """At the last look."""
    duplicates: int = 0


@dataclass
class _Stream:
    sender: Sender
    ears: list[_Ear] = field(default_factory=list)
    sent: int = 0
    """At the last look."""


class Traffic:
    """One stream a group; all receivers have joined all of them, so that the routes alone decide who gets what.

    Streams are sent in the order of the groups. Let the last one go to every receiver: once it is there, everything before it
    has come that ever will, and a count of zero means something.
    """

    def __init__(self, star: Star, groups: Sequence[str], interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._streams: dict[str, _Stream] = {}
        self._flows: list[Flow] = []
        for group in groups:
            sender = star.source.sender(group)
            self._streams[group] = stream = _Stream(sender)
            for n, (port, far) in enumerate(zip(star.receivers, star.downlinks, strict=True), 1):
                stream.ears.append(_Ear(f"receiver{n}", far.name, port.receiver(group, source=sender.source)))

    def sent(self) -> dict[str, int]:
        """Packets sent so far, by group; while the streams run it is not known yet."""
        return {group: stream.sender.sent for group, stream in self._streams.items()}

    def burst(self, count: int) -> None:
        """Send some packets of each stream, as fast as it goes."""
        for stream in self._streams.values():
            stream.sender.send(count)

    def start(self, rate: float) -> None:
        """Send each stream at `rate` packets a second until `stop`."""
        self._flows = [stream.sender.start(rate) for stream in self._streams.values()]

    def stop(self) -> None:
        """Stop what `start` started."""
        for flow in self._flows:
            flow.stop()

    def received(self) -> int:
        """Packets that have come so far, over all streams and receivers."""
        return sum(ear.receiver.count(stream.sender) for stream in self._streams.values() for ear in stream.ears)

    def flow_on(self, routes: Mapping[str, Route], count: int) -> None:
        """Wait until every receiver has got `count` more packets of each stream that is routed to it, or it takes too long."""
        self._await([(ear, stream.sender, ear.receiver.count(stream.sender) + count) for stream, ear in self._routed(routes)])

    def look(self, routes: Mapping[str, Route]) -> list[Count]:
        """Wait for what the routes say must arrive, and count what came since the last look, wanted or not."""
        due = [(ear, stream.sender, ear.count + stream.sender.sent - stream.sent) for stream, ear in self._routed(routes)]
        self._await(due)
        return [_count(stream, routes[group]) for group, stream in self._streams.items()]

    def _await(self, targets: list[tuple[_Ear, Sender, int]]) -> None:
        self._interrupts.wait_until(
            lambda: all(ear.receiver.count(sender) >= target for ear, sender, target in targets), SETTLE_SECONDS
        )

    def _routed(self, routes: Mapping[str, Route]) -> list[tuple[_Stream, _Ear]]:
        return [
            (stream, ear) for group, stream in self._streams.items() for ear in stream.ears if ear.downlink in routes[group].oifs
        ]


def _count(stream: _Stream, route: Route) -> Count:
    sender = stream.sender
    arrivals = []
    for ear in stream.ears:
        count, duplicates = ear.receiver.count(sender), ear.receiver.duplicates(sender)
        missing = [number for number in ear.receiver.missing(sender) if number >= stream.sent]
        arrivals.append(
            Arrival(
                receiver=ear.name,
                wanted=ear.downlink in route.oifs,
                packets=count - ear.count,
                duplicates=duplicates - ear.duplicates,
                first_missing=missing[0] - stream.sent if missing else None,
            )
        )
        ear.count, ear.duplicates = count, duplicates
    count_of_stream = Count(sender.group, sender.sent - stream.sent, tuple(arrivals))
    stream.sent = sender.sent
    return count_of_stream
