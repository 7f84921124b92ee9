"""mcastd.keeper.reexec: what is handed over arrives, trials say what they should, and refusals change nothing."""

import os
import selectors
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mcastd.keeper import reexec
from mcastd.keeper.fdstore import Named
from mcastd.keeper.reexec import (
    TRIAL_VARIABLE,
    VARIABLE,
    HandedAction,
    HandedServer,
    HandedStandIn,
    Handover,
    Reexecution,
    command,
    execute,
    take,
    trial_verdict,
    trial_wanted,
)
from mcastd.keeper.statelog import FORMAT
from mcastd.kernel import privileges
from tests.descriptors import open_descriptors

FULL = Handover(
    settings={"a": 1},
    named=[Named("mroute4-0", 7), Named("state", 8)],
    stored=["state"],
    removals=["join-3"],
    locks={"/x.lock": 9},
    listening=[70],
    reloads=3,
    left_at=1.5,
    server=HandedServer(42, 10, 11, 2.5, ready=True, seat=2),
    action=HandedAction("/bin/true", 43, 12),
    stand_in=HandedStandIn(44, 15, 16),
    door=[13, 14],
    losses=[[0, 4, 1, 2]],
    records=b"\n{}\0" * 10,
)
BARE = Handover(settings={}, named=[], stored=[], locks={}, listening=[], reloads=None)


@pytest.mark.parametrize("handover", [FULL, BARE])
def test_what_is_packed_is_unpacked(handover: Handover) -> None:
    assert Handover.unpack(handover.pack()) == handover


def test_all_descriptors_are_named() -> None:
    assert sorted(FULL.descriptors()) == [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 70]
    assert BARE.descriptors() == []


def test_taken_once_and_by_the_same_process() -> None:
    fd = os.memfd_create("test")
    os.write(fd, FULL.pack())
    environment = {VARIABLE: f"{os.getpid() + 1}:{fd}", "OTHER": "x"}
    assert take(environment) is None
    assert environment == {"OTHER": "x"}
    environment[VARIABLE] = f"{os.getpid()}:{fd}"
    assert take(environment) == FULL
    assert take(environment) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_verdict_of_a_trial(caplog: pytest.LogCaptureFixture) -> None:
    assert not trial_wanted({})
    assert trial_wanted({TRIAL_VARIABLE: str(FORMAT)})
    assert trial_verdict({TRIAL_VARIABLE: str(FORMAT)}) == 0
    assert trial_verdict({TRIAL_VARIABLE: str(FORMAT + 1)}) == 78
    assert "the state is of another version" in caplog.text


def test_command_is_that_of_this_process() -> None:
    assert command() == [sys.executable, *sys.orig_argv[1:]]


def test_failed_execution_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    before, rights = open_descriptors(), privileges.current()
    reader, writer = os.pipe()
    with pytest.raises(FileNotFoundError):
        execute(replace(BARE, listening=[reader]))
    assert not os.get_inheritable(reader)
    assert privileges.current() == rights
    os.close(reader)
    os.close(writer)
    assert open_descriptors() == before


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    made = selectors.DefaultSelector()
    yield made
    made.close()


def program(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(reexec, "command", lambda: [sys.executable, "-S", "-c", text])


def wait(selector: selectors.BaseSelector, seconds: float = 20) -> None:
    (found,) = selector.select(seconds)
    found[0].data()


def test_trial_that_succeeds(monkeypatch: pytest.MonkeyPatch, selector: selectors.BaseSelector) -> None:
    program(monkeypatch, f"import os; raise SystemExit(os.environ[{TRIAL_VARIABLE!r}] != '{FORMAT}')")
    one = Reexecution(selector)
    assert (one.next_at(), one.pids()) == (None, set())
    one.ask(time.monotonic())
    one.ask(time.monotonic())  # it is under way
    assert (len(one.pids()), one.ready) == (1, False)
    wait(selector)
    assert one.ready
    assert not one.pids()
    patience = one.next_at()
    assert patience is not None
    one.keep_times(patience)
    assert (one.ready, one.next_at()) == (False, None)


@pytest.mark.parametrize("text", ["raise SystemExit(78)", "import os; os.kill(os.getpid(), 9)"])
def test_trial_that_fails(
    monkeypatch: pytest.MonkeyPatch, selector: selectors.BaseSelector, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    program(monkeypatch, text)
    one = Reexecution(selector)
    one.ask(time.monotonic())
    wait(selector)
    assert (one.ready, one.next_at()) == (False, None)
    assert "it goes on as it is" in caplog.text


def test_trial_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch, selector: selectors.BaseSelector) -> None:
    program(monkeypatch, "import time; time.sleep(100)")
    one = Reexecution(selector)
    one.ask(time.monotonic())
    one.keep_times(time.monotonic() + reexec.TRIAL_SECONDS + 1)
    wait(selector)
    assert not one.ready


def test_program_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, selector: selectors.BaseSelector, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    one = Reexecution(selector)
    one.ask(time.monotonic())
    assert "its program can't be started" in caplog.text
    assert one.next_at() is None


def test_trial_has_the_signals_of_any_process(monkeypatch: pytest.MonkeyPatch, selector: selectors.BaseSelector) -> None:
    program(monkeypatch, "import signal; raise SystemExit(len(signal.pthread_sigmask(signal.SIG_BLOCK, [])))")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        one = Reexecution(selector)
        one.ask(time.monotonic())
        wait(selector)
        assert one.ready
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
