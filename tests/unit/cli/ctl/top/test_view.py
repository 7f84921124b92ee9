"""The picture: what keys change, and that it fits every screen."""

import re

import pytest

from mcast.v1 import services_pb2 as sv
from mcastd.cli.ctl.top import keys
from mcastd.cli.ctl.top.flows import Flow, Mark
from mcastd.cli.ctl.top.view import Picture, View, render

WIDE = (140, 20)


def flow(number: int, **fields: object) -> Flow:
    values = {"table": 0, "group": f"232.0.0.{number}", "source": "10.0.0.1", "iif": "up", "oifs": ("down1", "down2")}
    more = {"installed": True, "state": "PROGRAMMED", "owner": "alice", "monitored": False, "byte_rate": 1000.0 * number}
    return Flow(**{**values, **more, **fields})  # type: ignore[arg-type]


def picture(count: int = 3, **fields: object) -> Picture:
    status = sv.GetStatusResponse(version="1.2.3", limits=sv.Limits(vifs_used=4, vifs_max=32, routes=5, routes_max=1_000_000))
    status.start_time.FromSeconds(1000)
    flows = [flow(n) for n in range(1, count + 1)]
    return Picture("unix:/x", flows, status, time=1000 + 7500, **fields)  # type: ignore[arg-type]


def draw(view: View, shown: Picture, size: tuple[int, int] = WIDE, *, colours: bool = False, now: float = 0.0) -> str:
    return "\n".join(render(view, shown, size, now, colours=colours))


def press(view: View, *names: str) -> View:
    for name in names:
        assert view.press(name)
    return view


def groups(text: str) -> list[str]:
    return re.findall(r"^[!?-]* *(232\.0\.0\.\d+) ", text, re.MULTILINE)


def test_the_header_tells_of_the_daemon_and_of_all_flows() -> None:
    lines = draw(View(), picture()).splitlines()
    assert lines[0] == "mcastctl top  unix:/x  mcastd 1.2.3  up 2h5m  VIFs 4/32  routes 5/1.00M  upcalls lost 0"
    assert lines[1].startswith("flows 3, 0 active  0 pkt/s  48.0k bit/s  0 wrong-if/s  ! 0 wrong interface")
    assert lines[2] == "by bits  rows 1-3 of 3"


def test_q_quits_and_everything_else_does_not() -> None:
    view = View()
    assert all(view.press(key) for key in ("x", "é", keys.ESCAPE, "r", " "))
    assert not view.press("q")


def test_sort_and_reverse() -> None:
    view, shown = View(), picture()
    assert groups(draw(view, shown)) == ["232.0.0.3", "232.0.0.2", "232.0.0.1"]
    assert groups(draw(press(view, "g"), shown)) == ["232.0.0.1", "232.0.0.2", "232.0.0.3"]
    assert groups(draw(press(view, "r"), shown))[0] == "232.0.0.3"
    assert "by group reversed" in draw(view, shown)


def test_a_filter_is_typed_seen_at_once_and_taken_back() -> None:
    view, shown = View(), picture()
    press(view, "/", "0", ".", "2", "q")
    assert draw(view, shown).splitlines()[2] == "filter: 0.2q_"
    assert groups(draw(view, shown)) == []
    press(view, keys.ERASE)
    assert groups(draw(view, shown)) == ["232.0.0.2"]
    press(view, keys.ENTER)
    assert "filter '0.2'  rows 1-1 of 1" in draw(view, shown)
    press(view, keys.ESCAPE)
    assert len(groups(draw(view, shown))) == 3
    press(view, "/", "x", keys.ERASE_ALL, keys.ENTER)
    assert view.filter == ""


def test_marked_alone() -> None:
    shown = picture()
    shown.flows[0].marks = (Mark.STALLED,)
    assert groups(draw(press(View(), "m"), shown)) == ["232.0.0.1"]


def test_moving_stays_inside() -> None:
    view, shown = View(), picture(50)
    size = (140, 15)
    draw(view, shown, size)
    assert view.page == 10
    assert groups(draw(press(view, keys.DOWN), shown, size))[0] == "232.0.0.49"
    assert groups(draw(press(view, keys.PAGE_DOWN), shown, size))[0] == "232.0.0.39"
    assert groups(draw(press(view, keys.END), shown, size)) == [f"232.0.0.{n}" for n in range(10, 0, -1)]
    assert groups(draw(press(view, keys.DOWN), shown, size))[0] == "232.0.0.10"
    assert groups(draw(press(view, keys.HOME, keys.UP), shown, size))[0] == "232.0.0.50"


def test_help_comes_and_goes() -> None:
    view, shown = View(), picture()
    assert "sort by group, source" in draw(press(view, "h"), shown)
    assert "sort by group, source" not in draw(press(view, "x"), shown)


def test_trouble_is_said_with_its_age() -> None:
    shown = picture(trouble="UNAVAILABLE: no daemon\nanswers", since=10.0)
    text = draw(View(), shown, now=75.0)
    assert "no news for 1m5s, trying again: UNAVAILABLE: no daemon answers" in text
    assert len(groups(text)) == 3


def test_marks_are_signs_and_colours() -> None:
    shown = picture()
    shown.flows[0].marks = (Mark.WRONG_IF, Mark.STALLED)
    shown.flows[1].marks = (Mark.ABSENT,)
    lines = draw(View(), shown, colours=True).splitlines()
    assert any(line.startswith("\x1b[31m!- 232.0.0.1 ") for line in lines)
    assert any(line.startswith("\x1b[33m?  232.0.0.2 ") for line in lines)
    assert "\x1b" not in draw(View(), shown)


def test_oifs_that_have_no_room_are_counted() -> None:
    shown = picture(1)
    shown.flows[0].oifs = tuple(f"down{n}" for n in range(32))
    assert re.search(r"up -> down0,\+31 ", draw(View(), shown, (88, 10)))
    shown.flows[0].oifs = ()
    assert "up -> (drop)" in draw(View(), shown)
    shown.flows[0].oifs, shown.flows[0].installed = ("gone",), False
    assert "up -> (gone)" in draw(View(), shown)


def test_text_of_others_does_nothing_to_the_terminal() -> None:
    shown = picture(1)
    shown.flows[0].iif = "\x1b[2Jup"
    assert "\x1b" not in draw(View(), shown)


@pytest.mark.parametrize("size", [(1, 1), (20, 3), (40, 5), (79, 24), (80, 24), (100, 30), (300, 100)])
@pytest.mark.parametrize("help_shown", [False, True])
def test_it_fits_every_screen(size: tuple[int, int], help_shown: bool) -> None:
    shown = picture(200)
    shown.flows.append(flow(0, group="ff3e:1111:2222:3333:4444:5555:6666:7777", source="2001:db8:1:2:3:4:5:6"))
    view = View(help=help_shown)
    lines = render(view, shown, size, 0.0, colours=False)
    assert len(lines) == size[1]
    assert max(map(len, lines)) <= size[0]


def test_nothing_is_known_yet() -> None:
    assert "flows 0, 0 active" in draw(View(), Picture("unix:/x"))


def test_rates_stay_on_a_narrow_screen_beside_long_addresses() -> None:
    shown = picture(1)
    shown.flows[0].group, shown.flows[0].source = "ff3e:1111:2222:3333:4444:5555:6666:7777", "2001:db8:1:2:3:4:5:6"
    row = draw(View(), shown, (80, 10)).splitlines()[4]
    assert re.fullmatch(r" +\S*:6666:7777  ~\S*:5:6  up -> \S+ +0 +8\.00k", row), row
