"""The order of a change: whatever the network, the change and the moment, no packet is looped or comes twice."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from mcast_controller.order import Move, Step, steps
from mcast_controller.topology import Port, Topology
from mcast_controller.trees import Entry, Graph, Tree
from tests.clients.controller.networks import FLOWS, delivered, networks, reachable

FLOW = FLOWS[0]
ROOT = Port("a", "hosts")


def entry(iif: str, *oifs: str) -> Entry:
    return Entry(iif, frozenset(oifs), ROOT)


def told(planned: list[Step]) -> list[list[str]]:
    return [sorted(step) for step in planned]


CHAIN = Tree({"a": entry("hosts", "b"), "b": entry("a", "c"), "c": entry("b", "hosts")}, {"a": 0, "b": 1, "c": 2})


def test_a_new_tree_begins_to_flow_when_all_of_it_is_there() -> None:
    assert told(steps([Move(FLOW, {}, CHAIN)])) == [["b", "c"], ["a"]]


def test_nothing_is_told_where_nothing_differs() -> None:
    assert steps([Move(FLOW, CHAIN.entries, CHAIN)]) == []


def test_who_has_an_entry_changes_from_the_receivers_to_the_source() -> None:
    before = {"a": entry("hosts", "c"), "b": entry("c", "hosts"), "c": entry("a", "b")}
    assert told(steps([Move(FLOW, before, CHAIN)])) == [["c"], ["b"], ["a"]]


def test_who_is_not_needed_any_more_is_told_last() -> None:
    before = {"a": entry("hosts", "d"), "d": entry("a", "hosts")}
    planned = steps([Move(FLOW, before, CHAIN)])
    assert told(planned) == [["b", "c"], ["a"], ["d"]]
    assert planned[-1] == {"d": [(FLOW, None)]}


def test_many_flows_share_the_steps() -> None:
    planned = steps([Move(flow, {}, CHAIN) for flow in FLOWS])
    assert told(planned) == [["b", "c"], ["a"]]
    assert [change[0] for change in planned[1]["a"]] == FLOWS


class World:
    """Routers that forward packets of one source hop by hop; what they do and when they are told is mixed as it comes."""

    def __init__(
        self, topology: Topology, table: dict[str, Entry], root: Port, down: frozenset[Port], slow: frozenset[Port]
    ) -> None:
        self.table = table
        self.out: list[tuple[int, Port]] = []
        self._topology = topology
        self._root = root
        self._down = down
        self._flying: list[tuple[int, Port, int]] = []
        self._slow = slow
        self._sent = 0

    def send(self) -> None:
        self._flying.append((self._sent, self._root, 0))
        self._sent += 1

    def hop(self, which: int, *, patient: bool = False) -> None:
        """One of the packets that are on their way goes one hop on; those on one link stay in their order."""
        if not self._flying:
            return
        at = self._flying[which % len(self._flying)][1]
        if at in self._slow and not patient:
            return
        number, port, hops = self._flying.pop(next(n for n, one in enumerate(self._flying) if one[1] == at))
        assert hops <= len(self._topology.routers), "a packet goes in circles"
        found = self.table.get(port.router)
        if found is None or found.iif != port.interface:
            return
        for oif in sorted(found.oifs):
            leaving = Port(port.router, oif)
            link = self._topology.link_of.get(leaving)
            if link is None:
                self.out.append((number, leaving))
            elif link.a not in self._down and link.b not in self._down:
                self._flying.append((number, link.peer(leaving), hops + 1))

    def settle(self) -> None:
        while self._flying:
            self.hop(0, patient=True)


@settings(max_examples=400)
@given(networks(), st.integers(0, 2**32), st.data())
def test_at_no_moment_is_a_packet_looped_or_doubled(topology: Topology, seed: int, data: st.DataObject) -> None:
    chance = Random(seed)
    root = data.draw(st.sampled_from(sorted(topology.edges)))
    before, _, _ = any_tree(topology, root, chance)
    after, down, receivers = any_tree(topology, root, chance)
    slow = frozenset(port for port in sorted(topology.link_of) if chance.random() < 0.2)
    world = World(topology, dict(before.entries), root, down, slow)
    for step in steps([Move(FLOW, before.entries, after)]):
        for router in chance.sample(sorted(step), len(step)):
            for _ in range(chance.randrange(30)):
                if chance.random() < 0.3:
                    world.send()
                else:
                    world.hop(chance.randrange(100), patient=chance.random() < 0.05)
            ((_, new),) = step[router]
            if new is None:
                del world.table[router]
            else:
                world.table[router] = new
        world.settle()  # what was under way has arrived before the next step
    assert len(world.out) == len(set(world.out))
    assert world.table == after.entries
    there = reachable(topology, root.router, down)
    wanted = sorted(port for port in receivers if port.router in there and port != root)
    assert sorted(delivered(topology, world.table, root, down)) == wanted


def any_tree(topology: Topology, root: Port, chance: Random) -> tuple[Tree, frozenset[Port], list[Port]]:
    """A tree, the links that were down, and who wanted it: often with all links up, so that old and new ways both work."""
    ports, edges = sorted(topology.link_of), sorted(topology.edges)
    down = frozenset(port for port in ports if chance.random() < chance.choice([0, 0, 0.2]))
    avoided = [name for name in sorted(topology.routers) if chance.random() < 0.3]
    receivers = [port for port in edges if chance.random() < 0.8]
    return Graph(topology, down, avoided).tree(chance.choice(FLOWS), root, receivers), down, receivers
