"""Limits of the keeper's process."""

import resource

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
