"""What the action script is told of: entries that packets have made or moved, when the kernel has them."""

import asyncio
import logging
from collections.abc import Mapping

import pytest

from mcastd.core.engine import Engine
from mcastd.core.plan import Work
from mcastd.core.templates import Learned
from mcastd.model.address import Family, exact_key, pack_address
from mcastd.model.event import Answer, UpcallKind
from mcastd.model.limits import Limits
from mcastd.model.record import Stored
from mcastd.model.route import Forwarding
from mcastd.runtime import actions
from mcastd.runtime.actions import ActionCaller, oifs_of
from mcastd.runtime.tasks import cancel, spawn

KEY = exact_key(0, pack_address("239.1.1.1"), pack_address("10.0.0.1"))


class Bench:
    """A caller on an engine whose learned entries the test makes."""

    def __init__(self) -> None:
        self.engine = Engine(1, Stored(), Limits())
        self.kernel = self.engine.roster.kernel(0, Family.IPV4)
        for name in ("up", "down1", "bad\x01name"):
            self.kernel.vifs.acquire(len(name), name)
        self.runs: list[tuple[str, Mapping[str, str]]] = []
        self.ran = asyncio.Event()
        self.caller = ActionCaller(self.engine, self.done, self.run)

    async def done(self, _work: Work) -> None:
        """The kernel has everything at once."""

    def run(self, reason: str, environment: Mapping[str, str]) -> None:
        """Remember a run."""
        self.runs.append((reason, environment))
        self.ran.set()

    def learn(self, key: bytes = KEY, *oifs: int, template: bool = True) -> Learned:
        """Make a learned entry, which comes in on VIF 0."""
        learned = self.kernel.learned[key] = Learned(2, 5.0)
        learned.shape = object() if template else None  # type: ignore[assignment]
        packed = (0).to_bytes(2, "little") + bytes(1 if vif in oifs else 255 for vif in range(32))
        self.kernel.actual[key] = Forwarding(packed, 0)
        return learned


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def ended(bench: Bench) -> list[tuple[str, Mapping[str, str]]]:
    """What was run once all that waits has been."""
    task = spawn(bench.caller.run(), "actions")
    for _ in range(10):
        await asyncio.sleep(0)
    await cancel(task)
    return bench.runs


async def test_an_entry_that_the_keeper_made_is_told_as_the_kernel_has_it(bench: Bench) -> None:
    bench.learn(KEY, 1, 2)
    bench.caller.upcall(KEY, UpcallKind.NOCACHE, Answer.INSTALLED, 5.0)
    bench.caller.upcall(KEY, UpcallKind.NOCACHE, Answer.INSTALLED, 5.0)
    assert await ended(bench) == [
        (
            "install",
            {
                "MCASTD_INTERFACE": "up",
                "MCASTD_SOURCE": "10.0.0.1",
                "MCASTD_GROUP": "239.1.1.1",
                "MCASTD_OIFS": "bad?name down1",
                "MCASTD_TABLE": "0",
                "source": "10.0.0.1",
                "group": "239.1.1.1",
            },
        )
    ]


@pytest.mark.parametrize("answer", [Answer.NONE, Answer.CAPPED, Answer.REFUSED])
async def test_an_upcall_that_made_no_entry_is_not(bench: Bench, answer: Answer) -> None:
    bench.learn()
    bench.caller.upcall(KEY, UpcallKind.NOCACHE, answer, 5.0)
    assert await ended(bench) == []


async def test_a_wrong_interface_is_told_only_where_the_entry_has_moved(bench: Bench) -> None:
    learned = bench.learn(KEY, 1)
    bench.caller.upcall(KEY, UpcallKind.WRONGVIF, Answer.NONE, 9.0)
    assert await ended(bench) == []
    learned.moved_at = 10.0
    bench.caller.upcall(KEY, UpcallKind.WRONGVIF, Answer.NONE, 10.0)
    assert [reason for reason, _ in await ended(bench)] == ["install"]


async def test_what_is_gone_or_stops_traffic_by_the_time_is_not_told(bench: Bench) -> None:
    other = exact_key(0, pack_address("239.1.1.2"), pack_address("10.0.0.1"))
    unknown = exact_key(9, pack_address("239.1.1.2"), pack_address("10.0.0.1"))
    bench.learn(KEY, 1)
    bench.learn(other, 1, template=False)
    for key in (KEY, other, unknown):
        bench.caller.upcall(key, UpcallKind.NOCACHE, Answer.INSTALLED, 5.0)
    del bench.kernel.learned[KEY]
    assert await ended(bench) == []


async def test_only_so_many_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(actions, "WAITING_MAX", 3)
    keys = [exact_key(0, pack_address(f"239.1.2.{number}"), pack_address("10.0.0.1")) for number in range(5)]
    with caplog.at_level(logging.WARNING):
        for key in keys:
            bench.learn(key, 1)
            bench.caller.upcall(key, UpcallKind.NOCACHE, Answer.INSTALLED, 5.0)
        assert len(await ended(bench)) == 3
    assert len(caplog.records) == 2
    assert caplog.records[-1].left_out == 2  # type: ignore[attr-defined]


async def test_start_and_reload_have_no_details(bench: Bench) -> None:
    bench.caller.start()
    bench.caller.reload()
    assert bench.runs == [("start", {}), ("reload", {})]


def test_oifs_are_read_from_what_the_kernel_takes() -> None:
    assert oifs_of(Family.IPV4, bytes(2) + bytes(1 if vif in {0, 31} else 255 for vif in range(32))) == [0, 31]
    words = [0] * 8
    words[0] = 1 << 31 | 1
    assert oifs_of(Family.IPV6, bytes(2) + b"".join(word.to_bytes(4, "little") for word in words)) == [0, 31]
