"""The join book: what joins and routes want to be joined, on which interfaces, and why that can't be.

    wish     put, delete, put_route, drop_route, with the JoinWork that waits for what comes of it; then begin(work)
    event    links(...), adopt(...), retry()
    effects  step = pull(); carry it out and push(step, errnos of the leaves, errnos of the joins); until there is none

Interfaces that are down are joined on: the kernel keeps the membership for when they are up.
"""

from collections.abc import Callable, Container, Generator, Iterable, Iterator

from mcastd.core.join_problems import no_such_interface, not_capable, too_many
from mcastd.core.memberships import JoinStep, JoinWork, Memberships
from mcastd.core.shapes import World
from mcastd.model.errors import Problem
from mcastd.model.interface import Link, glob_matcher, is_glob
from mcastd.model.join import JoinKey, JoinRecord, Membership, route_join_key
from mcastd.model.limits import MEMBERSHIPS_TOTAL_MAX
from mcastd.model.record import Intent
from mcastd.model.route import Route

SLICE = 500
"""Memberships that are looked at between two yields."""

__all__ = ["JoinBook", "JoinStep", "JoinWork", "Wish"]


class Wish:
    """One join, or what routes with `join` come to; both where they are the same."""

    __slots__ = ("held", "key", "problem", "record", "routes")

    def __init__(self, key: JoinKey) -> None:
        """Wanted by nobody yet."""
        self.key = key
        self.record: JoinRecord | None = None
        self.routes: dict[bytes, Route] = {}
        self.held: dict[int, None] = {}
        """Interfaces (ifindex) on which its memberships are wanted."""
        self.problem: Problem | None = None
        """Why it is not on the interface that it names, or not on all."""

    def memberships(self, ifindex: int) -> Iterator[Membership]:
        """What it stands for on one interface."""
        for group, source in self.key.pairs():
            yield Membership(ifindex, group, source)


