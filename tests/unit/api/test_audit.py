"""mcastd.api.audit: lines for writes, refusals and sessions, and that a flood of refusals is no flood of lines."""

import asyncio
import logging

import pytest

from mcast.v1 import route_service_pb2 as rs
from mcastd.api import audit
from mcastd.api.audit import BURST, Audit
from mcastd.api.auth import write_options
from mcastd.api.ports import Caller
from mcastd.model.errors import McastdError, Problem, Reason
from mcastd.model.settings import Access
from mcastd.model.write import Outcome
from tests.api.waiting import until
from tests.auditlines import Lines

DENIED = McastdError(Reason.NOT_ALLOWED, "no")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    return Lines(monkeypatch)


def caller(principal: str = "alice") -> Caller:
    return Caller(Access.WRITE, principal, principal, "ipv4:192.0.2.1:5")


def test_a_write_is_a_line(lines: Lines) -> None:
    alice, log = caller(), Audit(lambda: 12.5)
    alice.entry.owner, alice.entry.epoch = "alice", 4
    alice.entry.wrote(Outcome(revision=9, created=1, updated=2, deleted=3, unchanged=4, refused=5))
    log.done(alice, "PutRoutes", 12.0)
    (record,) = lines.records
    assert record.levelno == logging.INFO
    assert {name: value for name, value in vars(record).items() if name in LINE} == LINE


LINE = {
    "audit": "write",
    "principal": "alice",
    "peer": "ipv4:192.0.2.1:5",
    "method": "PutRoutes",
    "owner": "alice",
    "epoch": 4,
    "added": 1,
    "updated": 2,
    "deleted": 3,
    "unchanged": 4,
    "failed": 5,
    "revision": 9,
    "seconds": "0.500000",
}


def test_why_items_were_refused_is_told(lines: Lines) -> None:
    alice = caller()
    outcome = Outcome(revision=9)
    outcome.refuse(3, Problem(Reason.OWNED_BY_OTHER, "no"), None)
    alice.entry.wrote(outcome)
    Audit().done(alice, "PutRoutes", 0.0)
    assert lines.fields("audit", "failed", "reason") == [("write", 1, "OWNED_BY_OTHER")]


def test_what_is_taken_from_others_is_told(lines: Lines) -> None:
    root = Caller(Access.ADMIN, "root", "root")
    write_options(rs.WriteOptions(take_over=True), root)
    Audit().done(root, "PutRoutes", 0.0)
    assert lines.fields("owner", "take_over") == [("root", True)]


def test_what_is_removed_without_a_revision_is_counted(lines: Lines) -> None:
    """Learned entries are nobody's wish."""
    alice = caller()
    alice.entry.deleted = 3
    Audit().done(alice, "FlushLearned", 0.0)
    assert lines.fields("deleted") == [(3,)]


def test_what_is_only_tried_is_said_to_be(lines: Lines) -> None:
    alice = caller()
    alice.entry.dry_run = True
    Audit().done(alice, "PutRoutes", 0.0)
    assert lines.fields("audit") == [("dry-run",)]


def test_a_caller_who_leaves(lines: Lines) -> None:
    Audit().unfinished(caller(), "PutRoutes", 0.0, "CANCELLED")
    assert lines.fields("audit", "reason") == [("unfinished", "CANCELLED")]


async def test_a_refusal_is_a_warning(lines: Lines) -> None:
    Audit().refused(caller(), "PutRoutes", 0.0, DENIED)
    assert lines.fields("levelno", "audit", "reason", "error") == [(logging.WARNING, "refused", "NOT_ALLOWED", "no")]


async def test_refusals_of_a_kind_are_counted_beyond_a_number(lines: Lines) -> None:
    log = Audit()
    for _ in range(BURST + 30):
        log.refused(caller(), "PutRoutes", 0.0, DENIED)
    log.refused(caller("bob"), "PutRoutes", 0.0, DENIED)
    assert len(lines.records) == BURST + 1
    await until(lambda: len(lines.records) == BURST + 2)
    assert lines.fields("principal", "times")[-1] == ("alice", 30)
    log.refused(caller(), "PutRoutes", 0.0, DENIED)
    assert lines.fields("times")[-1] == (None,)


async def test_kinds_are_bounded(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "KINDS_MAX", 2)
    monkeypatch.setattr(audit, "BURST", 1)
    log = Audit()
    for name in ("a", "a", "b", "c"):
        log.refused(caller(name), "PutRoutes", 0.0, DENIED)
    assert lines.fields("principal", "times") == [("a", None), ("b", None), ("a", 1), ("c", None)]
    assert len(log._refusals) == 1


async def test_a_session_is_told_of_as_it_goes_on(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "SESSION_SECONDS", 0.02)
    log, alice = Audit(), caller()
    with log.follow(alice, "ProgramRoutes", 0.0):
        alice.entry.opened(7, Outcome())
        for _ in range(50):
            alice.entry.wrote(Outcome(revision=8, created=2))
        await until(lambda: len(lines.records) == 2)
        await asyncio.sleep(0.05)
        alice.entry.refused(1, None)
    log.done(alice, "ProgramRoutes", 0.0)
    await asyncio.sleep(0.05)
    assert lines.fields("audit", "session", "added", "failed") == [
        ("session-opened", 7, None, None),
        ("session", 7, 100, 0),
        ("session-ended", 7, 100, 1),
    ]


async def test_a_session_that_is_ended_is_no_refusal(lines: Lines) -> None:
    alice = caller()
    alice.entry.opened(7, Outcome())
    Audit().refused(alice, "ProgramRoutes", 0.0, McastdError(Reason.SUPERSEDED, "another"))
    assert lines.fields("levelno", "audit", "reason") == [(logging.INFO, "session-ended", "SUPERSEDED")]


async def test_a_session_whose_caller_may_not_have_it_any_more_is_one(lines: Lines) -> None:
    alice = caller()
    alice.entry.opened(7, Outcome())
    Audit().refused(alice, "ProgramRoutes", 0.0, DENIED)
    assert lines.fields("levelno", "audit", "reason") == [(logging.WARNING, "session-ended", "NOT_ALLOWED")]


async def test_what_is_not_wanted_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, log = Lines(monkeypatch, logging.WARNING), Audit()
    log.done(caller(), "PutRoutes", 0.0)
    log.refused(caller(), "PutRoutes", 0.0, DENIED)
    assert lines.fields("audit") == [("refused",)]
    nothing = Lines(monkeypatch, logging.CRITICAL)
    log.refused(caller(), "PutRoutes", 0.0, DENIED)
    assert nothing.records == []
