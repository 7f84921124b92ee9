"""One write being prepared: what its items come to, each checked against what the items before it have left."""

from collections.abc import Callable, Iterable

from mcastd.core.desired import Draft, group_key
from mcastd.core.prepare_joins import JoinsDraft
from mcastd.core.wishes import OIFS_MAX
from mcastd.model.errors import Problem, Reason
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.record import OwnerRecord
from mcastd.model.route import Action, Oif, Paths, Route, Template
from mcastd.model.template import key_text
from mcastd.model.write import Change, Outcome, Patch, WriteOptions

_CREATE, _UPDATE = Action.CREATE, Action.UPDATE

_change = tuple.__new__
"""What a NamedTuple's own constructor does takes three times as long."""


class Local:
    """What one write comes to so far, item by item."""

    __slots__ = ("changed", "draft", "groups", "held", "joins", "options", "outcome", "record", "surplus")

    def __init__(self, draft: Draft, options: WriteOptions, outcome: Outcome) -> None:
        """Nothing yet, on top of a draft."""
        self.draft = draft
        self.options = options
        self.outcome = outcome
        self.changed: dict[bytes, Route | None] = {}
        self.groups: dict[bytes, dict[bytes, None]] = {}
        self.joins = JoinsDraft(draft, outcome)
        self.surplus: Callable[[bytes], bool] = lambda _: False
        """Whether the route of a key is deleted by this write, later on."""
        self.held = 0
        """Puts of routes that the caller has already, as asked or otherwise."""
        self.record: OwnerRecord | None = None
        """The caller's, where the write changes it."""

    def get(self, key: bytes) -> Route | None:
        """The route of this key, as the write has left it so far."""
        if key in self.changed:
            return self.changed[key]
        return self.draft.get(key)

    def owned_by_other(self, index: int, route: Route) -> bool:
        """Whether the caller may not touch it; then the item is refused. What has no owner but "kernel" is anybody's to name."""
        if route.owner in {self.options.owner, KERNEL_OWNER} or self.options.take_over:
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
                if other.owner == KERNEL_OWNER:
                    self.delete(index, key)
                    continue
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
        """Create or replace; one that is there already is kept, and refreshed if it is a session's."""
        outcome, old = self.outcome, self.get(route.key)
        if old is not None and old.same_intent(route) and (not old.session) is (not route.session):
            outcome.unchanged += 1
            self.held += 1
            outcome.kept.append((index, old))
            if route.session != old.session:
                outcome.intent.refreshed[route.key] = route.session
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
            self.held += old.owner == route.owner
            action = Action.UPDATE
        self.changed[route.key] = route
        outcome.changes.append(Change(action, index, old, route))

    def put_all(self, routes: Iterable[tuple[int, Route]]) -> None:
        """Do as `put` does for each, in order; what is the same for nearly all of many routes is done here."""
        changed, outcome, owner = self.changed, self.outcome, self.options.owner
        changes, kept, refreshed = outcome.changes, outcome.kept, outcome.intent.refreshed
        drafted, below = self.draft.layers()
        created = updated = unchanged = 0
        paths: Paths | None = None
        before: Paths | None = None
        alike = False
        for index, route in routes:
            key = route.key
            if type(route) is not Route:
                self.put(index, route)
                continue
            old = changed[key] if key in changed else drafted[key] if key in drafted else below.get(key)
            if old is None:
                created += 1
                changed[key] = route
                changes.append(_change(Change, (_CREATE, index, None, route, None)))
                continue
            if route.paths is not paths or old.paths is not before:  # Mostly they are those of the route before this one.
                paths, before = route.paths, old.paths
                alike = paths == before
            if alike and old.same_intent(route) and (not old.session) is (not route.session):
                unchanged += 1
                kept.append((index, old))
                if route.session != old.session:
                    refreshed[key] = route.session
            elif old.owner == owner:
                updated += 1
                changed[key] = route
                changes.append(_change(Change, (_UPDATE, index, old, route, None)))
            else:
                self.put(index, route)
        outcome.created += created
        outcome.updated += updated
        outcome.unchanged += unchanged
        self.held += updated + unchanged

    def patch(self, index: int, patch: Patch, session: int = 0) -> None:
        """Add and remove oifs; `session`: generation of the session that does it, 0 = a unary call; its owner's stays one."""
        old = self.get(patch.key)
        if old is None:
            text = f"{key_text(patch.key)} does not exist: a patch needs a route, put one first"
            self.outcome.refuse(index, Problem(Reason.NOT_FOUND, text), None)
            return
        if self.owned_by_other(index, old):
            return
        oifs = patched(old.paths.oifs, patch)
        if len(oifs) > OIFS_MAX:
            text = f"{key_text(patch.key)} would have {len(oifs)} oifs, more than the {OIFS_MAX} allowed"
            self.outcome.refuse(index, Problem(Reason.TOO_MANY_ITEMS, text, {"max": str(OIFS_MAX)}), old)
        elif both := {oif.interface for oif in oifs} & {oif.interface[1:] for oif in oifs if oif.interface.startswith("!")}:
            text = f"{key_text(patch.key)} would both name and exclude {min(both)}: remove one of the two"
            self.outcome.refuse(index, Problem(Reason.INVALID_INTERFACE, text, {"interface": min(both)}), old)
        else:
            new = old.copy()
            new.paths, new.owner = Paths(old.paths.iif, oifs), self.options.owner
            new.session = session or (old.session if old.owner == new.owner else 0)
            self.put(index, new)

    def delete(self, index: int, key: bytes) -> None:
        """Delete; what is not there is gone already."""
        old = self.get(key)
        if old is None:
            self.outcome.unchanged += 1
        elif not self.owned_by_other(index, old):
            self.changed[key] = None
            self.outcome.deleted += 1
            self.outcome.changes.append(Change(Action.DELETE, index, old, None))


def patched(oifs: tuple[Oif, ...], patch: Patch) -> tuple[Oif, ...]:
    """The oifs with some removed, by the name or glob they were added with, then some added or updated; sorted."""
    by_name = {oif.interface: oif for oif in oifs if oif.interface not in patch.remove}
    by_name.update((oif.interface, oif) for oif in patch.add)
    return tuple(sorted(by_name.values()))
