"""mcastd.api.wire: every message comes out as protobuf itself reads it, whatever it holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from mcastd.api import wire

Op = rs.ProgramRoutesRequest.Op
Batch = rs.ProgramRoutesRequest.Batch
Chunk = rs.ReplaceRoutesRequest.Chunk

TEXTS = st.one_of(st.sampled_from(["", "239.1.1.1", "10.0.0.1", "ff3e::1", "\x12\x0810.0.0.1", "ä"]), st.text(max_size=300))
ROUTES = st.builds(
    lambda group, source, iif, oifs, cookie, table: t.Route(
        group=group, source=source, iif=iif, oifs=[t.Oif(interface=name) for name in oifs], cookie=cookie, table=table
    ),
    TEXTS,
    TEXTS,
    TEXTS,
    st.lists(TEXTS, max_size=3),
    TEXTS,
    st.integers(0, 2**32 - 1),
)
IDS = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1))
OPS = st.one_of(
    st.builds(lambda number, route: Op(id=number, put=route), IDS, ROUTES),
    st.builds(lambda number, group: Op(id=number, delete=t.RouteKey(group=group)), IDS, TEXTS),
    st.builds(lambda number, name: Op(id=number, patch=t.RoutePatch(remove_oifs=[name])), IDS, TEXTS),
    st.builds(lambda number: Op(id=number), IDS),
)
UNKNOWN = b"\xf2\x7f\x03abc"
"""A field of a later version."""


def taken(routes: wire.Routes) -> list[t.Route]:
    """The routes, by where they stand."""
    return [t.Route.FromString(routes.data[begin:end]) for begin, end in routes.spans]


@given(st.lists(ROUTES, max_size=5), st.booleans())
def test_a_chunk_s_routes(routes: list[t.Route], later: bool) -> None:
    chunk = Chunk(routes=routes)
    if later:
        chunk.MergeFromString(UNKNOWN)
    found = list(wire.parts(chunk, 2))
    assert [len(some.spans) for some in found[:-1]] == [2] * (len(found) - 1)
    assert [route for some in found for route in taken(some)] == routes
    assert [some.message(at) for some in found for at in range(len(some.spans))] == routes
    whole = wire.Routes.of(routes)
    assert taken(whole) == routes
    part = whole.part(1, 3)
    assert taken(part) == routes[1:3]
    assert [part.message(at) for at in range(len(part.spans))] == routes[1:3]


@given(st.lists(OPS, max_size=5), st.sampled_from(["", "batch", "op"]))
def test_a_batch_s_operations(ops: list[Op], later: str) -> None:
    batch = Batch(ops=ops)
    if later == "batch":
        batch.MergeFromString(UNKNOWN)
    if later == "op" and ops:
        batch.ops[0].MergeFromString(UNKNOWN)
    found = wire.ops(batch)
    assert found.ids == [op.id for op in ops]
    assert found.kinds == [op.WhichOneof("op") for op in ops]
    for at, op in enumerate(ops):
        if op.WhichOneof("op") == "put":
            begin, end = found.routes.spans[at]
            assert t.Route.FromString(found.routes.data[begin:end]) == op.put
            assert found.routes.message(at) == op.put


@pytest.mark.parametrize("number", [1, 127, 128, 16_383, 16_384, 2**21, 2**35, 2**64 - 1])
def test_ids_of_all_lengths(number: int) -> None:
    """By the short way: protobuf's own answer is not asked for."""
    data = Batch(ops=[Op(id=number, put=t.Route(group="239.1.1.1"))]).SerializeToString()
    found = wire._ops(data, [])
    assert found is not None
    assert (found.ids, found.kinds, len(found.routes.spans)) == ([number], ["put"], 1)


def test_nothing() -> None:
    assert list(wire.parts(Chunk(), 10)) == []
    assert wire.ops(Batch()).ids == []
