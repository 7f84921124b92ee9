"""mcastd.api.admission: who is let in, and what the audit log hears of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mcastd.api import binding
from mcastd.api.admission import Admission
from mcastd.api.audit import Audit
from mcastd.api.ports import Caller, Context
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import Access

METHODS = {method.name: method for service in binding.services() for method in service.methods}


class FakeCallers:
    """Alice, or a refusal; remembers what is asked of it."""

    def __init__(self, access: Access = Access.WRITE, refusal: McastdError | None = None) -> None:
        self.limited = False
        self.caller = Caller(access, "alice", "alice")
        self.refusal = refusal
        self.asked: list[str] = []

    def identify(self, _context: Context) -> Caller:
        if self.refusal is not None and self.refusal.reason is Reason.NOT_ALLOWED:
            raise self.refusal
        return self.caller

    def request(self, _caller: Caller) -> None:
        self.asked.append("request")
        if self.refusal is not None:
            raise self.refusal

    async def message(self, _caller: Caller) -> None:
        self.asked.append("message")

    @contextmanager
    def under_way(self, _caller: Caller, access: Access) -> Iterator[None]:
        self.asked.append(access.name)
        yield


class FakeAudit(Audit):
    """What is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, ...]] = []

    def done(self, caller: Caller, method: str, began: float) -> None:  # noqa: ARG002
        self.told.append(("done", caller.principal))

    def unfinished(self, caller: Caller, method: str, began: float, reason: str) -> None:  # noqa: ARG002
        self.told.append(("unfinished", caller.principal, reason))

    def refused(self, caller: Caller, method: str, began: float, error: McastdError) -> None:  # noqa: ARG002
        self.told.append(("refused", caller.principal, error.reason.value))


class FakePeer:
    """A call's context, as far as it matters."""

    def peer(self) -> str:
        return "ipv4:192.0.2.1:5"


CONTEXT: Any = FakePeer()


def call(method: str, callers: FakeCallers, error: BaseException | None = None) -> list[tuple[str, ...]]:
    """Make one; what the log was told."""
    log = FakeAudit()
    with Admission(METHODS[method], callers, log).call(CONTEXT) as caller:
        assert caller is callers.caller
        if error is not None:
            raise error
    return log.told


def failing(method: str, callers: FakeCallers, error: BaseException | None = None) -> list[tuple[str, ...]]:
    """Make one that fails."""
    log = FakeAudit()
    admission = Admission(METHODS[method], callers, log)
    failures = (McastdError, asyncio.CancelledError, ZeroDivisionError)
    with pytest.raises(failures), admission.call(CONTEXT):
        raise error or ZeroDivisionError
    return log.told


@pytest.mark.parametrize(
    "method,access,told",
    [
        ("GetStatus", Access.VIEW, []),
        ("Watch", Access.VIEW, []),
        ("PutRoutes", Access.WRITE, [("done", "alice")]),
        ("Shutdown", Access.ADMIN, [("done", "alice")]),
    ],
)
def test_what_is_let_in(method: str, access: Access, told: list[tuple[str, ...]]) -> None:
    assert call(method, FakeCallers(access)) == told


@pytest.mark.parametrize("method,needs", [("PutRoutes", "write"), ("Shutdown", "admin")])
def test_who_has_too_little_access(method: str, needs: str) -> None:
    callers = FakeCallers(Access(Access[needs.upper()] - 1))
    assert failing(method, callers) == [("refused", "alice", "NOT_ALLOWED")]
    assert callers.asked == ["request"]


def test_a_stranger_is_told_of_by_the_name_in_his_certificate() -> None:
    refusal = McastdError(Reason.NOT_ALLOWED, "who?", principal="mallory")
    assert failing("GetStatus", FakeCallers(refusal=refusal)) == [("refused", "mallory", "NOT_ALLOWED")]


@pytest.mark.parametrize(
    "method,reason,told",
    [
        ("ListRoutes", Reason.INVALID_VALUE, []),
        ("ListRoutes", Reason.RATE_LIMIT, [("refused", "alice", "RATE_LIMIT")]),
        ("ListRoutes", Reason.STREAM_LIMIT, [("refused", "alice", "STREAM_LIMIT")]),
        ("PutRoutes", Reason.INVALID_VALUE, [("refused", "alice", "INVALID_VALUE")]),
    ],
)
def test_of_reading_only_what_concerns_the_caller_is_told(method: str, reason: Reason, told: list[tuple[str, ...]]) -> None:
    assert failing(method, FakeCallers(), McastdError(reason, "no")) == told


def test_a_client_who_leaves_and_a_fault() -> None:
    assert failing("PutRoutes", FakeCallers(), asyncio.CancelledError()) == [("unfinished", "alice", "CANCELLED")]
    assert failing("PutRoutes", FakeCallers(), ZeroDivisionError()) == [("unfinished", "alice", "INTERNAL")]
    assert failing("GetStatus", FakeCallers(), ZeroDivisionError()) == []


@pytest.mark.parametrize(
    "method,asked",
    [
        ("GetStatus", ["request"]),
        ("PutRoutes", ["request"]),
        ("ListRoutes", ["request", "VIEW"]),
        ("Watch", ["request", "VIEW"]),
        ("ReplaceRoutes", ["request", "WRITE"]),
        ("ProgramRoutes", ["request", "WRITE"]),
    ],
)
def test_streams_are_under_way(method: str, asked: list[str]) -> None:
    callers = FakeCallers()
    call(method, callers)
    assert callers.asked == asked


async def stream(*messages: int) -> AsyncIterator[int]:
    for message in messages:
        yield message


@pytest.mark.parametrize("limited", [False, True])
async def test_each_message_waits_where_there_may_be_a_limit(limited: bool) -> None:
    """There may be one soon, where there is none when the stream begins."""
    callers = FakeCallers()
    callers.limited = limited
    found = Admission(METHODS["ReplaceRoutes"], callers, Audit()).messages(stream(1, 2, 3), callers.caller)
    assert [one async for one in found] == [1, 2, 3]
    assert callers.asked == ["message"] * (3 if limited else 0)
