"""How mcastctl fares where things go wrong: closed pipes, Ctrl-C, daemons that die or hang, narrow terminals."""

import json
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from mcast.v1 import services_pb2 as sv
from mcastd.cli.ctl.contract import Contract
from mcastd.model.address import Family
from tests.e2e.ctl import NOTHING, Ctl, without_colours
from tests.e2e.router import Router, bulk
from tests.testbed import Testbed
from tests.unit.cli.ctl.fakeserver import serve

LONG = ("ff3e:1111:2222:3333:4444:5555:6666:7777", "2001:db8:1111:2222:3333:4444:5555:6666")


@pytest.fixture
def router(testbed: Testbed) -> Iterator[Router]:
    """A router whose daemon runs."""
    with Router(testbed, Family.IPV4, receivers=4) as made:
        yield made


@pytest.fixture
def ctl(router: Router) -> Ctl:
    """The program, with the address of the router's daemon."""
    return Ctl(f"unix:{router.daemon.socket}")


def test_100_000_routes_into_a_closed_pipe(router: Router, ctl: Ctl) -> None:
    router.daemon.replace(bulk(Family.IPV4, 100_000, "10.0.0.5", "down1"))
    for form in ("table", "json", "yaml", "ndjson", "name"):
        process = ctl.popen("route", "list", "-o", form, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()
        assert (process.wait(60), said) == (141, "")
    assert ctl.run("route", "list", "-o", "name").count("\n") == 100_000


def test_a_full_disk(ctl: Ctl) -> None:
    with Path("/dev/full").open("w") as full:
        process = ctl.popen("interface", "list", stdout=full, stderr=subprocess.PIPE)
        assert process.communicate(timeout=60)[1] == "mcastctl: can't write: No space left on device\n"
    assert process.returncode == 2


NO_DAEMON = "UNAVAILABLE: no daemon answers at unix:/nonexistent"


@pytest.mark.parametrize(
    "line,closed,code,said",
    [
        (("--version",), ">&-", 2, "mcastctl: can't write: Bad file descriptor"),
        (("--help",), ">&-", 2, "mcastctl: can't write: Bad file descriptor"),
        (("--dump-docs", "md"), ">&-", 2, "mcastctl: can't write: Bad file descriptor"),
        (("status",), ">&-", 78, NO_DAEMON),
        (("status",), "2>&-", 78, ""),
        (("status",), "<&- >&- 2>&-", 78, ""),
        (("rote",), "2>&-", 2, ""),
        (("route", "add", "-f", "-"), "<&-", 2, "standard input: Bad file descriptor"),
        (("shutdown",), "<&-", 2, "there is nobody to answer: add --yes"),
        (("status",), "2>/dev/full", 2, ""),
        (("--version",), ">/dev/full", 2, "mcastctl: can't write: No space left on device"),
        (("--version",), ">/dev/full 2>/dev/full", 2, ""),
    ],
)
def test_closed_streams(line: tuple[str, ...], closed: str, code: int, said: str) -> None:
    done = Ctl("unix:/nonexistent").shell(closed, *line)
    assert (done.returncode, done.stdout) == (code, ""), done
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stderr) == bool(said)


def test_closed_streams_of_calls_that_succeed(ctl: Ctl) -> None:
    for line in (("status",), ("route", "list"), ("interface", "list", "-o", "json")):
        done = ctl.shell(">&-", *line)
        assert (done.returncode, done.stderr) == (2, "mcastctl: can't write: Bad file descriptor\n")
        done = ctl.shell("<&- 2>&-", *line)
        assert done.returncode == 0
        assert done.stdout
    # Writes that have nothing to say there need no standard output.
    done = ctl.shell(">&-", "route", "add", "232.1.1.1", "10.0.0.5", "--iif", "up", "-O", "down1")
    assert (done.returncode, done.stderr.partition(",")[0]) == (0, "created 1")
    done = ctl.shell("<&- >&- 2>&-", "route", "del", "232.1.1.1", "10.0.0.5")
    assert done.returncode == 0
    assert ctl.run("route", "list", "-o", "name") == ""


