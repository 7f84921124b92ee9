"""Owns the protocol of a session: operations with their ids, what is acknowledged, and what is said again on a new stream.

It waits for nothing and knows no gRPC; aiosession.py and syncsession.py carry its messages.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import grpc

from mcast.client.errors import McastError, from_item
from mcast.client.ids import RouteId, route_id
from mcast.client.results import OpResult, SyncResult
from mcast.client.wanted import Wanted, encode, patched
from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t

BATCH_OPS = 1000
"""Operations in one message."""

BATCH_BYTES = 2 << 20
"""A message that has come to this size is not added to; the daemon takes 4 MiB."""

Request = rs.ProgramRoutesRequest
Response = rs.ProgramRoutesResponse

_Kind = Literal["put", "patch", "delete"]


class _Op(NamedTuple):
    """One operation."""

    key: RouteId
    kind: _Kind
    data: bytes
    """What is sent: the route, the patch or the key."""
    value: bytes | None
    """The route that is wanted after it, where that is known; None = none is."""


@dataclass(slots=True, eq=False)
class Sync:
    """A replay that was asked for."""

    max_deletions: int
    result: SyncResult | McastError | None = None
    """None = under way."""

    def outcome(self) -> SyncResult:
        """Return the result of one that is over; its error is raised."""
        if not isinstance(self.result, SyncResult):
            raise self.result or McastError(grpc.StatusCode.CANCELLED, "the replay is under way")
        return self.result


@dataclass(slots=True, eq=False)
class _Batch:
    """Operations that go out together."""

    first: int
    """Id of the first one."""
    ops: list[_Op] = field(default_factory=list)
    before: list[bytes | None] = field(default_factory=list)
    """What was wanted before each of them; empty for a part of a replay."""
    size: int = 0

    @property
    def last(self) -> int:
        return self.first + len(self.ops) - 1


@dataclass(slots=True, eq=False)
class _Replay:
    """All routes at once; batches are made from it as they go out."""

    first: int
    routes: list[tuple[RouteId, bytes]]
    sweep: bool
    """Whether what is not named is to be deleted."""
    max_deletions: int
    syncs: list[Sync]
    """Who waits for it; nobody, where it is for a new stream alone."""
    begun: bool = False
    sent: int = 0

    @property
    def last(self) -> int:
        return self.first + len(self.routes) - 1

    def part(self) -> _Batch:
        """Return as many operations as go into one message; they are sent then."""
        count = BATCH_OPS
        while count > 1 and sum(len(data) for _, data in self.routes[self.sent : self.sent + count]) > BATCH_BYTES:
            count //= 2
        ops = [_Op(key, "put", data, data) for key, data in self.routes[self.sent : self.sent + count]]
        batch = _Batch(self.first + self.sent, ops)
        self.sent += len(ops)
        return batch


_Item = _Batch | _Replay


_new = tuple.__new__  # half the time of a call of the class


class Program:
    """One session, over all its streams."""

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        """Whether what was put is remembered, and said again on each new stream."""
        self.last_id = 0
        """Of the last operation that was asked for."""
        self.acked = 0
        """All up to this id has been carried out, or was refused."""
        self.pending = 0
        """Operations that are kept here until they are acknowledged, those of replays not counted."""
        self.replay_error: McastError | None = None
        """Why the replay on the last new stream has deleted nothing."""
        self._wanted = Wanted()
        self._declared = False
        """A replay has said all that is wanted: what is not wanted may be deleted."""
        self._max_deletions = 0
        self._unsent: deque[_Item] = deque()
        self._sent: deque[_Item] = deque()
        self._through = 0
        """The last ack's."""
        self._recovering: _Replay | None = None
        """A replay on a new stream that has not been swept yet."""
        self._frozen_until = 0
        """Ids up to this one stand for lower ones, of an earlier stream: `acked` waits for it."""
        self._void: dict[RouteId, tuple[bytes | None, bytes | None]] = {}
        """Of operations that were refused while later ones of their route were under way: what they wanted, what was before."""

    def __len__(self) -> int:
        """How many routes are wanted."""
        return len(self._wanted.routes)

    # --- what is asked for -------------------------------------------------------------------------------------------

    def put(self, route: t.Route) -> int:
        """Create or replace a route; the id of the operation."""
        data, key = encode(route), route_id(route)
        before = self._wanted.put(key, data) if self.keep else None
        return self._add(_new(_Op, (key, "put", data, data)), before)

    def patch(self, patch: t.RoutePatch) -> int:
        """Change a route's outgoing interfaces; the id of the operation."""
        key = self._wanted.meant(patch.key)
        before = value = self._wanted.routes.get(key)
        if before is not None:
            value = patched(before, patch)
            self._wanted.set(key, value)
        return self._add(_Op(key, "patch", patch.SerializeToString(), value), before)

    def delete(self, of: t.RouteKey) -> int:
        """Delete a route; the id of the operation."""
        key = self._wanted.meant(of)
        before = self._wanted.routes.get(key)
        self._wanted.set(key, None)
        return self._add(_Op(key, "delete", of.SerializeToString(), None), before)

    def sync(self, routes: dict[RouteId, bytes], max_deletions: int) -> Sync:
        """Want these and no others, and have the others deleted."""
        sync = Sync(max_deletions)
        self._unsent.append(self._replay(list(routes.items()), sweep=True, syncs=[sync]))
        if self.keep:
            self._declared, self._max_deletions = True, max_deletions
            self._wanted.replace(routes)
        return sync

    def _add(self, op: _Op, before: bytes | None) -> int:
        tail = self._unsent[-1] if self._unsent else None
        if type(tail) is not _Batch or len(tail.ops) >= BATCH_OPS or tail.size >= BATCH_BYTES:
            tail = _Batch(self.last_id + 1)
            self._unsent.append(tail)
        tail.ops.append(op)
        tail.before.append(before)
        tail.size += len(op.data)
        self.last_id += 1
        self.pending += 1
        return self.last_id

    def _replay(self, routes: list[tuple[RouteId, bytes]], *, sweep: bool, syncs: list[Sync]) -> _Replay:
        first = self.last_id + 1
        self.last_id += len(routes)
        return _Replay(first, routes, sweep, syncs[-1].max_deletions if syncs else 0, syncs)

    # --- a stream ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A new stream stands: what is wanted, and what was not acknowledged, is said again."""
        items = [item for item in self._sent if isinstance(item, _Replay) or item.before]
        items += self._unsent
        self._sent.clear()
        self._void.clear()
        if self.keep:
            self._recover(items)
            return
        for item in items:
            if isinstance(item, _Replay):
                item.begun, item.sent = False, 0
        self._unsent = deque(items)

    def _recover(self, items: list[_Item]) -> None:
        """Say what is wanted, then the operations that this does not cover."""
        syncs = [sync for item in items if isinstance(item, _Replay) for sync in item.syncs]
        ops = [op for item in items if isinstance(item, _Batch) for op in item.ops]
        self._unsent.clear()
        self._recovering = None
        self.pending = 0
        wanted = list(self._wanted.routes.items())
        if wanted or self._declared:
            replay = self._replay(wanted, sweep=self._declared, syncs=syncs)
            if not syncs and self._max_deletions:  # What was deleted meanwhile is no surprise.
                replay.max_deletions = self._max_deletions + sum(op.kind == "delete" for op in ops)
            self._unsent.append(replay)
            self._recovering = replay if replay.sweep else None
        for op in ops:
            if op.kind != "put" and op.key not in self._wanted.routes:
                self._add(op, None)
        self._frozen_until = self.last_id if self._unsent else 0
        if not self._unsent:
            self.acked = self.last_id

    def next(self) -> Request | None:
        """Return the next message; None = there is nothing to say now."""
        while self._unsent:
            item = self._unsent[0]
            if isinstance(item, _Batch):
                self._sent.append(self._unsent.popleft())
                return _message(item)
            if item.sweep and not item.begun:
                item.begun = True
                return Request(sync_begin=Request.SyncBegin())
            if item.sent < len(item.routes):
                part = item.part()
                self._sent.append(part)
                return _message(part)
            self._unsent.popleft()
            if item.sweep:
                self._sent.append(item)
                return Request(sync_end=Request.SyncEnd(max_deletions=item.max_deletions))
        return None

    def take(self, answer: Response) -> list[OpResult]:
        """Take an answer; return the operations that it makes exceptions of."""
        if answer.HasField("synced"):
            self._take_synced(answer.synced)
            return []
        found = [self._exception(change) for change in answer.ack.exceptions]
        self._through = max(self._through, answer.ack.acked_through)
        self._settle()
        return found

    def _settle(self) -> None:
        while self._sent:
            item = self._sent[0]
            if isinstance(item, _Replay) or item.last > self._through:
                break
            self._sent.popleft()
            self.pending -= len(item.before)
        if self._recovering is None and self._through >= self._frozen_until:
            self.acked, self._frozen_until = max(self.acked, self._through), 0
        if not self._sent:
            self._void.clear()

    def _take_synced(self, synced: Response.Synced) -> None:
        replay = next((item for item in self._sent if isinstance(item, _Replay)), None)
        if replay is None:
            return
        self._sent.remove(replay)
        error = from_item(synced.error) if synced.HasField("error") else None
        for sync in replay.syncs:
            sync.result = error or SyncResult(synced.deleted, synced.entries)
        if replay is self._recovering:
            self._recovering = None
            self.replay_error = None if replay.syncs else error
        self._through = max(self._through, replay.last)
        self._settle()

    def _exception(self, change: rs.RouteChange) -> OpResult:
        refused = change.HasField("error") and not change.HasField("after")
        key = route_id(change.after)
        for item in self._sent:
            if isinstance(item, _Batch) and item.first <= change.id <= item.last:
                op = item.ops[change.id - item.first]
                key = op.key
                if refused and item.before and self.keep:
                    self._undo(op, item.before[change.id - item.first])
                break
        error = from_item(change.error) if change.HasField("error") else None
        if error is None and change.after.status.HasField("last_error"):
            error = from_item(change.after.status.last_error)  # It has not failed, but waits for something.
        return OpResult(change.id, key, change.after.status.state, error, change.after)

    def _undo(self, op: _Op, before: bytes | None) -> None:
        """Want again what was wanted before an operation that was refused, unless a later one says otherwise."""
        voided = self._void.get(op.key)
        if voided is not None and voided[0] is before:
            before = voided[1]
        if self._wanted.routes.get(op.key) is op.value:
            self._wanted.set(op.key, before)
        else:
            self._void[op.key] = op.value, before


def _message(batch: _Batch) -> Request:
    request = Request()
    add = request.batch.ops.add
    for number, one in enumerate(batch.ops, batch.first):
        op = add()
        op.id = number
        if one.kind == "put":
            op.put.MergeFromString(one.data)
        elif one.kind == "patch":
            op.patch.MergeFromString(one.data)
        else:
            op.delete.MergeFromString(one.data)
    return request
