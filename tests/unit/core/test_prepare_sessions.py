"""What sessions write: take-over, fencing, operations, mark and sweep, hold times; on the fake router."""

from collections.abc import Iterable

import pytest

from mcastd.core.sessions import State, state_of
from mcastd.model.errors import McastdError, Reason
from mcastd.model.record import Lease, OnExpiry, OwnerRecord
from mcastd.model.route import Oif
from mcastd.model.write import (
    BeginSync,
    DeleteRoutes,
    EndSession,
    EndSync,
    ExpireLease,
    OpenSession,
    Outcome,
    Patch,
    PatchRoutes,
    Program,
    PutRoutes,
    WriteOptions,
)
from tests.fakerouter import Router, route, sg

SDN, BOB = WriteOptions("sdn"), WriteOptions("bob")
HOLD = 120.0
WITHDRAW, RETAIN = Lease(HOLD, OnExpiry.WITHDRAW), Lease(HOLD, OnExpiry.RETAIN)
SUPERSEDED, OUT_OF_TURN, GUARDED = Reason.SUPERSEDED, Reason.NO_SESSION, Reason.TOO_MANY_DELETIONS


@pytest.fixture
def router() -> Router:
    """Two interfaces, and session 1 of "sdn" with the routes 1 to 5."""
    router = Router("up", "down")
    router.write(OpenSession(SDN, 1, WITHDRAW), puts(1, 1, 2, 3, 4, 5))
    router.settle()
    router.transcript()
    return router


def puts(session: int, *numbers: int, oif: str = "down") -> Program:
    return Program(SDN, session, [(10 + n, route(sg(n), "up", oif, owner="sdn")) for n in numbers])


def owner(router: Router, name: str = "sdn") -> OwnerRecord:
    return router.engine.desired.owners[name]


def stale(router: Router) -> list[int]:
    """Numbers of the stale routes; they are counted right too."""
    desired = router.engine.desired
    out = [int.from_bytes(key[6:8], "big") for key, one in desired.routes.items() if desired.stale(one)]
    assert len(out) == sum(desired.stale_entries(name) for name in desired.owners)
    for name in desired.owners:
        written = {key for key, one in desired.routes.items() if one.session and one.owner == name}
        assert set(desired.session_keys(name)) == written
    return sorted(out)


def refused(router: Router, write: Program | BeginSync | EndSync | OpenSession) -> McastdError:
    before = dict(router.engine.desired.routes), owner(router)
    with pytest.raises(McastdError) as caught:
        router.write(write)
    assert (dict(router.engine.desired.routes), owner(router)) == before
    return caught.value


def only(outcomes: list[Outcome]) -> Outcome:
    (outcome,) = outcomes
    return outcome


def test_operations_are_done_in_order_and_named_by_their_ids(router: Router) -> None:
    patch = Patch(sg(1), (Oif("up"),), frozenset({"down"}))
    outcome = only(
        router.write(Program(SDN, 1, [(7, patch), (9, sg(2)), (12, route(sg(6), "up", "down", owner="sdn")), (13, sg(99))]))
    )
    assert (outcome.created, outcome.updated, outcome.deleted, outcome.unchanged) == (1, 1, 1, 1)
    assert [change.id for change in outcome.changes] == [7, 9, 12]
    assert stale(router) == []
    assert router.engine.desired.session_entries("sdn") == 5


def test_what_a_session_may_not_touch_is_refused_and_the_rest_is_done(router: Router) -> None:
    router.write(PutRoutes(BOB, [route(sg(50), "up", "down", owner="bob")]))
    outcome = only(router.write(puts(1, 50, 51)))
    assert [(change.id, change.problem and change.problem.reason) for change in outcome.changes] == [
        (60, Reason.OWNED_BY_OTHER),
        (61, None),
    ]


def test_a_patch_that_takes_over_makes_it_a_unary_call_s_route(router: Router) -> None:
    """Of a generation of somebody else's sessions it would be stale, and go with the first replay."""
    router.write(PatchRoutes(WriteOptions("bob", take_over=True), [Patch(sg(1), (Oif("up"),), frozenset())]))
    taken = router.engine.desired.routes[sg(1)]
    assert (taken.owner, taken.session, stale(router)) == ("bob", 0, [])
    assert router.engine.desired.session_entries("sdn") == 4
    router.write(PatchRoutes(SDN, [Patch(sg(2), (Oif("up"),), frozenset())]))
    assert router.engine.desired.session_entries("sdn") == 4


