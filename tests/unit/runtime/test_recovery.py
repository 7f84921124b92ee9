"""mcastd.runtime.recovery: revisions of starts that can't be stored, and when it is tried to write again."""

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.core.engine import REVISION_BITS, Engine
from mcastd.model.errors import McastdError, Reason
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.limits import Limits
from mcastd.model.record import Intent, OwnerRecord, Stored
from mcastd.runtime import recovery
from mcastd.runtime.keeper_client import Hello
from mcastd.runtime.recovery import CLOCK_BEGINS, Recovery, begin, first_revision
from mcastd.runtime.tasks import cancel, spawn
from mcastd.runtime.writer import Writer
from mcastd.store.sqlite import StateChanged, Store
from tests.api.waiting import until

YEAR = 366 * 86_400


@given(st.integers(0, 4_000_000), st.floats(0, 30 * YEAR), st.floats(1e-5, YEAR), st.integers(0, 999_999))
def test_revisions_never_run_back(stored: int, since: float, later: float, share: int) -> None:
    """Of starts that can't be stored one after the other, each of which takes less than one revision per microsecond."""
    now = CLOCK_BEGINS + since
    first = first_revision(stored, now)
    assert first >= stored + 1 << REVISION_BITS  # above all that the last stored start can have come to
    last = first + int(later * share)
    second = first_revision(stored, now + later + 1e-5)
    assert second > last
    # What is stored once something can be: the next start is above all of this one.
    assert (second >> REVISION_BITS) + 2 << REVISION_BITS > second + 10**12 - 1
    assert second < 2**63


def test_a_clock_that_nobody_has_set_begins_at_the_stored_count() -> None:
    assert first_revision(7, 20.0) == 8 << REVISION_BITS


class FakeStore:
    """A store that is refused until the test says otherwise."""

    def __init__(self) -> None:
        self.refusal: McastdError | None = None
        self.refuses: Exception | None = None
        self.anew = False
        self.notice = self.moved = cast("str | None", None)
        self.start_count = 6
        self.pending = 0
        self.tries: list[list[Intent]] = []

    def begin(self) -> int:
        """Count a start."""
        if self.refusal is not None:
            raise self.refusal
        self.start_count += 1
        return self.start_count

    def begin_later(self, start_count: int) -> None:
        """Count it later."""
        self.pending = start_count

    def resume(self, found: Sequence[Intent]) -> None:
        """Try again."""
        self.tries.append(list(found))
        if self.refuses is not None:
            raise self.refuses
        self.refusal, self.notice = None, self.moved


def refused() -> McastdError:
    return McastdError(Reason.STORE_UNAVAILABLE, "the disk is full")


def hello(started_at: float) -> Hello:
    return cast("Hello", SimpleNamespace(started_at=started_at, started_monotonic=time.monotonic()))


def test_a_start_that_can_be_stored_is_counted() -> None:
    store = FakeStore()
    assert begin(cast("Store", store), hello(0)) == 7 << REVISION_BITS
    assert store.pending == 0


def test_one_that_can_not_goes_by_the_keepers_clock_and_is_counted_later() -> None:
    store = FakeStore()
    store.refusal = refused()
    began = CLOCK_BEGINS + YEAR
    revision = begin(cast("Store", store), hello(began))
    assert 0 <= revision - first_revision(6, began) < 60_000_000
    assert store.pending == (revision >> REVISION_BITS) + 1
    assert begin(cast("Store", store), hello(began + 100)) > revision


class Bench:
    """A recovery at work; the writer's disk is the loop itself."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.engine = Engine(1, Stored(), Limits())
        self.writer = Writer(self.engine, cast("Store", self.store), cast("Any", None), cast("Any", None))
        self.recovery = Recovery(self.engine, cast("Store", self.store), self.writer)
        self.resumed = self.changed = 0
        self.recovery.on_resumed = lambda: setattr(self, "resumed", self.resumed + 1)
        self.recovery.on_changed = lambda: setattr(self, "changed", self.changed + 1)


@asynccontextmanager
async def working(bench: Bench) -> AsyncIterator[Bench]:
    """Run it."""
    task = spawn(bench.recovery.run(), "recovery")
    try:
        yield bench
    finally:
        await cancel(task)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(recovery, "FIRST_RETRY", 0.01)
    return Bench()


async def test_it_is_tried_until_it_can_be_written(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    bench.store.refusal = bench.store.refuses = refused()
    async with working(bench):
        await until(lambda: len(bench.store.tries) == 3)
        assert bench.writer.refusal is bench.store.refuses
        bench.store.refuses = None
        await until(lambda: bench.writer.refusal is None)
        assert (bench.resumed, bench.changed, bench.store.tries[-1]) == (1, 0, [])
        tries = len(bench.store.tries)
        bench.recovery.ask()  # Nothing is refused: nothing is tried.
        await asyncio.sleep(0.05)
        assert len(bench.store.tries) == tries
    told = [one.getMessage() for one in caplog.records]
    assert told == ["writes are refused because they can't be stored", "writes can be stored again"]


async def test_what_is_refused_later_is_tried_too_and_at_once_when_asked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "FIRST_RETRY", 1000.0)
    async with working(bench):
        await asyncio.sleep(0)
        bench.writer.note_store(refused())
        await asyncio.sleep(0.02)
        assert bench.store.tries == []
        bench.recovery.ask()
        await until(lambda: bench.resumed == 1)
    assert bench.writer.refusal is None


async def test_pauses_grow(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LAST_RETRY", 0.04)
    bench.store.refusal = bench.store.refuses = refused()
    began = time.monotonic()
    async with working(bench):
        await until(lambda: len(bench.store.tries) == 5)
    assert time.monotonic() - began >= 0.01 + 0.02 + 0.04 * 3


async def test_where_there_was_nothing_all_that_was_found_is_stored(bench: Bench) -> None:
    key = JoinKey("kernel", "eth0", b"\xef\1\1\1", 32, b"", 0)
    bench.engine.desired.joins[key] = JoinRecord(key, "", 5)
    bench.engine.desired.put_owner(OwnerRecord("kernel"))
    bench.store.anew, bench.store.refusal = True, refused()
    async with working(bench):
        await until(lambda: bench.resumed == 1)
    ((found,),) = bench.store.tries
    assert ([one.key for one in found.join_puts], [one.name for one in found.owners], found.puts) == ([key], ["kernel"], [])


async def test_another_state_is_left_to_another_server(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.store.refusal, bench.store.refuses = refused(), StateChanged("state.db holds something else")
    async with working(bench):
        await until(lambda: bench.changed == 1)
        await asyncio.sleep(0.05)
        assert (len(bench.store.tries), bench.resumed) == (1, 0)
    assert bench.writer.refusal is not None, "it goes on refusing until it has ended"
    assert "a server is started that loads it" in caplog.text


async def test_what_is_set_aside_meanwhile_is_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.store.refusal = bench.store.refuses = McastdError(Reason.STORE_UNAVAILABLE, str(errno.EROFS))
    async with working(bench):
        await until(lambda: bool(bench.store.tries))
        bench.store.moved, bench.store.refuses = "it was moved", None
        await until(lambda: bench.resumed == 1)
    (told,) = [one for one in caplog.records if one.getMessage() == "the stored state could not be used"]
    assert told.notice == "it was moved"  # type: ignore[attr-defined]
