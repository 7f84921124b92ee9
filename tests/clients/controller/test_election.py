"""The epoch: given once, or as a file says."""

import asyncio
from pathlib import Path

from mcast_controller.election import Election


async def test_an_epoch_that_is_given_is_won_once() -> None:
    election = Election(7, None)
    assert election.fixed
    assert await election.won(0) == 7


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
