"""The loop: pictures and keys, with a terminal and a clock of the test."""

from collections.abc import Sequence

import pytest

from mcastd.cli.ctl.failure import CallError
from mcastd.cli.ctl.top import keys
from mcastd.cli.ctl.top.live import run_live
from mcastd.cli.ctl.top.view import Picture, View


class Glass:
    """Shows nothing; presses what it was told to, a list at a time."""

    colours = False

    def __init__(self, *pressed: list[str]) -> None:
        self.pressed = list(pressed)
        self.drawn: list[list[str]] = []
        self.forgotten = 0
        self.screen = (80, 24)

    def size(self) -> tuple[int, int]:
        return self.screen

    def draw(self, lines: Sequence[str]) -> None:
        self.drawn.append(list(lines))

    def forget(self) -> None:
        self.forgotten += 1

    def keys(self, seconds: float) -> list[str]:
        assert seconds > 0
        return self.pressed.pop(0)


class Daemon:
    """Pictures by number."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Picture:
        self.asked += 1
        return Picture(f"unix:/{self.asked}")


def test_each_look_is_drawn_until_the_user_quits() -> None:
    glass, daemon = Glass([], ["g"], ["q"]), Daemon()
    run_live(glass, daemon, View(), lambda: 0.0)
    assert [lines[0].strip() for lines in glass.drawn] == [f"mcastctl top  unix:/{n}" for n in (2, 3, 4)]
    assert glass.drawn[-1][2].startswith("by group")


def test_a_pause_keeps_the_picture() -> None:
    glass = Glass([" "], [], [" "], [], ["q"])
    run_live(glass, Daemon(), View(), lambda: 0.0)
    firsts = [lines[0] for lines in glass.drawn]
    assert firsts[1] == firsts[2] == firsts[0] + "  PAUSED"
    assert firsts[3] != firsts[2]


def test_the_screen_is_drawn_anew_when_asked() -> None:
    glass = Glass([keys.REDRAW], ["q"])
    run_live(glass, Daemon(), View(), lambda: 0.0)
    assert glass.forgotten == 1


def test_a_refusal_ends_it() -> None:
    def refuse() -> Picture:
        raise CallError(7, "PERMISSION_DENIED", "no")

    with pytest.raises(CallError):
        run_live(Glass(), refuse, View(), lambda: 0.0)
