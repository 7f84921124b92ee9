"""Events as lines."""

from typing import Any

import pytest

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.cli.ctl.contract import Contract, descriptor_of, message_class
from mcastd.cli.ctl.events import EventLines, is_event
from mcastd.cli.ctl.identity import Identities
from mcastd.cli.ctl.tree import Tree

PUT, DELETE = sv.Event.TYPE_PUT, sv.Event.TYPE_DELETE


@pytest.fixture
def writer(tree: Tree) -> EventLines:
    """Lines without colours."""
    return EventLines(descriptor_of(sv.Event()), Identities(tree.commands), lambda written, _: written, wide=False)


def route(group: str = "239.1.1.1", source: str = "10.0.0.5", **fields: Any) -> t.Route:
    """A route."""
    return t.Route(group=group, source=source, **fields)


def test_new_changed_and_gone(writer: EventLines) -> None:
    lines = [
        writer.line(sv.Event(type=PUT, route=route(iif="eth0", oifs=[t.Oif(interface="eth1")]))),
        writer.line(sv.Event(type=PUT, route=route(iif="eth9"))),
        writer.line(sv.Event(type=PUT, interface=t.Interface(name="eth0", up=True))),
        writer.line(sv.Event(type=DELETE, route=route())),
        writer.line(sv.Event(type=PUT, route=route())),
    ]
    assert lines == [
        "+ route      239.1.1.1  10.0.0.5  eth0  eth1",
        "~ route      239.1.1.1  10.0.0.5  eth9",
        "+ interface  eth0  yes  -  0",
        "- route      239.1.1.1  10.0.0.5",
        "+ route      239.1.1.1  10.0.0.5",
    ]


def test_templates_that_differ_in_iif_are_two(writer: EventLines) -> None:
    signs = [writer.line(sv.Event(type=PUT, route=route("239.0.0.0/8", "", iif=iif)))[0] for iif in ("eth0", "eth1", "eth0")]
    assert signs == ["+", "+", "~"]


def test_tables_tell_routes_apart(writer: EventLines) -> None:
    assert [writer.line(sv.Event(type=PUT, route=route(table=table)))[0] for table in (0, 1, 1)] == ["+", "+", "~"]


def test_a_reset_makes_everything_new(writer: EventLines) -> None:
    writer.line(sv.Event(type=PUT, route=route()))
    writer.forget()
    assert writer.line(sv.Event(type=PUT, route=route())).startswith("+ ")


def test_objects_without_a_table(writer: EventLines) -> None:
    upcall = t.Upcall(cause=t.Source.CAUSE_NO_ROUTE, group="239.1.1.1", source="10.0.0.5", interface="eth0")
    assert writer.line(sv.Event(type=PUT, upcall=upcall)) == "+ upcall     NO_ROUTE  239.1.1.1  10.0.0.5  eth0  0"
    sample = sv.CounterSample(key=t.RouteKey(group="239.1.1.1", source="10.0.0.5"), counters=t.Counters(packets=7))
    assert writer.line(sv.Event(type=PUT, counters=sample)).startswith("+ counters   239.1.1.1  10.0.0.5  -  0  7  0  0")


def test_the_time_is_that_of_the_day(writer: EventLines, monkeypatch: pytest.MonkeyPatch) -> None:
    event = sv.Event(type=PUT, interface=t.Interface(name="eth0"))
    event.time.FromJsonString("2026-11-20T18:00:07Z")
    assert writer.line(event)[2:].split()[0].endswith(":07")


def test_a_kind_that_came_later(writer: EventLines) -> None:
    assert "does not know" in writer.line(sv.Event(type=PUT))


def test_what_is_an_event(lab: Contract) -> None:
    assert is_event(descriptor_of(sv.Event()))
    assert not is_event(descriptor_of(t.Route()))
    everything = message_class(lab.services()[0].methods_by_name["DoEverything"].output_type)
    assert not is_event(descriptor_of(everything()))


def test_names_are_what_commands_take(tree: Tree) -> None:
    identities = Identities(tree.commands)

    def words(message: Any) -> tuple[str, ...]:
        return identities.words(descriptor_of(message))(message)

    assert words(route()) == ("239.1.1.1", "10.0.0.5")
    assert words(t.Join(interface="eth0", group="239.1.1.1")) == ("eth0", "239.1.1.1")
    assert words(t.Interface(name="eth0")) == ("eth0",)
    assert words(t.Source(group="239.1.1.1", source="10.0.0.5", interface="eth0")) == ("239.1.1.1", "10.0.0.5", "eth0")
