"""Writers at once share transactions: over gRPC and in a real database, each with a route of its own in each call."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from mcastd.model.record import Intent
from tests.api.rig import Rig, running
from tests.testbed.daemon import route

WRITES = 25

DISK = 0.005
"""Seconds that a transaction takes at least, as on most disks: one in memory is done before anybody else has come."""


class Counted:
    """How many transactions a store has made."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.transactions = 0
        self._commit = rig.store.commit
        monkeypatch.setattr(rig.store, "commit", self.commit)

    def commit(self, intents: Sequence[Intent]) -> None:
        """One more."""
        self.transactions += 1
        self._commit(intents)
        time.sleep(DISK)


async def write(rig: Rig, writer: int) -> None:
    for number in range(WRITES):
        result = await rig.put(route(f"232.{writer}.{number}.1", "10.0.0.1", "up", "down1"))
        assert result.created == 1


@pytest.mark.parametrize("writers,share", [(1, 1.0), (4, 0.7), (16, 0.3)])
async def test_many_writers_take_far_fewer_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writers: int, share: float
) -> None:
    rig = Rig(tmp_path)
    counted = Counted(rig, monkeypatch)
    async with running(rig):
        await asyncio.gather(*(write(rig, writer) for writer in range(writers)))
        assert len(rig.engine.desired.routes) == writers * WRITES
    assert counted.transactions <= share * writers * WRITES
    if writers == 1:
        assert counted.transactions == WRITES
