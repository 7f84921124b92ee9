"""The controller on a real fabric: `make fabric`, smaller: it passes, fails when something is wrong, leaves nothing behind."""

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from demo.fabric import story
from demo.fabric.play import play
from demo.fabric.stage import OWNER
from demo.play import FAILED, PASSED, SIGNALLED
from demo.show import Screen
from tests.testbed.daemon import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180), pytest.mark.xdist_group("fabric")]

ROOT = Path(__file__).parents[2]


def perform(*steps: story.Step) -> tuple[int, str]:
    """Play with two spines, three leaves and 20 sources at once; exit code and output."""
    output = io.StringIO()
    code = play(Screen(output, colour=False), steps, leaves=3, crowd=20)
    return code, output.getvalue()


def want_only_h2(play: story.Play) -> None:
    """Wishes change: h3 leaves all groups."""
    path = play.fabric.directory / "wishes.toml"
    text = path.read_text().replace('"h3"', '"h2"')
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)
    leaf3 = play.fabric.daemons["leaf3"]
    wait_until(lambda: not any(oif.interface == "hosts" for one in leaf3.list_routes() for oif in one.oifs), 15)


def end_in_order(play: story.Play) -> None:
    """SIGTERM ends the controller, and the routes stay, for the lease."""
    play.leader.process.terminate()
    assert play.leader.process.wait(15) == 0, play.leader.log()
    owners = [one for daemon in play.fabric.daemons.values() for one in daemon.status().owners if one.name == OWNER]
    assert len(owners) == len(play.fabric.daemons)
    assert all(one.stale == one.entries and not one.connected for one in owners)
    assert sum(one.entries for one in owners) > 0


def test_the_whole_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """With patience, for machines on which other tests run; new sources are slow, as the kernel keeps four packets of each."""
    for name, value in {"FIRST": 3.0, "HEALED": 5.0, "SLOW": 4.0, "SETTLE_SECONDS": 15.0, "LEAD_SECONDS": 30.0}.items():
        monkeypatch.setattr(story, name, value)
    code, output = perform(*story.STEPS, want_only_h2, end_in_order)
    assert code == PASSED, output
    assert re.search(r"PASS  21 checks in [\d.]+ s", output)
    assert [line for line in output.splitlines() if len(line) > 79] == []


def lose_a_link_for_good(play: story.Play) -> None:
    for spine in play.fabric.spines:
        play.fabric.routers[spine].ip("link set dev leaf2 down")
    wait_until(lambda: play.leader.metrics().get("links_down") == len(play.fabric.spines), 15)


def test_what_is_wrong_is_named() -> None:
    """A host that no path leads to."""
    code, output = perform(story.start, lose_a_link_for_good, story.first_packets)
    assert code == FAILED
    assert "first packets: not within 3 s" in output.partition("FAIL  after")[2]


def test_ctrl_c_leaves_nothing(directory: Path) -> None:
    directory.chmod(0o1777)
    environment = {**os.environ, "TMPDIR": str(directory), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "demo/fabric/fabric.py")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, process_group=0
    ) as process:
        assert process.stdout
        try:
            said = [process.stdout.readline()]
            while said[-1] and "2. New sources" not in said[-1]:
                said.append(process.stdout.readline())
            assert said[-1], "".join(said)
            os.killpg(process.pid, signal.SIGINT)
            last = process.stdout.read().splitlines()[-1]
            assert process.wait(30) == SIGNALLED + signal.SIGINT
        finally:
            process.kill()
    assert last == "STOPPED  by SIGINT: all is ended and removed."
    assert list(directory.iterdir()) == []
    mark = f"TMPDIR={directory}".encode()
    assert [pid for pid in Path("/proc").glob("[0-9]*") if mark in environment_of(pid)] == []


def environment_of(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:  # It has ended meanwhile.
        return []
