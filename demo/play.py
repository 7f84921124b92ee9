"""One performance: rights first, then signals, stage and story, and the verdict when everything is gone again."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence

from demo import story, views
from demo.calls import CallError
from demo.interrupts import Interrupted, Interrupts
from demo.show import Mark, Screen, colour_wanted, silence_broken_pipe
from demo.stage import Stage, build, user_name
from mcastd import __version__
from tests.testbed import become_able
from tests.testbed.rights import is_root

PASSED = 0
FAILED = 1
CANNOT = 77
"""sysexits.h, EX_NOPERM: this user may not make network namespaces here."""

SIGNALLED = 128
"""Plus the number of the signal, as a shell has it."""

_LOG_LINES = 15


def play(screen: Screen | None = None, steps: Sequence[story.Step] = story.STEPS) -> int:
    """Play the demo to its end, to standard output unless told otherwise; the exit code."""
    screen = screen or Screen(sys.stdout, colour=colour_wanted(sys.stdout, os.environ))
    with Interrupts() as interrupts:
        try:
            return _perform(screen, interrupts, steps)
        except Interrupted as exc:
            screen.verdict("STOPPED", Mark.STRONG, f"by {exc}: all is ended and removed.")
            return SIGNALLED + exc.number
        except BrokenPipeError:
            silence_broken_pipe(sys.stdout)
            return FAILED


def _perform(screen: Screen, interrupts: Interrupts, steps: Sequence[story.Step]) -> int:
    began, user = time.monotonic(), user_name()
    reason = become_able()
    interrupts.check()
    if reason:
        screen.verdict("CANNOT RUN", Mark.BAD, f"the demo needs network namespaces: {reason}", ["root may: sudo make demo"])
        return CANNOT
    rights = "" if is_root() else " in a user namespace"
    screen.title(f"mcastd {__version__} demo, as {user}{rights}, on Linux {platform.release()}")
    screen.say(
        "A source, a router and three receivers, each a network namespace of its own. "
        "Nothing outside of them is touched, and nothing stays behind."
    )
    report = story.Report()
    try:
        with build(interrupts, user) as stage:
            screen.picture(views.topology(stage.star))
            _act(story.Play(stage, screen, report), steps)
    except BrokenPipeError:
        raise
    except (RuntimeError, OSError, subprocess.SubprocessError) as exc:
        report.problems.append(f"the testbed: {exc}")
    interrupts.check()
    seconds = time.monotonic() - began
    if report.problems:
        screen.verdict("FAIL", Mark.BAD, f"after {seconds:.1f} s:", report.problems)
        return FAILED
    screen.verdict(
        "PASS",
        Mark.GOOD,
        f"{report.checks} checks in {seconds:.1f} s: {report.arrived:,} of {report.due:,} packets arrived, none astray",
    )
    return PASSED


def _act(play: story.Play, steps: Sequence[story.Step]) -> None:
    """Go through the steps until one has found a problem, which the others would only repeat; show mcastd's complaints then."""
    try:
        for step in steps:
            play.stage.interrupts.check()
            step(play)
            if play.report.problems:
                break
    except (CallError, AssertionError) as exc:  # McastdProcess asserts that it runs
        play.stage.interrupts.check()
        play.report.problems.append(str(exc).partition("\n")[0])
    if play.report.problems:
        _quote_log(play.stage, play.screen)


def _quote_log(stage: Stage, screen: Screen) -> None:
    lines = [line for line in stage.mcastd.log().splitlines() if " level=info " not in line]
    if lines:
        screen.quote("mcastd's log, without what is only information", lines[-_LOG_LINES:])
