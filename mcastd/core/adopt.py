"""Adoption: compare what a dump found in the kernel with what is wanted, so that a restart applies the difference alone."""

import sys
from collections.abc import Iterable, Mapping

from mcastd.core.learning import wanted
from mcastd.core.plan import Work
from mcastd.core.tables import KernelTable
from mcastd.core.templates import Learned
from mcastd.core.vifs import VifState, VifTable
from mcastd.model.address import Family, split_key
from mcastd.model.event import AdoptedEntry, KernelPaths
from mcastd.model.route import Forwarding, Route

BEFORE_US = -1.0
"""Route.installed_at of an entry that was in the kernel when this server started: since when is not known."""


def adopt_entries(
    kernel: KernelTable, routes: Mapping[bytes, Route], entries: Iterable[AdoptedEntry], *, suspect: bool, stops_max: int
) -> Work:
    """Take over the entries of a table; the work holds what is to change.

    `suspect`: VIFs have gone since the keeper's map was made. A dump does not tell the bits of VIFs that do not exist, so every
    entry may still carry one, and is written again before such a number is used for another interface.
    """
    work = Work()
    unlike = kernel.unlike()
    expected: dict[bytes, KernelPaths | None] = {}
    for key, paths, foreign in entries:
        route = routes.get(key)
        if route is None:
            if foreign and key not in kernel.trees:
                kernel.foreign.add(key)
                continue
            _adopt_learned(kernel, key, paths, stops_max)
            tree = kernel.trees.get(key)
            route, want = tree.route if tree is not None else None, wanted(kernel, key)
        else:
            want = route.fate.forwarding
        if want is not None and want.packed not in expected:
            expected[want.packed] = kernel_paths(kernel.vifs, want)
        if want is not None and not suspect and expected[want.packed] == paths:
            kernel.programmed(key, want)
            if route is not None:
                route.installed_at = BEFORE_US
        else:
            kernel.programmed(key, unlike)
            work.add((key,))
    actual = kernel.actual
    for shape in kernel.shapes.values():
        work.add(key for key in shape.members if key not in actual)
    work.add(key for key in kernel.trees if key not in actual)
    return work


def _adopt_learned(kernel: KernelTable, key: bytes, paths: KernelPaths, stops_max: int) -> None:
    """An entry of ours that no exact route asks for: learned if a template covers it; else a stop filter if it has no oifs.

    One without a source is a shared tree's, or was: what is left of a tree that was deleted goes.
    """
    iif, oifs = paths
    if iif and any(split_key(key)[2]):
        learned = kernel.learned[key] = Learned(iif, BEFORE_US)
        if not oifs and kernel.stops < stops_max:
            learned.stop_wanted = True
            kernel.stops += 1


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
        if slot is None or slot.state not in {VifState.ACTIVE, VifState.RETIRING}:
            return None
        index[number] = slot.ifindex
    return index[parent], tuple(sorted((index[n], ttl) for n, ttl in oifs.items()))
