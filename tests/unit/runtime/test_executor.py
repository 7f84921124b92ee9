"""mcastd.runtime.executor: effects carried out in order, results reported, refusals counted and tried again."""

import asyncio
import errno
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import generate_latest

from mcastd.core.engine import Engine
from mcastd.core.plan import Work
from mcastd.core.unused import CLOSE_SECONDS
from mcastd.model.address import Family
from mcastd.model.errors import KernelRefused, McastdError, Reason
from mcastd.model.event import LinkChanged, LinkGone, LinksResync
from mcastd.model.interface import Link
from mcastd.model.limits import Limits
from mcastd.model.record import Intent, Stored
from mcastd.model.route import Oif, Paths, Route, RouteState
from mcastd.model.template import TemplateChange
from mcastd.runtime import executor
from mcastd.runtime.executor import INLINE, Executor
from mcastd.runtime.tasks import cancel, spawn
from mcastd.telemetry.metrics import Metrics
from tests.api.rig import FakeMroute
from tests.api.waiting import until
from tests.fakekernel import FakeKernel
from tests.fakerouter import drain
from tests.netns.routed import key_of


class FakeKeeper:
    """What the executor asks of the keeper; `refusal` is the answer to every open."""

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel
        self.log: list[tuple[object, ...]] = []
        self.refusal: McastdError | None = None
        self.families = list(Family)

    async def set_vif_map(self, table: int, family: Family, entries: tuple[tuple[int, int, str], ...]) -> None:
        """Remember the map."""
        self.log.append(("map", table, family, [name for _, _, name in entries]))

    async def set_templates(self, table: int, family: Family, changes: list[TemplateChange], *, whole: bool) -> None:
        """Remember what there is to remember; every server begins with a whole set."""
        if changes or not whole:
            self.log.append(("templates", table, family, [(change.key, change.action is not None) for change in changes], whole))

    def set_learned(self, table: int, family: Family, counts: list[tuple[bytes, int]]) -> None:
        """Remember the counts."""
        self.log.append(("learned", table, family, counts))

    async def open_table(self, table: int) -> dict[Family, Any]:
        """Open a table."""
        self.log.append(("open", table))
        if self.refusal is not None:
            raise self.refusal
        out = {}
        for family in self.families:
            assert not self.kernel.init((table, family))
            out[family] = mroute = FakeMroute(self.kernel, family)
            mroute.where = (table, family)
        return out

    async def close_table(self, table: int) -> None:
        """Close a table, which the server has closed by then."""
        self.log.append(("close", table))
        for family in self.families:
            del self.kernel.tables[table, family]


