"""Operations of a session, read: what each asks for, or why it can't be done; one that is malformed disturbs no other."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import lt
from typing import NamedTuple

from mcast.v1 import route_service_pb2 as rs
from mcastd.api import convert, fields, wire
from mcastd.core.desired import group_key
from mcastd.model.errors import McastdError, Reason
from mcastd.model.route import Action, Route, Template
from mcastd.model.template import TemplateKey, is_template_key
from mcastd.model.write import Change, Patch

OPS_MAX = 10_000
"""Operations in one batch."""

_MOVING_MAX = 10_000
"""Groups whose templates are on their way; beyond it, what is on its way is waited for."""

Op = Route | Patch | bytes
"""What is to be put, patched, or deleted (its key)."""


class Unsettled(Exception):  # noqa: N818 - the name says what was found
    """What a key means depends on writes that are still under way."""


@dataclass(slots=True)
class Read:
    """What came of reading operations: those that can be tried, those that can't, and the position of the first one not read."""

    ops: list[tuple[int, Op]] = field(default_factory=list)
    refused: list[Change] = field(default_factory=list)
    end: int = 0


class Batch(NamedTuple):
    """The operations of a batch, taken apart once."""

    ops: Sequence[rs.ProgramRoutesRequest.Op]
    ids: list[int]
    kinds: list[str | None]
    routes: wire.Routes
    """Those of puts, by position."""


def check_batch(message: rs.ProgramRoutesRequest.Batch, last: int) -> Batch:
    """A batch that begins after id `last`; McastdError if it is none of this protocol: nothing of it is tried."""
    fields.too_many(len(message.ops), OPS_MAX, "batch.ops")
    batch = Batch(message.ops, *wire.ops(message))
    ids = batch.ids
    if not all(map(lt, (last, *ids), ids)):
        at = next(n for n, number in enumerate(ids) if number <= (ids[n - 1] if n else last))
        before = ids[at - 1] if at else last
        text = f"is not above {before}, the id before it: number the ops of a session from 1 up, each above the one before it"
        raise fields.invalid(Reason.INVALID_VALUE, f"batch.ops[{at}].id", ids[at], text)
    if None in batch.kinds:
        field = f"batch.ops[{batch.kinds.index(None)}].op"
        raise fields.invalid(Reason.INVALID_VALUE, field, "nothing", "say one of put, patch and delete")
    return batch


class OpReader:
    """Reads the operations of one session."""

    def __init__(self, reader: convert.RouteReader, find: convert.Find, owner: str) -> None:
        """`find` knows the templates that are there now."""
        self._reader = reader
        self._find_now = find
        self._owner = owner
        self._moving: set[bytes] = set()
        """Groups (group_key) whose templates come or go with operations that were read and are under way."""

    def settled(self) -> None:
        """All that was read before is in force, or refused."""
        self._moving.clear()

    def read(self, batch: Batch, begin: int, end: int) -> Read:
        """Read operations begin to end, as far as that can be without waiting for those before. The messages are used up."""
        out, at, kinds = Read(), begin, batch.kinds
        try:
            while at < end:
                if kinds[at] == "put":
                    stop = at + 1
                    while stop < end and kinds[stop] == "put":
                        stop += 1
                    self._puts(out, batch, at, stop)
                    at = stop
                else:
                    self._one(out, batch, at)
                    at += 1
        except Unsettled:
            pass  # The caller goes on at `end` once it is settled.
        out.end = at
        return out

    def _puts(self, out: Read, batch: Batch, begin: int, end: int) -> None:
        """Read operations that are all puts: mostly in one go, since routes that are alike are read fast."""
        at = begin
        while at < end:
            routes: list[Route] = []
            refusal: McastdError | None = None
            try:
                self._reader.read_into(routes, batch.routes.part(at, end), self._owner, at, "batch.ops[{}].put")
            except McastdError as exc:
                refusal = exc
            self._moving.update([group_key(route.key) for route in routes if type(route) is Template])
            out.ops.extend(zip(batch.ids[at : at + len(routes)], routes, strict=True))
            at += len(routes)
            if refusal is not None:
                out.refused.append(_refused(batch.ids[at], refusal))
                at += 1

    def _one(self, out: Read, batch: Batch, at: int) -> None:
        """Read a patch or a deletion."""
        op, number, where = batch.ops[at], batch.ids[at], f"batch.ops[{at}]"
        try:
            if batch.kinds[at] == "patch":
                out.ops.append((number, convert.read_patch(op.patch, f"{where}.patch", self._find)))
                return
            key = convert.read_key(op.delete, f"{where}.delete", self._find)
        except McastdError as exc:
            out.refused.append(_refused(number, exc))
            return
        if is_template_key(key):
            self._moving.add(group_key(key))
        out.ops.append((number, key))

    def _find(self, key: TemplateKey) -> list[bytes]:
        """The templates that differ from this one in iif alone, if none of them is coming or going."""
        if len(self._moving) > _MOVING_MAX or group_key(key.pack()) in self._moving:
            raise Unsettled
        return self._find_now(key)


def _refused(number: int, error: McastdError) -> Change:
    return Change(Action.NONE, number, None, None, error.problem)
