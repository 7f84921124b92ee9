"""What the controller makes of what it is told: new sources, sources that move or fall silent, routers that come with routes."""

from pathlib import Path

import pytest

from mcast_controller.flows import SETTLE, Flows
from mcast_controller.order import Step
from mcast_controller.topology import Port
from mcast_controller.trees import Entry, Flow
from mcast_controller.wishes import load
from tests.clients.controller.networks import fabric

FLOW = Flow("232.1.0.1", "10.0.0.1")
LEAF1 = Port("leaf1", "hosts")
LEAF2 = Port("leaf2", "hosts")


@pytest.fixture
def flows(tmp_path: Path) -> Flows:
    topology = fabric(tmp_path)
    path = tmp_path / "wishes.toml"
    path.write_text('[[wish]]\ngroup = "232.0.0.0/8"\nsegments = ["h1", "h2", "h3"]')
    return Flows(topology, load(path, topology), flows_max=3, idle=60.0)


def told(planned: list[Step]) -> list[list[str]]:
    return [sorted(step) for step in planned]


def spine(flows: Flows) -> str:
    return next(name for name in flows.known[FLOW].told if name.startswith("spine"))


def test_a_new_source_gets_a_tree(flows: Flows) -> None:
    flows.seen(FLOW, LEAF1, 0.0)
    planned = flows.plan()
    assert told(planned) == [["leaf2", "leaf3", spine(flows)], ["leaf1"]]
    assert not flows.dirty
    assert flows.plan() == []


def test_a_source_on_its_way_through_is_none(flows: Flows) -> None:
    flows.seen(FLOW, Port("leaf2", "spine1"), 0.0)
    assert not flows.known


def test_more_flows_than_allowed_are_counted(flows: Flows) -> None:
    for n in range(5):
        flows.seen(Flow("232.1.0.1", f"10.0.0.{n}"), LEAF1, 0.0)
    assert (len(flows.known), flows.refused) == (3, 2)


def test_a_source_that_moves_is_followed_but_not_to_and_fro(flows: Flows) -> None:
    flows.seen(FLOW, LEAF1, 0.0)
    flows.plan()
    flows.seen(FLOW, LEAF2, SETTLE / 2)
    assert flows.known[FLOW].root == LEAF1
    flows.seen(FLOW, LEAF2, SETTLE)
    planned = flows.plan()
    assert flows.known[FLOW].told["leaf2"].iif == "hosts"
    assert "hosts" in flows.known[FLOW].told["leaf1"].oifs
    assert "leaf2" in planned[-1]
    assert flows.moves == 1


def test_a_link_that_goes_down_moves_who_is_behind_it(flows: Flows) -> None:
    flows.seen(FLOW, LEAF1, 0.0)
    flows.plan()
    first = spine(flows)
    assert flows.network({Port("leaf1", first)}, ())
    assert not flows.network({Port("leaf1", first)}, ())
    other = "spine1" if first == "spine2" else "spine2"
    assert told(flows.plan()) == [[other], ["leaf2", "leaf3"], ["leaf1"], [first]]
    assert flows.links_down == 1
    assert flows.network((), ())
    assert flows.plan() == []  # a link that comes back moves nobody


def test_flows_go_back_where_that_is_wanted(tmp_path: Path, flows: Flows) -> None:
    back = Flows(fabric(tmp_path), flows.wishes, 3, 60.0, rebalance=True)
    back.seen(FLOW, LEAF1, 0.0)
    back.plan()
    first = spine(back)
    back.network({Port("leaf1", first)}, ())
    back.plan()
    back.network((), ())
    assert back.plan()
    assert spine(back) == first


def test_what_routers_have_is_taken_over_and_not_touched(tmp_path: Path, flows: Flows) -> None:
    flows.network({Port("leaf1", "spine1")}, ())
    flows.seen(FLOW, LEAF1, 0.0)
    flows.plan()
    successor = Flows(fabric(tmp_path), flows.wishes, 3, 60.0)
    for router, entry in flows.known[FLOW].told.items():
        successor.found(router, {FLOW: entry}, 5.0)
    assert successor.plan() == []
    assert successor.known[FLOW].root == LEAF1
    assert successor.known[FLOW].told == flows.known[FLOW].told


@pytest.mark.parametrize("root", [Port("gone", "hosts"), Port("leaf1", "elsewhere"), Port("leaf1", "spine1")], ids=str)
def test_what_is_of_another_topology_goes_and_is_followed_when_seen(flows: Flows, root: Port) -> None:
    old = Entry("hosts", frozenset({"spine1"}), root)
    flows.found("leaf1", {FLOW: old}, 5.0)
    flows.found("spine1", {FLOW: old}, 5.0)
    assert told(flows.plan()) == [["leaf1", "spine1"]]
    assert not flows.known
    flows.found("leaf1", {FLOW: old}, 6.0)
    flows.seen(FLOW, LEAF1, 6.0)
    assert flows.plan()
    assert flows.known[FLOW].root == LEAF1


def test_what_a_router_has_lost_is_told_again(flows: Flows) -> None:
    flows.seen(FLOW, LEAF1, 0.0)
    flows.plan()
    flows.found("leaf2", {}, 1.0)
    assert told(flows.plan()) == [["leaf2"]]
    flows.refuse(FLOW, "leaf3")
    assert not flows.dirty
    flows.again([FLOW, Flow("232.9.9.9", "10.9.9.9")])
    assert told(flows.plan()) == [["leaf3"]]


def test_silence_ends_a_flow_but_only_where_it_could_be_heard(flows: Flows) -> None:
    flows.seen(FLOW, LEAF1, 0.0)
    flows.plan()
    flows.active(FLOW, "leaf1", 50.0)
    flows.active(FLOW, "leaf2", 90.0)  # what others count says nothing
    flows.expire(100.0, {"leaf1"})
    assert not flows.dirty
    flows.expire(120.0, {"leaf2"})
    assert not flows.dirty
    flows.present("leaf1", 119.0)
    flows.expire(120.0, {"leaf1"})
    assert not flows.dirty
    flows.expire(180.0, {"leaf1"})
    (step,) = flows.plan()
    assert {change for changes in step.values() for change in changes} == {(FLOW, None)}
    assert sorted(step) == sorted(["leaf1", "leaf2", "leaf3", *(name for name in step if name.startswith("spine"))])
    assert not flows.known


def test_other_wishes_add_and_remove_receivers(tmp_path: Path, flows: Flows) -> None:
    flows.seen(FLOW, LEAF1, 0.0)
    flows.plan()
    path = tmp_path / "wishes.toml"
    path.write_text('[[wish]]\ngroup = "232.1.0.1"\nsegments = ["h2", "h4"]')
    flows.want(load(path, flows.topology))
    assert told(flows.plan()) == [["leaf4"], [spine(flows)], ["leaf3"]]
