"""Prepare what sessions write: their beginning and end, operations, replays as mark and sweep, and what a lease withdraws."""

from collections.abc import Callable, Generator
from dataclasses import replace

from mcastd.core.local import Local
from mcastd.core.sessions import TRANSITIONS, Event, expiry_of, state_of
from mcastd.model.effect import BATCH
from mcastd.model.errors import McastdError, Reason
from mcastd.model.record import OwnerRecord
from mcastd.model.route import Route
from mcastd.model.write import (
    BeginSync,
    EndSession,
    EndSync,
    ExpireLease,
    OpenSession,
    Patch,
    Program,
    SessionWrite,
)


def prepare_session(local: Local, write: SessionWrite) -> Generator[None]:
    """Prepare one; McastdError SUPERSEDED if the session is not the one that is up, NO_SESSION if a step is out of turn."""
    owner = local.draft.owner(write.options.owner)
    match write:
        case OpenSession():
            opened = replace(owner, lease=write.lease, hold_until=0.0, session=write.session, replaying=0)
            _turn(local, owner, Event.OPEN, opened)
        case Program():
            _require_up(owner, write.session)
            yield from _program(local, write, owner.generation)
        case BeginSync():
            _require_up(owner, write.session)
            begun = replace(owner, syncing=True, replaying=write.session, generation=owner.generation + 1)
            _turn(local, owner, Event.SYNC_BEGIN, begun)
        case EndSync():
            _require_up(owner, write.session)
            _turn(local, owner, Event.SYNC_END, replace(owner, syncing=False, replaying=0))
            yield from _sweep(local, owner, write.max_deletions)
        case EndSession():
            _end(local, owner, write)
        case ExpireLease():
            yield from _expire(local, owner)


def _require_up(owner: OwnerRecord, session: int) -> None:
    if owner.session != session:
        text = f"another session of owner {owner.name} has taken over (epoch {owner.epoch}): open a new one if this is the leader"
        raise McastdError(Reason.SUPERSEDED, text, by=owner.epoch, owner=owner.name)


def _turn(local: Local, owner: OwnerRecord, event: Event, after: OwnerRecord) -> None:
    """Go over into the state after an event; NO_SESSION if there is none."""
    state = state_of(owner)
    if (state, event) not in TRANSITIONS:
        text = f"{event.value} is out of turn: owner {owner.name} is {state.value}; send sync_begin before sync_end"
        raise McastdError(Reason.NO_SESSION, text, owner=owner.name, state=state.value)
    local.record = after


def _program(local: Local, write: Program, generation: int) -> Generator[None]:
    for at in range(0, len(write.ops), BATCH):
        if at:
            yield
        part = write.ops[at : at + BATCH]
        if False not in {isinstance(op, Route) for _, op in part}:
            for _, op in part:
                op.session = generation  # type: ignore[union-attr] # All are routes.
            local.put_all(part)  # type: ignore[arg-type]
        else:
            _mixed(local, part, generation)


def _mixed(local: Local, ops: list[tuple[int, Route | Patch | bytes]], generation: int) -> None:
    for number, op in ops:
        if isinstance(op, Route):
            op.session = generation
            local.put(number, op)
        elif isinstance(op, Patch):
            local.patch(number, op, generation)
        else:
            local.delete(number, op)


def _sweep(local: Local, owner: OwnerRecord, max_deletions: int) -> Generator[None]:
    generation = local.draft.generation
    stale = yield from _find(local, owner, lambda route: generation(route) < owner.generation)
    if max_deletions and len(stale) > max_deletions:
        text = f"{len(stale)} routes would be deleted, more than max_deletions {max_deletions}: they stay, stale"
        raise McastdError(Reason.TOO_MANY_DELETIONS, text, would=len(stale), max=max_deletions)
    yield from _delete(local, stale)


def _end(local: Local, owner: OwnerRecord, write: EndSession) -> None:
    """The hold time begins, unless it runs already or another session is up."""
    if owner.lease is not None and owner.session == write.session and not owner.hold_until:
        hold_time = max(owner.lease.hold_time, write.grace)
        local.record = replace(owner, session=0, replaying=0, hold_until=write.now + hold_time)


def _expire(local: Local, owner: OwnerRecord) -> Generator[None]:
    """Nothing is deleted but by a lease that says so, while its owner is away."""
    if expiry_of(owner) is Event.WITHDRAW and (state_of(owner), Event.WITHDRAW) in TRANSITIONS:
        local.record = replace(owner, lease=None, hold_until=0.0, syncing=False)
        yield from _delete(local, (yield from _find(local, owner, lambda _: True)))


def _find(local: Local, owner: OwnerRecord, wanted: Callable[[Route], bool]) -> Generator[None, None, list[bytes]]:
    """Keys of routes that the owner's sessions have written."""
    keys = []
    for at, route in enumerate(local.draft.session_routes(owner.name), 1):
        if wanted(route):
            keys.append(route.key)
        if at % BATCH == 0:
            yield
    return keys


def _delete(local: Local, keys: list[bytes]) -> Generator[None]:
    for at, key in enumerate(keys, 1):
        local.delete(at, key)
        if at % BATCH == 0:
            yield
