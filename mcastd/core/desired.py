"""Desired state by owner, and drafts: writes prepared on top of it that are not durable yet.

A draft never touches the state below it, so a write that the disk refuses leaves no trace; several drafts' intents go to disk
together (group commit).
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from mcastd.model.address import Family
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.owner import CONFIG_OWNER
from mcastd.model.record import EffectiveSettings, Intent, InterfaceSettings, OwnerRecord, Stored
from mcastd.model.route import Route, Template
from mcastd.model.template import TEMPLATE_MARK


class Desired:
    """What all owners want."""

    __slots__ = ("_fresh", "_written", "by_group", "entries", "joins", "owners", "routes", "settings")

    def __init__(self) -> None:
        """Nobody wants anything."""
        self.routes: dict[bytes, Route] = {}
        self.by_group: dict[bytes, dict[bytes, None]] = {}
        """Keys of the templates and shared trees of one group address, by table and group (`group_key`)."""
        self.owners: dict[str, OwnerRecord] = {}
        self.entries: dict[str, int] = {}
        """Routes by owner."""
        self._written: dict[str, dict[bytes, None]] = {}
        """By owner: keys of the routes that its sessions have written. What becomes of one owner's costs nothing for others'."""
        self._fresh: dict[str, int] = {}
        """By owner: how many of them are of its present generation."""
        self.settings: dict[tuple[str, str], InterfaceSettings] = {}
        """By interface and owner."""
        self.joins: dict[JoinKey, JoinRecord] = {}

    def load(self, stored: Stored) -> None:
        """Take what the store gave back; into an empty one."""
        self.routes = stored.routes
        self.owners = stored.owners
        self.settings = {key: said for key, said in stored.settings.items() if not said.silent}
        self.joins = stored.joins
        for owner in stored.owners.values():
            owner.generation = 2 if owner.syncing else 1
        for route in stored.routes.values():
            self.entries[route.owner] = self.entries.get(route.owner, 0) + 1
            if route.session:
                self._note(route)
            if isinstance(route, Template):
                self.by_group.setdefault(group_key(route.key), {})[route.key] = None

    def put(self, route: Route) -> Route | None:
        """Make it so; the route that was there before, if any."""
        old = self.routes.get(route.key)
        self.routes[route.key] = route
        if isinstance(route, Template):
            self.by_group.setdefault(group_key(route.key), {})[route.key] = None
        entries = self.entries
        if old is not None and old.session:
            self._forget(old)
        if route.session:
            self._note(route)
        if old is None:
            entries[route.owner] = entries.get(route.owner, 0) + 1
        elif old.owner != route.owner:
            entries[old.owner] -= 1
            entries[route.owner] = entries.get(route.owner, 0) + 1
        return old

    def put_all(self, keys: list[bytes], routes: list[Route]) -> list[Route | None]:
        """Make exact routes so, each with its key, of which none is there twice; the routes that were there before."""
        mine = self.routes
        olds = list(map(mine.get, keys))
        mine.update(zip(keys, routes, strict=True))
        gone = [old for old in olds if old is not None]
        before = Counter([(route.owner, route.session) for route in gone])
        after = Counter([(route.owner, route.session) for route in routes])
        self._count(before, -1)
        self._count(after, 1)
        owners = {owner if session else "" for owner, session in (*before, *after)}
        if len(gone) < len(routes) or len(owners) > 1:  # Else an owner's sessions have written them before and now, or none has.
            for route in gone:
                if route.session:
                    del self._written[route.owner][route.key]
            for route in routes:
                if route.session:
                    self._written.setdefault(route.owner, {})[route.key] = None
        return olds

    def _count(self, routes: Counter[tuple[str, int]], by: int) -> None:
        """So many routes of owner and generation have come (1) or gone (-1)."""
        for (owner, session), number in routes.items():
            self.entries[owner] = self.entries.get(owner, 0) + by * number
            if session and session == generation_of(self.owners.get(owner)):
                self._fresh[owner] = self._fresh.get(owner, 0) + by * number

    def delete(self, key: bytes) -> Route | None:
        """Take it out; the route that was there, if any."""
        old = self.routes.pop(key, None)
        if old is not None:
            self.entries[old.owner] -= 1
            if old.session:
                self._forget(old)
            if isinstance(old, Template):
                keys = self.by_group[group_key(key)]
                del keys[key]
                if not keys:
                    del self.by_group[group_key(key)]
        return old

    def _note(self, route: Route) -> None:
        owner = route.owner
        self._written.setdefault(owner, {})[route.key] = None
        if route.session == generation_of(self.owners.get(owner)):
            self._fresh[owner] = self._fresh.get(owner, 0) + 1

    def _forget(self, route: Route) -> None:
        owner = route.owner
        del self._written[owner][route.key]
        if route.session == generation_of(self.owners.get(owner)):
            self._fresh[owner] -= 1

    def put_owner(self, owner: OwnerRecord) -> bool:
        """Make it so; whether other routes of the owner are stale than before."""
        old = self.owners.get(owner.name)
        self.owners[owner.name] = owner
        if not self._written.get(owner.name):
            return False
        if generation_of(old) != owner.generation:
            self._fresh[owner.name] = 0
        return old is None or (old.session == 0, old.generation) != (owner.session == 0, owner.generation)

    def refresh(self, key: bytes, generation: int) -> bool:
        """A session says again what it has said of a route; whether that was of an earlier generation."""
        route = self.routes.get(key)
        if route is None or not 0 < route.session < generation:
            return False
        self._forget(route)
        route.session = generation
        self._note(route)
        return True

    def stale(self, route: Route) -> bool:
        """Whether its owner has yet to say that it still wants it."""
        return route.session > 0 and is_stale(route.session, self.owners.get(route.owner))

    def session_keys(self, owner: str) -> Collection[bytes]:
        """Keys of the routes that the owner's sessions have written."""
        return self._written.get(owner, {}).keys()

    def session_entries(self, owner: str) -> int:
        """How many routes the owner's sessions have written."""
        return len(self.session_keys(owner))

    def stale_entries(self, owner: str) -> int:
        """How many of the owner's routes are stale."""
        written, fresh = self.session_entries(owner), self._fresh.get(owner, 0)
        record = self.owners.get(owner)
        return written if record is None or not record.session else written - fresh

    def put_joins(self, intent: Intent) -> None:
        """The joins of an intent are in force."""
        self.joins.update((record.key, record) for record in intent.join_puts)
        for key in intent.join_deletes:
            self.joins.pop(key, None)

    def effective_settings(self, interface: str) -> EffectiveSettings:
        """What holds for an interface."""
        return effective(interface, [said for (name, _), said in self.settings.items() if name == interface])


