"""Where routes and operations stand in messages as protobuf serializes them.

Of thousands of routes that are alike each is one slice of bytes, looked up whole: half of what reading fields costs. What is
read here was parsed and serialized anew by protobuf itself, never taken from a client as it came, so fields are in the order
of their numbers, each once, and lengths are right; where anything is not as expected, the caller reads the messages.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Self

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t

_FIRST = 0x0A
"""Tag of a field 1 of bytes: a route in a chunk, an op in a batch, the group in a route."""

_ID = 0x08
"""Tag of an op's id."""

_KINDS = {0x12: "put", 0x1A: "patch", 0x22: "delete"}
"""What an op asks for, by the tag of its field."""

Span = tuple[int, int]
"""Where a message begins and ends."""


class Routes(NamedTuple):
    """Routes as protobuf serializes them, and the messages, each of which is made when it is asked for."""

    data: bytes
    text: str
    """The same in Latin-1, of which slices are strings at once: what is not ASCII is no address."""
    spans: list[Span]
    message: Callable[[int], t.Route]

    @classmethod
    def of(cls, messages: Iterable[t.Route]) -> Self:
        """Routes one by one."""
        listed = list(messages)
        parts = [message.SerializeToString() for message in listed]
        spans, at = [], 0
        for part in parts:
            spans.append((at, at + len(part)))
            at += len(part)
        data = b"".join(parts)
        return cls(data, data.decode("latin-1"), spans, listed.__getitem__)

    def part(self, begin: int, end: int) -> "Routes":
        """Those from one position to before another."""
        return self._replace(spans=self.spans[begin:end], message=lambda at: self.message(begin + at))


def parts(chunk: rs.ReplaceRoutesRequest.Chunk, size: int) -> Iterator[Routes]:
    """The routes of a chunk, so many at a time: a chunk may hold as many as a message can."""
    data = chunk.SerializeToString()
    text, listed, at = data.decode("latin-1"), chunk.routes, 0
    for begin in range(0, len(listed), size):
        found = _spans(data, at, size)
        if found is None:
            yield Routes.of(listed[begin : begin + size])
        else:
            at = found[-1][1]
            yield Routes(data, text, found, lambda n, begin=begin: listed[begin + n])  # type: ignore[misc]


class Ops(NamedTuple):
    """The operations of a batch: what each asks for, and where that stands."""

    ids: list[int]
    kinds: list[str | None]
    routes: Routes
    """What each op holds, of which those of puts are routes."""


def ops(message: rs.ProgramRoutesRequest.Batch) -> Ops:
    """Take a batch apart."""
    data = message.SerializeToString()
    listed = message.ops
    return _ops(data, listed) or Ops(
        [op.id for op in listed],
        [op.WhichOneof("op") for op in listed],
        Routes.of([op.put for op in listed]),
    )


def _ops(data: bytes, listed: Sequence[rs.ProgramRoutesRequest.Op]) -> Ops | None:
    """Take a batch apart; None = not all ops are as nearly all are: an id, then what is asked for."""
    ids: list[int] = []
    kinds: list[str | None] = []
    places: list[Span] = []
    at, kind_of = 0, _KINDS.get
    while at < len(data):
        if data[at] != _FIRST:
            return None
        end, at = data[at + 1], at + 2
        if end > 0x7F:
            end, at = _varint(data, at - 1)
        end += at
        number = data[at + 1] if at < end and data[at] == _ID else 0
        if not number:
            return None
        at += 2
        if number > 0x7F:
            number, at = _varint(data, at - 1)
        kind = kind_of(data[at]) if at < end else None
        if kind is None:
            return None
        size, at = data[at + 1], at + 2
        if size > 0x7F:
            size, at = _varint(data, at - 1)
        if at + size != end:
            return None
        ids.append(number)
        kinds.append(kind)
        places.append((at, end))
        at = end
    return Ops(ids, kinds, Routes(data, data.decode("latin-1"), places, lambda at: listed[at].put))


def _spans(data: bytes, at: int, count: int) -> list[Span] | None:
    """Where so many elements of a repeated field 1 of messages stand, or all there are; None = there is anything else."""
    out: list[Span] = []
    while at < len(data) and len(out) < count:
        if data[at] != _FIRST:
            return None
        size = data[at + 1]
        at += 2
        if size > 0x7F:
            size, at = _varint(data, at - 1)
        out.append((at, at + size))
        at += size
    return out


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number that has more than one byte, and where it ends."""
    first, second = data[at : at + 2]
    if second <= 0x7F:
        return first & 0x7F | second << 7, at + 2
    if data[at + 2] <= 0x7F:
        return first & 0x7F | (second & 0x7F) << 7 | data[at + 2] << 14, at + 3
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte <= 0x7F:
            return value, at
        shift += 7
