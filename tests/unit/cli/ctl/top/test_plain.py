"""Tables and lines of JSON for programs."""

import json

from mcastd.cli.ctl.top.flows import Flow, Mark
from mcastd.cli.ctl.top.plain import json_lines, table_lines


def flow(**fields: object) -> Flow:
    values = {"table": 0, "group": "232.0.0.1", "source": "10.0.0.1", "iif": "up", "oifs": ("down1", "down2"), "installed": True}
    more = {"state": "PROGRAMMED", "owner": "alice", "monitored": False, "packets": 1234, "bytes": 99, "packet_rate": 10.0}
    return Flow(**{**values, **more, "byte_rate": 125.0, **fields})  # type: ignore[arg-type]


def test_a_table() -> None:
    titles, first, second = table_lines([flow(), flow(source="", oifs=(), marks=(Mark.WRONG_IF, Mark.STALLED))])
    assert titles.split() == ["MARK", "GROUP", "SOURCE", "IIF", "OIFS", "PKT/S", "BIT/S", "PKTS", "BYTES", "WRONG-IF/S", "STATE"]
    assert first.split() == [".", "232.0.0.1", "10.0.0.1", "up", "down1,down2", "10", "1.00k", "1.23k", "99", "0", "PROGRAMMED"]
    assert second.split()[:5] == ["!-", "232.0.0.1", "*", "up", "(drop)"]


def test_an_empty_table_has_titles() -> None:
    assert len(list(table_lines([]))) == 1


def test_json_has_numbers_as_they_are() -> None:
    lines = json_lines([flow(), flow(marks=(Mark.ABSENT,))], 1_800_000_000.25, whole=False)
    first, second = map(json.loads, lines)
    assert first["time"] == "2027-01-15T08:00:00.250Z"
    assert (first["packets"], first["byte_rate"], first["oifs"], first["marks"]) == (1234, 125.0, ["down1", "down2"], [])
    assert second["marks"] == ["not as asked"]


def test_json_as_one_array() -> None:
    (line,) = json_lines([flow(), flow()], 1.0, whole=True)
    assert len(json.loads(line)) == 2
    assert json_lines([], 1.0, whole=True) == ["[]"]