def test_the_end_of_a_session_makes_its_routes_stale_and_touches_nothing(router: Router) -> None:
    router.write(EndSession(SDN, 1, 1000.0))
    assert (owner(router).hold_until, state_of(owner(router))) == (1000.0 + HOLD, State.ORPHANED)
    assert stale(router) == [1, 2, 3, 4, 5]
    assert router.transcript() == []
    router.write(EndSession(SDN, 1, 2000.0))
    assert owner(router).hold_until == 1000.0 + HOLD, "it has ended once"


def test_who_comes_back_finds_nothing_stale(router: Router) -> None:
    router.write(EndSession(SDN, 1, 1000.0), OpenSession(SDN, 2, RETAIN))
    assert (stale(router), owner(router).lease, owner(router).hold_until) == ([], RETAIN, 0.0)
    assert only(router.write(ExpireLease(SDN))).deleted == 0, "it was due when he came"


def test_a_session_is_superseded_by_the_next_one(router: Router) -> None:
    router.write(OpenSession(WriteOptions("sdn", epoch=42), 2, WITHDRAW))
    assert stale(router) == [], "the owner is there"
    error = refused(router, puts(1, 6))
    assert (error.reason, error.problem.metadata) == (SUPERSEDED, {"by": "42", "owner": "sdn"})
    router.write(EndSession(SDN, 1, 1000.0))
    assert state_of(owner(router)) is State.CONNECTED, "that of the old one's end is no news"
    assert refused(router, OpenSession(WriteOptions("sdn", epoch=41), 3, RETAIN)).reason is Reason.STALE_EPOCH
    router.write(OpenSession(WriteOptions("sdn", epoch=42), 4, RETAIN))
    assert refused(router, puts(2, 6)).reason is SUPERSEDED, "an equal epoch takes over too"


def test_a_take_over_in_the_same_commit_is_one(router: Router) -> None:
    with pytest.raises(McastdError, match="taken over"):
        router.write(OpenSession(SDN, 2, RETAIN), puts(1, 6))


def test_a_higher_epoch_of_a_unary_write_fences_the_session(router: Router) -> None:
    router.write(OpenSession(WriteOptions("sdn", epoch=5), 2, WITHDRAW))
    router.write(PutRoutes(WriteOptions("sdn", epoch=6), [route(sg(9), "up", "down", owner="sdn")]))
    late = Program(WriteOptions("sdn", epoch=5), 2, [(1, sg(1))])
    assert refused(router, late).reason is Reason.STALE_EPOCH


def test_a_replay_marks_and_sweeps_and_the_kernel_hears_of_nothing_else(router: Router) -> None:
    router.write(BeginSync(SDN, 1))
    assert stale(router) == [1, 2, 3, 4, 5]
    outcome = only(router.write(puts(1, 1, 2, 3)))
    assert (outcome.unchanged, len(outcome.kept), outcome.changes) == (3, 3, [])
    assert stale(router) == [4, 5]
    assert router.transcript() == []
    assert only(router.write(EndSync(SDN, 1))).deleted == 2
    assert (stale(router), state_of(owner(router))) == ([], State.CONNECTED)
    assert all("deleted" in line for line in router.transcript()[:2])


def test_a_replay_and_its_end_in_one_commit(router: Router) -> None:
    *_, swept = router.write(BeginSync(SDN, 1), puts(1, 1, 2), puts(1, 3), EndSync(SDN, 1))
    assert (swept.deleted, sorted(router.engine.desired.routes)) == (2, [sg(1), sg(2), sg(3)])


def test_a_route_that_is_changed_patched_or_new_is_not_swept(router: Router) -> None:
    router.write(
        BeginSync(SDN, 1), puts(1, 1, oif="up"), Program(SDN, 1, [(1, Patch(sg(2), (Oif("up"),), frozenset()))]), puts(1, 8)
    )
    assert stale(router) == [3, 4, 5]
    router.write(EndSync(SDN, 1))
    assert sorted(router.engine.desired.routes) == [sg(1), sg(2), sg(8)]


def test_the_guard_of_a_sweep_keeps_all_and_it_can_be_tried_again(router: Router) -> None:
    router.write(BeginSync(SDN, 1), puts(1, 1))
    error = refused(router, EndSync(SDN, 1, max_deletions=3))
    assert (error.reason, error.problem.metadata) == (GUARDED, {"would": "4", "max": "3"})
    assert stale(router) == [2, 3, 4, 5]
    router.write(EndSync(SDN, 1, max_deletions=4))
    assert list(router.engine.desired.routes) == [sg(1)]


def test_a_sweep_without_a_mark_is_out_of_turn(router: Router) -> None:
    assert refused(router, EndSync(SDN, 1)).reason is OUT_OF_TURN
    router.write(BeginSync(SDN, 1), OpenSession(SDN, 2, WITHDRAW))
    assert refused(router, EndSync(SDN, 2)).reason is OUT_OF_TURN, "the replay was another session's"
    assert stale(router) == [1, 2, 3, 4, 5], "it has not ended well"


