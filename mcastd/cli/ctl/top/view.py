"""What `mcastctl top` shows: the state that keys change, and the lines made of it for a screen of some size. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcastd.cli.ctl.failure import one_line
from mcastd.cli.ctl.plain import nanos_of
from mcastd.cli.ctl.screen import BOLD, RED, YELLOW, colour
from mcastd.cli.ctl.top import keys
from mcastd.cli.ctl.top.flows import MARK_WORDS, SORTS, Flow, Mark, Sort, arrange
from mcastd.cli.ctl.values import NANOS, format_age, format_si

REVERSE = "7"

_HELP = (
    ("p b w t", "sort by packets/s, bits/s, wrong-interface packets/s, total packets"),
    ("g s i", "sort by group, source, incoming interface"),
    ("r", "the other way round"),
    ("/", "show only flows in which all words occur (group, source, interfaces, state, owner); Esc shows all again"),
    ("m", "show only flows that are marked"),
    ("space", "pause, or go on"),
    ("arrows", "move; also page up, page down, home, end"),
    ("q", "quit; so does Ctrl-C"),
    ("", ""),
    (Mark.WRONG_IF.value, "packets arrive on another interface than the route's: they are dropped"),
    (Mark.STALLED.value, "there was traffic, or it is monitored, and nothing is forwarded now"),
    (Mark.ABSENT.value, "the kernel does not forward as asked (PARTIAL, PENDING, FAILED): see route list"),
)
_BRIEF = "q quit  h help  p b w t g s i sort  r reverse  / filter  m marked  space pause"


_AROUND = 5
"""Lines that are no rows: three above, the titles, and the keys."""


@dataclass(slots=True)
class Picture:
    """The last that is known of the daemon."""

    address: str
    flows: list[Flow] = field(default_factory=list)
    status: Any = None
    """GetStatusResponse; None = the daemon has not answered yet."""
    trouble: str = ""
    """Why there is no news; empty = there is."""
    since: float = 0.0
    """When the trouble began, by the monotonic clock."""
    time: float = 0.0
    """When the flows were sampled, in seconds since 1970."""


@dataclass(slots=True)
class View:
    """What the user has chosen to see."""

    sort: Sort = SORTS[1]
    reverse: bool = False
    filter: str = ""
    marked: bool = False
    paused: bool = False
    help: bool = False
    editing: str | None = None
    """The filter while it is typed; None = it is not."""
    first: int = 0
    """The first row shown."""
    page: int = 1
    """Rows that fit; known once something was drawn."""

    def press(self, key: str) -> bool:
        """Do what a key asks for; False = quit."""
        if self.editing is not None:
            self._edit(key)
        elif key == "q":
            return False
        elif self.help:
            self.help = False
        else:
            self._command(key)
        return True

    def _edit(self, key: str) -> None:
        text = self.editing or ""
        match key:
            case keys.ENTER:
                self.editing = None
            case keys.ESCAPE:
                self.editing, self.filter = None, ""
            case keys.ERASE:
                self.editing = text[:-1]
            case keys.ERASE_ALL:
                self.editing = ""
            case _ if len(key) == 1:
                self.editing = text + key
        if self.editing is not None:
            self.filter = self.editing
        self.first = 0

    def _command(self, key: str) -> None:
        sort = next((one for one in SORTS if one.key == key), None)
        if sort is not None:
            self.sort, self.reverse, self.first = sort, False, 0
        match key:
            case "r":
                self.reverse = not self.reverse
            case "/":
                self.editing = self.filter
            case keys.ESCAPE:
                self.filter, self.marked = "", False
            case "m":
                self.marked, self.first = not self.marked, 0
            case " ":
                self.paused = not self.paused
            case "h" | "?":
                self.help = True
            case _:
                self._move(key)

    def _move(self, key: str) -> None:
        steps = {keys.UP: -1, keys.DOWN: 1, keys.PAGE_UP: -self.page, keys.PAGE_DOWN: self.page}
        if key in steps:
            self.first = max(0, self.first + steps[key])
        elif key in {keys.HOME, keys.END}:
            self.first = 0 if key == keys.HOME else 1 << 40  # render() knows how many there are


def render(view: View, picture: Picture, size: tuple[int, int], now: float, *, colours: bool) -> list[str]:
    """The lines of a whole screen of `size` (columns, lines); `now` by the monotonic clock."""
    width, height = size
    flows = arrange(picture.flows, view.sort, view.filter.lower().split(), reverse=view.reverse, marked=view.marked)
    paint = colour if colours else _plain
    view.page = max(1, height - _AROUND)
    view.first = max(0, min(view.first, len(flows) - view.page))
    head = [
        paint(_fit(_first_line(view, picture), width), BOLD),
        _fit(_totals(picture.flows), width),
        _notice(view, picture, now, len(flows), width, paint),
    ]
    if view.help:
        body = ["", *(_fit(f"  {key:<8} {text}", width) for key, text in _HELP)]
    else:
        body = _table(flows[view.first : view.first + view.page], width, paint)
    room = max(0, height - len(head) - 1)
    body = (body + [""] * room)[:room]
    return [*head, *body, paint(_fit(_BRIEF, width), BOLD)][:height]


def _plain(text: str, _tone: str) -> str:
    return text


def _fit(text: str, width: int) -> str:
    return text[:width]


def _first_line(view: View, picture: Picture) -> str:
    status = picture.status
    parts = [f"mcastctl top  {picture.address}"]
    if status is not None:
        limits = status.limits
        up = format_age(int(picture.time * NANOS) - nanos_of(status.start_time))
        parts.append(f"mcastd {status.version}  up {up}  VIFs {limits.vifs_used}/{limits.vifs_max}")
        parts.append(f"routes {limits.routes}/{format_si(limits.routes_max)}  upcalls lost {limits.kernel_upcalls_lost}")
    if view.paused:
        parts.append("PAUSED")
    return "  ".join(parts)


def _totals(flows: Sequence[Flow]) -> str:
    """What all flows are together, whatever is shown."""
    active = sum(one.packet_rate > 0 for one in flows)
    counts = {mark: sum(mark in one.marks for one in flows) for mark in Mark}
    return (
        f"flows {len(flows)}, {active} active  {format_si(sum(one.packet_rate for one in flows))} pkt/s  "
        f"{format_si(sum(one.bit_rate for one in flows))} bit/s  "
        f"{format_si(sum(one.wrong_if_rate for one in flows))} wrong-if/s  "
        + "  ".join(f"{mark.value} {counts[mark]} {MARK_WORDS[mark]}" for mark in Mark)
    )


def _notice(view: View, picture: Picture, now: float, shown: int, width: int, paint: Callable[[str, str], str]) -> str:
    """The line that says what is being done, or why nothing is."""
    if view.editing is not None:
        return paint(_fit(f"filter: {view.editing}_", width), BOLD)
    if picture.trouble:
        since = format_age(int((now - picture.since) * NANOS))
        return paint(_fit(f"no news for {since}, trying again: {one_line(picture.trouble)}", width), RED)
    order = f"by {view.sort.name}{' reversed' if view.reverse else ''}"
    parts = [order, *([f"filter {view.filter!r}"] if view.filter else []), *(["marked only"] if view.marked else [])]
    last = min(shown, view.first + view.page)
    parts.append(f"rows {min(view.first + 1, shown)}-{last} of {shown}")
    return _fit("  ".join(parts), width)


_Cell = tuple[str, Callable[[Flow], str]]

_RIGHT: Sequence[_Cell] = (
    ("PKT/S", lambda flow: format_si(flow.packet_rate)),
    ("BIT/S", lambda flow: format_si(flow.bit_rate)),
    ("PKTS", lambda flow: format_si(flow.packets)),
    ("BYTES", lambda flow: format_si(flow.bytes)),
    ("WRONG/S", lambda flow: format_si(flow.wrong_if_rate)),
)
_DISPENSABLE = ("BYTES", "PKTS", "STATE", "WRONG/S")
"""Columns that a narrow screen does without, in this order."""
_NUMBER_WIDTH = 7
_PATH_LEAST = 16
_ADDRESS_LEAST = 12
"""Characters of an address that a narrow screen still shows, so that rates stay on it."""


def _table(flows: Sequence[Flow], width: int, paint: Callable[[str, str], str]) -> list[str]:
    """Titles and rows."""
    group = max([5, *(len(one.group) for one in flows)])
    source = max([6, *(len(one.source) for one in flows)])
    state = max([5, *(len(one.state) for one in flows)])
    numbers = list(_RIGHT)
    with_state = True

    def used() -> int:
        return 3 + group + 2 + source + 2 + (_NUMBER_WIDTH + 2) * len(numbers) + (state + 2) * with_state

    for name in _DISPENSABLE:
        if width - used() >= _PATH_LEAST:
            break
        numbers = [one for one in numbers if one[0] != name]
        with_state = with_state and name != "STATE"
    source = _narrowed(source, used() + _PATH_LEAST - width)
    group = _narrowed(group, used() + _PATH_LEAST - width)
    path = max(_PATH_LEAST, min(width - used(), max([12, *(len(_path(one, 1 << 20)) for one in flows)])))

    def line(mark: str, cells: Sequence[str], values: Sequence[str], last: str) -> str:
        left = f"{mark:<3}{cells[0]:<{group}}  {cells[1]:<{source}}  {cells[2]:<{path}}"
        return "".join((left, *(f"  {value:>{_NUMBER_WIDTH}}" for value in values), f"  {last:<{state}}" if with_state else ""))

    titles = line("", ("GROUP", "SOURCE", "IIF -> OIFS"), [name for name, _ in numbers], "STATE")
    lines = [paint(_fit(f"{titles:<{width}}", width), REVERSE)]
    for flow in flows:
        signs = "".join(mark.value for mark in flow.marks)
        names = _cut(flow.group, group), _cut(flow.source or "*", source), _path(flow, path)
        text = line(signs, names, [read(flow) for _, read in numbers], flow.state)
        text = _fit(text.rstrip(), width)
        tone = RED if Mark.WRONG_IF in flow.marks else YELLOW if flow.marks else ""
        lines.append(paint(text, tone) if tone else text)
    return lines


def _narrowed(column: int, excess: int) -> int:
    """The width of a column of addresses where the line is too long by so much."""
    return max(min(column, _ADDRESS_LEAST), column - max(0, excess))


def _cut(address: str, width: int) -> str:
    """Its end is what tells it from others."""
    return address if len(address) <= width else f"~{address[1 - width :]}"


def oif_words(flow: Flow) -> list[str]:
    """The outgoing interfaces; in brackets where the kernel does not send to them."""
    names = map(one_line, flow.oifs)
    return list(names) if flow.installed else [f"({name})" for name in names]


def _path(flow: Flow, width: int) -> str:
    """Where packets come from and go to; where there is no room for all, how many more there are."""
    oifs = oif_words(flow)
    begin = f"{one_line(flow.iif) or '*'} -> "
    text = begin + (",".join(oifs) or "(drop)")
    for kept in range(len(oifs) - 1, -1, -1):
        if len(text) <= width:
            break
        text = begin + ",".join([*oifs[:kept], f"+{len(oifs) - kept}"])
    return text[:width]
