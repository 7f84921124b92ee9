"""Owns what is known of the network now: links that are down, flows and where they begin, and what each router was told. No I/O.

Time is an argument: monotonic seconds.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from mcast_controller.order import Move, Step, steps
from mcast_controller.topology import Port, Topology
from mcast_controller.trees import NOTHING, Entry, Flow, Graph, Tree
from mcast_controller.wishes import Wishes

SETTLE = 10.0
"""Seconds for which a flow stays where it was seen: a source address that two hosts use moves no more often than this."""


@dataclass(slots=True)
class Known:
    """A flow."""

    root: Port
    """The interface where it was seen last."""
    moved: float
    """When it was seen there first."""
    active: float
    """When it last showed that packets come."""
    told: dict[str, Entry] = field(default_factory=dict)
    """By router: what it was told, or has from a controller before us."""
    unreached: int = 0
    """Receivers to which there is no way."""
    over: bool = False
    """It has ended: its entries are to go."""


class Flows:
    """All flows, and the trees that they should have."""

    def __init__(self, topology: Topology, wishes: Wishes, flows_max: int, idle: float, *, rebalance: bool = False) -> None:
        """`flows_max`: more are not served. `idle`: seconds after which a flow without packets is forgotten; 0 = never.

        `rebalance`: flows go back to where they would be had nothing ever failed.
        """
        self.topology = topology
        self.wishes = wishes
        self.known: dict[Flow, Known] = {}
        self.refused = 0
        """Flows that found no room."""
        self.moves = 0
        """Flows whose source turned up elsewhere."""
        self._flows_max = flows_max
        self._idle = idle
        self._rebalance = rebalance
        self._down: frozenset[Port] = frozenset()
        self._avoided: frozenset[str] = frozenset()
        self._graph = Graph(topology)
        self._dirty: set[Flow] = set()

    @property
    def dirty(self) -> bool:
        """Whether there may be something to tell."""
        return bool(self._dirty)

    @property
    def links_down(self) -> int:
        """Links that are not used."""
        return sum(link.a in self._down or link.b in self._down for link in self.topology.links)

    # --- what happens ------------------------------------------------------------------------------------------------

    def network(self, down: Collection[Port], avoided: Collection[str]) -> bool:
        """These interfaces are down, these routers to be avoided; whether that changes anything."""
        if frozenset(down) == self._down and frozenset(avoided) == self._avoided:
            return False
        self._down, self._avoided = frozenset(down), frozenset(avoided)
        self._graph = Graph(self.topology, self._down, self._avoided)
        self._dirty.update(self.known)
        return True

    def want(self, wishes: Wishes) -> None:
        """The wishes are these from now on."""
        self.wishes = wishes
        self._dirty.update(self.known)

    def seen(self, flow: Flow, port: Port, now: float) -> None:
        """A router has packets of a flow on an interface, and no entry that takes them there."""
        if port not in self.topology.edges:
            return  # On its way through: where it comes from is another router's to say.
        known = self.known.get(flow)
        if known is None:
            if len(self.known) >= self._flows_max:
                self.refused += 1
                return
            self.known[flow] = Known(port, now, now)
        elif known.root != port:
            if now - known.moved < SETTLE:
                return
            known.root, known.moved, known.active = port, now, now
            self.moves += 1
        self.known[flow].over = False
        self._dirty.add(flow)

    def found(self, router: str, entries: Mapping[Flow, Entry], now: float) -> None:
        """A router says what it has of us, which is what counts: from a controller before us, or from ourselves."""
        for flow, entry in entries.items():
            known = self.known.setdefault(flow, Known(entry.root, now - SETTLE, now))
            known.told[router] = entry
            known.active = now
            if known.root not in self.topology.edges:
                known.over = True  # Of another topology: its entries go, and where the source is will be seen.
        for flow, known in self.known.items():
            if flow not in entries:
                known.told.pop(router, None)
        self._dirty.update(self.known)

    def refuse(self, flow: Flow, router: str) -> None:
        """A router did not do what it was told."""
        if flow in self.known:
            self.known[flow].told.pop(router, None)

    def again(self, flows: Iterable[Flow]) -> None:
        """Look at these once more."""
        self._dirty.update(flow for flow in flows if flow in self.known)

    def active(self, flow: Flow, router: str, now: float) -> None:
        """Packets of a flow were counted."""
        known = self.known.get(flow)
        if known is not None and known.root.router == router:
            known.active = now

    def present(self, router: str, now: float) -> None:
        """A router that could not be asked for a while is back: silence before counts for nothing."""
        for known in self.known.values():
            if known.root.router == router:
                known.active = max(known.active, now)

    def expire(self, now: float, reachable: Collection[str]) -> None:
        """Forget flows without packets, of routers that can be asked; their entries go with the next plan."""
        if self._idle:
            for flow, known in self.known.items():
                if now - known.active > self._idle and known.root.router in reachable:
                    known.over = True
                    self._dirty.add(flow)

    # --- what follows from it ----------------------------------------------------------------------------------------

    def wanted(self, flow: Flow) -> Tree:
        """The tree that a flow should have now."""
        known = self.known[flow]
        told = NOTHING if self._rebalance else known.told
        return self._graph.tree(flow, known.root, sorted(self.wishes.receivers(flow, self.topology)), told)

    def plan(self) -> list[Step]:
        """What the routers are to be told, in order; what is dirty is clean then, and taken as told."""
        dirty, self._dirty = self._dirty, set()
        moves = []
        for flow in sorted(dirty & self.known.keys()):
            known = self.known[flow]
            wanted = Tree() if known.over else self.wanted(flow)
            known.unreached = len(wanted.unreached)
            moves.append(Move(flow, known.told, wanted))
        planned = steps(moves)
        for flow, _, wanted in moves:
            self.known[flow].told = dict(wanted.entries)
            if not wanted.entries:
                del self.known[flow]
        return planned
