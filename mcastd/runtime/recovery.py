"""Recovery: a server whose store can't be written serves what is stored, refuses writes, and tries until it can write again.

The number of such a start can't be stored, and still no revision may come twice or run back. Revisions are start count << 40 |
counter, so this one begins at the stored count, plus one, and the microseconds since 2025, which are added as a whole: they carry
into the start count after 12 days. No engine takes a revision per microsecond, so the next start that can't be stored begins
above all that this one came to; and once something can be written the count that is stored is above it too. The clock is the
keeper's: wall-clock time when its run began, and what a clock that never steps has counted since. So only a daemon that is begun
anew, by a wall clock that was set back meanwhile, while the disk still can't be written, might give a revision again; nothing
that was acknowledged has any of these, since writes are refused.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from mcastd.core.engine import REVISION_BITS, Engine
from mcastd.model.errors import McastdError
from mcastd.model.record import Intent
from mcastd.runtime.keeper_client import Hello
from mcastd.runtime.writer import Writer
from mcastd.store.sqlite import StateChanged, Store

CLOCK_BEGINS = 1_735_689_600
"""The start of 2025, seconds since the epoch: each start that can't be stored costs 33 start counts more for every year since."""

FIRST_RETRY = 1.0
LAST_RETRY = 30.0
"""Seconds until it is tried again, at first and at most."""

_log = logging.getLogger(__name__)


def begin(store: Store, hello: Hello) -> int:
    """Count this start; the revision from which it goes on, which nothing has yet."""
    try:
        return store.begin() << REVISION_BITS
    except McastdError:  # which is `store.refusal` now, and told by the writer
        now = hello.started_at + time.monotonic() - hello.started_monotonic
        revision = first_revision(store.start_count, now)
        store.begin_later((revision >> REVISION_BITS) + 1)
        return revision


def first_revision(stored_count: int, now: float) -> int:
    """Where revisions begin if the number of the start can't be stored; `now`, seconds since the epoch, never runs back."""
    return (stored_count + 1 << REVISION_BITS) + max(0, int((now - CLOCK_BEGINS) * 1e6))


class Recovery:
    """Tries again, while writes are refused."""

    def __init__(self, engine: Engine, store: Store, writer: Writer) -> None:
        """Look after this store, whose refusals the writer tells."""
        self._engine = engine
        self._store = store
        self._writer = writer
        self._asked = asyncio.Event()
        self.on_resumed: Callable[[], None] = lambda: None
        """Called when writes can be stored again."""
        self.on_changed: Callable[[], None] = lambda: None
        """Called when what is stored turns out to be something else: another server has to load it."""

    def ask(self) -> None:
        """Try soon, if writes are refused."""
        self._asked.set()

    async def run(self) -> None:
        """Try until cancelled, or what is stored is something else."""
        if self._store.refusal is not None:
            self._writer.note_store(self._store.refusal)
        going_on = True
        while going_on:
            await self._writer.refused.wait()
            self._asked.clear()
            delay = FIRST_RETRY
            while going_on and self._writer.refusal is not None:
                await self._pause(delay)
                delay = min(2 * delay, LAST_RETRY)
                going_on = await self._try()
        self.on_changed()
        await asyncio.Event().wait()  # The server ends in order; a part of it that ends by itself would be a failure.

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            return
        self._asked.clear()

    async def _try(self) -> bool:
        """Whether to go on with what was loaded."""
        store, notice = self._store, self._store.notice
        try:
            await self._writer.on_disk(partial(store.resume, self._found() if store.anew else []))
        except McastdError as exc:
            self._writer.note_store(exc)
            return True
        except StateChanged as exc:
            text = "the state can be written again, and is another one: a server is started that loads it"
            _log.error(text, extra={"error": str(exc)})
            return False
        if store.notice is not None and store.notice != notice:
            _log.error("the stored state could not be used", extra={"notice": store.notice})
        self._writer.note_store(None)
        self.on_resumed()
        return True

    def _found(self) -> list[Intent]:
        """All that is wanted: where there was nothing, what was found in the kernel."""
        desired = self._engine.desired
        routes, joins = list(desired.routes.values()), list(desired.joins.values())
        return [Intent(puts=routes, owners=list(desired.owners.values()), join_puts=joins)]
