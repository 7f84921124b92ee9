"""Routes of the API and the controller's entries are the same thing."""

import pytest

from mcast.v1 import types_pb2 as t
from mcast_controller.router import message, parse
from mcast_controller.topology import Port
from mcast_controller.trees import Entry, Flow

FLOW = Flow("ff3e::1", "fd00::1")


def test_what_is_written_is_read() -> None:
    entry = Entry("spine1", frozenset({"hosts", "eth9"}), Port("leaf1", "hosts"))
    route = message(FLOW, entry)
    assert route.cookie == "leaf1/hosts"
    assert [oif.interface for oif in route.oifs] == ["eth9", "hosts"]
    assert parse(route) == (FLOW, entry)


@pytest.mark.parametrize(
    "route",
    [
        t.Route(group="232.1.1.1", source="10.0.0.1", iif="a"),
        t.Route(group="232.1.1.1", source="10.0.0.1", iif="a", cookie="/x"),
        t.Route(group="232.1.1.1", source="10.0.0.1", iif="a", cookie="x/"),
        t.Route(group="232.1.1.1", iif="a", cookie="x/y"),
        t.Route(group="232.1.1.0/24", source="10.0.0.1", iif="a", cookie="x/y"),
    ],
)
def test_what_others_write_is_left_out(route: t.Route) -> None:
    assert parse(route) is None