class JoinBook(Memberships[Wish]):
    """Wishes by key, above the memberships that they come to."""

    def __init__(
        self,
        world: World,
        memberships_max: int = MEMBERSHIPS_TOTAL_MAX,
        changed: Callable[[list[JoinKey]], None] = lambda _: None,
    ) -> None:
        """Nothing is wanted; `changed` is told of wishes that came, went or have another error."""
        super().__init__(world, self._note_wishes)
        self.wishes: dict[JoinKey, Wish] = {}
        self._max = memberships_max
        self._changed = changed
        self._told: dict[JoinKey, None] = {}
        self._by_interface: dict[str, dict[Wish, None]] = {}
        self._by_glob: dict[str, dict[Wish, None]] = {}
        self._starved: dict[Wish, None] = {}
        """Wishes that did not fit."""

    # --- wishes ------------------------------------------------------------------------------------------------------

    def put(self, record: JoinRecord, work: JoinWork) -> None:
        """A join is wanted; one that is there already is tried again where the kernel has refused it."""
        for _ in self._put_slices(record, work):
            pass

    def delete(self, key: JoinKey, work: JoinWork) -> None:
        """A join is wanted no more; what routes want of it stays."""
        for _ in self._delete_slices(key, work):
            pass

    def _put_slices(self, record: JoinRecord, work: JoinWork) -> Generator[None, None, None]:
        wish = self._wish(record.key)
        wish.record = record
        self._try_again(wish, work)
        yield from self._resolve_slices(wish, work)

    def _delete_slices(self, key: JoinKey, work: JoinWork) -> Generator[None, None, None]:
        wish = self.wishes.get(key)
        if wish is not None:
            wish.record = None
            yield from self._drop_if_unwanted(wish, work)

    def put_route(self, route: Route, work: JoinWork) -> None:
        """A route with `join` is in force."""
        wish = self._wish(route_join_key(route))
        wish.routes[route.key] = route
        self._try_again(wish, work)
        self._resolve(wish, work)

    def drop_route(self, route: Route, work: JoinWork) -> None:
        """It is not any more."""
        wish = self.wishes.get(route_join_key(route))
        if wish is not None and wish.routes.get(route.key) is route:
            del wish.routes[route.key]
            for _ in self._drop_if_unwanted(wish, work):
                pass

    def change_route(self, old: Route | None, new: Route, work: JoinWork) -> None:
        """A route is in force where another one, or none, was: the new join first, so that nothing is left between."""
        if new.join:
            self.put_route(new, work)
        if old is not None and old.join:
            self.drop_route(old, work)

    def again(self, keys: Iterable[JoinKey]) -> JoinWork:
        """Wishes that are there already are put again: try what was refused; the work waits for what has yet to be answered."""
        work = JoinWork()
        for key in keys:
            wish = self.wishes.get(key)
            if wish is not None:
                self._try_again(wish, work)
        self.begin(work)
        return work

    def load(self, records: Iterable[JoinRecord], routes: Iterable[Route]) -> None:
        """Take what is stored."""
        work = JoinWork()
        for record in records:
            self.put(record, work)
        for route in routes:
            self.put_route(route, work)
        self.begin(work)

    def allow(self, memberships_max: int) -> None:
        """There may be so many memberships from now on; those that are too many by it stay."""
        self._max = memberships_max
        self._feed_starved()
        self._tell()

    def commit(self, intent: Intent, work: JoinWork) -> Generator[None, None, None]:
        """Put the joins of a durable intent in force, and begin the work that waits for them; yields between slices."""
        seen = 0
        for record in intent.join_puts:
            yield from self._put_slices(record, work)
            if (seen := seen + record.key.size) >= SLICE:
                seen = 0
                yield
        for key in intent.join_deletes:
            yield from self._delete_slices(key, work)
            if (seen := seen + key.size) >= SLICE:
                seen = 0
                yield
        self.begin(work)

    def begin(self, work: JoinWork) -> None:
        """That was all of it: the work is finished when everything it waits for was answered, at once if nothing is left."""
        self._feed_starved()
        super().begin(work)
        self._tell()

    def _wish(self, key: JoinKey) -> Wish:
        self._told[key] = None
        wish = self.wishes.get(key)
        if wish is None:
            wish = self.wishes[key] = Wish(key)
            self._index(key.interface).setdefault(key.interface, {})[wish] = None
        return wish

    def _index(self, interface: str) -> dict[str, dict[Wish, None]]:
        return self._by_glob if is_glob(interface) else self._by_interface

    def _drop_if_unwanted(self, wish: Wish, work: JoinWork) -> Generator[None, None, None]:
        """Forget a wish of nobody at once, so that nobody finds it between two slices, then release what it holds."""
        key = wish.key
        self._told[key] = None
        if wish.record is not None or wish.routes:
            return
        self._starved.pop(wish, None)
        del self.wishes[key]
        index = self._index(key.interface)
        del index[key.interface][wish]
        if not index[key.interface]:
            del index[key.interface]
        for ifindex in list(wish.held):
            self._release(wish, ifindex, work)
            if key.size >= SLICE:
                yield

    # --- what is read ------------------------------------------------------------------------------------------------

    def record_of(self, key: JoinKey) -> JoinRecord | None:
        """A wish as a join; one that routes alone have made bears the cookie of the first. None if there is none."""
        wish = self.wishes.get(key)
        if wish is None:
            return None
        if wish.record is None:
            route = next(iter(wish.routes.values()))
            return JoinRecord(key, route.cookie, route.revision)
        return wish.record

    def error_of(self, key: JoinKey) -> Problem | None:
        """Why a wish is not joined everywhere it should be; None where it is, or the kernel has not been asked yet."""
        wish = self.wishes.get(key)
        if wish is None:
            return None
        if wish.problem is not None or not self.problems:
            return wish.problem
        members = (member for ifindex in wish.held for member in wish.memberships(ifindex))
        return next((problem for member in members if (problem := self.problems.get(member)) is not None), None)

    def error_of_route(self, route: Route) -> Problem | None:
        """Why what a route with `join` asks for is not joined."""
        return self.error_of(route_join_key(route)) if route.join else None

    def interfaces_of(self, key: JoinKey) -> list[str]:
        """Names of the interfaces on which a wish is wanted."""
        wish, by_index = self.wishes.get(key), self._world.by_index
        return [by_index[ifindex].name for ifindex in wish.held if ifindex in by_index] if wish is not None else []

    # --- events and results ------------------------------------------------------------------------------------------

    def links(self, names: Iterable[str], gone: Iterable[int], changed: Container[int]) -> Generator[None, None, None]:
        """Interfaces of these names have come, gone or changed (the world knows); ifindexes that are no more or differ."""
        self.links_gone(gone)
        self.links_changed(changed)
        seen = 0
        for wish in self._interested(names):
            if self.wishes.get(wish.key) is wish:  # It may have been deleted between two slices.
                if is_glob(wish.key.interface):  # Where it is held has another name, or it is held elsewhere.
                    self._told[wish.key] = None
                yield from self._resolve_slices(wish)
                seen += wish.key.size * max(1, len(wish.held))
                if seen >= SLICE:
                    seen = 0
                    yield
        self._feed_starved()
        self._tell()

    def push(self, step: JoinStep, left: list[int], joined: list[int]) -> None:
        """What came of a step: an errno for each leave and each join, 0 = done."""
        super().push(step, left, joined)
        self._tell()

    def _interested(self, names: Iterable[str]) -> dict[Wish, None]:
        out: dict[Wish, None] = {}
        for name in names:
            out.update(self._by_interface.get(name, {}))
            for glob, wishes in self._by_glob.items():
                if glob_matcher(glob).match(name):
                    out.update(wishes)
        return out

    # --- from wishes to memberships ----------------------------------------------------------------------------------

    def _resolve_slices(self, wish: Wish, work: JoinWork | None = None) -> Generator[None, None, None]:
        """Bring a wish up to date, yielding between interfaces where it is large: it may be on dozens of them."""
        most = 1 if wish.key.size >= SLICE else None
        while self.wishes.get(wish.key) is wish and self._resolve(wish, work, most):
            yield

    def _resolve(self, wish: Wish, work: JoinWork | None = None, most: int | None = None) -> bool:
        """Bring the interfaces of a wish up to date; the work waits for what is wanted anew.

        True = it is wanted on more interfaces than `most` at a time: go on.
        """
        key, before, held = wish.key, wish.problem, wish.held
        links, wish.problem = self._links(key.interface)
        wanted = {link.ifindex for link in links}
        for ifindex in [one for one in held if one not in wanted]:
            if self.problems:  # It may have one there.
                self._told[key] = None
            self._release(wish, ifindex, None)
        self._starved.pop(wish, None)
        added, left = 0, False
        for link in links:
            if link.ifindex in held:
                continue
            if left := added == most:
                break
            added += 1
            if len(self.wanted) + key.size > self._max:
                wish.problem = too_many(key, self._max)
                self._starved[wish] = None
                break
            held[link.ifindex] = None
            self._told[key] = None
            for member in wish.memberships(link.ifindex):
                self.want(member, wish, work)
        if before != wish.problem:
            self._told[key] = None
        return left

    def _links(self, interface: str) -> tuple[list[Link], Problem | None]:
        """Where to join, and why not; a glob that matches nothing is no problem."""
        if is_glob(interface):
            return [link for link in self._world.matching(interface).values() if link.multicast], None
        link = self._world.by_name.get(interface)
        if link is None:
            return [], no_such_interface(interface)
        return ([link], None) if link.multicast else ([], not_capable(interface))

    def _release(self, wish: Wish, ifindex: int, work: JoinWork | None) -> None:
        del wish.held[ifindex]
        for member in wish.memberships(ifindex):
            self.unwant(member, wish, work)

    def _feed_starved(self) -> None:
        """There may be room again for wishes that did not fit, in the order in which they came."""
        while self._starved:
            wish = next(iter(self._starved))
            if len(self.wanted) + wish.key.size > self._max:
                break
            self._resolve(wish)

    def _try_again(self, wish: Wish, work: JoinWork) -> None:
        if self.settled:
            return
        for ifindex in wish.held:
            for member in wish.memberships(ifindex):
                self.try_again(member, work)

    def _note_wishes(self, wishes: Iterable[Wish]) -> None:
        self._told.update((wish.key, None) for wish in wishes)

    def _tell(self) -> None:
        if self._told:
            told, self._told = self._told, {}
            self._changed(list(told))
