"""Leases: sessions that have ended are written down as ended, hold times run, and what they withdraw is withdrawn.

Hold times are kept as points in wall-clock time, so that they run on while no server does; while one does, its own clock
counts, and a step of the wall clock neither withdraws nor keeps anything.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from mcastd.core.engine import Engine
from mcastd.core.sessions import Event, State, expiry_of, state_of
from mcastd.model.errors import McastdError, Reason
from mcastd.model.record import OwnerRecord
from mcastd.model.write import EndSession, ExpireLease, Outcome, SessionWrite, WriteOptions

RESTART_GRACE = 60.0
"""Seconds that what sessions wrote is held at least when it is the daemon that has ended them: controllers come back."""

RETRY_SECONDS = 2.0
"""Until it is tried again to write what the disk has refused."""

_log = logging.getLogger(__name__)


class Leases:
    """Carries on where sessions leave off."""

    def __init__(
        self,
        engine: Engine,
        write: Callable[[SessionWrite], Awaitable[Outcome]],
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look after the engine's owners; `clock` in seconds since the epoch, `steady` one that never steps."""
        self._engine = engine
        self._write = write
        self._clock = clock
        self._steady = steady
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._leaving = False
        self._ended: dict[tuple[str, int], None] = {}
        """Owners and numbers of sessions that have ended and are not written down as ended."""
        self._refused: set[str] = set()
        """Owners of whom it was said that this could not be stored."""
        self._due: dict[str, tuple[float, float]] = {}
        """By owner: the end of the hold time as it is stored, and by the steady clock."""

    def start(self) -> None:
        """After the load: sessions that were up when the last server ended have ended with it."""
        for owner in self._engine.desired.owners.values():
            if state_of(owner) is State.ORPHANED and not owner.hold_until:
                self.ended(owner.name, 0)

    def leave(self) -> None:
        """The daemon ends: sessions that end from now on are left to the next server, which finds that they were up."""
        self._leaving = True

    def ended(self, owner: str, session: int) -> None:
        """A session has ended, for whatever reason: it will be written down, whatever it takes."""
        if self._leaving:
            return
        self._ended[owner, session] = None
        self._idle.clear()
        self._wake.set()

    async def settled(self, seconds: float) -> bool:
        """Wait until every session that has ended is written down as ended, but no longer than this."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Write ends and expiries until cancelled."""
        while True:
            wait = await self._write_ends()
            expiring = await self._expire()
            pauses = [one for one in (wait, expiring) if one is not None]
            try:
                async with asyncio.timeout(min(pauses, default=None)):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    async def _write_ends(self) -> float | None:
        """Seconds until the next try, where one was refused."""
        for owner, session in list(self._ended):
            grace = 0.0 if session else RESTART_GRACE
            if not await self._written(EndSession(WriteOptions(owner), session, self._clock(), grace)):
                return RETRY_SECONDS
            del self._ended[owner, session]
        if not self._ended:
            self._idle.set()
        return None

    async def _expire(self) -> float | None:
        """Withdraw what is due; seconds until the next is."""
        held = {owner.name: owner for owner in list(self._engine.desired.owners.values()) if _is_held(owner)}
        self._due = {name: due for name, due in self._due.items() if name in held}
        pause = None
        for name, owner in held.items():
            left = self._left(owner)
            if left <= 0:
                if await self._written(ExpireLease(WriteOptions(name))):
                    continue
                left = RETRY_SECONDS
            pause = left if pause is None else min(pause, left)
        return pause

    def _left(self, owner: OwnerRecord) -> float:
        """Seconds of hold time left: not more than there were, whatever the wall clock says."""
        stored, due = self._due.get(owner.name, (0.0, 0.0))
        if stored != owner.hold_until:
            hold_time = owner.lease.hold_time if owner.lease is not None else 0.0
            due = self._steady() + min(owner.hold_until - self._clock(), max(hold_time, RESTART_GRACE))
            self._due[owner.name] = owner.hold_until, due
        return due - self._steady()

    async def _written(self, write: SessionWrite) -> bool:
        try:
            outcome = await self._write(write)
        except McastdError as exc:
            if exc.reason is Reason.SHUTTING_DOWN:
                raise asyncio.CancelledError from exc
            if write.options.owner not in self._refused:
                _log.warning(
                    "the end of a session could not be stored, which is tried again",
                    extra={"owner": write.options.owner, "error": str(exc)},
                )
            self._refused.add(write.options.owner)
            return False
        self._refused.discard(write.options.owner)
        if outcome.deleted:  # Not where the owner was back in time.
            text = "the hold time is over: what the owner's sessions wrote is withdrawn"
            _log.warning(text, extra={"owner": write.options.owner, "routes": outcome.deleted})
        return True


def _is_held(owner: OwnerRecord) -> bool:
    """Whether a hold time runs at whose end something is to be done."""
    return state_of(owner) is State.ORPHANED and owner.hold_until > 0 and expiry_of(owner) is Event.WITHDRAW
