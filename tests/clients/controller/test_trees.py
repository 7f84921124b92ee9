"""Trees: shortest, without loops, spread over the spines, to all whom there is a way to, and still when they may be."""

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mcast_controller.topology import Link, Port, Topology
from mcast_controller.trees import Entry, Graph
from tests.clients.controller.networks import FLOWS, delivered, fabric, networks, reachable, topology_of

FLOW = FLOWS[0]


def spines(graph: Graph, topology: Topology, flow: int = 0) -> set[str]:
    tree = graph.tree(FLOWS[flow], Port("leaf1", "hosts"), topology.segments.values())
    return {name for name in tree.entries if name.startswith("spine")}


def test_a_stream_crosses_one_spine_and_reaches_all(tmp_path: Path) -> None:
    topology = fabric(tmp_path)
    root = Port("leaf1", "hosts")
    tree = Graph(topology).tree(FLOW, root, topology.segments.values())
    (spine,) = spines(Graph(topology), topology)
    assert tree.entries["leaf1"] == Entry("hosts", frozenset({spine}), root)
    assert tree.entries[spine] == Entry("leaf1", frozenset({"leaf2", "leaf3", "leaf4"}), root)
    assert tree.entries["leaf3"] == Entry(spine, frozenset({"hosts"}), root)
    assert tree.depth == {"leaf1": 0, spine: 1, "leaf2": 2, "leaf3": 2, "leaf4": 2}
    assert tree.unreached == frozenset()


def test_streams_are_spread_over_the_spines(tmp_path: Path) -> None:
    topology = fabric(tmp_path)
    used = Counter(min(spines(Graph(topology), topology, n)) for n in range(len(FLOWS)))
    assert min(used.values()) >= len(FLOWS) // 4


def test_a_cut_link_moves_only_who_is_behind_it(tmp_path: Path) -> None:
    topology = fabric(tmp_path)
    root, receivers = Port("leaf1", "hosts"), list(topology.segments.values())
    before = Graph(topology).tree(FLOW, root, receivers)
    (spine,) = spines(Graph(topology), topology)
    after = Graph(topology, {Port(spine, "leaf2")}).tree(FLOW, root, receivers)
    assert after.entries["leaf3"] == before.entries["leaf3"]
    assert after.entries["leaf4"] == before.entries["leaf4"]
    assert after.entries["leaf2"].iif not in {spine, before.entries["leaf2"].iif}
    assert sorted(delivered(topology, after, root)) == sorted(delivered(topology, before, root))


def test_a_link_that_comes_back_moves_nobody(tmp_path: Path) -> None:
    topology = fabric(tmp_path)
    root, receivers = Port("leaf1", "hosts"), list(topology.segments.values())
    (spine,) = spines(Graph(topology), topology)
    while_cut = Graph(topology, {Port(spine, "leaf2")}).tree(FLOW, root, receivers)
    assert Graph(topology).tree(FLOW, root, receivers, while_cut.entries).entries == while_cut.entries
    assert Graph(topology).tree(FLOW, root, receivers).entries != while_cut.entries


def test_a_shorter_way_is_taken_even_so() -> None:
    links = (
        Link(Port("a", "b"), Port("b", "a"), 1),
        Link(Port("b", "c"), Port("c", "b"), 1),
        Link(Port("a", "c"), Port("c", "a"), 1),
    )
    topology = topology_of(["a", "b", "c"], links)
    told = {"c": Entry("b", frozenset({"hosts"}), Port("a", "hosts"))}
    tree = Graph(topology).tree(FLOW, Port("a", "hosts"), [Port("c", "hosts")], told)
    assert tree.entries["c"].iif == "a"
    assert tree.entries.keys() == {"a", "c"}


def test_the_cheapest_of_parallel_links_is_used() -> None:
    links = (Link(Port("a", "slow"), Port("b", "slow"), 5), Link(Port("a", "fast"), Port("b", "fast"), 2))
    topology = topology_of(["a", "b"], links)
    tree = Graph(topology).tree(FLOW, Port("a", "hosts"), [Port("b", "hosts")])
    assert tree.entries["b"].iif == "fast"
    tree = Graph(topology, {Port("b", "fast")}).tree(FLOW, Port("a", "hosts"), [Port("b", "hosts")])
    assert tree.entries["b"].iif == "slow"


def test_who_is_to_be_avoided_is_used_only_where_there_is_no_other_way(tmp_path: Path) -> None:
    topology = fabric(tmp_path)
    assert all(spines(Graph(topology, (), {"spine1"}), topology, n) == {"spine2"} for n in range(len(FLOWS)))
    only = Graph(topology, {Port("spine2", "leaf1")}, {"spine1"})
    assert spines(only, topology) == {"spine1"}


def test_a_source_that_nobody_wants_is_dropped_where_it_is(tmp_path: Path) -> None:
    topology = fabric(tmp_path)
    root = Port("leaf1", "hosts")
    assert Graph(topology).tree(FLOW, root, []).entries == {"leaf1": Entry("hosts", frozenset(), root)}
    assert Graph(topology).tree(FLOW, root, [root]).entries == {"leaf1": Entry("hosts", frozenset(), root)}


def test_who_cannot_be_reached_is_named(tmp_path: Path) -> None:
    topology = fabric(tmp_path)
    down = {Port("leaf2", "spine1"), Port("spine2", "leaf2")}
    tree = Graph(topology, down).tree(FLOW, Port("leaf1", "hosts"), topology.segments.values())
    assert tree.unreached == {Port("leaf2", "hosts")}
    assert len(delivered(topology, tree, Port("leaf1", "hosts"))) == 2


@given(networks(), st.data())
def test_any_tree_reaches_all_there_is_a_way_to_exactly_once(topology: Topology, data: st.DataObject) -> None:
    ports = sorted(topology.link_of)
    down = frozenset(data.draw(st.sets(st.sampled_from(ports)))) if ports else frozenset()
    avoided = data.draw(st.sets(st.sampled_from(sorted(topology.routers))))
    root = data.draw(st.sampled_from(sorted(topology.edges)))
    receivers = data.draw(st.sets(st.sampled_from(sorted(topology.edges))))
    told = dict(Graph(topology).tree(data.draw(st.sampled_from(FLOWS)), root, receivers).entries)
    tree = Graph(topology, down, avoided).tree(FLOW, root, receivers, told)
    there = reachable(topology, root.router, down)
    assert sorted(delivered(topology, tree, root, down)) == sorted(p for p in receivers if p.router in there and p != root)
    assert tree.unreached == {port for port in receivers if port.router not in there}
    assert tree == Graph(topology, down, avoided).tree(FLOW, root, receivers, tree.entries)