@pytest.mark.parametrize("command,code", [(("watch",), 0), (("route", "list"), 130), (("status", "--timeout", "1m"), 130)])
def test_ctrl_c(tmp_path: Path, command: tuple[str, ...], code: int) -> None:
    def hang(_request: Any, context: grpc.ServicerContext) -> Any:
        gone = threading.Event()
        context.add_callback(gone.set)
        asked.set()
        gone.wait(60)
        return sv.GetStatusResponse()

    def hang_stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield hang(request, context)

    asked = threading.Event()
    methods: dict[str, Any] = {"Watch": hang_stream, "ListRoutes": hang_stream, "GetStatus": hang}
    with serve(Contract.shipped(), f"unix:{tmp_path}/sock", methods):
        process = Ctl(f"unix:{tmp_path}/sock").popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert asked.wait(30)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == code


def test_a_daemon_that_hangs(router: Router, ctl: Ctl) -> None:
    pid = router.daemon.server_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        lines = [("status",), ("--from-server", "status"), ("route", "list"), ("interface", "list")]
        done = [ctl.call("--timeout", "300ms", *line) for line in lines]
        usual = ctl.call("route", "list")
    finally:
        os.kill(pid, signal.SIGCONT)
    where = f"mcastctl: DEADLINE_EXCEEDED: no answer from unix:{router.daemon.socket} within"
    assert {(one.returncode, one.stdout, one.stderr) for one in done} == {(68, "", f"{where} 0.3 s (--timeout)\n")}
    assert (usual.returncode, usual.stdout, usual.stderr) == (68, "", f"{where} 10 s (--timeout)\n")


def test_a_daemon_that_dies_in_the_middle(router: Router, ctl: Ctl) -> None:
    router.daemon.replace(bulk(Family.IPV4, 50_000, "10.0.0.5", "down1"))
    process = ctl.popen("route", "list", "-o", "ndjson", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    router.daemon.kill_server()
    _, said = process.communicate(timeout=60)
    # It may have had everything already; if not, it says so.
    if process.returncode:
        assert process.returncode == 78
        assert json.loads(said)["reason"] == "UNAVAILABLE"


@pytest.mark.parametrize("address", ["unix:/nonexistent/sock", "127.0.0.1:1", "nowhere.invalid:1"])
def test_a_wrong_address(address: str) -> None:
    done = Ctl(address).call("status", "--timeout", "5s")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("mcastctl: UNAVAILABLE: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("width", [80, 200])
def test_terminals(router: Router, ctl: Ctl, width: int) -> None:
    router.daemon.put(
        *bulk(Family.IPV4, 3, "10.0.0.5", "down1", "down*"), *bulk(Family.IPV4, 1, "10.0.0.5", "down1", iif="none", first=9)
    )
    ctl.run("route", "add", *LONG, "--iif", "up", *(f"-Odown{n}" for n in range(1, 5)))
    for command in (("route", "list", "-c"), ("route", "list", "-o", "wide"), ("interface", "list"), ("status",), ("--help",)):
        got = ctl.terminal(width, *command)
        shown = without_colours(got)
        assert max(map(len, shown.splitlines())) <= width
        assert ("\x1b[" in got) == (command != ("--help",))
        assert "\x1b[" not in ctl.terminal(width, *command, environment={"NO_COLOR": "1"})
        if command[0] == "route":
            for whole in (*LONG, "232.0.0.9", "down1,down2,down3,down4"):
                assert whole in shown
    # With the reason of the one that is pending.
    assert len(ctl.terminal(width, "route", "list").splitlines()) == (13 if width == 80 else 7)
    assert "\x1b[" not in ctl.run("route", "list")
    assert ctl.terminal(width, "route", "list", environment={"TERM": "dumb"}).count("\x1b") == 0


def test_it_starts_quickly(router: Router, ctl: Ctl) -> None:
    """Processor time, which a busy machine does not stretch as it does the clock's: the least of some runs."""

    def seconds(*arguments: str, environment: Mapping[str, str] = NOTHING) -> float:
        def once() -> float:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            ctl.run(*arguments, environment=environment)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        return min(once() for _ in range(5))

    assert seconds("route", "list") < 0.35
    assert seconds("route", "add", "--help") < 0.2
    assert seconds("--help") < 0.2
    assert seconds(environment={"_MCASTCTL_COMPLETE": "bash_complete", "_MCASTCTL_LINE": "mcastctl route "}) < 0.2
