"""mcastd.model.route: equality of intents, the state of a route, and what bulk costs."""

import sys

import pytest

from mcastd.model.errors import Problem, Reason
from mcastd.model.record import Intent, InterfaceSettings, OwnerRecord
from mcastd.model.route import NO_FATE, Fate, Forwarding, Oif, Paths, Route, RouteState
from mcastd.model.write import Change, Outcome
from tests.fakerouter import paths, route, sg


def test_paths_are_equal_by_value() -> None:
    assert paths("eth0", "eth1", "eth2/5") == paths("eth0", "eth2/5", "eth1")
    assert hash(paths("eth0", "eth1")) == hash(paths("eth0", "eth1"))
    assert paths("eth0", "eth1") != paths("eth1", "eth1")
    assert paths("eth0", "eth1") != paths("eth0", "eth1/2")
    assert paths("eth0") != ("eth0", ())
    assert repr(Paths("eth0", (Oif("eth1"),))) == "Paths('eth0', (Oif(interface='eth1', ttl_threshold=0),))"


@pytest.mark.parametrize(
    "other,same",
    [
        (route(sg(1), "eth0", "eth1"), True),
        (route(sg(2), "eth0", "eth1"), True),
        (route(sg(1), "eth0"), False),
        (route(sg(1), "eth0", "eth1", owner="bob"), False),
        (route(sg(1), "eth0", "eth1", cookie="red"), False),
        (Route(sg(1), paths("eth0", "eth1"), "alice", monitored=True), False),
    ],
)
def test_same_intent(other: Route, same: bool) -> None:
    assert route(sg(1), "eth0", "eth1").same_intent(other) is same


def fated(state: RouteState, *, in_kernel: bool, wanted: bool, problem: bool = False) -> RouteState:
    one, fate = route(sg(1), "eth0"), Fate()
    fate.state, fate.forwarding = state, Forwarding(b"", 1) if wanted else None
    one.fate, one.installed_at = fate, 5.0 if in_kernel else 0.0
    one.problem = Problem(Reason.KERNEL_ERROR, "no") if problem else None
    return one.state


def test_the_state_of_a_route() -> None:
    s = RouteState
    assert route(sg(1), "eth0").state is s.PENDING
    assert fated(s.PROGRAMMED, in_kernel=True, wanted=True) is s.PROGRAMMED
    assert fated(s.PARTIAL, in_kernel=True, wanted=True) is s.PARTIAL
    assert fated(s.PROGRAMMED, in_kernel=False, wanted=True) is s.PENDING, "not there yet"
    assert fated(s.PENDING, in_kernel=False, wanted=False) is s.PENDING
    assert fated(s.FAILED, in_kernel=False, wanted=False) is s.FAILED
    assert fated(s.PROGRAMMED, in_kernel=True, wanted=True, problem=True) is s.FAILED


def test_a_copy_is_the_intent_alone() -> None:
    one = Route(sg(1), paths("eth0", "eth1"), "alice", "red", monitored=True, revision=7)
    one.installed_at, one.problem, one.fate = 5.0, Problem(Reason.KERNEL_ERROR, "no"), Fate()
    copy = one.copy()
    assert copy is not one
    assert copy.same_intent(one)
    assert (copy.key, copy.installed_at, copy.problem, copy.fate) == (one.key, 0.0, None, NO_FATE)


def test_what_a_route_costs() -> None:
    """The budget is 1 kB a route; this is the part of the objects that there is one of for each."""
    assert sys.getsizeof(route(sg(1), "eth0")) <= 120


def test_texts_for_logs() -> None:
    assert repr(route(sg(1), "eth0", cookie="red")).endswith(", Paths('eth0', ()), 'alice', cookie='red')")
    assert repr(Forwarding(b"\1\2", 3)) == "Forwarding(0102, entries=0)"


def test_an_intent_is_true_when_there_is_something_to_store() -> None:
    intent = Intent()
    assert not intent
    for change in (
        Intent(puts=[route(sg(1), "eth0")]),
        Intent(deletes=[sg(1)]),
        Intent(owners=[OwnerRecord("alice")]),
        Intent(settings=[InterfaceSettings("eth0", "alice")]),
    ):
        assert change
        change.clear()
        assert not change


def test_refusals_are_counted_and_kept() -> None:
    outcome, problem = Outcome(), Problem(Reason.NOT_FOUND, "no such route")
    outcome.refuse(3, problem, None)
    assert outcome.refused == 1
    assert [(change.id, change.problem) for change in outcome.changes] == [(3, problem)]
    assert isinstance(outcome.changes[0], Change)