@pytest.mark.parametrize("crash", [False, True])
def test_a_replay_that_was_broken_off_leaves_stale_what_it_has_not_refreshed(router: Router, crash: bool) -> None:
    router.write(BeginSync(SDN, 1), puts(1, 1, 2), EndSession(SDN, 1, 1000.0))
    if crash:
        router.boot()
    assert stale(router) == [1, 2, 3, 4, 5]
    router.write(OpenSession(SDN, 2, WITHDRAW))
    assert stale(router) == ([1, 2, 3, 4, 5] if crash else [3, 4, 5]), "a new server knows not what was refreshed"


def test_what_unary_calls_wrote_is_never_stale_nor_withdrawn(router: Router) -> None:
    router.write(PutRoutes(SDN, [route(sg(n), "up", "down", owner="sdn") for n in (1, 20)]))
    router.write(PatchRoutes(SDN, [Patch(sg(2), (Oif("up"),), frozenset())]))
    router.write(BeginSync(SDN, 1))
    assert stale(router) == [2, 3, 4, 5], "route 1 is a unary call's now; a patch leaves route 2 the session's"
    router.write(EndSession(SDN, 1, 1000.0), ExpireLease(SDN))
    assert sorted(router.engine.desired.routes) == [sg(1), sg(20)]
    router.boot()
    assert stale(router) == []


def test_a_session_takes_over_what_a_unary_call_of_its_owner_wrote(router: Router) -> None:
    router.write(PutRoutes(SDN, [route(sg(20), "up", "down", owner="sdn")]))
    outcome = only(router.write(puts(1, 20)))
    assert (outcome.updated, outcome.unchanged) == (1, 0), "who wrote it is stored"
    router.settle()
    router.write(BeginSync(SDN, 1))
    assert 20 in stale(router)


def test_hold_time_over(router: Router) -> None:
    assert only(router.write(ExpireLease(SDN))).deleted == 0, "its owner is there"
    router.write(EndSession(SDN, 1, 1000.0))
    assert only(router.write(ExpireLease(SDN))).deleted == 5
    assert (state_of(owner(router)), router.engine.desired.routes) == (State.NONE, {})
    router.write(OpenSession(SDN, 2, RETAIN), puts(2, 1, 2), EndSession(SDN, 2, 1000.0))
    assert only(router.write(ExpireLease(SDN))).deleted == 0
    assert (stale(router), state_of(owner(router))) == ([1, 2], State.ORPHANED), "for ever"


def test_a_restart_finds_the_sessions_ended_and_hold_times_running(router: Router) -> None:
    router.write(
        OpenSession(WriteOptions("bob", epoch=7), 2, RETAIN), Program(BOB, 2, [(1, route(sg(30), "up", "down", owner="bob"))])
    )
    router.write(EndSession(SDN, 1, 1000.0))
    router.transcript()
    router.boot()
    assert (owner(router).hold_until, owner(router, "bob").hold_until, owner(router, "bob").epoch) == (1000.0 + HOLD, 0.0, 7)
    assert stale(router) == [1, 2, 3, 4, 5, 30]
    router.write(EndSession(SDN, 0, 5000.0), EndSession(BOB, 0, 5000.0))
    assert (owner(router).hold_until, owner(router, "bob").hold_until) == (1000.0 + HOLD, 5000.0 + HOLD)
    assert router.transcript() == []


def test_followers_are_told_when_routes_become_stale_and_when_they_are_not_any_more(router: Router) -> None:
    told: list[bytes] = []
    feed = router.engine.feed
    tell = feed.routes

    def routes(keys: Iterable[bytes]) -> None:
        told.extend(keys)
        tell(told)

    feed.routes = routes  # type: ignore[method-assign]
    for write, numbers in (
        (BeginSync(SDN, 1), [1, 2, 3, 4, 5]),
        (puts(1, 1, 2), [1, 2]),
        (EndSession(SDN, 1, 1000.0), [1, 2, 3, 4, 5]),
        (OpenSession(SDN, 2, WITHDRAW), [1, 2, 3, 4, 5]),
        (OpenSession(SDN, 3, WITHDRAW), []),
    ):
        told.clear()
        router.write(write)
        assert sorted(told) == [sg(n) for n in numbers], write


def test_a_deleted_route_is_counted_no_more(router: Router) -> None:
    router.write(DeleteRoutes(SDN, [sg(1), sg(2)]), EndSession(SDN, 1, 1000.0))
    assert (stale(router), router.engine.desired.entries["sdn"]) == ([3, 4, 5], 3)
