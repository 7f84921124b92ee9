"""The writer: the one path of every write. Prepare on a draft, make durable, put in force, wait for the kernel.

Writes that come while the disk is busy are prepared on one draft and go to it in one transaction (group commit).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from mcastd.core.desired import Draft
from mcastd.core.engine import Engine
from mcastd.core.memberships import JoinWork
from mcastd.core.plan import Work
from mcastd.core.prepare import prepare
from mcastd.model.errors import McastdError, Reason
from mcastd.model.join import route_join_key
from mcastd.model.write import Outcome, SessionWrite, Write
from mcastd.runtime.executor import Executor
from mcastd.runtime.tasks import cancel, in_slices, spawn
from mcastd.store.sqlite import Store

QUEUE_MAX = 1024
"""Writes that wait; more are refused rather than kept in memory. Those of sessions do not count: each has but few under way."""

GROUP_MAX = 64
"""Writes in one transaction."""

COMPACT_AGAIN_SECONDS = 60.0
"""Between a compaction that failed (a full disk) and the next try."""

_END = object()
_Done = asyncio.Future[tuple[Outcome, list[Work | JoinWork]]]

_log = logging.getLogger(__name__)


class JoinPort(Protocol):
    """What the writer asks of whoever joins and leaves."""

    def wake(self) -> None:
        """There may be something to do."""

    async def done(self, work: JoinWork) -> None:
        """Wait until the kernel has answered for all that a write joins and leaves."""


class Writer:
    """Takes writes in the order in which they come."""

    def __init__(self, engine: Engine, store: Store, executor: Executor, joiner: JoinPort) -> None:
        """Write to these."""
        self._joiner = joiner
        self._engine = engine
        self._store = store
        self._executor = executor
        self._queue: deque[tuple[Write, _Done]] = deque()
        self._waiting = 0
        """Of these, what is not a session's."""
        self._wake = asyncio.Event()
        self._steady = asyncio.Event()
        self._steady.set()
        self._closed = False
        self._working = False
        self._compaction: asyncio.Task[None] | None = None
        self._compact_after = 0.0
        self.refusal: McastdError | None = None
        """Why what was written last could not be stored; None = it could."""
        self.refused = asyncio.Event()
        """Set while there is a refusal."""
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def write(self, write: Write) -> Outcome:
        """Carry out a write; on return it is on disk and the kernel has answered. McastdError: nothing was changed.

        A caller that is cancelled leaves the write to take its course.
        """
        if self._closed:
            raise McastdError(Reason.SHUTTING_DOWN, "the daemon is ending: try again when it is back")
        bounded = not isinstance(write, SessionWrite)
        if bounded and self._waiting >= QUEUE_MAX:
            text = f"{QUEUE_MAX} writes wait already, for the disk or the processor: try again later"
            raise McastdError(Reason.STORE_UNAVAILABLE, text, waiting=QUEUE_MAX)
        done: _Done = asyncio.get_running_loop().create_future()
        self._queue.append((write, done))
        self._waiting += bounded
        self._wake.set()
        outcome, works = await done
        for work in works:
            await (self._executor.done(work) if isinstance(work, Work) else self._joiner.done(work))
        if works and _starved(outcome):
            # A VIF that this very write has freed may still be on its way to them.
            await self._executor.quiet()
        return outcome

    @property
    def busy(self) -> bool:
        """Whether writes are being carried out, or wait for it."""
        return self._working or bool(self._queue)

    async def steady(self) -> None:
        """Wait until no write is half in force."""
        while not self._steady.is_set():  # The next write of a group may begin before who waits is woken.
            await self._steady.wait()

    async def run(self) -> None:
        """Take writes until cancelled; those that wait then are refused."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    group = [self._queue.popleft() for _ in range(min(len(self._queue), GROUP_MAX))]
                    self._waiting -= sum(not isinstance(write, SessionWrite) for write, _ in group)
                    await self._group(group)
                    self._compact_if_due()
        finally:
            self._closed = True
            for _, done in self._queue:
                if not done.done():
                    done.set_exception(McastdError(Reason.SHUTTING_DOWN, "the daemon is ending: the write was not begun"))
            if self._compaction is not None:
                await cancel(self._compaction)
            self._disk.shutdown(wait=True)

    async def _group(self, group: list[tuple[Write, _Done]]) -> None:
        draft = self._engine.draft()
        self._working = True
        try:
            await self._on_draft(draft, group)
        finally:
            self._working = False
            self._engine.settled()

    async def _on_draft(self, draft: Draft, group: list[tuple[Write, _Done]]) -> None:
        prepared: list[tuple[Outcome, _Done]] = []
        for write, done in group:
            if done.cancelled():
                continue  # Whoever asked has left before it began.
            try:
                outcome = await in_slices(prepare(draft, write, self._engine.routes_max, self._engine.limits.joins_max))
            except McastdError as exc:
                _fail(done, exc)
            else:
                prepared.append((outcome, done))
        if draft.intents:
            try:
                await asyncio.get_running_loop().run_in_executor(self._disk, self._store.commit, draft.intents)
            except McastdError as exc:
                self.note_store(exc)
                for _, done in prepared:
                    _fail(done, exc)
                return
            self.note_store(self._store.refusal)
        for outcome, done in prepared:
            works = await self._put_in_force(outcome)
            self._executor.wake()
            self._joiner.wake()
            if not done.done():
                done.set_result((outcome, works))

    def note_store(self, error: McastdError | None) -> None:
        """Say once when writes can't be stored, and once when they can again: the log may be on the same disk."""
        if error is not None and self.refusal is None:
            _log.error("writes are refused because they can't be stored", extra={"error": str(error)})
            self.refused.set()
        elif error is None and self.refusal is not None:
            _log.info("writes can be stored again")
            self.refused.clear()
        self.refusal = error

    async def on_disk(self, call: Callable[[], None]) -> None:
        """Have the store do something else, between two commits."""
        await asyncio.get_running_loop().run_in_executor(self._disk, call)

    async def _put_in_force(self, outcome: Outcome) -> list[Work | JoinWork]:
        """What the kernel has to answer for before the caller gets his."""
        engine = self._engine
        works: list[Work | JoinWork] = []
        if outcome.intent:
            self._steady.clear()
            try:
                work = await in_slices(engine.commit(outcome.intent), self._executor.wake)
                works += [work] if work.joins is None else [work, work.joins]
                engine.settled(outcome.revision)
            finally:
                self._steady.set()
        if late := [route.key for _, route in outcome.kept if not route.installed_at and route.fate.forwarding is not None]:
            # As asked already, but the kernel has yet to answer: for an earlier write, or after a refusal.
            again = Work(late)
            engine.enqueue(again)
            works.append(again)
        joins = [change.key for change in outcome.joins if change.after is change.before]
        joins += [route_join_key(route) for _, route in outcome.kept if route.join]
        if joins:
            works.append(engine.joins.again(joins))
        return works

    def _compact_if_due(self) -> None:
        """Rewrite the journal as a snapshot where it has grown long; commits come between its slices.

        Called when no write waits for the disk: what is desired is then just what the journal holds.
        """
        now = asyncio.get_running_loop().time()
        if self._compaction is None and now >= self._compact_after and self._store.wants_compaction():
            desired = self._engine.desired
            slices = self._store.compaction(
                self._store.mark(),
                list(desired.routes.values()),
                list(desired.owners.values()),
                list(desired.settings.values()),
                list(desired.joins.values()),
            )
            self._compaction = spawn(self._compact(slices), "compaction")

    async def _compact(self, slices: Iterator[None]) -> None:
        loop = asyncio.get_running_loop()
        try:
            while await loop.run_in_executor(self._disk, next, slices, _END) is not _END:
                pass
        except McastdError as exc:
            _log.warning("the journal could not be compacted, and goes on growing", extra={"error": str(exc)})
            self._compact_after = loop.time() + COMPACT_AGAIN_SECONDS
        finally:
            self._compaction = None


def _fail(done: _Done, error: McastdError) -> None:
    if not done.done():
        done.set_exception(error)


def _starved(outcome: Outcome) -> bool:
    """Whether the write freed anything and some route of it lacks a VIF."""
    if not (outcome.deleted or outcome.updated):
        return False
    fates = {change.after.fate for change in outcome.changes if change.after is not None}
    fates.update([route.fate for _, route in outcome.kept])
    return any(fate.problem is not None and fate.problem.reason is Reason.VIF_TABLE_FULL for fate in fates)
