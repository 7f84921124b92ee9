"""Adoption: compare what a dump found in the kernel with what is wanted, so that a restart applies the difference alone."""

import sys
from collections.abc import Iterable, Mapping

from mcastd.core.plan import Work
from mcastd.core.tables import KernelTable
from mcastd.core.vifs import VifState, VifTable
from mcastd.model.address import Family, key_family, key_table
from mcastd.model.event import AdoptedEntry, KernelPaths
from mcastd.model.route import Forwarding, Route

BEFORE_US = -1.0
"""Route.installed_at of an entry that was in the kernel when this server started: since when is not known."""


def adopt_entries(kernel: KernelTable, routes: Mapping[bytes, Route], entries: Iterable[AdoptedEntry], *, suspect: bool) -> Work:
    """Take over the entries of a table; the work holds what is to change.

    `suspect`: VIFs have gone since the keeper's map was made. A dump does not tell the bits of VIFs that do not exist, so every
    entry may still carry one, and is written again before such a number is used for another interface.
    """
    work = Work()
    unlike = Forwarding(b"", sum(1 << n for n, slot in enumerate(kernel.vifs.slots) if slot is not None))
    expected: dict[int, KernelPaths | None] = {}
    for key, paths, foreign in entries:
        route = routes.get(key)
        if route is None:
            if not foreign:
                kernel.programmed(key, unlike)
                work.add((key,))
            continue
        want = route.fate.forwarding
        if want is not None and id(want) not in expected:
            expected[id(want)] = kernel_paths(kernel.vifs, want)
        if want is not None and not suspect and expected[id(want)] == paths:
            kernel.programmed(key, want)
            route.installed_at = BEFORE_US
        else:
            kernel.programmed(key, unlike)
            work.add((key,))
    where = kernel.table, kernel.family
    actual = kernel.actual
    work.add(key for key in routes if key not in actual and (key_table(key), key_family(key)) == where)
    return work


def kernel_paths(vifs: VifTable, forwarding: Forwarding) -> KernelPaths | None:
    """What a dump says of an entry that does this; None = it names a VIF that the kernel does not have (yet)."""
    parent = int.from_bytes(forwarding.packed[:2], sys.byteorder)
    body = forwarding.packed[2:]
    if vifs.family is Family.IPV4:
        oifs = {n: ttl for n, ttl in enumerate(body) if ttl < 255}
    else:
        bits = int.from_bytes(body[:4], sys.byteorder)
        oifs = {n: 1 for n in range(32) if bits >> n & 1}
    numbers = {parent, *oifs}
    index = {}
    for number in numbers:
        slot = vifs.slots[number]
        if slot is None or slot.state is not VifState.ACTIVE:
            return None
        index[number] = slot.ifindex
    return index[parent], tuple(sorted((index[n], ttl) for n, ttl in oifs.items()))
