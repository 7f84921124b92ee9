"""mcastd.api.acks: which operations a client must hear of, and lists that are too long for one message."""

from mcastd.api import present
from mcastd.api.acks import acks, all_refused, exceptions, in_order
from mcastd.model.errors import Problem, Reason
from mcastd.model.record import Lease, OnExpiry
from mcastd.model.route import Action, Route
from mcastd.model.write import Change, OpenSession, Outcome, Patch, Program, WriteOptions
from tests.fakerouter import Router, route, sg, template

SDN = WriteOptions("sdn")

PROBLEM = Problem(Reason.STORE_UNAVAILABLE, "the disk is full")


def program(router: Router, *ops: Route | Patch | bytes) -> Outcome:
    """Carry out operations of a session, numbered from 1."""
    if not router.engine.desired.owners.get("sdn"):
        router.write(OpenSession(SDN, 1, Lease(0.0, OnExpiry.RETAIN)))
    (outcome,) = router.write(Program(SDN, 1, list(enumerate(ops, 1))))
    router.settle()
    return outcome


def wanted(number: int, *oifs: str) -> Route:
    """A route of the owner."""
    return route(sg(number), "up", *oifs, owner="sdn")


async def told(router: Router, outcome: Outcome) -> list[tuple[int, Action]]:
    """Ids and actions of the exceptions."""
    return [(change.id, change.action) for change in await exceptions(router.engine, outcome)]


async def test_what_is_programmed_is_no_exception() -> None:
    router = Router("up", "down")
    assert await told(router, program(router, wanted(1, "down"), wanted(2, "down"), sg(2), sg(9))) == []
    assert await told(router, program(router, wanted(1, "down"))) == []


async def test_what_is_not_is_told_in_order_of_ids() -> None:
    router = Router("up", "down")
    ops = [wanted(1, "absent"), wanted(2, "down"), template("239.7.0.0/16", "", "up", owner="sdn"), wanted(4, "absent")]
    first = program(router, *ops)
    assert await told(router, first) == [(1, Action.CREATE), (3, Action.CREATE), (4, Action.CREATE)]
    again = program(router, *(op.copy() for op in (ops[0], ops[1])), Patch(sg(8), (), frozenset()), ops[2].copy())
    assert await told(router, again) == [(1, Action.NONE), (3, Action.NONE), (4, Action.NONE)]


async def test_a_route_that_was_replaced_since_is_no_exception() -> None:
    router = Router("up", "down")
    assert await told(router, program(router, wanted(1, "absent"), wanted(1, "down"))) == []
    assert await told(router, program(router, wanted(2, "absent"), sg(2))) == []
    outcome = program(router, wanted(3, "absent"))
    program(router, wanted(3, "down"))
    assert await told(router, outcome) == []


async def test_the_last_ack_goes_all_the_way() -> None:
    router = Router("up", "down")
    (answer,) = [one async for one in acks(router.engine, 9, all_refused([3, 5], PROBLEM), 7)]
    assert (answer.ack.acked_through, answer.ack.revision) == (9, 7)
    assert [(one.id, one.error.reason) for one in answer.ack.exceptions] == [(3, "STORE_UNAVAILABLE"), (5, "STORE_UNAVAILABLE")]


async def test_exceptions_carry_the_route_and_why() -> None:
    router = Router("up", "down")
    found = await exceptions(router.engine, program(router, wanted(1, "absent")))
    (answer,) = [one async for one in acks(router.engine, 1, found, 7)]
    (change,) = answer.ack.exceptions
    status = change.after.status
    assert (change.after.group, status.owner, status.last_error.reason) == ("239.1.0.1", "sdn", "NO_SUCH_INTERFACE")
    assert not change.HasField("error"), "it has not failed, it waits"
    assert not change.HasField("before")


async def test_a_list_too_long_is_split_between_ids() -> None:
    router = Router("up", "down")
    long = Problem(Reason.STORE_UNAVAILABLE, "x" * 10_000)
    answers = [one.ack async for one in acks(router.engine, 999, all_refused(range(1, 801), long), 7)]
    assert len(answers) == 3
    at = 0
    for ack in answers:
        assert ack.ByteSize() < present.ANSWER_BYTES_MAX + 20_000
        assert [one.id for one in ack.exceptions] == list(range(at + 1, at + 1 + len(ack.exceptions)))
        at += len(ack.exceptions)
        assert ack.acked_through == (999 if ack is answers[-1] else at)
    assert at == 800


def test_changes_are_put_in_order() -> None:
    changes = [Change(Action.NONE, number, None, None) for number in (3, 1, 2)]
    assert [change.id for change in in_order(changes)] == [1, 2, 3]
