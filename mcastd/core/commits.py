"""Commits: durable intents put in force, slice by slice, and the work that programs them."""

from collections.abc import Generator, Iterable, Iterator

from mcastd.core.desired import Desired
from mcastd.core.feed import Feed
from mcastd.core.joins import JoinBook, JoinWork
from mcastd.core.learning import under
from mcastd.core.plan import Work, WorkQueue
from mcastd.core.roster import Roster
from mcastd.core.sources import Sources
from mcastd.core.tables import KernelTable
from mcastd.core.templates import tree_key
from mcastd.model.address import key_family, key_table
from mcastd.model.effect import BATCH
from mcastd.model.record import Intent
from mcastd.model.route import Route, Template
from mcastd.model.template import TEMPLATE_MARK, TemplateKey, unpack_template_key


class Commits:
    """Carries intents over into all that depends on them."""

    def __init__(self, desired: Desired, roster: Roster, joins: JoinBook, sources: Sources, feed: Feed, queue: WorkQueue) -> None:
        """Carry them over into these; the work goes into the queue."""
        self._desired = desired
        self._roster = roster
        self._joins = joins
        self._sources = sources
        self._feed = feed
        self._queue = queue

    def commit(self, intent: Intent) -> Generator[None, None, Work]:
        """Put a durable intent in force; yields between slices of BATCH routes, returns the work that programs it.

        The work grows slice by slice, and is in the queue from the first one on: the kernel is busy meanwhile.
        """
        work, joining = Work(growing=True), JoinWork()
        self._queue.push(work)
        desired = self._desired
        turned = {owner.name for owner in intent.owners if desired.put_owner(owner)}
        for said in intent.settings:
            desired.settings[said.interface, said.owner] = said
            if said.silent:
                del desired.settings[said.interface, said.owner]
            self._roster.apply_settings(desired.effective_settings(said.interface), work)
            self._feed.interfaces((said.interface,))
        templates = yield from self._puts(intent.puts, work, joining)
        gone = yield from self._deletes(intent.deletes, work, joining)
        for kernel in self._kernels_of(templates):
            yield from self._sources.templates_changed(kernel)
        work.add(self._learned_under(templates + gone))
        desired.put_joins(intent)
        yield from self._joins.commit(intent, joining)
        yield from self._staleness(turned, intent.refreshed)
        work.joins = None if joining.finished else joining
        self._queue.complete(work)
        return work

    def _puts(self, puts: list[Route], work: Work, joining: JoinWork) -> Generator[None, None, list[bytes]]:
        """Put routes; the keys of those that are templates or shared trees."""
        templates: list[bytes] = []
        for at in range(0, len(puts), BATCH):
            part = puts[at : at + BATCH]
            keys = [route.key for route in part]
            if marked := [key for key in keys if key[0] >= TEMPLATE_MARK]:
                templates += marked
                olds = [self._put(route) for route in part]
                work.add(self._entry_keys(part))
            else:
                olds = self._desired.put_all(keys, part)
                self._roster.join_all(keys, part, olds)
                work.add(keys)
            if True in {route.join for route in part} or True in {old.join for old in olds if old is not None}:
                for route, old in zip(part, olds, strict=True):
                    self._joins.change_route(old, route, joining)
            self._queue.grown(work)
            yield
        return templates

    def _put(self, route: Route) -> Route | None:
        old = self._desired.put(route)
        if old is None:
            route.installed_at, route.problem = 0.0, None  # A route that is restored had another life.
            self._roster.join(route)
        else:
            route.installed_at = old.installed_at
            self._roster.leave_for(route, old)
        return old

    def _deletes(self, deletes: list[bytes], work: Work, joining: JoinWork) -> Generator[None, None, list[bytes]]:
        """Delete routes; the keys of those that are templates or shared trees."""
        templates: list[bytes] = []
        for at in range(0, len(deletes), BATCH):
            part_keys = deletes[at : at + BATCH]
            for key in part_keys:
                gone = self._desired.delete(key)
                if gone is not None:
                    self._roster.leave(gone)
                    self._roster.hand_over(gone)
                    if isinstance(gone, Template) and gone.shared_tree:
                        work.add((tree_key(key),))
                    if gone.join:
                        self._joins.drop_route(gone, joining)
            templates += [key for key in part_keys if key[0] >= TEMPLATE_MARK]
            self._feed.routes(part_keys)
            self._sources.uncovered(part_keys)
            work.add(part_keys)
            self._queue.grown(work)
            yield
        return templates

    def _staleness(self, turned: set[str], refreshed: dict[bytes, int]) -> Generator[None, None, None]:
        """Tell of routes that are stale now, or no longer."""
        keys = [key for owner in turned for key in self._desired.session_keys(owner)]
        for at in range(0, len(keys), BATCH):
            self._feed.routes(keys[at : at + BATCH])
            yield
        keys = list(refreshed)
        for at in range(0, len(keys), BATCH):
            some = keys[at : at + BATCH]
            self._feed.routes([key for key in some if self._desired.refresh(key, refreshed[key])])
            yield

    def _kernels_of(self, keys: Iterable[bytes]) -> dict[KernelTable, None]:
        found = (self._roster.tables.get((key_table(key), key_family(key))) for key in keys)  # Keys of templates, too.
        return dict.fromkeys(kernel for kernel in found if kernel is not None)

    def _entry_keys(self, routes: Iterable[Route]) -> Iterator[bytes]:
        """Keys of the entries that the routes are about; a template has a key of its own, which marks its turn."""
        for route in routes:
            yield route.key
            if isinstance(route, Template):
                yield tree_key(route.key)

    def _learned_under(self, keys: Iterable[bytes]) -> Iterator[bytes]:
        """Learned entries that these templates and trees have a say in: who writes them waits until all of those follow."""
        touched: dict[KernelTable, list[TemplateKey]] = {}
        for key in keys:
            parts = unpack_template_key(key)
            kernel = self._roster.tables.get((parts.table, parts.family))
            if kernel is not None and kernel.learned:
                touched.setdefault(kernel, []).append(parts)
        for kernel, templates in touched.items():
            yield from under(kernel, templates)
