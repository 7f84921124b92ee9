"""The joiner: carries out what the join book plans, on the pool of join sockets, and has the keeper hold copies of these.

A join may wait for the kernel's rtnl lock, so the pool works in a thread of its own. Before it joins, it waits there until the
keeper has the socket with a note that covers what is to come: whatever kills this process, its successor finds every membership.
"""

import asyncio
import errno
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from mcastd.core.joins import JoinBook, JoinStep, JoinWork
from mcastd.kernel.joins import HeldSocket, JoinPool, Keeping
from mcastd.model.errors import McastdError, Reason
from mcastd.model.join import Membership
from mcastd.telemetry.metrics import Metrics

RETRY_SECONDS = 5.0
"""How often what the kernel refused is tried again."""

_ERRNOS = {Reason.SHUTTING_DOWN: errno.ESHUTDOWN}
"""Of what the keeper refuses; everything else is a limit of its own: EMFILE."""

_log = logging.getLogger(__name__)


class FdPort(Protocol):
    """What the joiner asks of the keeper."""

    async def store_fd(self, name: str, note: str, fd: int | None) -> None:
        """Returns when the keeper holds the socket with the note; McastdError if it does not."""

    def drop_fd(self, name: str) -> None:
        """Tell the keeper to close its copy."""


class _KeeperHolder:
    """The keeper as the pool sees it, from the pool's thread."""

    def __init__(self, keeper: FdPort, loop: asyncio.AbstractEventLoop) -> None:
        self._keeper = keeper
        self._loop = loop

    def store(self, keepings: list[Keeping]) -> list[int]:
        """Returns when each is kept with its note: 0, or an errno."""
        return asyncio.run_coroutine_threadsafe(self._store(keepings), self._loop).result()

    def drop(self, names: list[str]) -> None:
        """Forget these copies."""
        self._loop.call_soon_threadsafe(self._drop, names)

    def _drop(self, names: list[str]) -> None:
        for name in names:
            self._keeper.drop_fd(name)

    async def _store(self, keepings: list[Keeping]) -> list[int]:
        return list(await asyncio.gather(*(self._store_one(one) for one in keepings)))

    async def _store_one(self, one: Keeping) -> int:
        try:
            await self._keeper.store_fd(one.name, one.note, one.fd)
        except McastdError as exc:
            _log.warning("the keeper does not hold a join socket", extra={"socket": one.name, "error": str(exc)})
            return _ERRNOS.get(exc.reason, errno.EMFILE)
        return 0


class PoolPort(Protocol):
    """What the joiner asks of the pool; called in its thread."""

    def adopt(self, held: Iterable[HeldSocket]) -> set[Membership]:
        """Take over sockets; what they have joined."""

    def leave(self, unwanted: Sequence[Membership]) -> list[int]:
        """Leave; an errno for each."""

    def join(self, wanted: Sequence[Membership]) -> list[int]:
        """Join; an errno for each."""


def keeper_pool(keeper: FdPort) -> JoinPool:
    """A pool whose sockets the keeper holds as well; needs the running loop, and another thread to work it."""
    return JoinPool(_KeeperHolder(keeper, asyncio.get_running_loop()))


class Joiner:
    """Carries out the book's plan whenever there is anything in it. Use it in one event loop."""

    def __init__(self, book: JoinBook, pool: PoolPort, metrics: Metrics) -> None:
        """Nothing is joined yet."""
        self._failures = metrics.membership_failures
        self._book = book
        self._pool = pool
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._waiting: dict[JoinWork, asyncio.Future[None]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="joins")

    async def adopt(self, held: Iterable[HeldSocket]) -> None:
        """Take over what a predecessor has left with the keeper, and tell the book; before `run`."""
        sockets = list(held)
        found = await asyncio.get_running_loop().run_in_executor(self._thread, self._pool.adopt, sockets)
        self._book.adopt(found)
        if sockets:
            _log.info("join sockets are taken over", extra={"sockets": len(sockets), "memberships": len(found)})

    def wake(self) -> None:
        """There may be something to do."""
        self._quiet.clear()
        self._wake.set()

    async def done(self, work: JoinWork) -> None:
        """Wait until the kernel has answered for all that a work is about."""
        if not work.finished:
            future = self._waiting.setdefault(work, asyncio.get_running_loop().create_future())
            self.wake()
            await asyncio.shield(future)

    async def quiet(self) -> None:
        """Wait until there is nothing to do."""
        await self._quiet.wait()

    async def run(self) -> None:
        """Carry out steps until cancelled; the step under way is finished then, since its thread can't be stopped."""
        try:
            while True:
                self._wake.clear()
                await self._drain()
                self._quiet.set()
                try:
                    async with asyncio.timeout(RETRY_SECONDS if self._book.troubled else None):
                        await self._wake.wait()
                except TimeoutError:
                    self._book.retry()
        finally:
            text = "the daemon is ending: the write is stored, and its joins follow when it is back"
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(McastdError(Reason.SHUTTING_DOWN, text))
            self._thread.shutdown(wait=False)

    async def _drain(self) -> None:
        while step := self._book.pull():
            left, joined = await self._in_thread(step)
            self._book.push(step, left, joined)
            for number in filter(None, (*left, *joined)):
                self._failures.labels(errno.errorcode.get(number, str(number))).inc()
            self._report()
            await asyncio.sleep(0)
        self._report()

    async def _in_thread(self, step: JoinStep) -> tuple[list[int], list[int]]:
        """Carry out a step; not given up halfway, when cancelled, while its thread still asks for the keeper by this loop."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._carry_out, step)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    def _carry_out(self, step: JoinStep) -> tuple[list[int], list[int]]:
        return self._pool.leave(step.leave), self._pool.join(step.join)

    def _report(self) -> None:
        for work in self._book.finished():
            future = self._waiting.pop(work, None)
            if future is not None and not future.done():
                future.set_result(None)
