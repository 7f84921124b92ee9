"""The live view: draws what the poller knows, and does what keys ask for."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from mcastd.cli.ctl.top import keys
from mcastd.cli.ctl.top.view import Picture, View, render

REDRAW_SECONDS = 1.0
"""The longest time between two pictures: ages grow while nothing else does."""


class Glass(Protocol):
    """What is drawn on."""

    colours: bool

    def size(self) -> tuple[int, int]:
        """Columns and lines."""

    def draw(self, lines: Sequence[str]) -> None:
        """Show lines."""

    def forget(self) -> None:
        """Draw everything next time."""

    def keys(self, seconds: float) -> list[str]:
        """Keys pressed, after some seconds at most."""


def run_live(glass: Glass, latest: Callable[[], Picture], view: View, clock: Callable[[], float] = time.monotonic) -> None:
    """Show the latest picture until the user quits; whatever `latest` raises ends it."""
    picture = latest()
    while True:
        if not view.paused:
            picture = latest()
        glass.draw(render(view, picture, glass.size(), clock(), colours=glass.colours))
        for key in glass.keys(REDRAW_SECONDS):
            if key == keys.REDRAW:
                glass.forget()
            elif not view.press(key):
                return
