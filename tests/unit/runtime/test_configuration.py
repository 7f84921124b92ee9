"""The configurator: one reload at a time, asked for by a signal. What one does is in tests/api/test_configuration.py."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcastd.core.engine import Engine
from mcastd.model.errors import McastdError, Reason
from mcastd.model.limits import Limits
from mcastd.model.record import Stored
from mcastd.model.rule import Rule
from mcastd.model.settings import Settings
from mcastd.model.write import Configure, Outcome, Write
from mcastd.runtime.configuration import Configurator
from mcastd.runtime.tasks import cancel, spawn
from tests.api.waiting import until


class Writes:
    """Takes writes, when it is let."""

    def __init__(self) -> None:
        self.writes: list[Configure] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = asyncio.Event()
        self.error: McastdError | None = None

    async def write(self, write: Write) -> Outcome:
        """Remember it."""
        assert isinstance(write, Configure)
        self.began.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.writes.append(write)
        return Outcome()


@pytest.fixture
def writes() -> Writes:
    return Writes()


@pytest.fixture
async def configurator(tmp_path: Path, writes: Writes) -> AsyncIterator[Configurator]:
    path = tmp_path / "mcastd.toml"
    path.write_text("")
    settings = Settings(listens=(), state_dir="/", user="me", uid=0, gid=0, change_user=False, config=str(path))
    made = Configurator(settings, Engine(1, Stored(), Limits()), writes.write, lambda: None)
    task = spawn(made.run(), "configuration")
    yield made
    await cancel(task)


async def test_a_signal_reloads(configurator: Configurator, writes: Writes) -> None:
    reloaded: list[int] = []
    configurator.on_reload = lambda: reloaded.append(1)
    configurator.ask()
    await until(lambda: bool(reloaded))
    assert [write.options.owner for write in writes.writes] == ["config"]


async def test_signals_that_come_meanwhile_are_one_more_reload(configurator: Configurator, writes: Writes) -> None:
    writes.gate.clear()
    configurator.ask()
    await writes.began.wait()
    for _ in range(5):
        configurator.ask()
    writes.gate.set()
    await until(lambda: len(writes.writes) == 2)


async def test_a_refused_write_is_told_and_the_next_signal_heard(
    configurator: Configurator, writes: Writes, caplog: pytest.LogCaptureFixture
) -> None:
    writes.error = McastdError(Reason.STORE_UNAVAILABLE, "the disk is full")
    configurator.ask()
    await until(lambda: "the configuration was not reloaded" in caplog.text)
    writes.error = None
    configurator.ask()
    await until(lambda: bool(writes.writes))


async def test_a_caller_that_leaves_leaves_the_reload_to_take_its_course(configurator: Configurator, writes: Writes) -> None:
    writes.gate.clear()
    caller = spawn(configurator.reload(), "caller")
    await writes.began.wait()
    caller.cancel()
    writes.gate.set()
    await until(lambda: bool(writes.writes))
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_reload_is_observed_from_its_beginning_to_its_end(configurator: Configurator, writes: Writes) -> None:
    seen: list[str] = []

    @contextmanager
    def observer() -> Iterator[None]:
        seen.append("begins")
        try:
            yield
            seen.append("done")
        except McastdError as exc:
            seen.append(str(exc))
            raise

    configurator.around_reload = observer
    await configurator.reload()
    await configurator.reload(validate_only=True)
    assert seen == ["begins", "done"]
    writes.error = McastdError(Reason.STORE_UNAVAILABLE, "the disk is full")
    with pytest.raises(McastdError):
        await configurator.reload()
    assert seen[2:] == ["begins", "the disk is full"]


async def test_what_can_not_be_stored_at_the_start_is_put_in_force_later(
    tmp_path: Path, writes: Writes, caplog: pytest.LogCaptureFixture
) -> None:
    """What is never stored is in force at once: rules, limits, principals, tables."""
    path = tmp_path / "mcastd.toml"
    path.write_text('[[table]]\nnumber = 100\nrules = [{ iif = "eth0", priority = 7 }]\n')
    rules: list[Sequence[Rule]] = []

    async def apply_rules(told: Sequence[Rule]) -> None:
        rules.append(told)

    settings = Settings(listens=(), state_dir="/", user="me", uid=0, gid=0, change_user=False, config=str(path))
    made = Configurator(settings, Engine(1, Stored(), Limits()), writes.write, lambda: None, apply_rules)
    principals: list[object] = []
    made.on_principals = principals.append
    writes.error = McastdError(Reason.STORE_UNAVAILABLE, "the disk is full")
    await made.start(restarted=False)
    assert "the configuration can't be put in force" in caplog.text
    assert ([one.iif for one in rules[-1]], len(principals)) == (["eth0"], 1)
    task = spawn(made.run(), "configuration")
    made.resume()
    await until(lambda: "the configuration was not reloaded" in caplog.text)
    writes.error = None
    made.resume()
    await until(lambda: len(writes.writes) == 1)
    await until(lambda: len(rules) == 2)
    made.resume()  # It is in force: nothing is done.
    await asyncio.sleep(0.02)
    await cancel(task)
    assert len(writes.writes) == 1


async def test_without_a_file_what_an_earlier_one_asked_for_goes_when_that_can_be_stored(writes: Writes) -> None:
    settings = Settings(listens=(), state_dir="/", user="me", uid=0, gid=0, change_user=False)
    made = Configurator(settings, Engine(1, Stored(), Limits()), writes.write, lambda: None)
    writes.error = McastdError(Reason.STORE_UNAVAILABLE, "the disk is full")
    await made.start(restarted=False)
    writes.error = None
    task = spawn(made.run(), "configuration")
    made.resume()
    await until(lambda: len(writes.writes) == 1)
    await cancel(task)
    with pytest.raises(McastdError, match="there is no configuration file"):
        await made.reload()


async def test_another_refusal_at_the_start_is_an_error(writes: Writes) -> None:
    settings = Settings(listens=(), state_dir="/", user="me", uid=0, gid=0, change_user=False)
    made = Configurator(settings, Engine(1, Stored(), Limits()), writes.write, lambda: None)
    writes.error = McastdError(Reason.ROUTE_LIMIT, "too many")
    with pytest.raises(McastdError, match="too many"):
        await made.start(restarted=False)
