"""Prepare a write: check it whole against a draft and say what it comes to. Changes nothing but the draft, and that last.

Each function is a generator that yields between slices of BATCH items, so that the caller can let others run.
"""

from collections.abc import Generator
from dataclasses import replace
from itertools import islice

from mcastd.core.configure import NOW, configure, count_routes_alone
from mcastd.core.desired import Draft
from mcastd.core.local import Local
from mcastd.core.prepare_joins import prepare_joins
from mcastd.core.prepare_sessions import prepare_session
from mcastd.model.effect import BATCH
from mcastd.model.errors import McastdError, Reason
from mcastd.model.limits import JOINS_MAX
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.record import InterfaceSettings, Pin
from mcastd.model.route import Route
from mcastd.model.write import (
    Configure,
    DeleteJoins,
    DeleteRoutes,
    Outcome,
    PatchRoutes,
    PutJoins,
    PutRoutes,
    ReplaceRoutes,
    Restore,
    RestoreJoins,
    SetInterface,
    Write,
    WriteOptions,
)

Preparation = Generator[None, None, Outcome]


def prepare(draft: Draft, write: Write, routes_max: int, joins_max: int = JOINS_MAX) -> Preparation:
    """Prepare any write; McastdError if it is refused as a whole, and then the draft is as it was."""
    options = write.options
    _check_preconditions(draft, options)
    outcome = Outcome()
    local = Local(draft, options, outcome)
    match write:
        case PutRoutes():
            yield from _put(local, write.routes)
        case PatchRoutes():
            yield from _patch(local, write)
        case DeleteRoutes():
            yield from _delete(local, write)
        case ReplaceRoutes():
            yield from _replace(local, write)
        case SetInterface():
            _set_interface(local, write)
        case Restore():
            yield from _restore(local, write)
        case Configure():
            yield from _replace(local, ReplaceRoutes(options, write.routes, allow_empty=True))
            yield from configure(draft, local.joins, write, outcome)
        case PutJoins() | DeleteJoins() | RestoreJoins():
            yield from prepare_joins(local.joins, write)
        case _:
            yield from prepare_session(local, write)
    _finish(draft, local, routes_max, joins_max)
    if isinstance(write, Configure):
        count_routes_alone(outcome)
    return outcome


def _check_preconditions(draft: Draft, options: WriteOptions) -> None:
    owner = draft.owner(options.owner)
    if options.epoch and options.epoch < owner.epoch:
        text = f"epoch {options.epoch} of owner {owner.name} is stale: {owner.epoch} was seen; a newer leader is at work"
        raise McastdError(Reason.STALE_EPOCH, text, highest=owner.epoch, owner=owner.name)
    if options.if_revision and owner.revision > options.if_revision:
        text = f"owner {owner.name} is at revision {owner.revision}, past if_revision {options.if_revision}: read again and retry"
        raise McastdError(Reason.REVISION_MISMATCH, text, now=owner.revision, owner=owner.name)


def _put(local: Local, routes: list[Route]) -> Generator[None]:
    for at in range(0, len(routes), BATCH):
        if at:
            yield
        local.put_all(enumerate(routes[at : at + BATCH], at))


def _patch(local: Local, write: PatchRoutes) -> Generator[None]:
    for index, patch in enumerate(write.patches):
        local.patch(index, patch)
        if index % BATCH == BATCH - 1:
            yield


def _delete(local: Local, write: DeleteRoutes) -> Generator[None]:
    if write.keys is not None:
        for index, key in enumerate(write.keys):
            local.delete(index, key)
            if index % BATCH == BATCH - 1:
                yield
        return
    matches, options = write.matches, write.options
    for index, route in enumerate(local.draft.routes()):
        if (route.owner == options.owner or options.take_over) and (matches is None or matches(route)):
            local.delete(local.outcome.deleted, route.key)
        if index % BATCH == BATCH - 1:
            yield


