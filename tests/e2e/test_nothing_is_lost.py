"""10,000 packets a second through everything that forwards, while everything that can be replaced is: not one packet is lost.

MCASTD_TEST_FULL=1 does each ten times, which takes minutes; without it a few times.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mcastd.model.address import Family
from tests.e2e.keeper_bench import status_of
from tests.e2e.notices import MfcNotices
from tests.e2e.stream import Streams, Verdict
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, wait_until
from tests.testbed.manager import FakeManager

FULL = os.environ.get("MCASTD_TEST_FULL") == "1"
TIMES = 10 if FULL else 3
STEPS = 60 if FULL else 10

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("heavy"), pytest.mark.timeout(900 if FULL else 120)]


class Witnessed:
    """A router whose daemon is under the stream."""

    def __init__(self, testbed: Testbed, directory: Path) -> None:
        self.star = testbed.star(2)
        self.directory = directory
        self._stack = ExitStack()
        self.streams = self._stack.enter_context(Streams(self.star))
        self.daemon: McastdProcess

    def start(self, **options: Any) -> McastdProcess:
        """Start a daemon; the one before has ended."""
        self.daemon = self._stack.enter_context(McastdProcess(self.star.router, self.directory, **options))
        return self.daemon

    def flow(self) -> None:
        """Program what the stream needs, and begin it."""
        result = self.daemon.put(*self.streams.routes())
        assert (result.failed, len(result.changes)) == (0, 0), result
        self.streams.start()
        self.streams.wait_flowing()

    def wait_next_server(self, before: int) -> None:
        """Wait until one server serves, and it is not this one."""
        wait_until(lambda: self._servers() not in ([], [before]) and len(self._servers()) == 1, 30, self.daemon.log)
        self.daemon.wait_ready()

    def notices(self) -> list[MfcNotices]:
        """Count the kernel's notifications of changes of both families from now on."""
        return [self._stack.enter_context(MfcNotices(self.star.router, family)) for family in Family]

    def finish(self) -> Verdict:
        """See every flow go on, stop, and see that nothing was lost."""
        self.streams.wait_flowing()
        verdict = self.streams.finish()
        verdict.check()
        return verdict

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def _servers(self) -> list[int]:
        pid = self.daemon.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if b"mcastd.runtime.server" in _command_line(child)]


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


@pytest.fixture
def witnessed(testbed: Testbed, directory: Path) -> Iterator[Witnessed]:
    """A router whose daemon is not started yet."""
    made = Witnessed(testbed, directory)
    yield made
    made.close()


def pause() -> None:
    """Any time: whoever is to be disturbed may have just begun, or be at rest."""
    time.sleep(random.uniform(0, 1.5))


def test_the_witness_itself_loses_nothing(witnessed: Witnessed) -> None:
    witnessed.start()
    witnessed.flow()
    time.sleep(30 if FULL else 2)  # what is looked for needs time to happen
    assert witnessed.finish().new_flows > 0


def test_the_witness_sees_a_loss(witnessed: Witnessed) -> None:
    """The daemon is killed where nobody holds its sockets: the kernel drops every route."""
    daemon = witnessed.start()
    witnessed.flow()
    daemon.process.kill()
    daemon.process.wait()
    wait_until(lambda: len(witnessed.star.router.command("cat", "/proc/net/ip_mr_vif").splitlines()) == 1, 10)
    time.sleep(0.5)  # packets that are lost
    verdict = witnessed.streams.finish(1)
    assert {where.partition(" ")[0] for where in verdict.lost} == {"exact", "template", "tree", "new"}
    assert (verdict.dropped_here, verdict.duplicates, verdict.astray) == (0, 0, 0)


def test_server_killed_at_random_moments(witnessed: Witnessed) -> None:
    daemon = witnessed.start()
    witnessed.flow()
    killed = 0

    def another() -> bool:
        return daemon.server_pid() not in {0, killed}

    for _ in range(TIMES):
        pause()
        wait_until(another, 20, daemon.log)
        killed = daemon.kill_server()
    witnessed.wait_next_server(killed)
    witnessed.finish()


