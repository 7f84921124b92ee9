"""`mcastctl top` in a real terminal, against a real daemon with traffic."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcastd.model.address import Family
from tests.e2e.ctl import PROGRAM, Ctl
from tests.e2e.router import Router, group
from tests.e2e.tmux import Tmux
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until

RATE = 200


@pytest.fixture
def ctl(router: Router) -> Ctl:
    """The program, with the address of the router's daemon."""
    return Ctl(f"unix:{router.daemon.socket}")


@contextmanager
def shown(ctl: Ctl, *arguments: str, columns: int = 150, lines: int = 24, no_color: str = "") -> Iterator[Tmux]:
    """Top in a terminal."""
    with Tmux(
        [*PROGRAM, "top", "--interval", "0.5", *arguments], {**ctl.environment, "NO_COLOR": no_color}, columns, lines
    ) as tmux:
        yield tmux


def wait_screen(tmux: Tmux, pattern: str, *, colours: bool = False) -> str:
    """Wait until a line of the screen matches; the screen."""
    wait_until(
        lambda: re.search(pattern, tmux.screen(colours=colours), re.MULTILINE) is not None,
        15,
        lambda: f"{pattern!r} is not on the screen:\n{tmux.screen(colours=colours)}",
    )
    return tmux.screen(colours=colours)


def name(router: Router, number: int) -> str:
    """A group as the daemon writes it, for a pattern."""
    text = group(router.family, number)
    return re.escape(text.replace("::0:", "::"))


def test_rates_marks_and_keys(router: Router, ctl: Ctl) -> None:
    fast, slow, wrong, still = (router.sender(n) for n in range(1, 5))
    router.put(router.route(fast, "down1", "down2"), router.route(slow, "down2"), router.route(wrong, "down1", iif="down2"))
    router.put(router.route(still, "down1", monitored=True), router.route(5, "down1", iif="nowhere"))
    fast.start(RATE)
    slow.start(RATE / 10)
    wrong.start(RATE / 20)
    with shown(ctl) as tmux:
        # The order is that of the rates; the rate is that of the sender within a tenth.
        screen = wait_screen(tmux, rf"^ +{name(router, 1)} +\S+ +up -> down1,down2 +(1[89]\d|20\d|21\d) ")
        assert re.search(rf"{name(router, 1)} .*\n.*{name(router, 2)} ", screen)
        wait_screen(tmux, rf"^! +{name(router, 3)} .* -> down1 ")
        wait_screen(tmux, rf"^\? +{name(router, 5)} .* nowhere -> \(down1\) .*PENDING")
        wait_screen(tmux, rf"^\x1b\[33m- +{name(router, 4)} ", colours=True)
        wait_screen(tmux, rf"^\x1b\[31m! +{name(router, 3)} ", colours=True)
        assert "1 wrong interface  - 1 stalled  ? 1 not as asked" in tmux.screen()

        tmux.press("w")
        wait_screen(tmux, rf"^by wrong-if .*\n.*\n! +{name(router, 3)} ")
        tmux.press("/")
        tmux.type("down1,down2 nothing")
        wait_screen(tmux, r"^filter: down1,down2 nothing_")
        tmux.press("Escape", "m")
        screen = wait_screen(tmux, r"marked only  rows 1-3 of 3")
        assert not re.search(rf"{name(router, 1)} ", screen)
        tmux.press("h")
        wait_screen(tmux, r"sort by group, source")
        tmux.press("x")
        tmux.resize(60, 10)
        wait_screen(tmux, r"^by wrong-if")
        assert max(map(len, tmux.screen().splitlines())) <= 60
        # The kernel counts what comes in wrong among the packets: all of this flow.
        (row,) = (
            json.loads(line) for line in ctl.run("top", "-n", "1", "-o", "ndjson", "-s", "wrong-if", "--rows", "1").splitlines()
        )
        assert row["marks"] == ["wrong interface"]
        assert row["packets"] == row["wrong_if"] > 0
        tmux.press("q")
        wait_until(lambda: tmux.exit_code() == 0, 10)
        assert "GROUP" not in tmux.screen()


