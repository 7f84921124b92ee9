"""The loop that runs the action script: serial, bounded in time and number, and nothing of it stays."""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mcastd.keeper import actionloop
from mcastd.keeper.actionloop import ActionLoop, read_request
from mcastd.keeper.channel import ChannelError
from tests.descriptors import open_descriptors

PATIENCE = 30.0


def body(reason: str = "install", **environment: str) -> bytes:
    return json.dumps({"reason": reason, "environment": environment}).encode()


class Bench:
    """A loop in a thread, with a script that the test writes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.script = directory / "script"
        self.output = directory / "output"
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.thread: threading.Thread | None = None

    def start(self, text: str, time_limit: float = PATIENCE) -> None:
        """Run the loop with this script; $OUT is the file that `lines` reads."""
        self.script.write_text(f"#!/bin/sh\nOUT={self.output}\n{text}\n")
        self.script.chmod(0o755)
        loop = ActionLoop(self.theirs, str(self.script), time_limit)
        self.thread = threading.Thread(target=loop.run, daemon=True)
        self.thread.start()

    def lines(self) -> list[str]:
        """What the script has written."""
        return self.output.read_text().splitlines() if self.output.exists() else []

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait for it."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, self.lines()
            time.sleep(0.005)

    def end(self) -> None:
        """Hang up and wait for the loop."""
        self.ours.close()
        if self.thread is None:
            self.theirs.close()
        else:
            self.thread.join(PATIENCE)
            assert not self.thread.is_alive()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    before = open_descriptors()
    made = Bench(tmp_path)
    yield made
    made.end()
    assert open_descriptors() == before


def test_script_learns_reason_and_environment_and_nothing_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.setenv("LC_TIME", "C")
    bench.start('echo "$1 $#" >>$OUT; env | sort >>$OUT; echo end >>$OUT')
    bench.ours.send(body("install", MCASTD_GROUP="239.1.1.1", group="239.1.1.1", MCASTD_OIFS="down1 down2"))
    bench.wait(lambda: "end" in bench.lines())
    first, *rest = bench.lines()
    names = {line.split("=")[0] for line in rest}
    assert first == "install 1"
    assert {"MCASTD_REASON=install", "MCASTD_GROUP=239.1.1.1", "group=239.1.1.1", "MCASTD_OIFS=down1 down2", "LC_TIME=C"} <= {
        *rest
    }
    assert names <= {
        *("MCASTD_REASON", "MCASTD_GROUP", "MCASTD_OIFS", "group", "LC_TIME", "LC_ALL", "LC_CTYPE", "LANG", "LANGUAGE", "TZ"),
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "SHLVL", "_", "end"),
    }


def test_runs_are_one_after_the_other_in_order(bench: Bench) -> None:
    bench.start('echo "begin $group" >>$OUT; sleep 0.01; echo "end $group" >>$OUT')
    for number in range(20):
        bench.ours.send(body(group=str(number)))
    bench.wait(lambda: len(bench.lines()) == 40)
    assert bench.lines() == [f"{what} {number}" for number in range(20) for what in ("begin", "end")]


def test_script_reads_nothing_and_has_a_group_of_its_own(bench: Bench) -> None:
    bench.start("readlink /proc/$$/fd/0 >>$OUT; cut -d' ' -f5,6 /proc/$$/stat >>$OUT; echo $$ >>$OUT")
    bench.ours.send(body())
    bench.wait(lambda: len(bench.lines()) == 3)
    stdin, group_and_session, pid = bench.lines()
    assert stdin == "/dev/null"
    assert group_and_session.split() == [pid, pid]


def test_exit_status_is_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.start('[ "$1" = reload ] && exit 3; [ "$1" = start ] && kill -9 $$; exit 0')
    with caplog.at_level(logging.INFO):
        for reason in ("install", "reload", "start"):
            bench.ours.send(body(reason))
        bench.wait(lambda: len(caplog.records) >= 3)
    told = [(one.levelname, one.reason, one.status) for one in caplog.records]  # type: ignore[attr-defined]
    assert told == [
        ("INFO", "install", "exit code 0"),
        ("WARNING", "reload", "exit code 3"),
        ("WARNING", "start", "signal SIGKILL"),
    ]


def test_what_takes_too_long_is_ended_with_its_children(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(actionloop, "KILL_AFTER", 0.2)
    bench.start('trap "" TERM; [ "$1" = reload ] && { echo next >>$OUT; exit 0; }; sleep 60 & echo $! >>$OUT; sleep 60', 0.2)
    bench.ours.send(body())
    bench.ours.send(body("reload"))
    bench.wait(lambda: bench.lines()[1:] == ["next"])
    assert "takes too long" in caplog.text
    assert "SIGKILL" in caplog.text or any(getattr(one, "status", "") == "signal SIGKILL" for one in caplog.records)
    child = int(bench.lines()[0])
    bench.wait(lambda: not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text())


def test_the_end_of_the_daemon_ends_the_run_and_forgets_those_that_wait(bench: Bench) -> None:
    bench.start("echo $1 >>$OUT; exec sleep 60")
    bench.ours.send(body())
    bench.ours.send(body("reload"))
    bench.wait(lambda: bench.lines() == ["install"])
    began = time.monotonic()
    bench.end()
    assert time.monotonic() - began < 5
    assert bench.lines() == ["install"]


def test_only_so_many_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(actionloop, "QUEUE_MAX", 3)
    bench.start("echo begin >>$OUT; while [ ! -e $OUT.go ]; do sleep 0.01; done; echo $group >>$OUT")
    bench.ours.send(body(group="first"))
    bench.wait(lambda: bench.lines() == ["begin"])
    for number in range(10):
        bench.ours.send(body(group=str(number)))
    bench.wait(lambda: "some are left out" in caplog.text)
    Path(f"{bench.output}.go").touch()
    bench.wait(lambda: any(getattr(one, "count", 0) == 7 for one in caplog.records))
    bench.wait(lambda: len(bench.lines()) == 8)
    assert [line for line in bench.lines() if line != "begin"] == ["first", "0", "1", "2"]
    assert caplog.text.count("some are left out") == 1


def test_a_script_that_cannot_be_run_is_told_and_the_next_is_tried(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.start("echo $1 >>$OUT")
    bench.script.chmod(0o644)
    bench.ours.send(body())
    bench.wait(lambda: "can't be run" in caplog.text)
    bench.script.chmod(0o755)
    bench.ours.send(body("reload"))
    bench.wait(lambda: bench.lines() == ["reload"])


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense",
        b"[]",
        json.dumps({"reason": "rm", "environment": {}}).encode(),
        json.dumps({"reason": "install"}).encode(),
        body(PATH="/usr"),
        body(LD_PRELOAD="x"),
        body(group="x\n"),
        body(group="x\0"),
        body(group="\ud800"),
        body(group="x" * 4097),
        json.dumps({"reason": "install", "environment": {"group": 1}}).encode(),
        json.dumps({"reason": ["install"], "environment": {}}).encode(),
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(ChannelError):
        read_request(data)


def test_a_request_that_is_none_is_told_and_the_next_is_run(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.start("echo $1 >>$OUT")
    bench.ours.send(body(PATH="/usr"))
    bench.ours.send(body("reload"))
    bench.wait(lambda: bench.lines() == ["reload"])
    assert "can't be run" in caplog.text
