"""mcastd.core.desired: drafts, several writes in one, and drafts that are dropped; who has how many routes."""

from hypothesis import given
from hypothesis import strategies as st

from mcastd.core.desired import Desired, Draft
from mcastd.core.prepare import prepare
from mcastd.model.record import InterfaceSettings, OwnerRecord, Pin, Stored
from mcastd.model.route import Paths, Route
from mcastd.model.write import DeleteRoutes, Outcome, PutRoutes, ReplaceRoutes, SetInterface, Write, WriteOptions
from tests.fakerouter import Router, drain, route, sg

ALICE, BOB = WriteOptions("alice"), WriteOptions("bob")


def on(draft: Draft, write: Write) -> Outcome:
    return drain(prepare(draft, write, 100))


def test_a_draft_sees_the_writes_before() -> None:
    router = Router("eth0")
    draft = router.engine.draft()
    first = on(draft, PutRoutes(ALICE, [route(sg(1), "eth0"), route(sg(2), "eth0")]))
    again = on(draft, PutRoutes(ALICE, [route(sg(1), "eth0")]))
    others = on(draft, PutRoutes(BOB, [route(sg(2), "eth0", "eth1", owner="bob"), route(sg(3), "eth0", owner="bob")]))
    assert (first.created, again.unchanged, others.refused, others.created) == (2, 1, 1, 1)
    gone = on(draft, ReplaceRoutes(ALICE, {sg(4): route(sg(4), "eth0")}))
    assert (gone.created, gone.deleted) == (1, 2)
    assert sorted(one.key for one in draft.routes()) == [sg(3), sg(4)]
    assert draft.get(sg(1)) is None
    assert draft.count == 2
    assert len(draft.intents) == 3, "the write that changed nothing is not stored"
    assert first.revision == again.revision < others.revision < gone.revision


def test_a_draft_sees_what_is_below_it() -> None:
    router = Router("eth0")
    router.write(PutRoutes(ALICE, [route(sg(n), "eth0") for n in range(3)]))
    draft = router.engine.draft()
    assert {one.key for one in draft.routes()} == {sg(0), sg(1), sg(2)}
    on(draft, DeleteRoutes(ALICE, [sg(0)]))
    on(draft, PutRoutes(ALICE, [route(sg(1), "eth0", "eth1"), route(sg(3), "eth0")]))
    assert {one.key: len(one.paths.oifs) for one in draft.routes()} == {sg(1): 1, sg(2): 0, sg(3): 0}
    assert draft.count == 3
    assert on(draft, DeleteRoutes(ALICE)).deleted == 3


def test_a_dropped_draft_leaves_nothing() -> None:
    router = Router("eth0")
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0")]), SetInterface(ALICE, "eth0", ttl_threshold=3))
    router.settle()
    desired = router.engine.desired
    before = dict(desired.routes), dict(desired.owners), dict(desired.entries), dict(desired.settings)
    states = {key: (one.revision, one.state, one.fate) for key, one in desired.routes.items()}
    draft = router.engine.draft()
    on(draft, PutRoutes(WriteOptions("alice", epoch=9), [route(sg(1), "eth0", "eth1"), route(sg(2), "eth0")]))
    on(draft, SetInterface(ALICE, "eth0", pinned=True, ttl_threshold=8))
    on(draft, DeleteRoutes(WriteOptions("bob", take_over=True)))
    assert before == (desired.routes, desired.owners, desired.entries, desired.settings)
    assert states == {key: (one.revision, one.state, one.fate) for key, one in desired.routes.items()}
    router.transcript()
    assert router.settle() == 0
    assert router.write(PutRoutes(WriteOptions("alice", epoch=1), [route(sg(2), "eth0")]))[0].created == 1


def test_revisions_of_dropped_drafts_are_not_given_again() -> None:
    router = Router("eth0")
    dropped = on(router.engine.draft(), PutRoutes(ALICE, [route(sg(1), "eth0")])).revision
    assert router.write(PutRoutes(ALICE, [route(sg(1), "eth0")]))[0].revision > dropped


def test_a_draft_sees_the_settings_before() -> None:
    router = Router("eth0")
    draft = router.engine.draft()
    on(draft, SetInterface(ALICE, "eth0", pinned=True))
    on(draft, SetInterface(ALICE, "eth0", pinned=True, table=5, ttl_threshold=4))
    said = draft.settings("eth0", "alice")
    assert (said.ttl_threshold, {pin.table for pin in said.pins if pin.pinned}) == (4, {0, 5})
    assert draft.settings("eth0", "bob") == InterfaceSettings("eth0", "bob")


