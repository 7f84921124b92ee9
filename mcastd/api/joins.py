"""JoinService: group memberships, as owners ask for them and as they are."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.api import convert, fields, present
from mcastd.api.auth import write_options
from mcastd.api.ports import Caller, Context, DaemonPort
from mcastd.api.routes import OMITTED
from mcastd.api.select import JoinTest, join_matcher
from mcastd.core.wishes import invalid
from mcastd.model.effect import BATCH
from mcastd.model.errors import Reason
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.write import DeleteJoins, PutJoins, WriteOptions

ITEMS_MAX = 10_000
"""Items in one request."""


class JoinService:
    """The handlers, by the names of their RPCs; each is given request, context and caller."""

    def __init__(self, daemon: DaemonPort) -> None:
        """Serve this daemon's joins."""
        self._daemon = daemon

    async def put_joins(self, request: sv.PutJoinsRequest, context: Context, caller: Caller) -> sv.PutJoinsResponse:
        """Join; those that wait for their interface are told of like those that the kernel refused."""
        options = _options(request, caller)
        records: list[JoinRecord] = []
        for part in _slices(request.joins):
            records += convert.joins(part, options.owner, len(records))
            await asyncio.sleep(0)
        outcome = await self._daemon.write(PutJoins(options, records))
        caller.entry.wrote(outcome)
        response = sv.PutJoinsResponse(revision=outcome.revision)
        if not options.validate_only:
            omitted = await self._add_failed(response, records)
            if omitted:
                context.set_trailing_metadata(((OMITTED, str(omitted)),))
        return response

    async def _add_failed(self, response: sv.PutJoinsResponse, records: list[JoinRecord]) -> int:
        """Tell of the joins that failed, as many as a client can receive; how many are left out."""
        book, size, omitted = self._daemon.engine.joins, 0, 0
        for at, record in enumerate({record.key: record for record in records}.values(), 1):
            if at % present.SLICE == 0:
                await asyncio.sleep(0)
            problem = book.error_of(record.key)
            if problem is None:
                continue
            if size > present.ANSWER_BYTES_MAX:
                omitted += 1
                continue
            message = present.join(record, problem)
            size += message.ByteSize() + 4
            response.joins.append(message)
        return omitted

    async def delete_joins(self, request: sv.DeleteJoinsRequest, _context: Context, caller: Caller) -> sv.DeleteJoinsResponse:
        """Leave."""
        options = _options(request, caller)
        keys: list[JoinKey] = []
        for part in _slices(request.joins):
            keys += convert.join_keys(part, options.owner, len(keys))
            await asyncio.sleep(0)
        outcome = await self._daemon.write(DeleteJoins(options, keys))
        caller.entry.wrote(outcome)
        return sv.DeleteJoinsResponse(revision=outcome.revision)

    async def list_joins(
        self, request: sv.ListJoinsRequest, _context: Context, _caller: Caller
    ) -> AsyncIterator[sv.ListJoinsResponse]:
        """List joins, those that routes make included."""
        if request.selector.HasField("table"):
            text = "joins belong to no table: leave it unset"
            raise invalid(Reason.INVALID_VALUE, "selector.table", request.selector.table, text)
        test = join_matcher(request.selector)
        await self._daemon.steady()
        keys = list(self._daemon.engine.joins.wishes)
        for at in range(0, len(keys), BATCH):
            joins = self._presented(keys[at : at + BATCH], test)
            if joins:
                yield sv.ListJoinsResponse(joins=joins)
            await asyncio.sleep(0)

    def _presented(self, keys: list[JoinKey], test: JoinTest | None) -> list[t.Join]:
        """Those that match, as they are now; what has gone since the list was made is left out."""
        book, out = self._daemon.engine.joins, []
        for key in keys:
            record = book.record_of(key)
            if record is not None and (test is None or test(record, book.interfaces_of(key))):
                out.append(present.join(record, book.error_of(key)))
        return out


def _options(request: sv.PutJoinsRequest | sv.DeleteJoinsRequest, caller: Caller) -> WriteOptions:
    """The options, of which one has no meaning here."""
    options = write_options(request.options, caller, deletes=isinstance(request, sv.DeleteJoinsRequest))
    fields.too_many(len(request.joins), ITEMS_MAX, "joins")
    if options.take_over:
        text = "each owner has joins of its own, so there is nothing to take over: name the owner (options.owner) instead"
        raise invalid(Reason.INVALID_VALUE, "options.take_over", True, text)
    return options


def _slices(messages: Sequence[t.Join]) -> Iterator[Sequence[t.Join]]:
    for at in range(0, len(messages), BATCH):
        yield messages[at : at + BATCH]
