"""mcastd.core.prepare_joins: what writes of joins come to, on a draft."""

import pytest

from mcastd.core.prepare import prepare
from mcastd.model.errors import McastdError, Reason
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.write import DeleteJoins, JoinChange, Outcome, PutJoins, RestoreJoins, Write, WriteOptions
from tests.fakerouter import Router, drain

ALICE, BOB = WriteOptions("alice"), WriteOptions("bob")


@pytest.fixture
def router() -> Router:
    return Router("eth0")


def key(number: int = 1, owner: str = "alice") -> JoinKey:
    return JoinKey(owner, "eth0", b"\xef\1\1" + bytes((number,)), 32, b"", 0)


def put(router: Router, *records: JoinRecord, options: WriteOptions = ALICE) -> Outcome:
    return router.write(PutJoins(options, list(records)))[0]


def tally(outcome: Outcome) -> tuple[int, int, int, int]:
    return outcome.created, outcome.updated, outcome.deleted, outcome.unchanged


def refused(router: Router, write: Write, joins_max: int = 100) -> McastdError:
    draft = router.engine.draft()
    with pytest.raises(McastdError) as error:
        drain(prepare(draft, write, 100, joins_max))
    assert draft.intents == []
    return error.value


def test_joins_are_created_updated_and_deleted(router: Router) -> None:
    outcome = put(router, JoinRecord(key(1), "a"), JoinRecord(key(2)))
    assert tally(outcome) == (2, 0, 0, 0)
    record = router.engine.desired.joins[key(1)]
    assert record.revision == outcome.revision == router.engine.desired.owners["alice"].revision
    same = put(router, JoinRecord(key(1), "a"))
    assert (tally(same), same.revision, bool(same.intent)) == ((0, 0, 0, 1), outcome.revision, False)
    assert same.joins == [JoinChange(key(1), record, record)]
    assert router.engine.desired.joins[key(1)] is record
    changed = put(router, JoinRecord(key(1), "b"))
    assert tally(changed) == (0, 1, 0, 0)
    assert router.engine.desired.joins[key(1)].cookie == "b"
    gone = router.write(DeleteJoins(ALICE, [key(1), key(1), key(9)]))[0]
    assert tally(gone) == (0, 0, 1, 2)
    assert gone.intent.join_deletes == [key(1)]
    assert set(router.engine.desired.joins) == set(router.disk.joins) == {key(2)}


def test_one_draft_sees_what_was_written_before_on_it(router: Router) -> None:
    outcomes = router.write(
        PutJoins(ALICE, [JoinRecord(key(1)), JoinRecord(key(1), "later")]),
        DeleteJoins(ALICE, [key(1)]),
        PutJoins(ALICE, [JoinRecord(key(2))]),
        PutJoins(ALICE, [JoinRecord(key(2))]),
    )
    assert [tally(one) for one in outcomes] == [(1, 1, 0, 0), (0, 0, 1, 0), (1, 0, 0, 0), (0, 0, 0, 1)]
    assert set(router.engine.desired.joins) == {key(2)}
    draft = router.engine.draft()
    assert draft.joins_count == 1
    drain(prepare(draft, PutJoins(ALICE, [JoinRecord(key(3))]), 100))
    drain(prepare(draft, DeleteJoins(ALICE, [key(2)]), 100))
    assert draft.joins_count == 1
    assert [record.key for record in draft.joins()] == [key(3)]
    assert draft.join(key(2)) is None


def test_there_may_be_so_many(router: Router) -> None:
    put(router, JoinRecord(key(1)), JoinRecord(key(2)))
    error = refused(router, PutJoins(ALICE, [JoinRecord(key(3)), JoinRecord(key(1), "x")]), joins_max=2)
    assert (error.reason, error.problem.metadata) == (Reason.MEMBERSHIP_LIMIT, {"limit": "2", "would": "3"})
    draft = router.engine.draft()
    drain(prepare(draft, PutJoins(ALICE, [JoinRecord(key(1), "x")]), 100, 1))
    drain(prepare(draft, DeleteJoins(ALICE, [key(1)]), 100, 1))


def test_joins_do_not_count_as_routes(router: Router) -> None:
    draft = router.engine.draft()
    drain(prepare(draft, PutJoins(ALICE, [JoinRecord(key(n)) for n in range(5)]), 1))
    assert (draft.count, draft.joins_count) == (0, 5)


def test_a_dry_run_leaves_nothing(router: Router) -> None:
    outcome = put(router, JoinRecord(key(1)), options=WriteOptions("alice", validate_only=True))
    assert (tally(outcome), bool(outcome.intent)) == ((1, 0, 0, 0), False)
    assert router.engine.desired.joins == {}


def test_an_owners_joins_are_his_alone(router: Router) -> None:
    put(router, JoinRecord(key(1)))
    put(router, JoinRecord(key(1, "bob")), options=BOB)
    router.write(DeleteJoins(BOB, [key(1, "bob")]))
    assert set(router.engine.desired.joins) == {key(1)}


def test_what_is_restored_is_what_was_there_unless_somebody_has_written_since(router: Router) -> None:
    put(router, JoinRecord(key(1), "old"), JoinRecord(key(3), "old"))
    outcome = put(router, JoinRecord(key(1), "new"), JoinRecord(key(2)), JoinRecord(key(3), "new"))
    put(router, JoinRecord(key(3), "newer"))
    undone = router.write(RestoreJoins(ALICE, outcome.joins))[0]
    assert tally(undone) == (0, 1, 1, 0)
    assert {k: record.cookie for k, record in router.engine.desired.joins.items()} == {key(1): "old", key(3): "newer"}


def test_they_are_prepared_in_slices(router: Router) -> None:
    draft = router.engine.draft()
    many = [JoinRecord(key(1)._replace(interface=f"e{n}")) for n in range(2500)]
    assert sum(1 for _ in prepare(draft, PutJoins(ALICE, many), 1)) == 2
    assert sum(1 for _ in prepare(draft, DeleteJoins(ALICE, [one.key for one in many]), 1)) == 2


def test_joins_are_there_after_a_restart(router: Router) -> None:
    put(router, JoinRecord(key(1), "a"))
    router.boot()
    assert router.engine.desired.joins[key(1)].cookie == "a"
    step = router.engine.joins.pull()
    assert step is not None
    assert len(step.join) == 1
