"""mcastd.api.present: values to messages."""

import asyncio

import pytest
from google.protobuf.duration_pb2 import Duration

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.api import present
from mcastd.api.ports import CounterSample
from mcastd.api.present import ANSWER_BYTES_MAX, SLICE, RoutePresenter, portions, route_intent, timestamp, write_result
from mcastd.model.address import Family
from mcastd.model.errors import Problem, Reason
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.record import Lease, OnExpiry, OwnerRecord
from mcastd.model.route import Action, Counters, Fate, Route, RouteState
from mcastd.model.write import Change, Outcome
from mcastd.runtime.tasks import cancel, spawn
from tests.fakerouter import route
from tests.netns.routed import key_of

KEY = key_of(Family.IPV4, 1)


def programmed(key: bytes = KEY, *oifs: str) -> Route:
    """A route that is in the kernel."""
    one = route(key, "up", *(oifs or ("down1",)), cookie="c")
    one.fate = Fate()
    one.fate.state = RouteState.PROGRAMMED
    one.fate.installed_oifs = oifs or ("down1",)
    one.installed_at, one.revision = 1_700_000_000.25, 7
    return one


@pytest.mark.parametrize(
    "seconds,expected", [(0.0, (0, 0)), (1.5, (1, 500_000_000)), (1_700_000_000.25, (1_700_000_000, 250_000_000))]
)
def test_times(seconds: float, expected: tuple[int, int]) -> None:
    made = timestamp(seconds)
    assert (made.seconds, made.nanos) == expected


def test_a_route_with_its_status() -> None:
    message = RoutePresenter().present(programmed())
    assert message.status.state == t.ROUTE_STATE_PROGRAMMED
    assert (message.status.owner, message.status.revision, message.status.origin) == ("alice", 7, t.ORIGIN_CONFIGURED)
    assert list(message.status.installed_oifs) == ["down1"]
    assert message.status.install_time == timestamp(1_700_000_000.25)
    assert not message.status.HasField("counters")
    assert not message.status.HasField("last_error")
    message.ClearField("status")
    assert message == route_intent(programmed())


def test_the_later_revision_counts() -> None:
    one = programmed()
    one.fate.revision = 9
    assert RoutePresenter().present(one).status.revision == 9


def test_one_presenter_tells_routes_of_one_fate_apart() -> None:
    first, second, third = programmed(), programmed(key_of(Family.IPV4, 2)), programmed(key_of(Family.IPV4, 3))
    second.fate, third.fate = first.fate, first.fate
    second.problem = Problem(Reason.KERNEL_ERROR, "no memory", {"errno": "12"})
    third.owner, third.cookie, third.installed_at = "bob", "", 0.0
    presenter = RoutePresenter()
    messages = [presenter.present(one) for one in (first, second, third, first)]
    assert [m.status.state for m in messages] == [1, t.ROUTE_STATE_FAILED, 1, 1]
    assert [m.status.owner for m in messages] == ["alice", "alice", "bob", "alice"]
    assert [m.cookie for m in messages] == ["c", "c", "", "c"]
    assert [m.status.last_error.reason for m in messages] == ["", "KERNEL_ERROR", "", ""]
    assert [m.status.HasField("install_time") for m in messages] == [True, True, False, True]
    assert messages[0] == messages[3]


def test_an_entry_older_than_the_server_has_no_install_time() -> None:
    one = programmed()
    one.installed_at = -1.0
    message = RoutePresenter().present(one)
    assert not message.status.HasField("install_time")
    assert list(message.status.installed_oifs) == ["down1"]


def sample(packets: int, before: int | None, interval: float = 2.0) -> CounterSample:
    """A sample of one entry."""
    previous = {} if before is None else {KEY: Counters(before, 100 * before, 0, 0.0)}
    return CounterSample({KEY: Counters(packets, 100 * packets, 3, 50.0)}, 60.0, previous, interval)