def _is_surplus(write: ReplaceRoutes, route: Route | None) -> bool:
    """Whether a set leaves out a route that is in its scope."""
    if route is None or route.owner != write.options.owner or route.key in write.routes:
        return False
    return not write.cookie or route.cookie == write.cookie


def _surplus(local: Local, write: ReplaceRoutes) -> Generator[None, None, list[bytes]]:
    """Keys of the routes in its scope that a set leaves out."""
    owner, named, cookie = write.options.owner, write.routes, write.cookie
    found: list[bytes] = []
    routes = local.draft.routes()
    while part := list(islice(routes, BATCH)):
        found += [
            route.key
            for route in part
            if route.owner == owner and route.key not in named and (not cookie or route.cookie == cookie)
        ]
        if len(part) == BATCH:
            yield
    return found


def _replace(local: Local, write: ReplaceRoutes) -> Generator[None]:
    options, wanted = write.options, write.routes
    if not wanted and not write.allow_empty:
        text = "the set is empty, which would delete every route in the scope: say allow_empty if that is meant"
        raise McastdError(Reason.EMPTY_SET, text, owner=options.owner)
    local.surplus = lambda key: _is_surplus(write, local.draft.get(key))
    yield from _put(local, list(wanted.values()))
    # Mostly the owner has no route that the set does not name: then nobody has to look for one.
    surplus = (yield from _surplus(local, write)) if local.held < local.draft.entries(options.owner) else []
    if write.max_deletions and len(surplus) > write.max_deletions:
        text = f"{len(surplus)} routes would be deleted, more than max_deletions {write.max_deletions}: nothing was changed"
        raise McastdError(Reason.TOO_MANY_DELETIONS, text, would=len(surplus), max=write.max_deletions)
    for n, key in enumerate(surplus):
        local.delete(len(wanted) + n, key)
        if n % BATCH == BATCH - 1:
            yield


def _restore(local: Local, write: Restore) -> Generator[None]:
    local.surplus = dict.fromkeys(write.deletes).__contains__
    for at, route in enumerate(write.puts):
        if _untouched(local, write, route.key):
            local.put(0, route)
        if at % BATCH == BATCH - 1:
            yield
    for at, key in enumerate(write.deletes):
        if _untouched(local, write, key):
            local.delete(0, key)
        if at % BATCH == BATCH - 1:
            yield


def _untouched(local: Local, write: Restore, key: bytes) -> bool:
    """Whether a key still holds what the write has left there."""
    return write.after is None or local.get(key) is write.after.get(key)


def _set_interface(local: Local, write: SetInterface) -> None:
    """Say what is not said yet, or was overruled since; the revisions come when the write is finished."""
    draft, outcome = local.draft, local.outcome
    old, holds = draft.settings(write.interface, write.options.owner), draft.effective_settings(write.interface)
    new, threshold, pinned = old, write.ttl_threshold, write.pinned
    if threshold is not None and not old.ttl_threshold == threshold == holds.ttl_threshold:
        new = replace(new, ttl_threshold=threshold, ttl_revision=NOW)
    if pinned is not None:
        said = next((pin.pinned for pin in old.pins if pin.table == write.table), None)
        if said is not pinned or (write.table in holds.pinned_tables) is not pinned:
            others = [pin for pin in old.pins if pin.table != write.table]
            new = replace(new, pins=tuple(sorted([*others, Pin(write.table, pinned, NOW)])))
    discovery = write.router_discovery
    if discovery is not None and not old.router_discovery is discovery is holds.router_discovery:
        new = replace(new, router_discovery=discovery, discovery_revision=NOW)
    if new is old:
        outcome.unchanged += 1
    else:
        outcome.updated += 1
        outcome.intent.settings.append(new)


