"""The text of flows: an encoder of our own, since there may be 100,000 of them, and prometheus-client's takes many times as long.

Whatever is of one family stands together, so the rows are walked once for each family, a slice at a time. docs/metrics.md has
the ratio.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from functools import partial
from typing import NamedTuple
from zlib import crc32

from mcastd.core.tables import KernelTable
from mcastd.telemetry.exposition import Format
from mcastd.telemetry.flows import SLICE, FlowRow, Flows, Names, entry_key, is_stop
from mcastd.telemetry.ports import Row, Sample, TableSample


class Part(NamedTuple):
    """A slice of the kernel's rows."""

    labels: list[str]
    """Empty = the row is left out."""
    rows: Iterable[Row]
    taken: float
    """When they were read, seconds since the epoch."""
    origin: Callable[[bytes], str]
    """The further labels of mcastd_flow_info, by key."""
    expected: frozenset[bytes]
    """Keys of entries of which traffic is expected."""

    def chosen(self) -> Iterator[tuple[str, Row]]:
        """Rows that are not left out, with their labels."""
        pairs = zip(self.labels, self.rows, strict=True)
        return pairs if all(self.labels) else (pair for pair in pairs if pair[0])


class Family(NamedTuple):
    """One family of flow metrics."""

    name: str
    """Without _total or _info."""
    kind: str
    text: str
    of_page: Callable[[str, Iterable[FlowRow]], Iterable[str]]
    """Lines of chosen flows, given the name of their samples."""
    of_rows: Callable[[str, Part], Iterable[str]]
    """Lines of rows of the kernel."""

    @property
    def sample(self) -> str:
        """Name of its samples."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


FAMILIES = (
    Family(
        "mcastd_flow_packets",
        "counter",
        "Packets of an (S,G) that came in, on a wrong interface too (mfc_pkt, mfcs_packets).",
        lambda name, rows: [f"{name}{one.labels} {one.packets}\n" for one in rows if one.counted],
        lambda name, part: [f"{name}{text} {row[0]}\n" for text, row in part.chosen()],
    ),
    Family(
        "mcastd_flow_bytes",
        "counter",
        "Bytes of an (S,G) that came in, on a wrong interface too, IP headers included (mfc_bytes, mfcs_bytes).",
        lambda name, rows: [f"{name}{one.labels} {one.octets}\n" for one in rows if one.counted],
        lambda name, part: [f"{name}{text} {row[1]}\n" for text, row in part.chosen()],
    ),
    Family(
        "mcastd_flow_wrong_interface_packets",
        "counter",
        "Packets of an (S,G) that came in on another interface than its iif: not forwarded (mfc_wrong_if, mfcs_wrong_if).",
        lambda name, rows: [f"{name}{one.labels} {one.wrong_if}\n" for one in rows if one.counted],
        lambda name, part: [f"{name}{text} {row[2]}\n" for text, row in part.chosen()],
    ),
    Family(
        "mcastd_flow_last_used_timestamp_seconds",
        "gauge",
        "When the last packet of an (S,G) was seen, seconds since the epoch; 0 = none was (RTA_EXPIRES, lastuse).",
        lambda name, rows: [f"{name}{one.labels} {one.last_used:.2f}\n" for one in rows],
        lambda name, part: [
            f"{name}{text} {part.taken - row[3]:.2f}\n" if row[0] and row[3] >= 0 else f"{name}{text} 0\n"
            for text, row in part.chosen()
        ],
    ),
    Family(
        "mcastd_flow_expected",
        "gauge",
        "1 for routes with `monitored`: traffic is expected of them.",
        lambda name, rows: [f"{name}{one.labels} 1\n" for one in rows if one.expected],
        lambda name, part: (
            [f"{name}{text} 1\n" for text, row in part.chosen() if row[7] in part.expected] if part.expected else ()
        ),
    ),
    Family(
        "mcastd_flow",
        "info",
        "Whose flow it is: the owner of its route or template (set), and the cookie that he gave it (name).",
        lambda name, rows: [f"{name}{one.labels[:-1]},{one.origin}}} 1\n" for one in rows],
        lambda name, part: [f"{name}{text[:-1]},{part.origin(row[7])}}} 1\n" for text, row in part.chosen()],
    ),
)
"""In the order in which they are written."""


async def page_text(rows: list[FlowRow], form: Format, names: Collection[str]) -> AsyncIterator[bytes]:
    """The chosen flows; `names` = of samples, to which it is restricted (empty = all)."""
    for family in _wanted(names):
        header = form.header(family.name, family.kind, family.text)
        for at in range(0, len(rows), SLICE):
            text = "".join(family.of_page(family.sample, rows[at : at + SLICE]))
            if text:
                yield (header + text).encode()
                header = ""
            await asyncio.sleep(0)


async def every_text(
    flows: Flows, sample: Sample, form: Format, names: Collection[str], shard: tuple[int, int] = (0, 1)
) -> AsyncIterator[bytes]:
    """Every flow of a shard (which, of how many)."""
    slices: list[tuple[KernelTable, TableSample, int, list[str]]] = []
    flows.names.trim(sum(map(len, sample.tables)))
    for table in sample.tables:
        kernel = flows.engine.tables.get((table.table, table.family))
        for at in range(0, len(table) if kernel is not None else 0, SLICE):
            if kernel is not None:
                slices.append((kernel, table, at, _labels(flows.names, kernel, table, at, shard)))
            await asyncio.sleep(0)
    expected = frozenset(entry_key(one.route) for one in flows.silence.expected.values())
    for family in _wanted(names):
        header = form.header(family.name, family.kind, family.text)
        for kernel, table, at, labels in slices:
            part = Part(labels, table.rows(at, at + SLICE), table.taken, partial(flows.names.origin, kernel), expected)
            text = "".join(family.of_rows(family.sample, part))
            if text:
                yield (header + text).encode()
                header = ""
            await asyncio.sleep(0)


def _wanted(names: Collection[str]) -> Iterator[Family]:
    return (family for family in FAMILIES if not names or family.sample in names)


def _labels(names: Names, kernel: KernelTable, table: TableSample, at: int, shard: tuple[int, int]) -> list[str]:
    """Labels of a slice of rows; empty for what is no flow, or of another shard."""
    number, count = shard
    iifs, labels = table.iifs, names.labels
    if count == 1 and not kernel.learned and not table.unresolved:
        return [labels(row[7], iifs[row[4]]) for row in table.rows(at, at + SLICE)]
    return [
        labels(row[7], iifs[row[4]])
        if not row[6] and (count == 1 or crc32(row[7]) % count == number) and not is_stop(kernel, row[7])
        else ""
        for row in table.rows(at, at + SLICE)
    ]