def effective(interface: str, said: Iterable[InterfaceSettings]) -> EffectiveSettings:
    """What holds of what owners have said: thing by thing the latest word of anybody but "config"; else that of "config"."""
    thresholds: list[tuple[bool, int, int]] = []
    discovery = (False, -1, False)
    pins: dict[int, tuple[bool, int, bool]] = {}
    for one in said:
        not_config = one.owner != CONFIG_OWNER
        if one.ttl_threshold is not None:
            thresholds.append((not_config, one.ttl_revision, one.ttl_threshold))
        for table, pinned, revision in one.pins:
            pins[table] = max(pins.get(table, (False, -1, False)), (not_config, revision, pinned))
        if one.router_discovery is not None:
            discovery = max(discovery, (not_config, one.discovery_revision, one.router_discovery))
    threshold = max(thresholds)[2] if thresholds else None
    pinned_tables = frozenset(table for table, (_, _, pinned) in pins.items() if pinned)
    return EffectiveSettings(interface, threshold, pinned_tables, discovery[2])


def generation_of(owner: OwnerRecord | None) -> int:
    """The generation of an owner's routes that are not stale while its session is up."""
    return 1 if owner is None else owner.generation


def is_stale(session: int, owner: OwnerRecord | None) -> bool:
    """Whether what a session wrote in this generation is stale: the session has ended, or a replay has begun since."""
    return owner is None or not owner.session or session < owner.generation


def group_key(key: bytes) -> bytes:
    """Table, family, group and its prefix length of a template's key: what templates of one group have in common."""
    return key[:6] + key[7 : 11 if key[4] == Family.IPV4 else 23]


