"""Columns and tables: what cells say, and how a table fits a terminal."""

import time
from typing import Any

import pytest

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.cli.ctl.columns import BadColumnError, chosen_columns, declared_columns
from mcastd.cli.ctl.contract import Contract, descriptor_of, message_class
from mcastd.cli.ctl.details import detail_lines
from mcastd.cli.ctl.table import Table

ROUTE = descriptor_of(t.Route())


def plain(written: str, _text: str) -> str:
    """Paint nothing."""
    return written


def route(group: str = "239.1.1.1", source: str = "10.0.0.5", oifs: int = 2, **status: Any) -> t.Route:
    """A route as it is listed."""
    names = [f"eth{n}" for n in range(1, oifs + 1)]
    return t.Route(
        group=group,
        source=source,
        iif="eth0",
        oifs=[t.Oif(interface=name) for name in names],
        status=t.RouteStatus(state=t.ROUTE_STATE_PROGRAMMED, owner="local", installed_oifs=names, **status),
    )


def lines(width: int | None, *routes: t.Route, wide: bool = False) -> list[str]:
    """The lines of a table of routes."""
    columns = declared_columns(ROUTE, wide=wide)
    return list(Table(columns, width, plain).block([[column.read(one) for column in columns] for one in routes]))


def cells(one: Any, *names: str) -> list[str]:
    """The cells of some columns."""
    return [",".join(column.read(one)) for column in chosen_columns(descriptor_of(one), names)]


def test_a_table_as_declared() -> None:
    counted = route(counters=t.Counters(packets=1234, bytes=0))
    assert lines(None, route(), counted) == [
        "GROUP      SOURCE    IIF   OIFS       STATE        PKTS  BYTES",
        "239.1.1.1  10.0.0.5  eth0  eth1,eth2  PROGRAMMED      -      -",
        "239.1.1.1  10.0.0.5  eth0  eth1,eth2  PROGRAMMED  1.23k      0",
    ]


def test_wide_has_more() -> None:
    assert lines(None, wide=True)[0].endswith("PKT/S  BIT/S  WRONG-IF  OWNER  COOKIE  AGE")


def test_the_first_of_alternatives_that_is_set() -> None:
    pending = route(oifs=3)
    pending.status.ClearField("installed_oifs")
    pending.status.state = t.ROUTE_STATE_PENDING
    assert cells(pending, "oifs") == ["(eth1),(eth2),(eth3)"]
    assert cells(t.Route(), "oifs", "source", "state") == ["", "", ""]


def test_interfaces_that_are_only_asked_for_are_told_apart() -> None:
    asked = route(oifs=2)
    assert cells(asked, "oifs") == ["eth1,eth2"]
    del asked.status.installed_oifs[1]
    assert cells(asked, "oifs") == ["eth1"]
    del asked.status.installed_oifs[:]
    assert cells(asked, "oifs", "oifs.interface") == ["(eth1),(eth2)", "eth1,eth2"]
    asked.status.state = t.ROUTE_STATE_TEMPLATE
    assert cells(asked, "oifs") == ["eth1,eth2"]
    asked.ClearField("status")
    assert cells(asked, "oifs") == ["eth1,eth2"]
    assert cells(route(oifs=0), "oifs") == [""]
    change = rs.RouteChange(before=route())
    assert cells(change, "group") == ["239.1.1.1"]


def test_formats() -> None:
    listed = route(counters=t.Counters(byte_rate=1e6, packet_rate=2.5))
    listed.status.install_time.FromNanoseconds(time.time_ns() - 90 * 10**9)
    assert cells(listed, "bit/s", "pkt/s", "WRONG-IF", "age") == ["8.00M", "2.5", "0", "1m30s"]
    vifs = t.Interface(name="x", up=True, vifs=[t.Vif(index=1, in_bytes=1000), t.Vif(index=2, in_bytes=500)])
    assert cells(vifs, "vifs", "in", "up", "pinned", "routes") == ["1,2", "1.50k", "yes", "no", "0"]
    assert cells(t.Interface(name="x"), "in") == [""]


def test_fields_by_path() -> None:
    listed = route()
    listed.status.last_error.metadata["b"] = "2"
    listed.idle_timeout.FromSeconds(90)
    assert cells(listed, "status.origin", "idle_timeout", "join", "monitored") == ["", "1m30s", "no", "no"]
    assert [column.title for column in chosen_columns(ROUTE, ["idle_timeout"])] == ["IDLE-TIMEOUT"]
    with pytest.raises(BadColumnError):
        chosen_columns(ROUTE, ["status.nothing"])


