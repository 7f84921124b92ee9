"""mcastd.core.prepare: what writes come to, and what refuses them; each on a draft: nothing is changed until it is committed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.core.desired import Desired, Draft
from mcastd.core.local import Local
from mcastd.core.prepare import prepare
from mcastd.core.wishes import OIFS_MAX
from mcastd.model.address import Family
from mcastd.model.errors import Code, McastdError, Reason
from mcastd.model.record import Intent
from mcastd.model.route import Action, Oif, Route
from mcastd.model.write import (
    DeleteRoutes,
    Outcome,
    Patch,
    PatchRoutes,
    PutRoutes,
    ReplaceRoutes,
    Restore,
    SetInterface,
    Write,
    WriteOptions,
)
from tests.fakerouter import Router, drain, route, sg

ALICE, BOB = WriteOptions("alice"), WriteOptions("bob")

both_families = pytest.mark.parametrize("family", Family)


@pytest.fixture
def router() -> Router:
    return Router("eth0", "eth1", "eth2")


def write(router: Router, one: Write) -> Outcome:
    return router.write(one)[0]


def put(router: Router, *routes: Route, options: WriteOptions = ALICE) -> Outcome:
    return write(router, PutRoutes(options, list(routes)))


def replace(router: Router, *routes: Route, options: WriteOptions = ALICE, cookie: str = "", **guards: int) -> Outcome:
    return write(router, ReplaceRoutes(options, {one.key: one for one in routes}, cookie, **guards))  # type: ignore[arg-type]


def refused(router: Router, one: Write) -> McastdError:
    """The error of a write that is refused whole, after a look that it left nothing behind."""
    before = dict(router.engine.desired.routes), dict(router.engine.desired.owners), dict(router.disk.routes)
    draft = router.engine.draft()
    with pytest.raises(McastdError) as error:
        drain(prepare(draft, one, router.engine.routes_max))
    assert draft.intents == []
    assert before == (router.engine.desired.routes, router.engine.desired.owners, router.disk.routes)
    return error.value


def tally(outcome: Outcome) -> tuple[int, int, int, int, int]:
    return outcome.created, outcome.updated, outcome.deleted, outcome.unchanged, outcome.refused


def actions(outcome: Outcome) -> list[tuple[Action, int]]:
    return [(change.action, change.id) for change in outcome.changes]


# --- put -------------------------------------------------------------------------------------------------------------


@both_families
def test_put_creates_updates_and_leaves_alone(router: Router, family: Family) -> None:
    one, two = sg(1, family), sg(2, family)
    assert tally(put(router, route(one, "eth0", "eth1"), route(two, "eth0"))) == (2, 0, 0, 0, 0)
    outcome = put(router, route(one, "eth0", "eth1"), route(two, "eth0", "eth2"))
    assert tally(outcome) == (0, 1, 0, 1, 0)
    assert actions(outcome) == [(Action.UPDATE, 1)]
    assert [(index, kept.key) for index, kept in outcome.kept] == [(0, one)]
    assert outcome.changes[0].before is not None
    assert outcome.changes[0].before.paths.oifs == ()
    assert router.get(two).paths.oifs == (Oif("eth2"),)


def test_a_change_of_cookie_alone_is_an_update(router: Router) -> None:
    put(router, route(sg(1), "eth0"))
    assert tally(put(router, route(sg(1), "eth0", cookie="red"))) == (0, 1, 0, 0, 0)
    router.transcript()
    put(router, route(sg(1), "eth0", cookie="blue"))
    assert router.transcript() == []


def test_a_route_twice_in_one_request_ends_as_the_last_says(router: Router) -> None:
    outcome = put(router, route(sg(1), "eth0", "eth1"), route(sg(1), "eth0", "eth2"), route(sg(1), "eth0", "eth2"))
    assert tally(outcome) == (1, 1, 0, 1, 0)
    assert [one.paths.oifs for one in outcome.intent.puts] == [(Oif("eth2"),)]
    assert router.get(sg(1)).paths.oifs == (Oif("eth2"),)


def test_routes_of_others_are_not_touched_unless_taken_over(router: Router) -> None:
    put(router, route(sg(1), "eth0"))
    outcome = put(router, route(sg(1), "eth0", "eth1", owner="bob"), route(sg(2), "eth0", owner="bob"), options=BOB)
    assert tally(outcome) == (1, 0, 0, 0, 1)
    problem = outcome.changes[0].problem
    assert problem is not None
    assert (problem.reason, problem.code, problem.metadata) == (Reason.OWNED_BY_OTHER, Code.ALREADY_EXISTS, {"owner": "alice"})
    assert router.get(sg(1)).owner == "alice"
    options = WriteOptions("bob", take_over=True)
    alices = router.engine.desired.owners["alice"].revision
    assert tally(put(router, route(sg(1), "eth0", owner="bob"), options=options)) == (0, 1, 0, 0, 0)
    assert router.get(sg(1)).owner == "bob"
    assert router.engine.desired.entries == {"alice": 0, "bob": 2}
    assert router.engine.desired.owners["alice"].revision > alices, "what alice asks for has changed"


def test_all_or_nothing_refuses_all(router: Router) -> None:
    put(router, route(sg(1), "eth0"))
    routes = [route(sg(2), "eth0", owner="bob"), route(sg(1), "eth0", "eth1", owner="bob")]
    error = refused(router, PutRoutes(WriteOptions("bob", all_or_nothing=True), routes))
    assert error.reason is Reason.OWNED_BY_OTHER
    assert error.problem.metadata == {"owner": "alice"}
    assert str(error).startswith("item 1: ")


def test_the_limit_of_routes(router: Router) -> None:
    router.engine.routes_max = 2
    put(router, route(sg(1), "eth0"), route(sg(2), "eth0"))
    error = refused(router, PutRoutes(ALICE, [route(sg(3), "eth0")]))
    assert (error.reason, error.problem.metadata) == (Reason.ROUTE_LIMIT, {"limit": "2", "would": "3"})
    assert tally(replace(router, route(sg(3), "eth0"), route(sg(4), "eth0"))) == (2, 0, 2, 0, 0)
    router.engine.routes_max = 1
    assert tally(put(router, route(sg(3), "eth0", "eth1"))) == (0, 1, 0, 0, 0), "what is there may be changed"


def test_the_limit_holds_for_what_the_draft_has_already(router: Router) -> None:
    router.engine.routes_max = 1
    draft = router.engine.draft()
    drain(prepare(draft, PutRoutes(ALICE, [route(sg(1), "eth0")]), 1))
    with pytest.raises(McastdError) as error:
        drain(prepare(draft, PutRoutes(ALICE, [route(sg(2), "eth0")]), 1))
    assert error.value.reason is Reason.ROUTE_LIMIT


# --- patch -----------------------------------------------------------------------------------------------------------


@both_families
def test_patch_adds_updates_and_removes(router: Router, family: Family) -> None:
    key = sg(1, family)
    put(router, route(key, "eth0", "eth1", "vlan*", cookie="red"))
    patch = Patch(key, (Oif("eth2"),), frozenset({"vlan*", "nowhere"}))
    assert tally(write(router, PatchRoutes(ALICE, [patch]))) == (0, 1, 0, 0, 0)
    assert router.get(key).paths.oifs == (Oif("eth1"), Oif("eth2"))
    assert (router.get(key).paths.iif, router.get(key).cookie) == ("eth0", "red")
    assert tally(write(router, PatchRoutes(ALICE, [patch]))) == (0, 0, 0, 1, 0)
    write(router, PatchRoutes(ALICE, [Patch(key, (Oif("eth1", 9),), frozenset())]))
    assert router.get(key).paths.oifs == (Oif("eth1", 9), Oif("eth2"))


def test_a_patch_needs_a_route(router: Router) -> None:
    outcome = write(router, PatchRoutes(ALICE, [Patch(sg(1), (Oif("eth1"),), frozenset())]))
    assert tally(outcome) == (0, 0, 0, 0, 1)
    assert outcome.changes[0].problem is not None
    assert outcome.changes[0].problem.reason is Reason.NOT_FOUND
    assert not outcome.intent


def test_a_patch_of_another_owners_route_is_refused(router: Router) -> None:
    put(router, route(sg(1), "eth0"))
    outcome = write(router, PatchRoutes(BOB, [Patch(sg(1), (Oif("eth1"),), frozenset())]))
    assert outcome.changes[0].problem is not None
    assert outcome.changes[0].problem.reason is Reason.OWNED_BY_OTHER


def test_patches_of_one_route_add_up(router: Router) -> None:
    put(router, route(sg(1), "eth0"))
    patches = [Patch(sg(1), (Oif("eth1"),), frozenset()), Patch(sg(1), (Oif("eth2"),), frozenset())]
    assert tally(write(router, PatchRoutes(ALICE, patches))) == (0, 2, 0, 0, 0)
    assert router.get(sg(1)).paths.oifs == (Oif("eth1"), Oif("eth2"))


def test_a_patch_makes_no_route_too_wide(router: Router) -> None:
    put(router, route(sg(1), "eth0", "eth1"))
    add = tuple(Oif(f"v{n}") for n in range(OIFS_MAX))
    outcome = write(router, PatchRoutes(ALICE, [Patch(sg(1), add, frozenset())]))
    assert outcome.changes[0].problem is not None
    assert outcome.changes[0].problem.reason is Reason.TOO_MANY_ITEMS
    assert tally(write(router, PatchRoutes(ALICE, [Patch(sg(1), add, frozenset({"eth1"}))]))) == (0, 1, 0, 0, 0)


def test_a_patch_does_not_make_a_route_name_and_exclude_the_same(router: Router) -> None:
    put(router, route(sg(1), "eth0", "eth1"))
    outcome = write(router, PatchRoutes(ALICE, [Patch(sg(1), (Oif("!eth1"),), frozenset())]))
    assert outcome.changes[0].problem is not None
    assert outcome.changes[0].problem.reason is Reason.INVALID_INTERFACE


# --- delete ----------------------------------------------------------------------------------------------------------


@both_families
def test_delete_by_key(router: Router, family: Family) -> None:
    put(router, route(sg(1, family), "eth0"), route(sg(2, family), "eth0"))
    outcome = write(router, DeleteRoutes(ALICE, [sg(1, family), sg(9, family), sg(1, family)]))
    assert tally(outcome) == (0, 0, 1, 2, 0)
    assert list(router.engine.desired.routes) == [sg(2, family)]
    assert router.engine.desired.entries == {"alice": 1}


def test_delete_by_key_refuses_routes_of_others(router: Router) -> None:
    put(router, route(sg(1), "eth0"))
    assert tally(write(router, DeleteRoutes(BOB, [sg(1)]))) == (0, 0, 0, 0, 1)
    assert tally(write(router, DeleteRoutes(WriteOptions("bob", take_over=True), [sg(1)]))) == (0, 0, 1, 0, 0)


def test_delete_by_selector_reaches_the_callers_routes_only(router: Router) -> None:
    put(router, route(sg(1), "eth0", cookie="red"), route(sg(2), "eth0"))
    put(router, route(sg(3), "eth0", owner="bob", cookie="red"), options=BOB)
    outcome = write(router, DeleteRoutes(ALICE, matches=lambda one: one.cookie == "red"))
    assert tally(outcome) == (0, 0, 1, 0, 0)
    assert sorted(router.engine.desired.routes) == [sg(2), sg(3)]
    assert tally(write(router, DeleteRoutes(WriteOptions("alice", take_over=True)))) == (0, 0, 2, 0, 0)


# --- replace ---------------------------------------------------------------------------------------------------------


@both_families
def test_replace_makes_the_set_exactly_this(router: Router, family: Family) -> None:
    one, two, three = (sg(n, family) for n in (1, 2, 3))
    put(router, route(one, "eth0"), route(two, "eth0"))
    put(router, route(sg(8, family), "eth0", owner="bob"), options=BOB)
    outcome = replace(router, route(two, "eth0", "eth1"), route(three, "eth0"))
    assert tally(outcome) == (1, 1, 1, 0, 0)
    assert actions(outcome) == [(Action.UPDATE, 0), (Action.CREATE, 1), (Action.DELETE, 2)]
    assert sorted(router.engine.desired.routes) == [two, three, sg(8, family)]
    assert tally(replace(router, route(two, "eth0", "eth1"), route(three, "eth0"))) == (0, 0, 0, 2, 0)


def test_replace_by_cookie_leaves_other_cookies_alone(router: Router) -> None:
    put(router, route(sg(1), "eth0", cookie="red"), route(sg(2), "eth0", cookie="blue"))
    assert tally(replace(router, route(sg(3), "eth0", cookie="red"), cookie="red")) == (1, 0, 1, 0, 0)
    assert sorted(router.engine.desired.routes) == [sg(2), sg(3)]


def test_an_empty_set_must_be_meant(router: Router) -> None:
    put(router, route(sg(1), "eth0"))
    assert refused(router, ReplaceRoutes(ALICE, {})).reason is Reason.EMPTY_SET
    assert tally(replace(router, allow_empty=True)) == (0, 0, 1, 0, 0)


def test_too_many_deletions(router: Router) -> None:
    put(router, *(route(sg(n), "eth0") for n in range(4)))
    error = refused(router, ReplaceRoutes(ALICE, {sg(0): route(sg(0), "eth0")}, max_deletions=2))
    assert (error.reason, error.problem.metadata) == (Reason.TOO_MANY_DELETIONS, {"would": "3", "max": "2"})
    assert tally(replace(router, route(sg(0), "eth0"), max_deletions=3)) == (0, 0, 3, 1, 0)


# --- preconditions and dry runs --------------------------------------------------------------------------------------


def test_if_revision(router: Router) -> None:
    first = put(router, route(sg(1), "eth0")).revision
    put(router, route(sg(5), "eth0", owner="bob"), options=BOB)
    second = put(router, route(sg(2), "eth0"), options=WriteOptions("alice", if_revision=first)).revision
    assert second > first
    error = refused(router, PutRoutes(WriteOptions("alice", if_revision=first), [route(sg(3), "eth0")]))
    assert (error.reason, error.problem.metadata) == (Reason.REVISION_MISMATCH, {"now": str(second), "owner": "alice"})


def test_a_write_that_changes_nothing_may_be_built_on(router: Router) -> None:
    """Its revision is not older than that of a write in the same transaction which it relies on."""
    draft_of_two = router.write(PutRoutes(ALICE, [route(sg(1), "eth0")]), PutRoutes(ALICE, [route(sg(1), "eth0")]))
    assert draft_of_two[1].unchanged == 1
    options = WriteOptions("alice", if_revision=draft_of_two[1].revision)
    assert put(router, route(sg(2), "eth0"), options=options).created == 1


def test_link_events_are_no_change_of_what_an_owner_asks_for(router: Router) -> None:
    revision = put(router, route(sg(1), "eth0", "eth1")).revision
    router.unlink("eth1")
    router.settle()
    assert router.get(sg(1)).fate.revision > revision
    assert put(router, route(sg(2), "eth0"), options=WriteOptions("alice", if_revision=revision)).created == 1


def test_epochs(router: Router) -> None:
    put(router, route(sg(1), "eth0"), options=WriteOptions("alice", epoch=41))
    put(router, route(sg(2), "eth0"), options=WriteOptions("alice", epoch=42))
    error = refused(router, PutRoutes(WriteOptions("alice", epoch=41), [route(sg(3), "eth0")]))
    assert (error.reason, error.problem.metadata) == (Reason.STALE_EPOCH, {"highest": "42", "owner": "alice"})
    put(router, route(sg(3), "eth0"))
    put(router, route(sg(9), "eth0", owner="bob"), options=WriteOptions("bob", epoch=1))
    assert {owner.name: owner.epoch for owner in router.engine.desired.owners.values()} == {"alice": 42, "bob": 1}


def test_a_new_epoch_is_kept_though_nothing_else_changes(router: Router) -> None:
    revision = put(router, route(sg(1), "eth0")).revision
    put(router, route(sg(1), "eth0"), options=WriteOptions("alice", epoch=7))
    owner = router.disk.owners["alice"]
    assert (owner.epoch, owner.revision) == (7, revision), "an epoch is no change of what is asked for"
    assert refused(router, DeleteRoutes(WriteOptions("alice", epoch=6), [sg(1)])).reason is Reason.STALE_EPOCH


def test_a_dry_run_tells_all_and_leaves_no_trace(router: Router) -> None:
    put(router, route(sg(1), "eth0"), route(sg(2), "eth0"))
    router.transcript()
    before = router.engine.revision, dict(router.engine.desired.routes), dict(router.disk.owners)
    options = WriteOptions("alice", validate_only=True, epoch=99)
    outcome = replace(router, route(sg(2), "eth0", "eth1"), route(sg(3), "eth0"), options=options)
    assert tally(outcome) == (1, 1, 1, 0, 0)
    assert actions(outcome) == [(Action.UPDATE, 0), (Action.CREATE, 1), (Action.DELETE, 2)]
    assert (router.engine.revision, router.engine.desired.routes, router.disk.owners) == before
    assert outcome.revision == router.engine.revision
    assert not outcome.intent
    assert router.transcript() == []


def test_a_dry_run_is_refused_as_the_write_would_be(router: Router) -> None:
    options = WriteOptions("alice", validate_only=True)
    assert refused(router, ReplaceRoutes(options, {})).reason is Reason.EMPTY_SET
    router.engine.routes_max = 0
    assert refused(router, PutRoutes(options, [route(sg(1), "eth0")])).reason is Reason.ROUTE_LIMIT


# --- interface settings and restoring --------------------------------------------------------------------------------


def test_settings_of_interfaces(router: Router) -> None:
    outcome = write(router, SetInterface(ALICE, "eth1", pinned=True, ttl_threshold=5))
    assert tally(outcome) == (0, 1, 0, 0, 0)
    said = router.engine.desired.effective_settings("eth1")
    assert (said.ttl_threshold, said.pinned_tables) == (5, frozenset({0}))
    assert tally(write(router, SetInterface(ALICE, "eth1", ttl_threshold=5))) == (0, 0, 0, 1, 0)
    write(router, SetInterface(ALICE, "eth1", pinned=True, table=5))
    write(router, SetInterface(ALICE, "eth1", pinned=False, table=0))
    assert router.engine.desired.effective_settings("eth1").pinned_tables == frozenset({5})
    assert router.engine.desired.owners["alice"].revision == max(
        pin.revision for pin in router.engine.desired.settings["eth1", "alice"].pins
    )


def test_the_same_word_again_counts_where_another_was_in_force(router: Router) -> None:
    write(router, SetInterface(ALICE, "eth1", ttl_threshold=20, pinned=True))
    write(router, SetInterface(BOB, "eth1", ttl_threshold=11, pinned=False))
    assert tally(write(router, SetInterface(ALICE, "eth1", ttl_threshold=20))) == (0, 1, 0, 0, 0)
    said = router.engine.desired.effective_settings("eth1")
    assert (said.ttl_threshold, said.pinned_tables) == (20, frozenset()), "what bob said of the pin still holds"
    write(router, SetInterface(ALICE, "eth1", pinned=True, table=7))
    write(router, SetInterface(BOB, "eth1", pinned=True, table=8))
    assert router.engine.desired.effective_settings("eth1").pinned_tables == frozenset({7, 8})


def test_the_latest_word_holds_and_config_yields(router: Router) -> None:
    write(router, SetInterface(BOB, "eth1", ttl_threshold=3))
    write(router, SetInterface(ALICE, "eth1", ttl_threshold=5))
    write(router, SetInterface(WriteOptions("config"), "eth1", ttl_threshold=9, pinned=True))
    said = router.engine.desired.effective_settings("eth1")
    assert (said.ttl_threshold, said.pinned_tables) == (5, frozenset({0}))


def test_router_discovery_is_a_setting_like_others(router: Router) -> None:
    config = WriteOptions("config")
    desired, world = router.engine.desired, router.engine.world
    assert not desired.effective_settings("eth1").router_discovery
    assert tally(write(router, SetInterface(config, "eth1", router_discovery=True))) == (0, 1, 0, 0, 0)
    assert world.discovery == {"eth1"}
    assert tally(write(router, SetInterface(ALICE, "eth1", router_discovery=False))) == (0, 1, 0, 0, 0)
    assert tally(write(router, SetInterface(ALICE, "eth1", router_discovery=False))) == (0, 0, 0, 1, 0)
    write(router, SetInterface(config, "eth1", router_discovery=True))
    assert world.discovery == set(), "config yields"
    outcome = write(router, SetInterface(BOB, "eth1", router_discovery=True))
    assert desired.settings["eth1", "bob"].discovery_revision == outcome.revision
    write(router, SetInterface(BOB, "eth1", ttl_threshold=3))
    assert desired.settings["eth1", "bob"].discovery_revision == outcome.revision
    assert world.discovery == {"eth1"}


@both_families
def test_restoring_undoes_a_write(router: Router, family: Family) -> None:
    one, two, three = (sg(n, family) for n in (1, 2, 3))
    put(router, route(one, "eth0", "eth1"))
    put(router, route(two, "eth0", owner="bob"), options=BOB)
    router.transcript()
    before = {key: (kept.owner, kept.paths) for key, kept in router.engine.desired.routes.items()}
    options = WriteOptions("alice", take_over=True)
    outcome = put(router, *(route(key, "eth0", "eth2") for key in (one, two, three)), options=options)
    back = [change.before.copy() for change in outcome.changes if change.before is not None]
    write(router, Restore(options, back, [three]))
    assert {key: (kept.owner, kept.paths) for key, kept in router.engine.desired.routes.items()} == before
    assert router.engine.desired.entries == {"alice": 1, "bob": 1}
    router.settle()
    assert router.sends(one) == ["eth1"]
    assert router.kernel.entry(three) is None


def test_a_route_that_is_restored_starts_a_new_life(router: Router) -> None:
    put(router, route(sg(1), "eth0", "eth1"))
    router.settle()
    old = router.get(sg(1))
    write(router, DeleteRoutes(ALICE, [sg(1)]))
    router.settle()
    write(router, Restore(WriteOptions("alice", take_over=True), [old], []))
    assert router.get(sg(1)).installed_at == 0
    router.settle()
    assert router.get(sg(1)).installed_at > 0


def test_long_writes_let_others_run(router: Router) -> None:
    """A preparation yields between slices of 1,000 items, of each kind."""
    many = {sg(n): route(sg(n), "eth0") for n in range(2500)}

    def slices(one: Write) -> int:
        return sum(1 for _ in prepare(router.engine.draft(), one, 10_000))

    assert slices(PutRoutes(ALICE, list(many.values()))) == 2
    router.write(PutRoutes(ALICE, list(many.values())))
    assert slices(DeleteRoutes(ALICE, list(many))) == 2
    assert slices(DeleteRoutes(ALICE)) == 2
    assert slices(PatchRoutes(ALICE, [Patch(key, (Oif("eth1"),), frozenset()) for key in many])) == 2
    assert slices(ReplaceRoutes(ALICE, many)) == 2, "a look at what is wanted, which is all there is"
    fewer = dict(list(many.items())[1:])
    assert slices(ReplaceRoutes(ALICE, fewer)) == 4, "one look at what is wanted, one at what is there"
    assert slices(ReplaceRoutes(ALICE, {}, allow_empty=True)) == 4, "one look at what is there, one at what goes"


# --- routes of an owner ----------------------------------------------------------------------------------------------

FEW = WriteOptions("alice", owner_routes_max=2)


@both_families
def test_an_owner_has_no_more_routes_than_it_may(router: Router, family: Family) -> None:
    one, two, three = (route(sg(n, family), "eth0") for n in (1, 2, 3))
    put(router, route(sg(9, family), "eth0", owner="bob"), options=BOB)
    assert tally(put(router, one, two, options=FEW)) == (2, 0, 0, 0, 0)
    error = refused(router, PutRoutes(FEW, [three]))
    assert error.reason is Reason.ROUTE_LIMIT
    assert error.problem.metadata == {"limit": "2", "would": "3", "owner": "alice"}
    assert tally(put(router, route(sg(1, family), "eth1"), options=FEW)) == (0, 1, 0, 0, 0)
    assert tally(replace(router, two, three, options=FEW)) == (1, 0, 1, 1, 0)
    assert tally(put(router, one)) == (1, 0, 0, 0, 0)  # without a limit of its own
    assert tally(put(router, two, options=FEW)) == (0, 0, 0, 1, 0)  # too many, but no more of them
    assert tally(write(router, DeleteRoutes(FEW))) == (0, 0, 3, 0, 0)


def test_what_is_taken_over_counts(router: Router) -> None:
    put(router, *(route(sg(n), "eth0", owner="bob") for n in (1, 2, 3)), options=BOB)
    taking = WriteOptions("alice", take_over=True, owner_routes_max=2)
    put(router, *(route(sg(n), "eth1") for n in (1, 2)), options=taking)
    assert refused(router, PutRoutes(taking, [route(sg(3), "eth1")])).reason is Reason.ROUTE_LIMIT
    assert tally(put(router, route(sg(4), "eth0", owner="bob"), options=WriteOptions("bob", owner_routes_max=2))) == (
        1,
        0,
        0,
        0,
        0,
    )


def test_writes_that_are_prepared_together_count_together(router: Router) -> None:
    draft = router.engine.draft()
    drain(prepare(draft, PutRoutes(FEW, [route(sg(1), "eth0")]), 100))
    bobs = [route(sg(1), "eth1", owner="bob"), route(sg(9), "eth0", owner="bob")]
    drain(prepare(draft, PutRoutes(WriteOptions("bob", take_over=True), bobs), 100))
    assert (draft.entries("alice"), draft.entries("bob"), draft.count) == (0, 2, 2)
    drain(prepare(draft, PutRoutes(FEW, [route(sg(2), "eth0"), route(sg(3), "eth0")]), 100))
    with pytest.raises(McastdError):
        drain(prepare(draft, PutRoutes(FEW, [route(sg(4), "eth0")]), 100))
    drain(prepare(draft, DeleteRoutes(FEW, keys=[sg(2)]), 100))
    drain(prepare(draft, PutRoutes(FEW, [route(sg(4), "eth0")]), 100))
    assert (draft.entries("alice"), draft.count) == (2, 4)


ITEMS = st.tuples(
    st.integers(0, 4),
    st.sampled_from(["alice", "bob"]),
    st.sampled_from(["", "eth1", "eth2"]),
    st.sampled_from(["", "c"]),
    st.integers(0, 2),
)


def item(number: int, owner: str, oif: str, cookie: str, session: int) -> Route:
    made = route(sg(number), "eth0", *filter(None, [oif]), owner=owner, cookie=cookie)
    made.session = session
    return made


@given(st.lists(ITEMS, max_size=6), st.lists(ITEMS, max_size=4), st.lists(ITEMS, max_size=8), st.booleans())
def test_many_puts_are_as_one_after_the_other(
    below: list[tuple[int, str, str, str, int]],
    drafted: list[tuple[int, str, str, str, int]],
    items: list[tuple[int, str, str, str, int]],
    take_over: bool,
) -> None:
    """In one go or one by one, on what is in force and what an earlier write of the draft has left."""

    def outcome_of(in_one_go: bool) -> tuple[object, ...]:
        desired = Desired()
        for one in below:
            desired.put(item(*one))
        draft = Draft(desired, 1, iter(range(2, 99)).__next__)
        earlier = {sg(one[0]): item(*one) for one in drafted}
        draft.absorb(Intent(puts=list(earlier.values())), dict(earlier), {})
        options = WriteOptions("alice", take_over=take_over)
        local = Local(draft, options, Outcome())
        numbered = [(at, item(one[0], "alice", *one[2:])) for at, one in enumerate(items)]
        if in_one_go:
            local.put_all(numbered)
        else:
            for at, wanted in numbered:
                local.put(at, wanted)
        out = local.outcome
        changes = [(c.action, c.id, c.before and c.before.paths, c.after and c.after.paths, c.problem) for c in out.changes]
        kept = [(at, held.key, held.paths) for at, held in out.kept]
        left = {key: wanted and (wanted.paths, wanted.cookie, wanted.session) for key, wanted in local.changed.items()}
        return tally(out), changes, kept, left, out.intent.refreshed, local.held

    assert outcome_of(in_one_go=True) == outcome_of(in_one_go=False)
