"""Orphans are waited for by process 1, and nobody else's children."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mcastd.keeper.reaper import INTERVAL, Reaper


def nobody() -> set[int]:
    return set()


@contextmanager
def ended_child() -> Iterator[int]:
    """A child that has ended and that nobody has waited for."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        yield pid
    finally:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pid = 0


def is_there(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def test_orphan_is_waited_for_at_the_second_look() -> None:
    with ended_child() as pid:
        reaper = Reaper(nobody, 0.0, is_init=True)
        reaper.keep_times(INTERVAL)
        assert is_there(pid)
        reaper.keep_times(2 * INTERVAL)
        assert not is_there(pid)
        reaper.keep_times(3 * INTERVAL)


def test_child_that_somebody_waits_for_is_left() -> None:
    with ended_child() as pid:
        reaper = Reaper(lambda: {pid}, 0.0, is_init=True)
        for number in range(1, 5):
            reaper.keep_times(number * INTERVAL)
        assert is_there(pid)


def test_child_that_runs_is_left() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        reaper = Reaper(nobody, 0.0, is_init=True)
        for number in range(1, 4):
            reaper.keep_times(number * INTERVAL)
        process.communicate(b"\n", 20)
        assert process.returncode == 0


def test_looks_are_an_interval_apart() -> None:
    with ended_child() as pid:
        reaper = Reaper(nobody, 5.0, is_init=True)
        assert reaper.next_at() == 5.0 + INTERVAL
        reaper.keep_times(5.0 + INTERVAL)
        assert reaper.next_at() == 5.0 + 2 * INTERVAL
        reaper.keep_times(5.0 + INTERVAL + 1)
        assert is_there(pid)


@pytest.mark.skipif(os.getpid() == 1, reason="it is process 1")
def test_only_process_1_has_orphans() -> None:
    assert Reaper(nobody, 0.0).next_at() is None
