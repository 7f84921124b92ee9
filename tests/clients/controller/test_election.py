"""The epoch: given once, or as a file says."""

import asyncio
from pathlib import Path

import pytest

from mcast_controller.election import Election


async def test_an_epoch_that_is_given_is_won_once() -> None:
    election = Election(7, None)
    assert election.fixed
    assert await election.won(0) == 7


def test_a_file_that_is_no_epoch_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "epoch"
    election = Election(None, path)
    for write, says in (
        (path.mkdir, "Is a directory"),
        (lambda: path.write_text("two"), "'two' is no epoch"),
        (lambda: path.write_bytes(b"\xff"), "no text"),
        (lambda: path.write_text("9" * 30), "is no epoch"),
    ):
        if path.is_dir():
            path.rmdir()
        write()
        caplog.clear()
        assert [election.epoch() for _ in range(3)] == [0, 0, 0]
        assert len(caplog.records) == 1
        assert says in caplog.text
        assert str(path) in caplog.text
    caplog.clear()
    path.write_text("")
    assert election.epoch() == 0
    path.unlink()
    assert election.epoch() == 0
    assert not caplog.records


async def test_a_file_says_when(tmp_path: Path) -> None:
    path = tmp_path / "epoch"
    election = Election(None, path)
    assert not election.fixed
    for text in (None, "", "0", "x", "-1"):
        if text is not None:
            path.write_text(text)
        assert election.epoch() == 0
    async with asyncio.TaskGroup() as group:
        won = group.create_task(election.won(3))
        path.write_text("3\n")
        await asyncio.sleep(0)
        assert not won.done()
        path.write_text("4\n")
    assert won.result() == 4
    async with asyncio.TaskGroup() as group:
        group.create_task(election.lost(4))
        path.write_text("")
