"""Limits and priority of the keeper's process."""

import os
import resource
from types import SimpleNamespace
from typing import Any

import pytest

from mcastd.keeper import scheduling


@pytest.mark.parametrize(
    "soft,hard,wanted",
    [
        (1024, 4096, [(4096, 4096)]),
        (1024, resource.RLIM_INFINITY, [(scheduling.FILES_MAX, resource.RLIM_INFINITY)]),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, []),
        (scheduling.FILES_MAX, 1 << 20, []),
    ],
)
def test_limit_of_files_is_raised_as_far_as_it_goes(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: list[tuple[int, int]]
) -> None:
    done: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: done.append(limits))
    scheduling.raise_file_limit()
    assert done == wanted


@pytest.mark.parametrize(
    "policy,asked", [(os.SCHED_OTHER, False), (os.SCHED_FIFO, True), (os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, False)]
)
def test_what_is_started_is_ordinary(monkeypatch: pytest.MonkeyPatch, policy: int, asked: bool) -> None:
    """Asked for only where it would not be so anyway: a service manager may forbid to ask."""
    done: list[tuple[Any, ...]] = []
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: policy)
    monkeypatch.setattr(os, "sched_setscheduler", lambda *arguments: done.append(arguments[:2]))
    assert [policy for policy, _ in scheduling.ordinary().values()] == [os.SCHED_OTHER] * asked
    scheduling.be_ordinary()
    assert done == [(0, os.SCHED_OTHER)] * asked


def test_priority_that_is_not_to_be_had_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "no")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(scheduling, "gc", SimpleNamespace(collect=int, freeze=int, set_threshold=lambda *_: None))
    scheduling.take_priority()