@pytest.mark.parametrize("packets,before,rate", [(30, 10, 10.0), (30, None, 0.0), (10, 30, 0.0), (10, 10, 0.0)])
def test_counters_and_rates(packets: int, before: int | None, rate: float) -> None:
    counters = RoutePresenter(sample(packets, before)).present(programmed()).status.counters
    assert (counters.packets, counters.bytes, counters.wrong_if) == (packets, 100 * packets, 3)
    assert (counters.sample_time, counters.last_used) == (timestamp(60.0), timestamp(50.0))
    assert (counters.packet_rate, counters.byte_rate) == (rate, 100 * rate)


def test_what_is_not_in_the_kernel_has_no_counters() -> None:
    waiting = programmed()
    waiting.installed_at = 0.0
    assert not RoutePresenter(sample(5, None)).present(waiting).status.HasField("counters")
    other = programmed(key_of(Family.IPV4, 2))
    assert not RoutePresenter(sample(5, None)).present(other).status.HasField("counters")


def outcome(*changes: Change, kept: tuple[Route, ...] = ()) -> Outcome:
    """An outcome; counts are not looked at."""
    return Outcome(changes=list(changes), kept=list(enumerate(kept)), revision=5, created=len(changes), unchanged=len(kept))


async def test_exceptions_are_always_told() -> None:
    fine, failed, waiting = (programmed(key_of(Family.IPV4, n)) for n in range(1, 4))
    failed.problem = Problem(Reason.KERNEL_ERROR, "no memory")
    waiting.fate.state, waiting.installed_at = RouteState.PENDING, 0.0
    changes = [Change(Action.CREATE, n, None, one) for n, one in enumerate((fine, failed, waiting))]
    refused = Change(Action.NONE, 3, fine, None, Problem(Reason.OWNED_BY_OTHER, "bob's"))
    result, omitted = await write_result(outcome(*changes, refused), every=False, tried=True)
    assert [(c.id, c.error.reason) for c in result.changes] == [(1, "KERNEL_ERROR"), (2, ""), (3, "OWNED_BY_OTHER")]
    assert (result.failed, omitted) == (1, 0)
    result, _ = await write_result(outcome(*changes, refused), every=True, tried=True)
    assert [c.id for c in result.changes] == [0, 1, 2, 3]
    result, _ = await write_result(outcome(*changes, refused), every=False, tried=False)
    assert [c.id for c in result.changes] == [3], "a dry run knows nothing of states"


async def test_what_was_there_already_is_told_where_it_does_not_forward() -> None:
    fine, failed = programmed(), programmed(key_of(Family.IPV4, 2))
    failed.problem = Problem(Reason.KERNEL_ERROR, "no memory")
    result, _ = await write_result(outcome(kept=(fine, failed)), every=False, tried=True)
    assert [(c.id, c.action) for c in result.changes] == [(1, rs.RouteChange.ACTION_NONE)]
    assert result.failed == 1


async def test_an_answer_has_an_end() -> None:
    globs = [f"{n:02}" + "?*" * 31 for n in range(64)]
    many = [Change(Action.CREATE, n, None, programmed(key_of(Family.IPV4, n + 1), *globs)) for n in range(1000)]
    result, omitted = await write_result(outcome(*many), every=True, tried=True)
    assert len(result.changes) + omitted == 1000
    assert omitted > 0
    assert ANSWER_BYTES_MAX < result.ByteSize() < 4 << 20


async def test_others_have_their_turn_meanwhile() -> None:
    many = tuple(programmed(key_of(Family.IPV4, n)) for n in range(1, 2 * SLICE + 1))
    turns = []

    async def other() -> None:
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    task = spawn(other(), "other")
    await write_result(outcome(*(Change(Action.CREATE, n, None, one) for n, one in enumerate(many))), every=True, tried=True)
    told = len(turns)
    await write_result(outcome(kept=many), every=False, tried=True)
    await cancel(task)
    assert (told, len(turns)) == (2, 4)