def test_a_value_of_an_enum_that_came_later_is_its_number() -> None:
    assert cells(t.Route(status=t.RouteStatus(state=99)), "state") == ["99"]  # type: ignore[arg-type] # that is the point


def test_free_text_cannot_talk_to_the_terminal() -> None:
    assert cells(t.Route(cookie="a\x1b[31m\nb"), "cookie") == ["a\\x1b[31m\\nb"]


def test_lists_are_wrapped_where_the_terminal_is_narrow() -> None:
    assert lines(66, route(oifs=6)) == [
        "GROUP      SOURCE    IIF   OIFS            STATE       PKTS  BYTES",
        "239.1.1.1  10.0.0.5  eth0  eth1,eth2,      PROGRAMMED     -      -",
        "                           eth3,eth4,",
        "                           eth5,eth6",
    ]


def test_rows_are_folded_where_that_is_not_enough() -> None:
    long = route("ff3e:1111:2222:3333:4444:5555:6666:7777", "2001:db8:1111:2222:3333:4444:5555:6666")
    assert lines(80, long) == [
        "GROUP                                    SOURCE",
        "    IIF   OIFS       STATE       PKTS  BYTES",
        "ff3e:1111:2222:3333:4444:5555:6666:7777  2001:db8:1111:2222:3333:4444:5555:6666",
        "    eth0  eth1,eth2  PROGRAMMED     -      -",
    ]
    assert len(lines(200, long)) == 2


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    shown = lines(width, route(oifs=32), route("ff3e::1:2:3:4", "2001:db8::1", oifs=12), wide=True)
    assert max(map(len, shown)) <= width
    text = " ".join(shown)
    for n in range(1, 33):
        assert f"eth{n}" in text


def test_nothing_is_cut_in_a_pipe() -> None:
    assert lines(None, route(oifs=200))[1].count("eth") == 201


def test_columns_grow_from_block_to_block() -> None:
    columns = declared_columns(ROUTE, wide=False)
    table = Table(columns, None, plain)
    first = list(table.block([[column.read(route()) for column in columns]]))
    second = list(table.block([[column.read(route("ff3e::1234:5678")) for column in columns]]))
    assert len(first) == 2
    assert second == ["ff3e::1234:5678  10.0.0.5  eth0  eth1,eth2  PROGRAMMED     -      -"]


def test_titles_come_again_when_the_folds_move() -> None:
    columns = declared_columns(ROUTE, wide=False)
    table = Table(columns, 80, plain)
    list(table.block([[column.read(route()) for column in columns]]))
    long = [
        column.read(route("ff3e:1111:2222:3333:4444:5555:6666:7777", "2001:db8:1111:2222:3333:4444:5555:6666"))
        for column in columns
    ]
    assert sum("GROUP" in line for line in table.block([long])) == 1


def test_details() -> None:
    status = sv.GetStatusResponse(version="1.0", revision=7, features=["a", "b"], owners=[sv.Owner(name="lab", entries=3)])
    status.limits.routes_max = 10
    status.start_time.FromJsonString("2026-11-20T18:00:00.5Z")
    assert list(detail_lines(status, None, plain)) == [
        "Version:      1.0",
        "Instance id:",
        "Revision:     7",
        "Start time:   2026-11-20T18:00:00Z",
        "Features:     a, b",
        "Limits:",
        "  Vifs used:            0",
        "  Vifs max:             0",
        "  Routes:               0",
        "  Routes max:           10",
        "  Kernel upcalls lost:  0",
        "Owners:",
        "  NAME  EPOCH  CONNECTED  ENTRIES  STALE  REVISION",
        "  lab       0  no               3      0         0",
    ]


def test_details_of_everything(lab: Contract) -> None:
    everything: Any = message_class(lab.services()[0].methods_by_name["DoEverything"].output_type)
    made = everything(
        text="a", labels={"k": "v"}, numbers=[1, 2], data=b"\xff", parts=[{"name": "p", "count": 2}], tag={"label": "t"}
    )
    shown = "\n".join(detail_lines(made, 80, plain))
    for line in (
        "Text:",
        "Numbers:",
        "1, 2",
        "Data:",
        "ff",
        "Labels:\n  k: v",
        "Parts:\n  NAME  COUNT\n  p         2",
        "Tag:\n  Label:   t",
    ):
        assert line in shown
