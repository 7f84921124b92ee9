"""What the demo shows, as pictures and tables: how a thing is put, not whether it is right."""

from collections.abc import Iterable, Sequence

from demo.show import Cell, Column, Mark
from demo.stage import Process
from demo.traffic import Arrival, Count
from tests.testbed import Star

Table = tuple[Sequence[Column], list[list[Cell]]]

_PICTURE = """\
                         +----------+ {0.downlinks[0].name} ------- receiver1  {0.receivers[0].ipv4}
source ------------- {0.uplink.name}  |  router  | {0.downlinks[1].name} ------- receiver2  {0.receivers[1].ipv4}
{0.source.ipv4:<24} |  mcastd  | {0.downlinks[2].name} ------- receiver3  {0.receivers[2].ipv4}
{0.source.ipv6:<24} +----------+"""


def topology(star: Star) -> str:
    """The network as a picture."""
    return _PICTURE.format(star)


def processes(running: Iterable[Process]) -> Table:
    """Who runs as whom."""
    rows = [[Cell(one.name), Cell(str(one.pid)), Cell(one.user), Cell(" ".join(one.capabilities) or "none")] for one in running]
    return [Column("process"), Column("pid", right=True), Column("user"), Column("capabilities")], rows


def counts(looked: Sequence[Count], stopped: tuple[str, str] | None = None) -> Table:
    """What was sent, and what each receiver got of it; `stopped` is a group and a receiver that is to get it no more."""
    names = [arrival.receiver for arrival in looked[0].arrivals]
    columns = [Column("packets of"), Column("sent", right=True), *(Column(f"  {name}", right=True) for name in names)]
    rows = [
        [Cell(one.group), Cell(f"{one.sent:,}")]
        + [_got(arrival, one.sent, stopped=stopped == (one.group, arrival.receiver)) for arrival in one.arrivals]
        for one in looked
    ]
    return columns, rows


def _got(arrival: Arrival, sent: int, *, stopped: bool) -> Cell:
    """A number; a dash where no route leads and nothing came; an exclamation mark where something is wrong."""
    if not arrival.wanted and not arrival.packets:
        return Cell("stopped", Mark.STRONG) if stopped else Cell("-", Mark.FAINT)
    if arrival.wanted and arrival.packets == sent:
        return Cell(f"{arrival.packets:,}")
    return Cell(f"! {arrival.packets:,}", Mark.BAD)