def test_portions_hold_everything_in_order() -> None:
    routes = [t.Route(group=str(n), cookie="c" * 5000) for n in range(2000)]
    parts = list(portions(routes))
    assert [one for part in parts for one in part] == routes
    assert max(sum(one.ByteSize() for one in part) for part in parts) <= ANSWER_BYTES_MAX
    assert list(portions(routes[:10])) == [routes[:10]]
    huge = [t.Route(cookie="c" * (ANSWER_BYTES_MAX + 1))]
    assert list(portions(huge)) == [huge]


def test_a_problem_is_told_whole() -> None:
    message = present.error(Problem(Reason.VIF_TABLE_FULL, "no room", {"used": "32"}))
    assert (message.code, message.reason, message.message, dict(message.metadata)) == (
        8,
        "VIF_TABLE_FULL",
        "no room",
        {"used": "32"},
    )


def test_a_join() -> None:
    key = JoinKey("alice", "vlan*", b"\xef\1\0\0", 24, b"\x0a\0\0\1", 32)
    problem = Problem(Reason.MEMBERSHIP_LIMIT, "no room", {"limit": "1"})
    message = present.join(JoinRecord(key, "c", 7), problem)
    error = t.Error(code=8, reason="MEMBERSHIP_LIMIT", message="no room", metadata={"limit": "1"})
    assert message == t.Join(interface="vlan*", group="239.1.0.0/24", source="10.0.0.1", cookie="c", owner="alice", error=error)
    any_source = JoinKey("alice", "eth0", b"\xff\x3e" + bytes(13) + b"\1", 128, b"", 0)
    assert present.join(JoinRecord(any_source), None) == t.Join(interface="eth0", group="ff3e::1", owner="alice")


async def test_a_join_that_failed_is_told_of_its_route() -> None:
    one = programmed()
    one.join = True
    limit = Problem(Reason.MEMBERSHIP_LIMIT, "no room")
    assert RoutePresenter(None, lambda _: limit).present(one).status.last_error.reason == "MEMBERSHIP_LIMIT"
    assert RoutePresenter(None, lambda _: None).present(one).status == RoutePresenter().present(programmed()).status
    fine, _ = await write_result(outcome(Change(Action.CREATE, 0, None, one)), every=False, tried=True, join_error=lambda _: None)
    assert (fine.failed, list(fine.changes)) == (0, [])


@pytest.mark.parametrize("reason,failed", [(Reason.MEMBERSHIP_LIMIT, 1), (Reason.NO_SUCH_INTERFACE, 0)])
async def test_a_join_that_failed_is_in_the_answer(reason: Reason, failed: int) -> None:
    one = programmed()
    one.join = True
    for written in (outcome(Change(Action.CREATE, 0, None, one)), outcome(kept=(one,))):
        told, _ = await write_result(written, every=False, tried=True, join_error=lambda _: Problem(reason, "words"))
        (change,) = told.changes
        assert (told.failed, change.HasField("error"), change.after.status.last_error.reason) == (failed, failed == 1, reason)


def test_what_is_stale_is_told_of_what_sessions_wrote_alone() -> None:
    one = programmed()
    presenter = RoutePresenter(None, lambda _: None, lambda _: True)
    assert not presenter.present(one).status.stale
    one.session = 1
    assert presenter.present(one).status.stale
    assert not RoutePresenter(None, lambda _: None, lambda _: False).present(one).status.stale


def test_an_owner() -> None:
    plain = present.owner_message(OwnerRecord("sdn", epoch=7, revision=9), 3, 0)
    assert plain == sv.Owner(name="sdn", epoch=7, revision=9, entries=3)
    lease = Lease(0.1, OnExpiry.WITHDRAW)
    said = rs.Lease(hold_time=Duration(nanos=100_000_000), on_expiry=rs.Lease.ON_EXPIRY_WITHDRAW)
    up = present.owner_message(OwnerRecord("sdn", lease=lease, session=4), 3, 1)
    assert up == sv.Owner(name="sdn", connected=True, entries=3, stale=1, lease=said)
    away = present.owner_message(OwnerRecord("sdn", lease=lease, hold_until=1000.5), 3, 3)
    assert away == sv.Owner(name="sdn", entries=3, stale=3, lease=said, hold_until=present.timestamp(1000.5))