def test_a_daemon_that_goes_and_comes_back(testbed: Testbed, family: Family, directory: Path) -> None:
    with Router(testbed, family, directory=directory) as router, shown(Ctl(f"unix:{router.daemon.socket}"), no_color="1") as tmux:
        sender = router.sender()
        router.put(router.route(sender, "down1"))
        sender.start(RATE)
        wait_screen(tmux, rf"^ +{name(router, 1)} .* (1[89]\d|20\d|21\d) ")
        router.daemon.close()
        wait_screen(tmux, r"^no news for \ds, trying again: UNAVAILABLE: no daemon answers at ")
        assert re.search(rf"^ +{name(router, 1)} ", tmux.screen(), re.MULTILINE)
        router.start(directory=directory)
        wait_screen(tmux, r"^by bits")
        wait_screen(tmux, rf"^ +{name(router, 1)} .* (1[89]\d|20\d|21\d) ")
        assert "\x1b[3" not in re.sub(r"\x1b\[39m", "", tmux.screen(colours=True))
        tmux.press("C-c")
        wait_until(lambda: tmux.exit_code() == 0, 10)


@pytest.mark.parametrize("ending,code", [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_terminal_is_put_back(router: Router, ctl: Ctl, ending: signal.Signals, code: int) -> None:
    # A shell says what it has ended with, and whether the terminal is as it was.
    program = " ".join(PROGRAM)
    script = f'a=$(stty -g); {program} top; echo ended $?; test "$a" = "$(stty -g)" && echo same; exec sleep 60'
    with Tmux(["sh", "-c", script], ctl.environment) as tmux:
        wait_screen(tmux, "^by bits")
        assert tmux.ask("alternate_on") == "1"
        os.kill(tmux.innermost(), ending)
        screen = wait_screen(tmux, "^same")
        assert f"ended {code}" in screen
        assert (tmux.ask("alternate_on"), tmux.ask("cursor_flag")) == ("0", "1")


def test_it_is_stopped_and_goes_on(router: Router, ctl: Ctl) -> None:
    with Tmux(["bash", "--norc", "-i"], ctl.environment) as tmux:
        wait_screen(tmux, r"^bash.*[#$]$")
        tmux.type(" ".join([*PROGRAM, "top"]))
        tmux.press("Enter")
        wait_screen(tmux, "^by bits")
        tmux.press("C-z")
        wait_screen(tmux, "Stopped")
        assert (tmux.ask("alternate_on"), tmux.ask("cursor_flag")) == ("0", "1")
        tmux.type("fg")
        tmux.press("Enter")
        wait_screen(tmux, "^by bits")
        tmux.press("C-c")
        wait_screen(tmux, r"\n\^C?bash.*[#$]$|^bash.*[#$]\n*\Z")


def test_tables_where_there_is_no_terminal(router: Router, ctl: Ctl) -> None:
    sender = router.sender()
    router.put(router.route(sender, "down1"), router.route(2, "down2"))
    sender.start(RATE)
    tables = ctl.run("top", "-n", "2", "--interval", "1.2").split("\n\n")
    assert len(tables) == 2
    for table in tables:
        first = table.splitlines()[1].split()
        assert first[3:5] == ["up", "down1"]
        assert 0.8 * RATE < float(first[5]) < 1.2 * RATE
    rows = [
        json.loads(line) for line in ctl.run("top", "-n", "1", "-o", "ndjson", "--rows", "1", "--sort", "packets").splitlines()
    ]
    assert [row["oifs"] for row in rows] == [["down1"]]
    assert 0.8 * RATE < rows[0]["packet_rate"] < 1.2 * RATE
    assert len(json.loads(ctl.run("top", "-n", "1", "-j", "-i", "down2"))) == 1