def test_server_upgraded(witnessed: Witnessed) -> None:
    daemon = witnessed.start()
    witnessed.flow()
    for _ in range(TIMES):
        pause()
        before = daemon.server_pid()
        daemon.process.send_signal(signal.SIGUSR2)
        witnessed.wait_next_server(before)
    witnessed.finish()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_keeper_restarted_by_the_service_manager(witnessed: Witnessed, number: signal.Signals) -> None:
    """New flows too: their first packets wait in the kernel for the next keeper."""
    with FakeManager() as manager:
        witnessed.start(**manager.options())
        witnessed.flow()
        for _ in range(TIMES):
            pause()
            manager.stop(witnessed.daemon.process, number)
            witnessed.start(**manager.options())
        witnessed.finish()
        witnessed.close()


def stack_of(pid: int) -> str:
    """Where the stack of a process begins, which an execve(2) puts elsewhere."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[25]


def test_keeper_re_executed(witnessed: Witnessed) -> None:
    daemon = witnessed.start()
    witnessed.flow()
    server = daemon.server_pid()
    for _ in range(TIMES):
        pause()
        before = stack_of(daemon.process.pid)
        daemon.process.send_signal(signal.SIGUSR1)
        wait_until(lambda before=before: stack_of(daemon.process.pid) != before, 20, daemon.log)  # type: ignore[misc]
        witnessed.streams.wait_flowing()
    wait_until(lambda: daemon.log().count("the keeper is re-executed") == TIMES, 20, daemon.log)
    assert daemon.server_pid() == server
    assert daemon.serving()
    witnessed.finish()


def test_nothing_is_written_to_the_kernel_by_any_of_it(witnessed: Witnessed) -> None:
    """Without new flows, which make entries: no notification of a change, whatever is replaced."""
    with FakeManager() as manager:
        daemon = witnessed.start(**manager.options())
        witnessed.streams.new_rate = 0
        witnessed.flow()
        notices = witnessed.notices()
        witnessed.wait_next_server(daemon.kill_server())
        before = daemon.server_pid()
        daemon.process.send_signal(signal.SIGUSR2)
        witnessed.wait_next_server(before)
        stack = stack_of(daemon.process.pid)
        daemon.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: stack_of(daemon.process.pid) != stack, 20, daemon.log)
        manager.stop(daemon.process)
        witnessed.start(**manager.options())
        witnessed.finish()
        assert [one.take() for one in notices] == [0, 0]
        witnessed.close()


def test_everything_in_any_order(witnessed: Witnessed) -> None:
    """Nobody waits for anything: what one begins another interrupts. The keeper is always in its service manager's care."""
    with FakeManager() as manager:
        witnessed.start(**manager.options())
        witnessed.flow()
        done = []
        for _ in range(STEPS):
            time.sleep(random.choice([0, 0.05, 0.3, 1]) * random.random())
            done.append(
                random.choice(["kill server", "upgrade", "upgrade", "re-execute", "re-execute", "keeper TERM", "keeper KILL"])
            )
            disturb(witnessed, manager, done[-1])
            if witnessed.daemon.process.poll() is not None:
                pytest.fail(
                    f"the keeper has ended with {witnessed.daemon.process.returncode} after {done}: {witnessed.daemon.log()}"
                )
        witnessed.wait_next_server(0)
        verdict = witnessed.streams.finish()
        assert verdict.lost == {}, (done, verdict, witnessed.daemon.log())
        verdict.check()
        witnessed.close()


def takes(pid: int, number: signal.Signals) -> bool:
    """Whether a process has begun to listen to a signal; before that, at its very start, it would die of it as any does."""
    status = status_of(pid)
    return bool((int(status["SigCgt"], 16) | int(status["SigBlk"], 16)) >> (number - 1) & 1)


def disturb(witnessed: Witnessed, manager: FakeManager, how: str) -> None:
    """Do one of it."""
    process = witnessed.daemon.process
    if how == "kill server":
        if pid := witnessed.daemon.server_pid():
            with contextlib.suppress(ProcessLookupError):  # it has just ended, and somebody else's turn it is
                os.kill(pid, signal.SIGKILL)
    elif how in {"upgrade", "re-execute"}:
        number = signal.SIGUSR2 if how == "upgrade" else signal.SIGUSR1
        wait_until(lambda: takes(process.pid, number), 20)
        process.send_signal(number)
    else:
        manager.stop(process, signal.SIGTERM if how == "keeper TERM" else signal.SIGKILL)
        witnessed.start(ready=False, **manager.options())
