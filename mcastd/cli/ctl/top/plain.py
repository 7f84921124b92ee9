"""Flows where there is no terminal: a table, or lines of JSON, for each interval."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from mcastd.cli.ctl.columns import Column
from mcastd.cli.ctl.failure import one_line
from mcastd.cli.ctl.table import Table
from mcastd.cli.ctl.top.flows import MARK_WORDS, Flow
from mcastd.cli.ctl.top.view import oif_words
from mcastd.cli.ctl.values import NANOS, format_si, format_timestamp

_LEFT = ("MARK", "GROUP", "SOURCE", "IIF", "OIFS")
_NUMBERS = ("PKT/S", "BIT/S", "PKTS", "BYTES", "WRONG-IF/S")
_TITLES = (*_LEFT, *_NUMBERS, "STATE")


def table_lines(flows: Sequence[Flow]) -> Iterable[str]:
    """A table of flows, titles first."""
    columns = [Column(title, lambda _: (), title in _NUMBERS) for title in _TITLES]
    return Table(columns, None, lambda written, _: written).block([_row(one) for one in flows])


def _row(flow: Flow) -> list[tuple[str, ...]]:
    signs = "".join(mark.value for mark in flow.marks)
    texts = [(signs,) if signs else (".",), (flow.group,), (flow.source or "*",), (one_line(flow.iif) or "*",)]
    oifs = (",".join(oif_words(flow)) or "(drop)",)
    rates = [flow.packet_rate, flow.bit_rate, flow.packets, flow.bytes, flow.wrong_if_rate]
    return [*texts, oifs, *((format_si(rate),) for rate in rates), (flow.state,)]


def json_lines(flows: Sequence[Flow], time: float, *, whole: bool) -> list[str]:
    """A line of JSON for each flow, or one for all (`whole`); `time` in seconds since 1970."""
    stamp = format_timestamp(int(time * 1000) * NANOS // 1000)
    values = [{"time": stamp, **_values(one)} for one in flows]
    return [json.dumps(one, ensure_ascii=False) for one in ([values] if whole else values)]


def _values(flow: Flow) -> dict[str, Any]:
    return {
        "table": flow.table,
        "group": flow.group,
        "source": flow.source,
        "iif": flow.iif,
        "oifs": list(flow.oifs),
        "installed": flow.installed,
        "state": flow.state,
        "owner": flow.owner,
        "monitored": flow.monitored,
        "packets": flow.packets,
        "bytes": flow.bytes,
        "wrong_if": flow.wrong_if,
        "packet_rate": round(flow.packet_rate, 3),
        "byte_rate": round(flow.byte_rate, 3),
        "wrong_if_rate": round(flow.wrong_if_rate, 3),
        "marks": [MARK_WORDS[mark] for mark in flow.marks],
    }
