"""What a service manager sees: READY in time, words with counts, reloads with their time, a watchdog that means something."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import grpc
import pytest

from mcast.v1 import services_pb2 as sv
from mcastd.model.address import Family
from tests.e2e.router import Router
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until
from tests.testbed.manager import FakeManager

pytestmark = pytest.mark.kernel

RATE = 1000
"""Packets a second."""

WATCHDOG = 6.0
"""Seconds; half of it is the keeper's patience with a server."""


HANGING = """
import signal, sys, time

def stand_still(*_):
    time.sleep(3600)

def hang_executor(*_):
    def hang(_mroute):
        time.sleep(3600)
    sys.modules["mcastd.runtime.executor"]._ask_kernel = hang

if "mcastd.runtime.server" in sys.orig_argv:
    signal.signal(signal.SIGUSR1, stand_still)
    signal.signal(signal.SIGUSR2, hang_executor)
"""
"""In the server, as sitecustomize."""


class Tracer:
    """Attached to a process as a debugger is, without stopping it."""

    def __init__(self, pid: int) -> None:
        self._process = subprocess.Popen(
            ["strace", "-qq", "-e", "trace=none", "-p", str(pid)], stderr=subprocess.DEVNULL, start_new_session=True
        )
        status = Path(f"/proc/{pid}/status")
        wait_until(lambda: f"TracerPid:\t{self._process.pid}\n" in status.read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(10)


@pytest.fixture
def manager() -> Iterator[FakeManager]:
    """A service manager that keeps no descriptors."""
    with FakeManager(store_max=0) as made:
        yield made


def watched(manager: FakeManager, **environment: str) -> dict[str, Any]:
    """Options of a start with a watchdog."""
    return manager.options(environment={"WATCHDOG_USEC": str(int(WATCHDOG * 1e6)), **environment})


def statuses(manager: FakeManager) -> list[str]:
    """All words so far."""
    return [line.removeprefix("STATUS=") for line in manager.states() if line.startswith("STATUS=")]


def fed(manager: FakeManager) -> list[float]:
    """When the watchdog was fed."""
    return [one.at for one in list(manager.told) if "WATCHDOG=1" in one.lines]


def test_ready_comes_after_the_first_reconciliation(testbed: Testbed, manager: FakeManager, directory: Path) -> None:
    with Router(testbed, Family.IPV4, directory=directory) as router:
        count = 5000
        router.daemon.replace(router.route(number, "down1") for number in range(count))
        router.daemon.close()
        assert not router.kernel()
        router.start(directory=directory, ready=False, **watched(manager))
        manager.wait_state("READY=1")
        assert len(router.kernel()) == count
        told = manager.states()
        assert told.count("READY=1") == 1
        before = told[: told.index("READY=1")]
        assert any(line.startswith("STATUS=starting; ") for line in before)
        assert "EXTEND_TIMEOUT_USEC=60000000" in before
        manager.wait_for(
            lambda: statuses(manager)[-1] == f"{count} of {count} routes in the kernel, 0 joins, 0 sessions, 0 watchers"
        )
        after = manager.states()
        assert "EXTEND_TIMEOUT_USEC=60000000" not in after[after.index("READY=1") :]


def test_words_count_what_there_is_and_change_at_most_once_a_second(
    testbed: Testbed, manager: FakeManager, family: Family
) -> None:
    with Router(testbed, family, **manager.options()) as router:
        manager.wait_state("STATUS=0 of 0 routes in the kernel, 0 joins, 0 sessions, 0 watchers")
        router.put(router.route(1, "down1"), router.route(2, "nowhere2", iif="nowhere1"))
        watch = router.daemon.events.Watch(sv.WatchRequest())
        next(iter(watch))
        manager.wait_state("STATUS=1 of 2 routes in the kernel, 0 joins, 0 sessions, 1 watcher")
        began, told = time.monotonic(), len(statuses(manager))
        for number in range(300):
            router.put(router.route(10 + number, "down1"))
        manager.wait_state("STATUS=301 of 302 routes in the kernel, 0 joins, 0 sessions, 1 watcher")
        assert len(statuses(manager)) - told <= (time.monotonic() - began) + 2
        watch.cancel()  # type: ignore[no-untyped-call]
        manager.wait_state("STATUS=301 of 302 routes in the kernel, 0 joins, 0 sessions, 0 watchers")
        router.daemon.close()
        assert "STOPPING=1" in manager.states()


@pytest.mark.parametrize("asked_by", ["signal", "call"])
def test_a_reload_is_told_with_its_time(testbed: Testbed, manager: FakeManager, directory: Path, asked_by: str) -> None:
    config = directory / "mcastd.toml"
    config.write_text("")

    with Router(testbed, Family.IPV4, arguments=["--config", str(config)], **manager.options()) as router:

        def reload() -> None:
            if asked_by == "signal":
                os.kill(router.daemon.process.pid, signal.SIGHUP)
            else:
                router.daemon.daemon.ReloadConfiguration(sv.ReloadConfigurationRequest(), timeout=20)

        manager.wait_state("READY=1")
        words = statuses(manager)
        for text, wrong in (("", False), ("[daemon]\nnonsense = 1\n", True), ("# better\n", False)):
            config.write_text(text)
            manager.forget()
            before = time.monotonic_ns() // 1000
            if wrong and asked_by == "call":
                with pytest.raises(grpc.RpcError):
                    reload()
            else:
                reload()
            manager.wait_state("READY=1")
            told = manager.states()
            assert told.count("RELOADING=1") == told.count("READY=1") == 1
            at = told.index("RELOADING=1")
            assert at < told.index("READY=1")
            name, _, value = told[at + 1].partition("=")
            assert name == "MONOTONIC_USEC"
            assert before <= int(value) <= time.monotonic_ns() // 1000
            words = (statuses(manager) or words)[-1:]
            assert ("the configuration was not reloaded" in words[0]) is wrong


def test_a_reload_that_its_server_does_not_survive_ends_with_the_next_one(testbed: Testbed, manager: FakeManager) -> None:
    with Router(testbed, Family.IPV4, **manager.options()) as router:
        manager.wait_state("READY=1")
        pid = router.daemon.server_pid()
        os.kill(pid, signal.SIGSTOP)
        manager.forget()
        os.kill(router.daemon.process.pid, signal.SIGHUP)
        manager.wait_state("RELOADING=1")
        os.kill(pid, signal.SIGKILL)
        manager.wait_state("READY=1")
        assert any("it is started again" in words for words in statuses(manager))


def test_the_watchdog_is_fed_while_routes_are_written_in_bulk(testbed: Testbed, manager: FakeManager) -> None:
    with Router(testbed, Family.IPV4, **watched(manager)) as router:
        manager.wait_state("READY=1")
        until, rounds = time.monotonic() + 2 * WATCHDOG, 0
        while time.monotonic() < until:
            router.daemon.replace(router.route(number, ("down1", "down2")[rounds % 2]) for number in range(20_000))
            rounds += 1
        times = fed(manager)
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert rounds > 1
        assert max(gaps) < WATCHDOG / 2
        assert router.daemon.log().count("the server is started") == 1


def test_a_server_that_hangs_is_replaced_and_no_packet_is_lost(testbed: Testbed, manager: FakeManager, family: Family) -> None:
    with Router(testbed, family, **watched(manager)) as router:
        sender = router.sender()
        router.put(router.route(sender, "down1"))
        receiver = router.star.receivers[0].receiver(sender.group)
        flow = sender.start(RATE)
        receiver.wait(sender, RATE // 10)
        manager.wait_for(lambda: bool(fed(manager)))
        pid = router.daemon.server_pid()
        with router.notices() as notices:
            os.kill(pid, signal.SIGSTOP)
            stopped = time.monotonic()
            wait_until(lambda: router.daemon.server_pid() not in {0, pid}, 3 * WATCHDOG, router.daemon.log)
            took = time.monotonic() - stopped
            router.wait_server_after(pid)
            assert notices.take() == 0
        assert WATCHDOG / 2 <= took < WATCHDOG
        flow.stop()
        receiver.wait(sender)
        assert receiver.missing(sender) == []
        # Not fed from the first question that found no answer to the end of that server.
        assert not [at for at in fed(manager) if stopped + WATCHDOG / 6 < at < stopped + WATCHDOG / 2]
        manager.forget()
        manager.wait_for(lambda: bool(fed(manager)))
        assert "the server does not answer: it is replaced" in router.daemon.log()


@pytest.mark.parametrize("how,where", [(signal.SIGUSR1, "stand_still"), (signal.SIGUSR2, "hang")])
def test_a_server_that_hangs_somewhere_says_where(
    testbed: Testbed, manager: FakeManager, directory: Path, how: signal.Signals, where: str
) -> None:
    """Its loop (USR1), or its executor's thread while the loop goes on (USR2)."""
    (directory / "sitecustomize.py").write_text(HANGING)
    with Router(testbed, Family.IPV4, **watched(manager, PYTHONPATH=str(directory))) as router:
        manager.wait_for(lambda: bool(fed(manager)))
        pid = router.daemon.server_pid()
        os.kill(pid, how)
        began = time.monotonic()
        router.wait_server_after(pid)
        assert time.monotonic() - began >= WATCHDOG / 2
        log = router.daemon.log()
        assert "Fatal Python error: Aborted" in log, log
        assert where in log[log.index("Fatal Python error") :]
        assert 'status="signal SIGABRT"' in log


def test_a_server_that_somebody_debugs_is_left_alone(testbed: Testbed, manager: FakeManager) -> None:
    with Router(testbed, Family.IPV4, **watched(manager)) as router:
        manager.wait_for(lambda: bool(fed(manager)))
        pid = router.daemon.server_pid()
        with Tracer(pid):
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: "somebody debugs it" in router.daemon.log(), 3 * WATCHDOG)
            began = time.monotonic()
            wait_until(lambda: time.monotonic() > began + WATCHDOG / 2, WATCHDOG)
            assert router.daemon.server_pid() == pid
            os.kill(pid, signal.SIGCONT)
        manager.forget()
        manager.wait_for(lambda: bool(fed(manager)))
        assert router.daemon.server_pid() == pid


def test_a_server_that_is_slow_to_start_is_left_alone(testbed: Testbed, manager: FakeManager, directory: Path) -> None:
    with Router(testbed, Family.IPV4, directory=directory, **watched(manager)) as router:
        manager.wait_state("READY=1")
        first = router.daemon.server_pid()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: router.daemon.server_pid() not in {0, first}, 20)
        pid = router.daemon.server_pid()
        os.kill(pid, signal.SIGSTOP)
        manager.forget()
        began = time.monotonic()
        manager.wait_for(lambda: len(fed(manager)) > 8)
        while time.monotonic() < began + WATCHDOG:
            time.sleep(0.1)
        times = [began, *fed(manager)]
        assert max(later - earlier for earlier, later in pairwise(times)) < WATCHDOG / 2
        assert router.daemon.server_pid() == pid
        os.kill(pid, signal.SIGCONT)
        router.daemon.wait_ready()