class Bench:
    """An executor on an engine with the interfaces up, down1 and down2, table 0 open."""

    def __init__(self) -> None:
        self.kernel = FakeKernel()
        self.engine = Engine(1, Stored(), Limits())
        for ifindex, name in enumerate(("up", "down1", "down2"), 1):
            self.kernel.set_link(Link(ifindex, name, up=True, multicast=True))
        self.engine.links(LinksResync(tuple(self.kernel.links.values())))
        self.mroutes = {}
        for family in Family:
            self.kernel.init((0, family))
            self.mroutes[0, family] = FakeMroute(self.kernel, family)
            self.engine.adopt(0, family, [], [])
        self.keeper = FakeKeeper(self.kernel)
        self.metrics = Metrics()
        tables: Any = self.mroutes
        self.executor = Executor(self.engine, self.keeper, tables, self.metrics)

    def write(self, *routes: Route, delete: tuple[bytes, ...] = ()) -> Work:
        """Put routes in force; the work that programs them."""
        work = drain(self.engine.commit(Intent(puts=list(routes), deletes=list(delete))))
        self.executor.wake()
        return work

    def metric(self, name: str) -> str:
        """The line of a sample."""
        lines = generate_latest(self.metrics.registry).decode().splitlines()
        return next((line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")), "")


@asynccontextmanager
async def working() -> AsyncIterator[Bench]:
    """Run an executor."""
    bench = Bench()
    task = spawn(bench.executor.run(), "executor")
    try:
        yield bench
    finally:
        for mroute in bench.mroutes.values():
            mroute.gate.set()
        await cancel(task)


def route(number: int, *oifs: str, table: int = 0, family: Family = Family.IPV4) -> Route:
    """A route by number."""
    return Route(key_of(family, number, table), Paths("up", tuple(Oif(name) for name in oifs or ("down1",))), "alice")


@pytest.mark.parametrize("family", list(Family))
async def test_a_work_is_done_when_the_kernel_has_it(family: Family) -> None:
    async with working() as bench:
        await bench.executor.done(bench.write(route(1, family=family), route(2, "down2", family=family)))
        assert bench.kernel.paths(key_of(family, 1)) == (1, {2: 1})
        assert bench.kernel.paths(key_of(family, 2)) == (1, {3: 1})
        assert bench.keeper.log[0] == ("map", 0, family, ["up", "down1", "down2"]), "before the kernel has the VIFs"
        assert bench.metric('mcastd_kernel_operations_total{op="add_mfc"}') == "2.0"
        assert bench.metric('mcastd_kernel_operations_total{op="add_vif"}') == "3.0"


async def test_a_work_that_is_done_need_not_be_waited_for() -> None:
    async with working() as bench:
        work = bench.write(route(1))
        await bench.executor.done(work)
        await bench.executor.done(work)


async def test_many_can_wait_for_one_work_and_leave() -> None:
    async with working() as bench:
        work = bench.write(route(1))
        loop = asyncio.get_running_loop()
        waiting = [loop.create_task(bench.executor.done(work)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting[1:])


async def test_a_large_batch_does_not_hold_the_loop_up() -> None:
    async with working() as bench:
        mroute = bench.mroutes[0, Family.IPV4]
        mroute.gate.clear()
        work = bench.write(*[route(n) for n in range(1, INLINE + 2)])
        await until(mroute.held_back.is_set)
        assert not work.finished
        mroute.gate.set()
        await bench.executor.done(work)
        assert len(bench.kernel.tables[0, Family.IPV4].entries) == INLINE + 1


async def test_a_small_batch_is_done_at_once() -> None:
    async with working() as bench:
        bench.mroutes[0, Family.IPV4].gate.clear()  # which holds back other threads alone
        async with asyncio.timeout(5):
            await bench.executor.done(bench.write(*[route(n) for n in range(1, INLINE + 1)]))
        assert threading.current_thread() is threading.main_thread()


async def test_quiet_is_when_nothing_is_left() -> None:
    async with working() as bench:
        bench.write(*[route(n) for n in range(1, 3000)])
        await bench.executor.quiet()
        assert len(bench.kernel.tables[0, Family.IPV4].entries) == 2999
        bench.write(delete=tuple(key_of(Family.IPV4, n) for n in range(1, 3000)))
        await bench.executor.quiet()
        assert bench.kernel.tables[0, Family.IPV4].entries == {}
        assert bench.kernel.tables[0, Family.IPV4].vifs == [None] * 32, "VIFs go with their last route"


async def test_refusals_are_counted_by_name_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "RETRY_SECONDS", 0.02)
    async with working() as bench:
        bench.kernel.refuse("add_mfc", errno.ENOMEM, 3)
        work = bench.write(route(1))
        await bench.executor.done(work)
        put = bench.engine.desired.routes[key_of(Family.IPV4, 1)]
        seen = [put.state]
        await until(lambda: put.state is not RouteState.FAILED)
        assert [*seen, put.state] == [RouteState.FAILED, RouteState.PROGRAMMED]
        assert bench.metric('mcastd_kernel_operation_failures_total{errno="ENOMEM",op="add_mfc"}') == "3.0"
        assert not bench.engine.troubled


async def test_a_refused_vif_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(executor, "RETRY_SECONDS", 0.02)
    async with working() as bench:
        bench.kernel.refuse("add_vif", errno.ENOBUFS, 1, lambda ifindex: ifindex == 2)
        await bench.executor.done(bench.write(route(1)))
        put = bench.engine.desired.routes[key_of(Family.IPV4, 1)]
        assert "the kernel refused a VIF" in caplog.text
        await until(lambda: put.state is RouteState.PROGRAMMED)


async def test_a_vif_that_went_with_its_link_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    async with working() as bench:
        await bench.executor.done(bench.write(route(1)))
        bench.kernel.delete_link(2)
        bench.write(delete=(key_of(Family.IPV4, 1),))
        bench.engine.links(LinkGone(2, "down1"))
        bench.executor.wake()
        await bench.executor.quiet()
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_table_is_opened_when_a_route_needs_it() -> None:
    async with working() as bench:
        await bench.executor.done(bench.write(route(1, table=7)))
        await bench.executor.quiet()
        assert bench.kernel.paths(key_of(Family.IPV4, 1, 7)) == (1, {2: 1})
        await bench.executor.done(bench.write(route(2, table=7, family=Family.IPV6)))
        assert [line for line in bench.keeper.log if line[0] == "open"] == [("open", 7)]


async def test_a_table_that_nothing_wants_is_closed_and_opened_again() -> None:
    async with working() as bench:
        await bench.executor.done(bench.write(route(1, table=7)))
        await bench.executor.done(bench.write(delete=(key_of(Family.IPV4, 1, 7),)))
        for now in (0.0, CLOSE_SECONDS):
            bench.engine.unused.look((), now)
        bench.executor.wake()
        await bench.executor.quiet()
        await bench.executor.done(bench.write(route(2, table=7)))
        assert [line for line in bench.keeper.log if line[0] in {"open", "close"}] == [("open", 7), ("close", 7), ("open", 7)]
        assert bench.kernel.paths(key_of(Family.IPV4, 2, 7)) == (1, {2: 1})
        assert bench.kernel.paths(key_of(Family.IPV4, 1, 7)) is None


async def test_a_table_that_cannot_be_opened_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "RETRY_SECONDS", 0.02)
    async with working() as bench:
        bench.keeper.refusal = McastdError(Reason.MROUTE_SOCKET_BUSY, "table 7 belongs to pimd")
        await bench.executor.done(bench.write(route(1, table=7)))
        await bench.executor.quiet()
        put = bench.engine.desired.routes[key_of(Family.IPV4, 1, 7)]
        assert put.fate.problem is not None
        assert (put.state, put.fate.problem.reason) == (RouteState.FAILED, Reason.MROUTE_SOCKET_BUSY)
        bench.keeper.refusal = None
        await until(lambda: put.state is RouteState.PROGRAMMED)


async def test_a_family_that_the_kernel_lacks_is_named() -> None:
    async with working() as bench:
        bench.keeper.families = [Family.IPV4]
        await bench.executor.done(bench.write(route(1, table=7, family=Family.IPV6)))
        await bench.executor.quiet()
        problem = bench.engine.desired.routes[key_of(Family.IPV6, 1, 7)].fate.problem
        assert problem is not None
        assert "IPV6" in problem.message


async def test_link_events_are_carried_out() -> None:
    async with working() as bench:
        await bench.executor.done(bench.write(route(1, "d*")))
        link = Link(9, "d9", up=True, multicast=True)
        bench.kernel.set_link(link)
        bench.engine.links(LinkChanged(link))
        bench.executor.wake()
        await bench.executor.quiet()
        assert bench.kernel.paths(key_of(Family.IPV4, 1)) == (1, {2: 1, 3: 1, 9: 1})


async def test_a_probe_is_answered_by_thread_and_kernel_and_changes_nothing() -> None:
    async with working() as bench:
        asked: list[str] = []
        for mroute in bench.mroutes.values():
            mroute.vif_counters = lambda _: asked.append(threading.current_thread().name)  # type: ignore[method-assign,assignment]
        await asyncio.wait_for(bench.executor.probe(), 5)
        assert [name.rpartition("_")[0] for name in asked] == ["kernel"]
        assert bench.kernel.mfc_changes == 0
        await asyncio.gather(*(asyncio.wait_for(bench.executor.probe(), 5) for _ in range(3)))
        await bench.executor.quiet()


async def test_a_refusal_of_the_kernel_is_an_answer() -> None:
    async with working() as bench:

        def refuse(_: int) -> None:
            raise KernelRefused("SIOCGETVIFCNT", errno.EBADF, "closed")

        for mroute in bench.mroutes.values():
            mroute.vif_counters = refuse  # type: ignore[method-assign,assignment]
        await asyncio.wait_for(bench.executor.probe(), 5)


async def test_a_probe_is_not_answered_while_the_kernel_does_not() -> None:
    async with working() as bench:
        await bench.executor.quiet()
        gate = threading.Event()
        for mroute in bench.mroutes.values():
            mroute.vif_counters = lambda _: gate.wait(10)  # type: ignore[method-assign,assignment,return-value]
        probe = spawn(bench.executor.probe(), "probe")
        await asyncio.sleep(0.05)
        assert not probe.done()
        gate.set()
        await asyncio.wait_for(probe, 5)


async def test_a_probe_has_its_turn_among_the_steps_of_a_long_work() -> None:
    async with working() as bench:
        work = bench.write(*(route(number) for number in range(5 * INLINE + 20_000)))
        await asyncio.wait_for(bench.executor.probe(), 10)
        assert not work.finished
        await bench.executor.done(work)
