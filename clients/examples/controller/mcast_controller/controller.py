"""Owns the controller at work: takes what routers tell, plans, and has the routers told, one step after the other."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mcast.client import Lease
from mcast_controller import wishes
from mcast_controller.election import Election
from mcast_controller.flows import Flows
from mcast_controller.metrics import Metrics
from mcast_controller.order import Step
from mcast_controller.router import Fenced, Southbound
from mcast_controller.topology import FileError, Port, Topology
from mcast_controller.trees import Entry, Flow

log = logging.getLogger("mcast_controller")

TICK = 1.0
RETRY = 5.0
"""Seconds after which a refused route is tried again."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    lease: Lease
    flows_max: int = 10_000
    idle: float = 60.0
    """Seconds after which a flow without packets is forgotten; 0 = never."""
    answer: float = 0.5
    """Seconds that a step waits for a router's answer before the others go on."""
    avoid: float = 30.0
    """Seconds after which a router that cannot be reached is avoided where there is another way."""
    start: float = 2.0
    """Seconds that a new leader waits for all routers before it tells the first one anything."""
    drain: float = 0.0
    """Seconds between two steps of a change: at least as long as packets may be under way."""
    rebalance: bool = False
    """Flows go back when a link comes back, at the cost of some packets."""


class Controller:
    """One replica."""

    def __init__(self, topology: Topology, wishes_path: Path, settings: Settings, metrics: Metrics) -> None:
        self._topology = topology
        self._wishes_path = wishes_path
        self._settings = settings
        self._metrics = metrics
        self._routers = {name: Southbound(router, topology.owner, self) for name, router in topology.routers.items()}
        self._away = dict.fromkeys(self._routers, time.monotonic())
        """Since when routers cannot be reached; not there = connected."""
        self._retry: dict[Flow, float] = {}
        self._wake = asyncio.Event()
        self._all_there = asyncio.Event()
        """All routers are watched and take orders."""
        self._since = 0.0
        """When the first event came that is not dealt with yet; 0 = there is none."""
        self._stamp: tuple[int, int] | None = None
        self._fault = ""
        """What is wrong with the wishes file, where the log has told it."""
        self._wishes = wishes.Wishes()
        self._flows = self._new()
        self.reload()

    # --- what routers tell (Ears) ------------------------------------------------------------------------------------

    def source_seen(self, flow: Flow, port: Port) -> None:
        """See Ears."""
        self._flows.seen(flow, port, time.monotonic())
        self._stir()

    def interfaces_changed(self) -> None:
        """See Ears."""
        self._count_present()
        self._look()

    def flow_active(self, flow: Flow, router: str) -> None:
        """See Ears."""
        self._flows.active(flow, router, time.monotonic())

    def attached(self, router: str, entries: Mapping[Flow, Entry]) -> None:
        """See Ears."""
        log.info("%s: session stands, it has %d routes", router, len(entries))
        self._flows.found(router, entries, time.monotonic())
        self._count_present()
        self._stir()

    def refused(self, router: str, flow: Flow, reason: str, message: str) -> None:
        """See Ears."""
        log.warning("%s: %s was refused: %s: %s", router, flow, reason, message)
        self._metrics.failures.labels(router, reason).inc()
        self._flows.refuse(flow, router)
        self._retry[flow] = time.monotonic() + RETRY

    # --- running -----------------------------------------------------------------------------------------------------

    async def run(self, election: Election) -> None:
        """Follow all routers, and lead whenever it is this replica's turn; ends when an epoch that is given once is used up."""
        try:
            async with asyncio.TaskGroup() as group:
                watches = [group.create_task(router.watch()) for router in self._routers.values()]
                watches.append(group.create_task(self._ticks()))
                used = 0
                while not (used and election.fixed):
                    used = await election.won(used)
                    await self._term(used, election)
                for watch in watches:
                    watch.cancel()
        finally:
            for router in self._routers.values():
                await router.close()

    async def _term(self, epoch: int, election: Election) -> None:
        log.info("leading with epoch %d", epoch)
        self._flows = self._new()
        self._all_there.clear()
        self._metrics.epoch.set(epoch)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(router.lead(epoch, self._settings.lease)) for router in self._routers.values()]
                tasks.append(group.create_task(self._work()))
                await election.lost(epoch)
                for task in tasks:
                    task.cancel()
        except* Fenced as exc:
            log.warning("standing by: %s", exc.exceptions[0])
        finally:
            self._metrics.epoch.set(0)

    def _new(self) -> Flows:
        """Know nothing: a new leader learns from the routers what there is."""
        flows = Flows(
            self._topology, self._wishes, self._settings.flows_max, self._settings.idle, rebalance=self._settings.rebalance
        )
        flows.network(*self._broken())
        return flows

    async def _work(self) -> None:
        """Plan and tell whenever something has happened."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.start):
                await self._all_there.wait()
        for router in self._routers.values():
            for flow, port in router.sources():
                self._flows.seen(flow, port, time.monotonic())
        self._look()
        self._stir()
        while True:
            await self._wake.wait()
            self._wake.clear()
            began, self._since = self._since, 0.0
            self._metrics.pending.set(1)
            if planned := self._flows.plan():
                for at, step in enumerate(planned):
                    if at:
                        await asyncio.sleep(self._settings.drain)
                    await self._carry_out(step)
                self._metrics.converge.observe(time.monotonic() - began)
            self._show()

    async def _carry_out(self, step: Step) -> None:
        told = await asyncio.gather(*(self._routers[name].tell(changes, self._settings.answer) for name, changes in step.items()))
        for (name, changes), answered in zip(step.items(), told, strict=True):
            if self._routers[name].attached:
                self._metrics.writes.labels(name).inc(len(changes))
                if not answered:
                    self._metrics.late.labels(name).inc()
            else:  # It is asked what it has when it comes.
                for flow, _ in changes:
                    self._flows.refuse(flow, name)

    def _count_present(self) -> None:
        if all(router.attached and router.connected for router in self._routers.values()):
            self._all_there.set()

    def _stir(self) -> None:
        if self._flows.dirty:
            self._since = self._since or time.monotonic()
            self._wake.set()

    def _look(self) -> None:
        """Take the links as the routers tell of them now."""
        if self._flows.network(*self._broken()):
            log.info("%d of %d links are down", self._flows.links_down, len(self._topology.links))
            self._stir()

    def _broken(self) -> tuple[set[Port], set[str]]:
        """Interfaces that are down, and routers that are to be avoided."""
        late = time.monotonic() - self._settings.avoid
        down = {port for port in self._topology.link_of if self._routers[port.router].down(port)}
        return down, {name for name, since in self._away.items() if since < late}

    # --- now and then ------------------------------------------------------------------------------------------------

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.reload()
            now = time.monotonic()
            for name, router in self._routers.items():
                if not router.connected:
                    self._away.setdefault(name, now)
                elif self._away.pop(name, None) is not None:
                    self._flows.present(name, now)
            self._flows.expire(now, self._routers.keys() - self._away.keys())
            due = [flow for flow, when in self._retry.items() if when <= now]
            for flow in due:
                del self._retry[flow]
            self._flows.again(due)
            self._look()
            self._stir()
            self._show()

    def reload(self) -> None:
        """Read the wishes again where the file has changed; a file that cannot be used changes nothing."""
        try:
            found = self._wishes_path.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._wishes = wishes.load(self._wishes_path, self._topology)
        except OSError as exc:
            self._bad(f"{self._wishes_path}: {exc.strerror}")
        except FileError as exc:
            self._bad(str(exc))
        else:
            self._fault = ""
            self._metrics.wishes_valid.set(1)
            self._flows.want(self._wishes)
            self._stir()

    def _bad(self, text: str) -> None:
        if text != self._fault:
            log.error("the wishes stay as they were: %s", text)
        self._fault = text
        self._metrics.wishes_valid.set(0)

    def _show(self) -> None:
        metrics, flows = self._metrics, self._flows
        metrics.flows.set(len(flows.known))
        metrics.moves.set(flows.moves)
        metrics.refused.set(flows.refused)
        metrics.unreached.set(sum(known.unreached for known in flows.known.values()))
        metrics.links_down.set(flows.links_down)
        metrics.pending.set(self._wake.is_set() or any(router.pending for router in self._routers.values()))
        for name, router in self._routers.items():
            metrics.router_up.labels(name).set(router.connected)
            metrics.router_attached.labels(name).set(router.attached)
            metrics.router_routes.labels(name).set(sum(name in known.told for known in flows.known.values()))