class Draft:
    """Desired state as it will be once the writes prepared so far are committed."""

    __slots__ = (
        "_below",
        "_groups",
        "_growth",
        "_joins",
        "_owners",
        "_refreshed",
        "_routes",
        "_settings",
        "count",
        "intents",
        "joins_count",
        "next_revision",
        "revision",
    )

    def __init__(self, below: Desired, revision: int, next_revision: Callable[[], int]) -> None:
        """Start from what is, at the current revision; `next_revision` hands out one that nothing has."""
        self._below = below
        self._routes: dict[bytes, Route | None] = {}
        self._groups: dict[bytes, dict[bytes, None]] = {}
        self._owners: dict[str, OwnerRecord] = {}
        self._settings: dict[tuple[str, str], InterfaceSettings] = {}
        self._joins: dict[JoinKey, JoinRecord | None] = {}
        self._refreshed: dict[bytes, int] = {}
        self._growth: dict[str, int] = {}
        """By owner: routes more than below."""
        self.count = len(below.routes)
        self.joins_count = len(below.joins)
        self.revision = revision
        self.next_revision = next_revision
        self.intents: list[Intent] = []

    def get(self, key: bytes) -> Route | None:
        """The route of this key."""
        if self._routes and key in self._routes:
            return self._routes[key]
        return self._below.routes.get(key)

    def layers(self) -> tuple[Mapping[bytes, Route | None], Mapping[bytes, Route]]:
        """Routes that are changed (None = deleted), and those below; valid until the next write is absorbed."""
        return self._routes, self._below.routes

    def routes(self) -> Iterator[Route]:
        """All routes."""
        if not self._routes:
            yield from self._below.routes.values()
            return
        for key, route in self._below.routes.items():
            if key not in self._routes:
                yield route
        for changed in self._routes.values():
            if changed is not None:
                yield changed

    def session_routes(self, owner: str) -> Iterator[Route]:
        """Routes that the owner's sessions have written."""
        for key in self._below.session_keys(owner):
            if key not in self._routes:
                yield self._below.routes[key]
        for changed in self._routes.values():
            if changed is not None and changed.session and changed.owner == owner:
                yield changed

    def join(self, key: JoinKey) -> JoinRecord | None:
        """The join of this key."""
        if key in self._joins:
            return self._joins[key]
        return self._below.joins.get(key)

    def joins(self) -> Iterator[JoinRecord]:
        """All joins."""
        for key, record in self._below.joins.items():
            if key not in self._joins:
                yield record
        for changed in self._joins.values():
            if changed is not None:
                yield changed

    def of_group(self, group: bytes) -> Iterator[Template]:
        """Templates and shared trees of one `group_key`."""
        for key in {**self._below.by_group.get(group, {}), **self._groups.get(group, {})}:
            route = self.get(key)
            if isinstance(route, Template):
                yield route

    def owner(self, name: str) -> OwnerRecord:
        """The owner's record, as it stands; an owner nobody has seen is one at revision 0."""
        return self._owners.get(name) or self._below.owners.get(name) or OwnerRecord(name)

    def generation(self, route: Route) -> int:
        """Generation in which a session has written or refreshed a route; 0 = a unary call wrote it."""
        return max(route.session, self._refreshed.get(route.key, 0)) if route.session else 0

    def settings(self, interface: str, owner: str) -> InterfaceSettings:
        """What this owner has set of this interface."""
        key = (interface, owner)
        return self._settings.get(key) or self._below.settings.get(key) or InterfaceSettings(interface, owner)

    def settings_of(self, owner: str) -> list[InterfaceSettings]:
        """What this owner has set of all interfaces."""
        keys = [key for key in {**self._below.settings, **self._settings} if key[1] == owner]
        return [said for key in keys if not (said := self.settings(*key)).silent]

    def effective_settings(self, interface: str) -> EffectiveSettings:
        """What holds for an interface, as it stands."""
        keys = [key for key in {**self._below.settings, **self._settings} if key[0] == interface]
        return effective(interface, [self.settings(*key) for key in keys])

    def entries(self, owner: str) -> int:
        """Routes of an owner."""
        return self._below.entries.get(owner, 0) + self._growth.get(owner, 0)

    def absorb(self, intent: Intent, changed: dict[bytes, Route | None], growth: Mapping[str, int]) -> None:
        """Let later writes of the draft see this one; `growth`: routes that each owner has more."""
        self._routes.update(changed)
        for key in [key for key in changed if key[0] >= TEMPLATE_MARK]:
            self._groups.setdefault(group_key(key), {})[key] = None
        self._owners.update((o.name, o) for o in intent.owners)
        self._refreshed.update(intent.refreshed)
        self._settings.update(((s.interface, s.owner), s) for s in intent.settings)
        self._absorb_joins(intent)
        for owner, by in growth.items():
            self._growth[owner] = self._growth.get(owner, 0) + by
            self.count += by
        self.intents.append(intent)

    def _absorb_joins(self, intent: Intent) -> None:
        self.joins_count += sum(self.join(record.key) is None for record in intent.join_puts)
        self.joins_count -= sum(self.join(key) is not None for key in intent.join_deletes)
        self._joins.update((record.key, record) for record in intent.join_puts)
        self._joins.update((key, None) for key in intent.join_deletes)
