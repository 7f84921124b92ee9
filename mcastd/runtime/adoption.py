"""Adoption at start: what the keeper kept, what the kernel holds, and the engine told of both."""

import asyncio
import logging
import time

from mcastd.core.engine import Engine
from mcastd.kernel import mfc_dump
from mcastd.kernel.mroute import Mroute
from mcastd.model.address import Family
from mcastd.model.event import AdoptedEntry, AdoptedVif
from mcastd.runtime.executor import unsupported
from mcastd.runtime.keeper_client import Hello

_log = logging.getLogger(__name__)


async def adopt(engine: Engine, hello: Hello) -> dict[tuple[int, Family], Mroute]:
    """Give the engine every table that the keeper has open; links must be known by now. Returns the tables' adapters."""
    tables = {key: Mroute(sock, key[1], key[0]) for key, sock in hello.sockets.items()}
    for (table, family), mroute in tables.items():
        vifs = [
            AdoptedVif(vif, ifindex, name, mroute.vif_counters(vif) is not None)
            for vif, ifindex, name in hello.vif_maps.get((table, family), ())
        ]
        dumped_at = time.time()
        dump = await asyncio.to_thread(mfc_dump.dump, family, table)
        entries = (
            AdoptedEntry(entry.key, dump.paths_of(entry), entry.protocol == mfc_dump.PROTOCOL_FOREIGN)
            for entry in dump
            if not entry.unresolved
        )
        engine.adopt(table, family, vifs, entries, dumped_at)
        kernel = engine.tables[table, family]
        _log.info(
            "a table is taken over",
            extra={
                "table": table,
                "family": family.name,
                "vifs": len(vifs),
                "entries": len(kernel.actual),
                "routes_wanted": len(kernel.shapes),
            },
        )
    for family in Family:
        if (0, family) not in tables:
            engine.opened(0, {family: unsupported(family)})
    return tables
