"""Prepare a write: check it whole against a draft and say what it comes to. Changes nothing but the draft, and that last.

Each function is a generator that yields between slices of BATCH items, so that the caller can let others run.
"""

from collections.abc import Callable, Generator
from dataclasses import replace

from mcastd.core.configure import NOW, configure, count_routes_alone
from mcastd.core.desired import Draft, group_key
from mcastd.core.prepare_joins import JoinsDraft, prepare_joins
from mcastd.model.effect import BATCH
from mcastd.model.errors import McastdError, Problem, Reason
from mcastd.model.limits import JOINS_MAX
from mcastd.model.record import InterfaceSettings, OwnerRecord, Pin
from mcastd.model.route import Action, Oif, Paths, Route, Template
from mcastd.model.template import key_text
from mcastd.model.write import (
    Change,
    Configure,
    DeleteJoins,
    DeleteRoutes,
    Outcome,
    Patch,
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

OIFS_MAX = 64
"""Names and globs among the oifs of one route."""

Preparation = Generator[None, None, Outcome]


def prepare(draft: Draft, write: Write, routes_max: int, joins_max: int = JOINS_MAX) -> Preparation:
    """Prepare any write; McastdError if it is refused as a whole, and then the draft is as it was."""
    options = write.options
    _check_preconditions(draft, options)
    outcome = Outcome()
    local = _Local(draft, options, outcome)
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
    _finish(draft, local, routes_max, joins_max)
    if isinstance(write, Configure):
        count_routes_alone(outcome)
    return outcome


class _Local:
    """One write on top of a draft."""

    __slots__ = ("changed", "draft", "groups", "joins", "options", "outcome", "surplus")

    def __init__(self, draft: Draft, options: WriteOptions, outcome: Outcome) -> None:
        self.draft = draft
        self.options = options
        self.outcome = outcome
        self.changed: dict[bytes, Route | None] = {}
        self.groups: dict[bytes, dict[bytes, None]] = {}
        self.joins = JoinsDraft(draft, outcome)
        self.surplus: Callable[[bytes], bool] = lambda _: False
        """Whether the route of a key is deleted by this write, later on."""

    def get(self, key: bytes) -> Route | None:
        if key in self.changed:
            return self.changed[key]
        return self.draft.get(key)

    def owned_by_other(self, index: int, route: Route) -> bool:
        """Whether the caller may not touch it; then the item is refused."""
        if route.owner == self.options.owner or self.options.take_over:
            return False
        remedy = "ask that owner, or take it over (take_over, needs admin access)"
        text = f"{key_text(route.key)} belongs to owner {route.owner}: {remedy}"
        self.outcome.refuse(index, Problem(Reason.OWNED_BY_OTHER, text, {"owner": route.owner}), route)
        return True

    def overlaps(self, index: int, route: Template) -> bool:
        """Whether a shared tree would take all packets of a template, or is there already; then the item is refused."""
        group = group_key(route.key)
        keys = {other.key: None for other in self.draft.of_group(group)} | self.groups.get(group, {})
        for key in keys:
            other = self.get(key)
            if key == route.key or self.surplus(key):
                continue
            if isinstance(other, Template) and (other.shared_tree or route.shared_tree):
                tree, dead = (route, other) if route.shared_tree else (other, route)
                text = (
                    f"{key_text(dead.key)} is of the group of the shared tree {key_text(tree.key)}, which takes all its packets"
                )
                remedy = "delete one of the two, or use no shared tree"
                metadata = {"owner": other.owner, "iif": other.paths.iif}
                self.outcome.refuse(index, Problem(Reason.SHARED_TREE_OVERLAP, f"{text}: {remedy}", metadata), other)
                return True
        self.groups.setdefault(group, {})[route.key] = None
        return False

    def put(self, index: int, route: Route) -> None:
        outcome, old = self.outcome, self.get(route.key)
        if old is not None and old.same_intent(route):
            outcome.unchanged += 1
            outcome.kept.append((index, old))
            return
        if old is not None and self.owned_by_other(index, old):
            return
        if isinstance(route, Template) and self.overlaps(index, route):
            return
        if old is None:
            outcome.created += 1
            action = Action.CREATE
        else:
            outcome.updated += 1
            action = Action.UPDATE
        self.changed[route.key] = route
        outcome.changes.append(Change(action, index, old, route))

    def delete(self, index: int, key: bytes) -> None:
        old = self.get(key)
        if old is None:
            self.outcome.unchanged += 1
        elif not self.owned_by_other(index, old):
            self.changed[key] = None
            self.outcome.deleted += 1
            self.outcome.changes.append(Change(Action.DELETE, index, old, None))


def _check_preconditions(draft: Draft, options: WriteOptions) -> None:
    owner = draft.owner(options.owner)
    if options.epoch and options.epoch < owner.epoch:
        text = f"epoch {options.epoch} of owner {owner.name} is stale: {owner.epoch} was seen; a newer leader is at work"
        raise McastdError(Reason.STALE_EPOCH, text, highest=owner.epoch, owner=owner.name)
    if options.if_revision and owner.revision > options.if_revision:
        text = f"owner {owner.name} is at revision {owner.revision}, past if_revision {options.if_revision}: read again and retry"
        raise McastdError(Reason.REVISION_MISMATCH, text, now=owner.revision, owner=owner.name)


def _put(local: _Local, routes: list[Route]) -> Generator[None]:
    for index, route in enumerate(routes):
        local.put(index, route)
        if index % BATCH == BATCH - 1:
            yield


def _patch(local: _Local, write: PatchRoutes) -> Generator[None]:
    for index, patch in enumerate(write.patches):
        old = local.get(patch.key)
        if old is None:
            text = f"{key_text(patch.key)} does not exist: a patch needs a route, put one first"
            local.outcome.refuse(index, Problem(Reason.NOT_FOUND, text), None)
        elif not local.owned_by_other(index, old):
            oifs = patched(old.paths.oifs, patch)
            if len(oifs) > OIFS_MAX:
                text = f"{key_text(patch.key)} would have {len(oifs)} oifs, more than the {OIFS_MAX} allowed"
                local.outcome.refuse(index, Problem(Reason.TOO_MANY_ITEMS, text, {"max": str(OIFS_MAX)}), old)
            elif both := {oif.interface for oif in oifs} & {oif.interface[1:] for oif in oifs if oif.interface.startswith("!")}:
                text = f"{key_text(patch.key)} would both name and exclude {min(both)}: remove one of the two"
                local.outcome.refuse(index, Problem(Reason.INVALID_INTERFACE, text, {"interface": min(both)}), old)
            else:
                new = old.copy()
                new.paths, new.owner = Paths(old.paths.iif, oifs), write.options.owner
                local.put(index, new)
        if index % BATCH == BATCH - 1:
            yield


def patched(oifs: tuple[Oif, ...], patch: Patch) -> tuple[Oif, ...]:
    """The oifs with some removed, by the name or glob they were added with, then some added or updated; sorted."""
    by_name = {oif.interface: oif for oif in oifs if oif.interface not in patch.remove}
    by_name.update((oif.interface, oif) for oif in patch.add)
    return tuple(sorted(by_name.values()))


def _delete(local: _Local, write: DeleteRoutes) -> Generator[None]:
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


def _replace(local: _Local, write: ReplaceRoutes) -> Generator[None]:
    options, wanted = write.options, write.routes
    if not wanted and not write.allow_empty:
        text = "the set is empty, which would delete every route in the scope: say allow_empty if that is meant"
        raise McastdError(Reason.EMPTY_SET, text, owner=options.owner)
    local.surplus = lambda key: _is_surplus(write, local.draft.get(key))
    for index, route in enumerate(wanted.values()):
        local.put(index, route)
        if index % BATCH == BATCH - 1:
            yield
    surplus = []
    for n, route in enumerate(local.draft.routes()):
        if _is_surplus(write, route):
            surplus.append(route.key)
        if n % BATCH == BATCH - 1:
            yield
    if write.max_deletions and len(surplus) > write.max_deletions:
        text = f"{len(surplus)} routes would be deleted, more than max_deletions {write.max_deletions}: nothing was changed"
        raise McastdError(Reason.TOO_MANY_DELETIONS, text, would=len(surplus), max=write.max_deletions)
    for n, key in enumerate(surplus):
        local.delete(len(wanted) + n, key)
        if n % BATCH == BATCH - 1:
            yield


def _restore(local: _Local, write: Restore) -> Generator[None]:
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


def _untouched(local: _Local, write: Restore, key: bytes) -> bool:
    """Whether a key still holds what the write has left there."""
    return write.after is None or local.get(key) is write.after.get(key)


def _set_interface(local: _Local, write: SetInterface) -> None:
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


def _finish(draft: Draft, local: _Local, routes_max: int, joins_max: int) -> None:
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
    if grown > 0 and draft.count + grown > routes_max:
        text = (
            f"{draft.count + grown} routes would be more than the {routes_max} allowed (setting routes_max): nothing was changed"
        )
        raise McastdError(Reason.ROUTE_LIMIT, text, limit=routes_max, would=draft.count + grown)
    local.joins.settle(intent, joins_max)
    wanted = bool(intent) or options.epoch > draft.owner(options.owner).epoch
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
    draft.absorb(intent, changed, grown)


def _touch_owners(draft: Draft, local: _Local) -> None:
    """New revisions of the owners whose wishes change, and the caller's epoch."""
    outcome, options, intent = local.outcome, local.options, local.outcome.intent
    caller = draft.owner(options.owner)
    touched = set()
    if intent:
        touched.add(options.owner)
        if options.take_over:
            touched.update(c.before.owner for c in outcome.changes if c.before is not None and c.problem is None)
    for name in sorted(touched):
        intent.owners.append(OwnerRecord(name, draft.owner(name).epoch, outcome.revision))
    if options.epoch > caller.epoch:
        if options.owner in touched:
            next(o for o in intent.owners if o.name == options.owner).epoch = options.epoch
        else:
            intent.owners.append(OwnerRecord(caller.name, options.epoch, caller.revision))