def test_the_snapshot_revision_waits_for_writes_on_their_way() -> None:
    """Links change while a write is on its way to the disk: a snapshot does not claim to hold the write."""
    router = Router("eth0")
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth1")]))
    router.settle()
    router.engine.settled()
    before = router.engine.visible_revision
    outcome = on(router.engine.draft(), PutRoutes(ALICE, [route(sg(2), "eth0")]))
    router.link("eth1")
    router.tell()
    assert router.engine.revision > outcome.revision > before
    assert router.engine.visible_revision == before
    router.engine.settled()
    assert router.engine.visible_revision == router.engine.revision


def test_counts_by_owner() -> None:
    desired = Desired()
    stored = {sg(n): route(sg(n), "eth0", owner="alice" if n else "bob") for n in range(3)}
    desired.load(Stored(stored, {"alice": OwnerRecord("alice", 1, 7)}))
    assert desired.entries == {"bob": 1, "alice": 2}
    assert desired.put(route(sg(0), "eth0")) is not None
    assert desired.put(route(sg(5), "eth0", owner="carol")) is None
    assert desired.entries == {"bob": 0, "alice": 3, "carol": 1}
    assert desired.delete(sg(1)) is not None
    assert desired.delete(sg(1)) is None
    assert desired.entries == {"bob": 0, "alice": 2, "carol": 1}


def test_settings_field_by_field() -> None:
    desired = Desired()
    for said in (
        InterfaceSettings("eth0", "config", 9, 50, (Pin(0, True, 50), Pin(7, True, 50))),
        InterfaceSettings("eth0", "alice", 5, 10, (Pin(5, True, 35), Pin(6, True, 10))),
        InterfaceSettings("eth0", "bob", 7, 20, (Pin(6, False, 20), Pin(7, False, 20))),
        InterfaceSettings("eth0", "carol"),
        InterfaceSettings("eth9", "alice", 1, 40),
    ):
        desired.settings[said.interface, said.owner] = said
    effective = desired.effective_settings("eth0")
    assert (effective.ttl_threshold, effective.pinned_tables) == (7, frozenset({0, 5}))
    assert effective.router_discovery is False


def test_latest_word_on_router_discovery() -> None:
    desired = Desired()
    for owner, wanted, revision, expected in (
        ("config", True, 90, True),
        ("alice", False, 20, False),
        ("bob", True, 10, False),
        ("bob", True, 30, True),
        ("alice", None, 0, True),
    ):
        said = InterfaceSettings("eth0", owner, router_discovery=wanted, discovery_revision=revision)
        desired.settings["eth0", owner] = said
        assert desired.effective_settings("eth0").router_discovery is expected


ROUTES = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["alice", "bob"]), st.integers(0, 2)), unique_by=lambda one: one[0], max_size=6
)


@given(ROUTES, ROUTES, st.integers(1, 2))
def test_many_routes_are_put_as_one_after_the_other(
    before: list[tuple[int, str, int]], after: list[tuple[int, str, int]], generation: int
) -> None:
    """In one go or one by one: the same routes, counts, and keys that sessions have written."""

    def made(ones: list[tuple[int, str, int]]) -> list[Route]:
        return [Route(sg(n), Paths("eth0", ()), owner, session=session) for n, owner, session in ones]

    def fresh() -> Desired:
        desired = Desired()
        for owner in ("alice", "bob"):
            desired.put_owner(OwnerRecord(owner, session=1, generation=generation))
        for one in made(before):
            desired.put(one)
        return desired

    single, many = fresh(), fresh()
    olds = [single.put(one) for one in made(after)]
    routes = made(after)
    found = many.put_all([one.key for one in routes], routes)
    assert [old and (old.key, old.owner, old.session) for old in found] == [
        old and (old.key, old.owner, old.session) for old in olds
    ]
    assert many.routes.keys() == single.routes.keys()
    for owner in ("alice", "bob"):
        assert many.entries.get(owner, 0) == single.entries.get(owner, 0)
        assert set(many.session_keys(owner)) == set(single.session_keys(owner))
        assert many.stale_entries(owner) == single.stale_entries(owner)
