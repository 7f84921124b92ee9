"""Flows: rates between samples, marks, and order."""

from collections.abc import Mapping
from typing import Any

import pytest

from mcast.v1 import types_pb2 as t
from mcastd.cli.ctl.top.flows import SORTS, Flow, FlowBook, Mark, arrange

STATES: Mapping[int, str] = {number: name.removeprefix("ROUTE_STATE_") for name, number in t.RouteState.items()}
ORIGINS: Mapping[int, str] = {number: name.removeprefix("ORIGIN_") for name, number in t.Origin.items()}
BEGIN = 1_000_000


def route(
    at: float, packets: int, wrong_if: int = 0, *, group: str = "232.1.1.1", last: float | None = None, **fields: Any
) -> t.Route:
    """A route forwarded to one interface as it is listed `at` so many seconds, every packet of it 100 bytes long."""
    state = fields.pop("state", t.ROUTE_STATE_PROGRAMMED)
    made = t.Route(group=group, source=fields.pop("source", "10.0.0.1"), iif="up", oifs=[t.Oif(interface="down1")], **fields)
    made.status.state = state
    if state == t.ROUTE_STATE_PROGRAMMED:
        made.status.installed_oifs.append("down1")
    counters = made.status.counters
    counters.packets, counters.bytes, counters.wrong_if = packets, 100 * packets, wrong_if
    counters.sample_time.FromNanoseconds(int((BEGIN + at) * 1e9))
    made.status.install_time.FromNanoseconds(BEGIN * 10**9)
    if packets:
        counters.last_used.FromNanoseconds(int((BEGIN + (at if last is None else last)) * 1e9))
    return made


def follow(*routes: t.Route) -> Flow:
    """The flow of one route after it was listed so often."""
    book = FlowBook(stall_seconds=5)
    flows = [book.update([one], STATES, ORIGINS) for one in routes]
    return flows[-1][0]


def test_rates_are_those_between_two_samples() -> None:
    flow = follow(route(0, 100), route(2, 300, 50))
    assert (flow.packet_rate, flow.byte_rate, flow.bit_rate, flow.wrong_if_rate) == (100, 10_000, 80_000, 25)


def test_the_first_rate_is_the_daemons() -> None:
    first = route(0, 100)
    first.status.counters.packet_rate, first.status.counters.byte_rate = 7.5, 750
    flow = follow(first)
    assert (flow.packet_rate, flow.byte_rate) == (7.5, 750)


def test_the_same_sample_again_keeps_the_rates() -> None:
    assert follow(route(0, 100), route(1, 150), route(1, 150)).packet_rate == 50


def test_an_entry_that_was_made_anew_counts_from_zero() -> None:
    flow = follow(route(0, 1000), route(2, 10))
    assert flow.packet_rate == 5
    assert flow.byte_rate == 500


def test_a_flow_that_left_and_came_back_has_no_rate_of_the_time_between() -> None:
    book = FlowBook()
    book.update([route(0, 100)], STATES, ORIGINS)
    book.update([], STATES, ORIGINS)
    (flow,) = book.update([route(9, 1000)], STATES, ORIGINS)
    assert flow.packet_rate == 0


@pytest.mark.parametrize(
    "routes,marks",
    [
        ([route(0, 10), route(1, 20)], ()),
        ([route(0, 10, 0), route(1, 20, 5)], (Mark.WRONG_IF,)),
        ([route(0, 10, 5), route(1, 20, 5)], ()),  # wrong ones are over
        ([route(0, 10, last=0), route(4, 10, last=0)], ()),
        ([route(0, 10, last=0), route(6, 10, last=0)], (Mark.STALLED,)),
        ([route(0, 10), route(1, 20, 10)], (Mark.WRONG_IF, Mark.STALLED)),  # all that arrives arrives wrong
        ([route(0, 0), route(60, 0)], ()),  # a route that nobody sends to is no fault
        ([route(0, 0, monitored=True), route(4, 0, monitored=True)], ()),
        ([route(0, 0, monitored=True), route(6, 0, monitored=True)], (Mark.STALLED,)),
        ([route(0, 0, state=t.ROUTE_STATE_PENDING)], (Mark.ABSENT,)),
        ([route(0, 0, state=t.ROUTE_STATE_FAILED)], (Mark.ABSENT,)),
        ([route(0, 10, last=0, state=t.ROUTE_STATE_PARTIAL), route(9, 10, last=0, state=t.ROUTE_STATE_PARTIAL)], (Mark.ABSENT,)),
    ],
)
def test_marks(routes: list[t.Route], marks: tuple[Mark, ...]) -> None:
    assert follow(*routes).marks == marks


def test_a_stop_filter_is_not_stalled() -> None:
    listed = [route(0, 10, last=0), route(9, 10, last=0)]
    for one in listed:
        one.status.origin = t.ORIGIN_STOP
        del one.oifs[:]
        del one.status.installed_oifs[:]
    flow = follow(*listed)
    assert (flow.state, flow.oifs, flow.marks) == ("STOP", (), ())


def test_templates_are_no_flows_but_shared_trees_are() -> None:
    template = t.Route(group="232.0.0.0/8", status=t.RouteStatus(state=t.ROUTE_STATE_TEMPLATE))
    tree = route(0, 10, source="")
    assert [one.source for one in FlowBook().update([template, tree], STATES, ORIGINS)] == [""]


def test_a_route_that_is_not_in_the_kernel_shows_what_was_asked_for() -> None:
    flow = follow(route(0, 0, state=t.ROUTE_STATE_PENDING))
    assert (flow.oifs, flow.installed) == (("down1",), False)


def sort(name: str) -> Any:
    return next(one for one in SORTS if one.name == name)


def listed() -> list[Flow]:
    book = FlowBook()
    groups = ["232.0.0.10", "232.0.0.9", "ff3e::2", "ff3e::10"]
    book.update([route(0, 0, group=group) for group in groups], STATES, ORIGINS)
    counts = [(10, 0), (30, 5), (20, 0), (0, 0)]
    return book.update([route(1, n, w, group=group) for group, (n, w) in zip(groups, counts, strict=True)], STATES, ORIGINS)


def test_orders() -> None:
    flows = listed()
    assert [one.group for one in arrange(flows, sort("bits"))] == ["232.0.0.9", "ff3e::2", "232.0.0.10", "ff3e::10"]
    assert arrange(flows, sort("bits"), reverse=True)[0].group == "ff3e::10"
    assert [one.group for one in arrange(flows, sort("group"))] == ["232.0.0.9", "232.0.0.10", "ff3e::2", "ff3e::10"]
    assert arrange(flows, sort("wrong-if"))[0].group == "232.0.0.9"


def test_each_order_has_a_key_of_its_own() -> None:
    assert len({one.key for one in SORTS}) == len({one.name for one in SORTS}) == len(SORTS)


def test_a_filter_takes_all_words_from_any_column() -> None:
    flows = listed()
    assert [one.group for one in arrange(flows, sort("group"), ["ff3e", "::2"])] == ["ff3e::2"]
    assert arrange(flows, sort("group"), ["down1", "none"]) == []
    assert [one.group for one in arrange(flows, sort("group"), marked=True)] == ["232.0.0.9"]
