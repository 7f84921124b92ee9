"""The demo: it passes for anybody, fails when something is wrong, and leaves nothing behind however it ends."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import mcast
from demo import story
from demo.play import CANNOT, FAILED, PASSED, SIGNALLED, play
from demo.show import Cell, Column, Mark, Screen, colour_wanted
from tests.testbed.daemon import route
from tests.testbed.rights import is_root

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
TITLES = [
    "1. Start the daemon",
    "2. Add routes",
    "3. Send 100 packets",
    "4. List the routes",
    "5. Take down2 off 232.1.1.2",
    "6. Kill the server",
    "7. Stop the daemon",
]


class Performance:
    """A demo that runs as a process, in a process group of its own as in a terminal, with a directory for its temporary files."""

    def __init__(
        self,
        directory: Path,
        *,
        prefix: Sequence[str] = (),
        python: str = sys.executable,
        tree: Path = ROOT,
        paths: Sequence[Path] = (),
    ) -> None:
        directory.chmod(0o1777)
        self._directory = directory
        environment = {
            **os.environ,
            "TMPDIR": str(directory),
            "PYTHONPATH": os.pathsep.join(filter(None, [*map(str, [tree, *paths]), os.environ.get("PYTHONPATH")])),
        }
        environment.pop("NO_COLOR", None)
        self._pids: set[int] = set()
        self._process = subprocess.Popen(
            [*prefix, python, str(tree / "demo" / "demo.py")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            process_group=0,
        )
        self.output = ""

    def read_until(self, text: str) -> None:
        """Read on until a line has this text."""
        assert self._process.stdout
        for line in self._process.stdout:
            self.output += line
            if text in line:
                return
        pytest.fail(f"{text!r} never came:\n{self.output}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal as a terminal does: to the process group."""
        self._take_stock()
        os.killpg(self._process.pid, number)

    def running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def hang_up(self) -> None:
        """Read no more of it."""
        self._take_stock()
        assert self._process.stdout
        self._process.stdout.close()

    def end(self) -> int:
        """Wait for its end and return its exit code; AssertionError if anything of it is left."""
        stdout = self._process.stdout
        assert stdout
        self._take_stock()
        if not stdout.closed:
            with stdout:
                self.output += stdout.read()
        code = self._process.wait(PATIENCE)
        assert [pid for pid in self._pids if Path(f"/proc/{pid}").exists()] == [], self.output
        assert processes_of(self._directory) == [], self.output
        assert list(self._directory.iterdir()) == []
        return code

    def close(self) -> None:
        """End it by force where a test has failed."""
        if self.running():
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def _take_stock(self) -> None:
        """Note its processes."""
        pids = [self._process.pid]
        for pid in pids:
            pids += children(pid)
        self._pids.update(pids)


def children(pid: int) -> list[int]:
    """Pids of a process's children; none where it is gone."""
    try:
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return []


def processes_of(directory: Path) -> list[int]:
    """Pids of all that has inherited this directory for its temporary files: no namespace outlives the last of them.

    A namespace's number tells nothing: the kernel gives it to the next one, of another test.
    """
    found, mark = [], f"TMPDIR={directory}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:  # It has ended meanwhile.
            continue
    return found


Start = Callable[..., Performance]


@pytest.fixture
def start(directory: Path) -> Iterator[Start]:
    """Start a demo."""
    with ExitStack() as stack:

        def started(**options: Any) -> Performance:
            performance = Performance(directory, **options)
            stack.callback(performance.close)
            return performance

        yield started


# --- it passes -------------------------------------------------------------------------------------------------------


def assert_passed(performance: Performance) -> None:
    performance.read_until("6. Kill the server")
    assert performance.end() == PASSED, performance.output
    lines = performance.output.splitlines()
    assert re.fullmatch(r"PASS  17 checks in [\d.]+ s: ([\d,]+) of \1 packets arrived, none astray", lines[-1])
    assert [line for line in lines if len(line) > 79] == []
    assert "\x1b" not in performance.output
    found = [line.split(". ")[0] for line in lines if re.match(r"\d\. ", line)]
    assert found == [title.split(". ")[0] for title in TITLES]
    assert all(title in performance.output for title in TITLES)


