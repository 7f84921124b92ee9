"""ProgramRoutes: sessions. One is up for an owner at a time; messages are read ahead, and answered strictly in order.

What a session is to the owner's routes is the core's (core/sessions.py); here it is a stream: when it begins, what is refused
and what ends it, and that its end is always told.
"""

import itertools
from collections.abc import AsyncIterator

from google.protobuf.duration_pb2 import Duration

from mcast.v1 import route_service_pb2 as rs
from mcastd.api import convert, fields
from mcastd.api.auth import write_options
from mcastd.api.ops import OpReader
from mcastd.api.ports import Caller, Context, DaemonPort
from mcastd.api.session import Session
from mcastd.model.errors import McastdError, Reason
from mcastd.model.record import Lease, OnExpiry
from mcastd.model.write import OpenSession, WriteOptions

HOLD_MAX = 365 * 86_400.0
"""Seconds; who wants more wants RETAIN."""

_DEFAULT_LEASE = Lease(0.0, OnExpiry.RETAIN)
"""Of an Open that says nothing: what it has written stays."""

Requests = AsyncIterator[rs.ProgramRoutesRequest]


class Sessions:
    """The sessions of a server, by owner."""

    def __init__(self, daemon: DaemonPort, reader: convert.RouteReader, find: convert.Find) -> None:
        """Of this daemon; the reader is shared with other writes."""
        self._daemon = daemon
        self._reader = reader
        self._find = find
        self._numbers = itertools.count(1)
        self._open: dict[str, dict[int, Session]] = {}
        self._ending = False

    def __len__(self) -> int:
        """How many streams have a session that is up, or is ending."""
        return sum(map(len, self._open.values()))

    async def program(self, requests: Requests, context: Context, caller: Caller) -> None:
        """Carry out one session."""
        messages = aiter(requests)
        options, lease = opening(await anext(messages, None), caller)
        number = next(self._numbers)
        try:
            opened = await self._daemon.write(OpenSession(options, number, lease))
            caller.entry.opened(number, opened)
            ops = OpReader(self._reader, self._find, options.owner)
            session = Session(self._daemon, options, number, ops, context, caller.entry)
            await self._run(session, messages, opened.revision)
        finally:
            # Whatever has ended it, and though it may never have been up: nobody else knows that it has.
            self._daemon.session_ended(options.owner, number)

    async def _run(self, session: Session, messages: Requests, revision: int) -> None:
        up = self._open.setdefault(session.owner, {})
        up[session.number] = session
        self._supersede(session.owner)
        if self._ending:
            session.stop(_shutting_down())
        try:
            await session.run(messages, revision)
        finally:
            del up[session.number]
            if not up:
                self._open.pop(session.owner, None)

    def _supersede(self, owner: str) -> None:
        """End all sessions of an owner but the one that is up: of two that begin at once the later one."""
        record = self._daemon.engine.desired.owners[owner]
        for number, session in self._open[owner].items():
            if number != record.session:
                session.stop(superseded(owner, record.epoch))

    def end(self) -> None:
        """Have all sessions send their last acks and end."""
        self._ending = True
        for up in self._open.values():
            for session in up.values():
                session.stop(_shutting_down())


def superseded(owner: str, epoch: int) -> McastdError:
    """Why a session ends when another one begins."""
    text = f"another session of owner {owner} has taken over (epoch {epoch}): open a new one if this is the leader"
    return McastdError(Reason.SUPERSEDED, text, by=epoch, owner=owner)


def _shutting_down() -> McastdError:
    text = "the daemon is ending, the lease holds from now on: open a session again when it is back, with a replay"
    return McastdError(Reason.SHUTTING_DOWN, text)


def opening(request: rs.ProgramRoutesRequest | None, caller: Caller) -> tuple[WriteOptions, Lease]:
    """Who opens a session, and with which lease; McastdError if the first message does not say."""
    kind = request.WhichOneof("request") if request is not None else None
    if request is None or kind != "open":
        text = f"the first message of a session is {kind or 'nothing'}: send open, which says owner, epoch and lease"
        raise McastdError(Reason.NO_SESSION, text, field="request", value=kind or "nothing")
    said = rs.WriteOptions(owner=request.open.owner, epoch=request.open.epoch)
    options = write_options(said, caller, "open")
    return options, _lease(request.open.lease) if request.open.HasField("lease") else _DEFAULT_LEASE


def _lease(message: rs.Lease) -> Lease:
    hold_time = fields.read_duration(message.hold_time, "open.lease.hold_time")
    if hold_time > HOLD_MAX:
        text = f"give {_text(0)} to {_text(HOLD_MAX)}; to keep entries for ever say ON_EXPIRY_RETAIN"
        raise fields.invalid(Reason.INVALID_VALUE, "open.lease.hold_time", fields.seconds_text(message.hold_time), text)
    if message.on_expiry not in rs.Lease.OnExpiry.values():
        names = ", ".join(rs.Lease.OnExpiry.keys())
        text = f"is unknown to this version: choose from {names}"
        raise fields.invalid(Reason.INVALID_VALUE, "open.lease.on_expiry", message.on_expiry, text)
    return Lease(hold_time, OnExpiry(message.on_expiry or OnExpiry.RETAIN))


def _text(seconds: float) -> str:
    return fields.seconds_text(Duration(seconds=int(seconds)))
