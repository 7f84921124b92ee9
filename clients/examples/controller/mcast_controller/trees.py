"""Owns the trees: which entry each router needs for a flow, given the links that work. Pure: the same input gives the same tree.

A tree is the union of shortest paths from the source's router. Where several routers are as near, the one with the highest hash
of flow and router is taken (rendezvous hashing), by every router that has the choice: flows spread over the spines, one flow uses
one spine as far as it can, and when a link goes, only those behind it take another way. A router that gets a flow over a shortest
path already keeps it: a link that comes back moves nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from typing import NamedTuple

import networkx as nx

from mcast_controller.topology import Link, Port, Topology

AVOIDED = 1_000_000_000
"""Added to the cost of links to a router that is to be avoided: far more than any path without it costs."""


NOTHING: Mapping[str, "Entry"] = MappingProxyType({})


class Flow(NamedTuple):
    """An (S,G), addresses as the daemon writes them."""

    group: str
    source: str

    def __str__(self) -> str:
        return f"{self.source} > {self.group}"


class Entry(NamedTuple):
    """What one router does with a flow."""

    iif: str
    oifs: frozenset[str]
    root: Port
    """Where the source is: goes into the route's cookie, from which another controller learns the flow."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A flow's entries, and how far each router is from the source's."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    depth: Mapping[str, int] = field(default_factory=dict)
    unreached: frozenset[Port] = frozenset()
    """Receivers to which there is no way."""


class Graph:
    """The network as it works now."""

    def __init__(self, topology: Topology, down: Collection[Port] = (), avoided: Collection[str] = ()) -> None:
        """A link with an end among `down` is not used; a router among `avoided` only where there is no other way."""
        self._topology = topology
        self._best: dict[tuple[str, str], list[Link]] = {}
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(topology.routers)
        for link in topology.links:
            if link.a in down or link.b in down:
                continue
            for near, far in ((link.a.router, link.b.router), (link.b.router, link.a.router)):
                cost = link.cost + (AVOIDED if far in avoided else 0)
                known = graph[near][far]["weight"] if graph.has_edge(near, far) else cost + 1
                if cost < known:
                    graph.add_edge(near, far, weight=cost)
                    self._best[near, far] = [link]
                elif cost == known:
                    self._best[near, far].append(link)
        self._graph = graph
        self._before: dict[str, Mapping[str, list[str]]] = {}

    def tree(self, flow: Flow, root: Port, receivers: Iterable[Port], told: Mapping[str, Entry] = NOTHING) -> Tree:
        """The tree from a source's interface to its receivers'; the source's router has an entry even without receivers.

        `told`: what the routers have of this flow, which stays where it is as short as anything else.
        """
        before = self._predecessors(root.router)
        iifs = {root.router: root.interface}
        oifs: dict[str, set[str]] = {root.router: set()}
        above: dict[str, str] = {}
        unreached = set()
        for receiver in receivers:
            if receiver == root:
                continue
            if receiver.router not in before:
                unreached.add(receiver)
                continue
            at = receiver.router
            while at not in iifs:
                far = self._upstream(flow, at, before[at], told.get(at))
                near = self._topology.link_of[far].peer(far)
                iifs[at], above[at] = far.interface, near.router
                oifs.setdefault(near.router, set()).add(near.interface)
                at = near.router
            oifs.setdefault(receiver.router, set()).add(receiver.interface)
        entries = {name: Entry(iif, frozenset(oifs.get(name, ())), root) for name, iif in iifs.items()}
        return Tree(entries, {name: _depth(name, above) for name in iifs}, frozenset(unreached))

    def _upstream(self, flow: Flow, router: str, before: Iterable[str], told: Entry | None) -> Port:
        """The interface on which a router is to get a flow: one towards a router from which a shortest path comes."""
        if told is not None:
            port = Port(router, told.iif)
            link = self._topology.link_of.get(port)
            if link is not None and (parent := link.peer(port).router) in before and link in self._best[parent, router]:
                return port
        parent = max(before, key=lambda name: (_weight(flow, name), name))
        link = max(self._best[parent, router], key=lambda one: (_weight(flow, str(one.a)), one.a))
        return link.a if link.a.router == router else link.b

    def _predecessors(self, root: str) -> Mapping[str, list[str]]:
        """By router: those from which a shortest path comes to it; no entry where there is none."""
        if root not in self._before:
            self._before[root] = nx.dijkstra_predecessor_and_distance(self._graph, root)[0]
        return self._before[root]


def _weight(flow: Flow, name: str) -> bytes:
    return blake2b(f"{flow.group}|{flow.source}|{name}".encode(), digest_size=8).digest()


def _depth(name: str, above: Mapping[str, str]) -> int:
    depth = 0
    while name in above:
        name, depth = above[name], depth + 1
    return depth
