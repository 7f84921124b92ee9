"""Keeping orphans: a store that has begun anew is given what kernel and keeper hold of ours, before anything is planned.

In two steps, since join sockets are taken over after the tables; the store is `anew` until both are on disk, so a server that is
killed in between leaves the rest to the next one. Where nothing can be written they are kept in memory (recovery.py stores them).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import chain

from mcastd.core.engine import Engine
from mcastd.core.orphans import FoundTable, orphaned_joins, orphaned_routes, orphans_left
from mcastd.kernel import mfc_dump
from mcastd.model.address import Family
from mcastd.model.errors import McastdError
from mcastd.model.event import AdoptedEntry
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.record import Intent, OwnerRecord, Stored
from mcastd.model.route import Route
from mcastd.runtime.keeper_client import Hello, KeeperClient
from mcastd.runtime.recovery import begin
from mcastd.store.sqlite import Store

_log = logging.getLogger(__name__)


async def load(store: Store, hello: Hello, keeper: KeeperClient, names: Mapping[int, str]) -> tuple[int, Stored]:
    """Revision from which this start goes on, and what is stored, with what is found where that is nothing yet.

    `names` are those of links by ifindex.
    """
    revision, stored = begin(store, hello), store.load()
    if store.anew:
        routes: list[Route] = []
        for table, family in hello.sockets:
            found = await _look(hello, keeper, table, family)
            routes += orphaned_routes(found, names, stored.routes, revision)
        if routes:
            owner = OwnerRecord(KERNEL_OWNER, revision=revision)
            _write(store.commit, Intent(puts=routes, owners=[owner]))
            stored.routes.update((route.key, route) for route in routes)
            stored.owners[owner.name] = owner
    return revision, stored


def _write(write: Callable[[list[Intent]], None], found: Intent) -> None:
    """What can't be stored now is kept all the same, and stored when it can; the writer tells why not."""
    with suppress(McastdError):
        write([found])


async def _look(hello: Hello, keeper: KeeperClient, table: int, family: Family) -> FoundTable:
    """The keeper is asked first: what it adds meanwhile by these templates is in the dump."""
    templates = await keeper.tell_templates(table, family)
    dump = await asyncio.to_thread(mfc_dump.dump, family, table)
    entries = (
        AdoptedEntry(entry.key, dump.paths_of(entry), entry.protocol == mfc_dump.PROTOCOL_FOREIGN)
        for entry in dump
        if not entry.unresolved
    )
    vifs = hello.vif_maps.get((table, family), ())
    return FoundTable(table, family, vifs, templates, entries, stops=hello.settings.limits.stops(table))


def settle(store: Store, engine: Engine) -> None:
    """Keep the memberships that a predecessor has left, if the store is anew still, which it is no more then.

    After the join sockets were taken over, before anything is planned.
    """
    if store.anew:
        desired, revision = engine.desired, engine.revision
        names = {link.ifindex: link.name for link in engine.world.by_index.values()}
        found = orphaned_joins(chain.from_iterable(engine.joins.actual.values()), names, revision)
        records = [record for record in found if record.key not in desired.joins]
        owners = [OwnerRecord(KERNEL_OWNER, revision=revision)] if records else []
        _write(store.settle, Intent(join_puts=records, owners=owners))
        for owner in owners:
            desired.put_owner(owner)
        desired.joins.update((record.key, record) for record in records)
        engine.joins.load(records, ())
    _tell(engine)


def _tell(engine: Engine) -> None:
    """Say at each start that there are some, until there are none."""
    routes, joins = orphans_left(engine.desired)
    if routes or joins:
        _log.warning(
            "the state was lost, and what kernel and keeper held is kept: it has no owner but 'kernel' until somebody puts it or"
            " deletes it (mcastctl route list --match-owner kernel)",
            extra={"routes": routes, "joins": joins},
        )
