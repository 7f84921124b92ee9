"""Owns the order in which routers are told of a changed tree, so that no packet is looped or doubled meanwhile. Pure.

An entry has one incoming interface, and a router changes it in one step (the kernel replaces the entry as a whole). So:

1. Routers that had no entry get theirs first: nobody sends to them yet. The source's router is not among them.
2. Routers that have one and keep one change from the receivers to the source, each only after all those below it. Whoever takes
   the stream from another neighbour now takes it there before that neighbour sends it: what it has had on the old path never
   comes again on the new one. A step begins when all routers of the one before have answered.
3. Routers that are not in the tree any more are told last: nobody sends to them any longer.

Why there are no loops: a router that has changed sends only to routers that have changed before it, and one that has not only
receives from ones that have not. So a path lies in the new tree or in the old one, or leads from the old into the new and stays.

It holds as long as what is under way when a step ends has arrived when the next begins: routers answer in milliseconds, packets
cross a fabric in microseconds. Where paths are longer than that, `--drain` lets more time pass between two steps.

What it costs: where the old path still works, a router that moves gets nothing between its own change and that of the one above.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mcast_controller.trees import Entry, Flow, Tree

Change = tuple[Flow, Entry | None]
"""What a router is to do with a flow; None = nothing any more."""

Step = dict[str, list[Change]]
"""By router: what is told at once, and answered before the next step."""

_NEW, _KEPT, _GONE = range(3)


class Move(NamedTuple):
    """One flow: what was told, by router, and what is wanted."""

    flow: Flow
    told: Mapping[str, Entry]
    wanted: Tree


def steps(moves: Iterable[Move]) -> list[Step]:
    """The steps that lead from what was told to what is wanted, many flows at once; none where nothing differs."""
    found: dict[tuple[int, int], Step] = {}
    for flow, told, wanted in moves:
        for router, entry in wanted.entries.items():
            if told.get(router) == entry:
                continue
            depth = wanted.depth[router]
            rank = (_NEW, 0) if router not in told and depth else (_KEPT, -depth)
            found.setdefault(rank, {}).setdefault(router, []).append((flow, entry))
        for router in told.keys() - wanted.entries.keys():
            found.setdefault((_GONE, 0), {}).setdefault(router, []).append((flow, None))
    return [found[rank] for rank in sorted(found)]