def test_it_passes_and_is_made_for_eighty_columns(start: Start) -> None:
    performance = start()
    assert_passed(performance)
    # What is left when one receiver's oif is gone: the same group still reaches the others, the other family this one.
    after = performance.output.partition(TITLES[4])[2]
    assert re.search(r"232\.1\.1\.2 +100 +100 +stopped +100\n", after)
    assert re.search(r"ff3e::2 +100 +100 +100 +100\n", after)
    assert re.search(r"232\.1\.1\.2 +10\.0\.1\.1 +up +down1,down3 +PROGRAMMED +200 +18\.4k\n", after)


@pytest.mark.skipif(not is_root(), reason="it is rootless already: the tests are")
def test_it_passes_rootless(start: Start, directory: Path) -> None:
    """As nobody, from a copy of the tree that belongs to nobody special."""
    tree = directory.parent / f"{directory.name}-tree"
    try:
        for part in ("demo", "tests", "mcastd"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__", "*.o", "*.c"))
        shutil.copytree(Path(mcast.__file__).parent, tree / "mcast", ignore=shutil.ignore_patterns("__pycache__"))
        tree.chmod(0o755)
        packages = Path(sysconfig.get_path("purelib"))
        python = python_of_nobody(tree, packages)
        performance = start(prefix=AS_NOBODY, python=python, tree=tree, paths=[packages])
        assert_passed(performance)
        assert "as nobody in a user namespace" in performance.output
    finally:
        shutil.rmtree(tree)


def python_of_nobody(*paths: Path) -> str:
    """An interpreter for another user: the tests' own may be closed (pyenv's in /root), the system's will do then."""
    refusals = []
    for python in (sys.executable, "/usr/bin/python3"):
        command = [*AS_NOBODY, "sh", "-c", 'exec "$0" -c "import grpc, mcast, mcastd.kernel.mroute"', python]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return python
        refusals += done.stderr.splitlines()[-1:]
    pytest.skip(f"other users can't use this installation: {refusals}")


def test_it_passes_in_a_user_namespace_beside_the_hosts_network(start: Start) -> None:
    """As in a rootless container: making namespaces is allowed, coming back to where it started is not."""
    assert_passed(start(prefix=["unshare", "--user", "--map-root-user"]))


def test_it_says_where_it_cannot_run(start: Start) -> None:
    """In a user namespace that may make no others."""
    forbid = 'echo 0 > /proc/sys/user/max_net_namespaces && echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    performance = start(prefix=["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"])
    assert performance.end() == CANNOT
    assert performance.output.startswith("CANNOT RUN  the demo needs network namespaces: not root")


# --- it ends when told to --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["mcastd 0", TITLES[0], TITLES[1], TITLES[4], TITLES[5]])
def test_ctrl_c_leaves_nothing(start: Start, moment: str) -> None:
    performance = start()
    performance.read_until(moment)
    performance.signal(signal.SIGINT)
    assert performance.end() == SIGNALLED + signal.SIGINT, performance.output
    assert performance.output.splitlines()[-1] == "STOPPED  by SIGINT: all is ended and removed."
    assert "Traceback" not in performance.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_do_the_same(start: Start, number: signal.Signals) -> None:
    performance = start()
    performance.read_until(TITLES[1])
    performance.signal(number)
    assert performance.end() == SIGNALLED + number, performance.output


def test_impatience_does_not_disturb_the_cleaning_up(start: Start) -> None:
    performance = start()
    performance.read_until(TITLES[5])
    for _ in range(200):
        if not performance.running():
            break
        performance.signal(signal.SIGINT)
    assert performance.end() == SIGNALLED + signal.SIGINT, performance.output


def test_a_reader_that_goes_away_ends_it(start: Start) -> None:
    performance = start()
    performance.read_until(TITLES[0])
    performance.hang_up()
    assert performance.end() == FAILED


# --- it fails when something is wrong --------------------------------------------------------------------------------


def perform(sabotage: story.Step, before: story.Step) -> tuple[int, str]:
    """Play with one more step; exit code and output."""
    steps = list(story.STEPS)
    steps.insert(steps.index(before), sabotage)
    output = io.StringIO()
    code = play(Screen(output, colour=False), steps)
    return code, " ".join(output.getvalue().split())


def cut_receiver_2(play: story.Play) -> None:
    play.stage.star.receivers[1].namespace.ip("link set eth0 down")


def leak_to_receiver_3(play: story.Play) -> None:
    play.stage.mcastd.put(route("232.1.1.1", play.stage.star.source.ipv4, "up", "down1", "down3"))


def add_a_route(play: story.Play) -> None:
    play.stage.mcastd.put(route("232.9.9.9", play.stage.star.source.ipv4, "up", "down1"))


def kill_the_keeper(play: story.Play) -> None:
    play.stage.mcastd.process.kill()
    play.stage.mcastd.process.wait()


def send_what_nobody_counts(play: story.Play) -> None:
    play.stage.star.source.sender("232.1.1.1", port=5001).send(3)


@pytest.mark.parametrize(
    "sabotage,before,missing",
    [
        (cut_receiver_2, story.send, "receiver2 misses 100 of 100 packets of ff3e::2, the first is packet 1"),
        (cut_receiver_2, story.remove_oif, "receiver2 misses 100 of 100 packets of ff3e::2, the first is packet 1"),
        (leak_to_receiver_3, story.send, "receiver3 got 100 packets of 232.1.1.1 that no route leads there"),
        (add_a_route, story.add_routes, "the kernel has an entry of 232.9.9.9 from up to down1, which nobody asked for"),
        (add_a_route, story.list_routes, "there is a route of 232.9.9.9, which nobody asked for"),
        (send_what_nobody_counts, story.list_routes, "the kernel counted 103 packets of 232.1.1.1, sent were 100"),
        (kill_the_keeper, story.add_routes, "mcastctl route add 232.1.1.1 "),
        (kill_the_keeper, story.start, "mcastd has ended with -9"),
    ],
)
def test_what_is_wrong_is_named(sabotage: story.Step, before: story.Step, missing: str) -> None:
    code, output = perform(sabotage, before)
    assert code == FAILED
    assert missing in output.partition("FAIL after")[2]


def test_a_receiver_lost_while_the_server_is_away_is_noticed() -> None:
    code, output = perform(cut_receiver_2, story.kill_server)
    assert code == FAILED
    assert re.search(r"receiver2 misses [\d,]+ of [\d,]+ packets of ff3e::2", output.partition("FAIL after")[2])


# --- it looks as it should -------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "stream,environment,wanted",
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_colour_is_for_terminals_and_for_who_wants_it(stream: io.StringIO, environment: dict[str, str], wanted: bool) -> None:
    assert colour_wanted(stream, environment) is wanted


def drawn(draw: Callable[[Screen], None]) -> tuple[str, str]:
    """The same thing without and with colour."""
    outputs = io.StringIO(), io.StringIO()
    for output, colour in zip(outputs, (False, True), strict=True):
        draw(Screen(output, colour=colour))
    return outputs[0].getvalue(), outputs[1].getvalue()


@pytest.mark.parametrize(
    "draw",
    [
        lambda screen: screen.step("Do something", "Service.Method"),
        lambda screen: screen.check("word " * 30, ["other " * 30]),
        lambda screen: screen.verdict("FAIL", Mark.BAD, "word " * 30, ["other " * 30]),
        lambda screen: screen.table([Column("a"), Column("number", right=True)], [[Cell("x", Mark.GOOD), Cell("1", Mark.BAD)]]),
    ],
)
def test_colour_moves_nothing(draw: Callable[[Screen], None]) -> None:
    plain, coloured = drawn(draw)
    assert "\x1b" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain
    assert max(map(len, plain.splitlines())) <= 78
