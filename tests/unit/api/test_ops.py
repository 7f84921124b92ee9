"""mcastd.api.ops: operations in runs, what is refused alone, and keys that must wait."""

import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from mcastd.api.convert import RouteReader
from mcastd.api.ops import OPS_MAX, OpReader, check_batch
from mcastd.model.errors import McastdError, Reason
from mcastd.model.route import Route, Template
from mcastd.model.template import TemplateKey, unpack_template_key
from mcastd.model.write import Patch

Op = rs.ProgramRoutesRequest.Op
Message = rs.ProgramRoutesRequest.Batch


def exact(number: int, **fields: object) -> t.Route:
    """A route by number."""
    return t.Route(group=f"239.1.1.{number}", source="10.0.0.1", iif="up", **fields)  # type: ignore[arg-type]


def key(number: int) -> t.RouteKey:
    """Its key."""
    return t.RouteKey(group=f"239.1.1.{number}", source="10.0.0.1")


def message(*ops: t.Route | t.RoutePatch | t.RouteKey, first: int = 1) -> Message:
    """A batch with these operations."""
    made = Message()
    for number, op in enumerate(ops, first):
        match op:
            case t.Route():
                made.ops.add(id=number, put=op)
            case t.RoutePatch():
                made.ops.add(id=number, patch=op)
            case t.RouteKey():
                made.ops.add(id=number, delete=op)
    return made


class Known:
    """Templates that are there, and how often somebody asked."""

    def __init__(self, *keys: bytes) -> None:
        self.keys = list(keys)
        self.asked = 0

    def find(self, _key: TemplateKey) -> list[bytes]:
        """All of them."""
        self.asked += 1
        return self.keys


def reader(known: Known | None = None) -> OpReader:
    """A reader of owner sdn."""
    return OpReader(RouteReader(), (known or Known()).find, "sdn")


def test_kinds_are_read_in_order() -> None:
    patch = t.RoutePatch(key=key(2), remove_oifs=["down"])
    batch = check_batch(message(exact(1), exact(2), patch, key(1), exact(3), first=7), 6)
    read = reader().read(batch, 0, 5)
    assert [number for number, _ in read.ops] == [7, 8, 9, 10, 11]
    assert [type(op) for _, op in read.ops] == [Route, Route, Patch, bytes, Route]
    assert (read.refused, read.end) == ([], 5)
    first = read.ops[0][1]
    assert isinstance(first, Route)
    assert (first.owner, first.key) == ("sdn", read.ops[3][1])


def test_a_part_is_read_alone() -> None:
    batch = check_batch(message(*(exact(n) for n in range(1, 9))), 0)
    read = reader().read(batch, 2, 5)
    assert ([number for number, _ in read.ops], read.end) == ([3, 4, 5], 5)


def test_what_is_malformed_is_refused_alone() -> None:
    bad = exact(2, cookie="x" * 65)
    unnamed = t.RoutePatch(key=key(1), add_oifs=[t.Oif()])
    batch = check_batch(message(bad, exact(1), exact(2, cookie="x" * 65), exact(3), unnamed, t.RouteKey(group="no"), bad), 0)
    read = reader().read(batch, 0, 7)
    assert [number for number, _ in read.ops] == [2, 4]
    assert [change.id for change in read.refused] == [1, 3, 5, 6, 7]
    fields = [change.problem.metadata["field"] for change in read.refused if change.problem is not None]
    assert fields[:2] == ["batch.ops[0].put.cookie", "batch.ops[2].put.cookie"]
    assert fields[2].startswith("batch.ops[4].patch.add_oifs[0]")
    assert fields[3:] == ["batch.ops[5].delete.group", "batch.ops[6].put.cookie"]


@pytest.mark.parametrize("ids,bad", [([0], 0), ([5], 0), ([6, 6], 1), ([6, 9, 8, 10], 2)])
def test_ids_grow(ids: list[int], bad: int) -> None:
    made = Message(ops=[Op(id=number, put=exact(1)) for number in ids])
    with pytest.raises(McastdError) as caught:
        check_batch(made, 5)
    assert caught.value.reason is Reason.INVALID_VALUE
    assert caught.value.problem.metadata["field"] == f"batch.ops[{bad}].id"
    assert caught.value.problem.metadata["value"] == str(ids[bad])


def test_an_op_says_something() -> None:
    with pytest.raises(McastdError) as caught:
        check_batch(Message(ops=[Op(id=1, put=exact(1)), Op(id=2)]), 0)
    assert caught.value.problem.metadata["field"] == "batch.ops[1].op"


def test_a_batch_is_bounded() -> None:
    assert len(check_batch(Message(ops=[Op(id=n, delete=key(1)) for n in range(1, OPS_MAX + 1)]), 0).ops) == OPS_MAX
    with pytest.raises(McastdError) as caught:
        check_batch(Message(ops=[Op(id=n, delete=key(1)) for n in range(1, OPS_MAX + 2)]), 0)
    assert caught.value.reason is Reason.TOO_MANY_ITEMS


def test_a_key_without_iif_waits_for_templates_of_its_group_alone() -> None:
    known = Known()
    ops = reader(known)
    wild, other = t.Route(group="239.7.0.0/16", iif="up"), t.RouteKey(group="239.8.0.0/16")
    batch = check_batch(message(wild, other, t.RouteKey(group="239.7.0.0/16"), exact(1)), 0)
    read = ops.read(batch, 0, 4)
    assert ([type(op) for _, op in read.ops], read.end) == ([Template, bytes], 2)
    assert known.asked == 1
    assert ops.read(batch, 2, 4).end == 2
    ops.settled()
    template = read.ops[0][1]
    assert isinstance(template, Template)
    known.keys.append(template.key)
    rest = ops.read(batch, 2, 4)
    assert (rest.ops[0], rest.end) == ((3, template.key), 4)
    assert isinstance(rest.ops[0][1], bytes)
    assert unpack_template_key(rest.ops[0][1]).iif == "up"


def test_a_key_with_iif_waits_for_nobody() -> None:
    wild = t.Route(group="239.7.0.0/16", iif="up")
    batch = check_batch(message(wild, t.RouteKey(group="239.7.0.0/16", iif="up")), 0)
    assert reader().read(batch, 0, 2).end == 2


def test_a_deletion_is_waited_for() -> None:
    batch = check_batch(message(t.RouteKey(group="239.7.0.0/16", iif="up"), t.RouteKey(group="239.7.0.0/16")), 0)
    assert reader().read(batch, 0, 2).end == 1


@pytest.mark.parametrize("text", ["10.0.0.5", "ff3e::1", "239.1.1.1", "::1"])
def test_the_short_way_to_a_key_is_the_long_one(text: str) -> None:
    """Families that do not go together, groups that are none: whatever is not plain takes the long way."""
    for group in ("239.1.1.9", "ff3e::9", "10.1.1.1", text):
        made = message(t.RouteKey(group=group, source=text))
        read = reader().read(check_batch(made, 0), 0, 1)
        same = (":" in group) == (":" in text)
        multicast = group.startswith(("239.", "ff3e"))
        assert bool(read.ops) is (same and multicast), (group, text)