def _dated(said: InterfaceSettings, revision: int) -> InterfaceSettings:
    """What is said now, with its revision."""
    pins = tuple(pin._replace(revision=revision) if pin.revision == NOW else pin for pin in said.pins)
    ttl_revision = revision if said.ttl_revision == NOW else said.ttl_revision
    discovery_revision = revision if said.discovery_revision == NOW else said.discovery_revision
    return replace(said, ttl_revision=ttl_revision, pins=pins, discovery_revision=discovery_revision)


def _finish(draft: Draft, local: Local, routes_max: int, joins_max: int) -> None:
    """Check the limits, then let the draft have it."""
    outcome, options, intent = local.outcome, local.options, local.outcome.intent
    if options.all_or_nothing and outcome.refused:
        index, problem = next((c.id, c.problem) for c in outcome.changes if c.problem is not None)
        raise McastdError(problem.reason, f"item {index}: {problem.message}; nothing was changed", **problem.metadata)
    changed = local.changed
    intent.puts = [route for route in changed.values() if route is not None]
    if len(intent.puts) < len(changed):
        intent.deletes = [key for key, route in changed.items() if route is None]
    grown = outcome.created - outcome.deleted - local.joins.grown
    growth = _growth(draft, local, grown)
    _check_owner(draft, options, growth.get(options.owner, 0))
    if grown > 0 and draft.count + grown > routes_max:
        text = (
            f"{draft.count + grown} routes would be more than the {routes_max} allowed (setting routes_max): nothing was changed"
        )
        raise McastdError(Reason.ROUTE_LIMIT, text, limit=routes_max, would=draft.count + grown)
    local.joins.settle(intent, joins_max)
    caller = local.record or draft.owner(options.owner)
    if options.epoch > caller.epoch:
        local.record = replace(caller, epoch=options.epoch)
    wanted = intent or (local.record is not None and local.record != draft.owner(options.owner))
    if options.validate_only or not wanted:
        outcome.revision = draft.revision
        intent.clear()
        return
    outcome.revision = draft.revision = draft.next_revision()
    for route in intent.puts:
        route.revision = outcome.revision
    for record in intent.join_puts:
        record.revision = outcome.revision
    intent.settings = [_dated(said, outcome.revision) for said in intent.settings]
    _touch_owners(draft, local)
    draft.absorb(intent, changed, growth)


def _growth(draft: Draft, local: Local, grown: int) -> dict[str, int]:
    """How many routes more (or less) each owner has; `grown` are they all together."""
    if not _may_touch_others(draft, local.options):
        return {local.options.owner: grown}
    growth: dict[str, int] = {}
    for change in local.outcome.changes:
        if change.problem is None:
            for route, by in ((change.before, -1), (change.after, 1)):
                if route is not None:
                    growth[route.owner] = growth.get(route.owner, 0) + by
    return growth


def _may_touch_others(draft: Draft, options: WriteOptions) -> bool:
    """Whether the write may change what another owner has."""
    return options.take_over or draft.owner(KERNEL_OWNER).revision > 0


def _check_owner(draft: Draft, options: WriteOptions, grown: int) -> None:
    limit, owner = options.owner_routes_max, options.owner
    if limit and grown > 0 and (would := draft.entries(owner) + grown) > limit:
        text = f"owner {owner} would have {would} routes, more than its {limit} (routes_max of the principal)"
        raise McastdError(Reason.ROUTE_LIMIT, f"{text}: nothing was changed", limit=limit, would=would, owner=owner)


def _touch_owners(draft: Draft, local: Local) -> None:
    """What is new of the caller, and the revisions of owners whose wishes change."""
    outcome, options, intent = local.outcome, local.options, local.outcome.intent
    records = {} if local.record is None else {options.owner: local.record}
    touched = set()
    if intent.changes:
        touched.add(options.owner)
        if _may_touch_others(draft, options):
            touched.update(c.before.owner for c in outcome.changes if c.before is not None and c.problem is None)
    for name in sorted(touched):
        records[name] = replace(records.get(name) or draft.owner(name), revision=outcome.revision)
    intent.owners = list(records.values())
