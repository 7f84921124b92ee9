"""One performance: rights first, then signals, stage and story, and the verdict when everything is gone again."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence

from demo.fabric import stage, story
from demo.interrupts import Interrupted, Interrupts
from demo.play import CANNOT, FAILED, PASSED, SIGNALLED
from demo.show import Mark, Screen, colour_wanted, silence_broken_pipe
from mcastd import __version__
from tests.testbed import become_able

_LOG_LINES = 12

_PICTURE = """\
      spine1   spine2          each leaf has a link to each spine
     /  |  |\\ /|  |  \\         management: a network of its own,
    leaf1 leaf2 leaf3 leaf4      where the controllers are
      |     |     |     |
     h1    h2    h3    h4      every host wants all groups"""


def play(screen: Screen | None = None, steps: Sequence[story.Step] = story.STEPS, leaves: int = 4, crowd: int = 200) -> int:
    """Play to the end, to standard output unless told otherwise; the exit code."""
    screen = screen or Screen(sys.stdout, colour=colour_wanted(sys.stdout, os.environ))
    with Interrupts() as interrupts:
        try:
            return _perform(screen, interrupts, steps, leaves, crowd)
        except Interrupted as exc:
            screen.verdict("STOPPED", Mark.STRONG, f"by {exc}: all is ended and removed.")
            return SIGNALLED + exc.number
        except BrokenPipeError:
            silence_broken_pipe(sys.stdout)
            return FAILED


def _perform(screen: Screen, interrupts: Interrupts, steps: Sequence[story.Step], leaves: int, crowd: int) -> int:
    began = time.monotonic()
    reason = become_able()
    interrupts.check()
    if reason:
        screen.verdict("CANNOT RUN", Mark.BAD, f"the fabric needs network namespaces: {reason}", ["root may: sudo make fabric"])
        return CANNOT
    screen.title(f"mcastd {__version__}: a leaf-spine fabric under a controller, on Linux {platform.release()}")
    screen.say("Each router and host is a network namespace. Nothing outside of them is touched, and nothing stays behind.")
    report = story.Report()
    try:
        with stage.build(interrupts, leaves=leaves) as fabric:
            screen.picture(_PICTURE)
            _act(story.Play(fabric, screen, report, crowd), steps)
    except BrokenPipeError:
        raise
    except (RuntimeError, OSError, subprocess.SubprocessError) as exc:
        report.problems.append(f"the testbed: {exc}")
    interrupts.check()
    seconds = time.monotonic() - began
    if report.problems:
        screen.verdict("FAIL", Mark.BAD, f"after {seconds:.1f} s:", report.problems)
        return FAILED
    screen.verdict("PASS", Mark.GOOD, f"{report.checks} checks in {seconds:.1f} s")
    return PASSED


def _act(play: story.Play, steps: Sequence[story.Step]) -> None:
    """Go through the steps until one has found a problem, which the others would only repeat; show the complaints then."""
    try:
        for step in steps:
            play.fabric.interrupts.check()
            step(play)
            if play.report.problems:
                break
    except AssertionError as exc:  # McastdProcess asserts that it runs
        play.fabric.interrupts.check()
        play.report.problems.append(str(exc).partition("\n")[0])
    if play.report.problems:
        _quote_logs(play.fabric, play.screen)


def _quote_logs(fabric: stage.Fabric, screen: Screen) -> None:
    for name, daemon in fabric.daemons.items():
        if lines := [line for line in daemon.log().splitlines() if " level=info " not in line]:
            screen.quote(f"the log of {name}, without what is only information", lines[-_LOG_LINES:])
    for replica in fabric.replicas:
        if lines := replica.log().splitlines():
            screen.quote(f"the log of the controller {replica.log_path.stem}", lines[-_LOG_LINES:])
