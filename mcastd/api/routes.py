"""RouteService: writing and reading exact (S,G) routes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from typing import TypeVar

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import types_pb2 as t
from mcastd.api import convert, fields, present
from mcastd.api.auth import write_options
from mcastd.api.ports import Caller, Context, CounterSample, DaemonPort
from mcastd.api.program import Sessions
from mcastd.api.select import Test, is_empty, matcher
from mcastd.api.tokens import everything, write_token
from mcastd.api.wire import parts
from mcastd.core.desired import group_key
from mcastd.model.effect import BATCH
from mcastd.model.errors import McastdError, Reason
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.route import Route
from mcastd.model.settings import Access
from mcastd.model.template import TemplateKey, key_text, parts_of, prefix_text, unpack_template_key
from mcastd.model.write import DeleteRoutes, PatchRoutes, PutRoutes, ReplaceRoutes, Write, WriteOptions

ITEMS_MAX = 10_000
"""Items in one unary request."""

OMITTED = "mcastd-changes-omitted"
"""Trailing metadata: how many changes the answer leaves out because a client could not receive them."""

_DEFAULT_MAX_AGE = 1.0

_T = TypeVar("_T")


class RouteService:
    """The handlers, by the names of their RPCs; each is given request, context and caller."""

    def __init__(self, daemon: DaemonPort) -> None:
        """Serve this daemon's routes."""
        self._daemon = daemon
        self._reader = convert.RouteReader()
        self.sessions = Sessions(daemon, self._reader, self._find)

    async def put_routes(self, request: rs.PutRoutesRequest, context: Context, caller: Caller) -> rs.PutRoutesResponse:
        """Create or replace routes."""
        options = write_options(request.options, caller)
        fields.too_many(len(request.routes), ITEMS_MAX, "routes")
        routes = []
        for at in range(0, len(request.routes), BATCH):
            routes += self._reader.read(request.routes[at : at + BATCH], options.owner, at)
            await asyncio.sleep(0)
        result = await self._write(PutRoutes(options, routes), context, caller, every=request.return_changes)
        return rs.PutRoutesResponse(result=result)

    async def patch_routes(self, request: rs.PatchRoutesRequest, context: Context, caller: Caller) -> rs.PatchRoutesResponse:
        """Add or remove outgoing interfaces of existing routes."""
        options = write_options(request.options, caller)
        fields.too_many(len(request.patches), ITEMS_MAX, "patches")
        write = PatchRoutes(options, convert.patches(request.patches, self._find))
        result = await self._write(write, context, caller, every=False)
        return rs.PatchRoutesResponse(result=result)

    async def delete_routes(self, request: rs.DeleteRoutesRequest, context: Context, caller: Caller) -> rs.DeleteRoutesResponse:
        """Delete routes by key, by selector, or all."""
        options = write_options(request.options, caller, deletes=True)
        fields.too_many(len(request.keys), ITEMS_MAX, "keys")
        said = [bool(request.keys), request.HasField("selector"), request.all]
        if sum(said) != 1:
            text = "say exactly one of keys, selector and all"
            raise McastdError(Reason.INVALID_VALUE, text, field="keys", value=f"{sum(said)} of them")
        if request.keys:
            write = DeleteRoutes(options, keys=convert.route_keys(request.keys, self._find))
        elif request.all:
            write = DeleteRoutes(options)
        elif is_empty(request.selector):
            raise fields.invalid(Reason.INVALID_VALUE, "selector", "", "is empty and would match everything: say all = true")
        else:
            write = DeleteRoutes(options, matches=matcher(request.selector))
        return rs.DeleteRoutesResponse(result=await self._write(write, context, caller, every=False))

    async def replace_routes(
        self,
        requests: AsyncIterator[rs.ReplaceRoutesRequest],
        context: Context,
        caller: Caller,
    ) -> rs.ReplaceRoutesResponse:
        """Make an owner's routes exactly the given set."""
        first = await anext(aiter(requests), None)
        header = convert.replace_header(first)
        options = write_options(header.options, caller)
        fields.check_cookie(header.cookie, "header.cookie")
        routes: dict[bytes, Route] = {}
        received = 0
        async for request in requests:
            self._daemon.write_coming()
            if request.WhichOneof("part") != "chunk":
                part_sent = request.WhichOneof("part") or "nothing"
                raise fields.invalid(Reason.INVALID_VALUE, "part", part_sent, "after the one header come chunks alone")
            for some in parts(request.chunk, BATCH):
                part: list[Route] = []
                self._reader.read_into(part, some, options.owner, received, "routes[{}]")
                received += len(part)
                for route in part:
                    if routes.setdefault(route.key, route) is not route:
                        raise _duplicate(route, part, received - len(part))
                self._check_size(len(routes), options)
                if header.cookie:
                    _check_cookies(part, header.cookie, received - len(part))
                await asyncio.sleep(0)
        write = ReplaceRoutes(options, routes, header.cookie, header.allow_empty, header.max_deletions)
        return rs.ReplaceRoutesResponse(result=await self._write(write, context, caller, every=header.return_changes))

    def _check_size(self, routes: int, options: WriteOptions) -> None:
        """Refuse a set before all of it is in memory."""
        routes_max, of_owner = self._daemon.engine.routes_max, options.owner_routes_max
        if of_owner and routes > of_owner:
            text = f"the set holds more than the {of_owner} routes of owner {options.owner} allowed (routes_max of the principal)"
            raise McastdError(Reason.ROUTE_LIMIT, f"{text}: nothing was changed", limit=of_owner, owner=options.owner)
        if routes > routes_max:
            text = f"the set holds more than the {routes_max} routes allowed (setting routes_max): nothing was changed"
            raise McastdError(Reason.ROUTE_LIMIT, text, limit=routes_max)

    async def program_routes(self, requests: AsyncIterator[rs.ProgramRoutesRequest], context: Context, caller: Caller) -> None:
        """Program routes over a session; answers are sent as they come."""
        await self.sessions.program(requests, context, caller)

    async def list_routes(
        self, request: rs.ListRoutesRequest, _context: Context, _caller: Caller
    ) -> AsyncIterator[rs.ListRoutesResponse]:
        """List routes: the intents are those of one revision, the states those of the moment when a chunk is made."""
        test = matcher(request.selector)
        sample = await self._sample(request)
        await self._daemon.steady()
        revision = self._daemon.engine.visible_revision
        token = write_token(self._daemon.info.instance_id, everything(self._daemon.engine.feed))
        chosen = list(self._daemon.engine.desired.routes.values())
        if test is not None:
            chosen = await _matching(chosen, test)
        if request.learned:
            learned = self._learned()
            chosen += learned if test is None else filter(test, learned)
        foreign = self._foreign(request, sample) if request.learned and sample is not None else []
        total = len(chosen) + len(foreign)
        limit = request.limit or total
        engine = self._daemon.engine
        counters = sample if request.counters else None
        presenter = present.RoutePresenter(counters, engine.joins.error_of_route, engine.desired.stale)
        parts = chain(
            ([presenter.present(route) for route in part] for part in _slices(chosen[:limit])),
            _slices(foreign[: max(0, limit - len(chosen))]),
        )
        answer: rs.ListRoutesResponse | None = None
        for routes in chain.from_iterable(map(present.portions, parts)):
            if answer is not None:
                yield answer
            answer = rs.ListRoutesResponse(routes=routes, revision=revision, total=total if answer is None else 0)
        answer = answer or rs.ListRoutesResponse(revision=revision)
        answer.resume_token = token
        yield answer

    async def flush_learned(self, request: rs.FlushLearnedRequest, _context: Context, caller: Caller) -> rs.FlushLearnedResponse:
        """Remove entries that templates have made; packets that still come make them anew."""
        test = matcher(request.selector)
        chosen = set()
        for route in self._learned():
            allowed = caller.access is Access.ADMIN or route.owner in {caller.owner, KERNEL_OWNER}
            if allowed and (test is None or test(route)):
                chosen.add(route.key)
        caller.entry.deleted = await self._daemon.flush(chosen)
        return rs.FlushLearnedResponse(removed=caller.entry.deleted)

    def _find(self, key: TemplateKey) -> list[bytes]:
        """Keys of the templates that differ from this one in iif alone."""
        group = group_key(key.pack())
        of_group = self._daemon.engine.desired.by_group.get(group, {})
        return [one for one in of_group if unpack_template_key(one)._replace(iif="") == key._replace(iif="")]

    def _learned(self) -> list[Route]:
        """What templates and the policy on unrouted traffic have put into the kernel, as routes."""
        engine = self._daemon.engine
        out: list[Route] = []
        for kernel in engine.tables.values():
            for key, learned in kernel.learned.items():
                link = engine.world.by_index.get(learned.ifindex)
                if link is not None and key in kernel.actual:
                    out.append(convert.learned_route(key, learned, link.name))
        return out

    async def _sample(self, request: rs.ListRoutesRequest) -> CounterSample | None:
        if not (request.counters or request.learned):
            return None
        max_age = _DEFAULT_MAX_AGE
        if request.HasField("max_age"):
            max_age = fields.read_duration(request.max_age, "max_age")
        return await self._daemon.counters(max_age)

    def _foreign(self, request: rs.ListRoutesRequest, sample: CounterSample) -> list[t.Route]:
        """What is in the kernel and wanted by nobody; a selector by owner, group, source, table or state applies."""
        routes, selector = [], request.selector
        test = matcher(selector)
        by_index = self._daemon.engine.world.by_index
        for key, (iif, oifs), _ in sample.foreign:
            if self._daemon.engine.has(key):
                continue  # Asked for since the sample was taken; or ours, but somebody had a hand in it (it stays STATIC).
            name = by_index[iif].name if iif in by_index else ""
            named = [(by_index[i].name, ttl) for i, ttl in oifs if i in by_index]
            if test is not None and not test(convert.foreign_route(key, name, named)):
                continue
            routes.append(present.foreign(key, name, named, sample if request.counters else None))
        return routes

    async def _write(self, write: Write, context: Context, caller: Caller, *, every: bool) -> rs.WriteResult:
        with self._daemon.writing():
            outcome = await self._daemon.write(write)
            caller.entry.wrote(outcome)
            tried = not write.options.validate_only
            join_error = self._daemon.engine.joins.error_of_route
            result, omitted = await present.write_result(outcome, every=every, tried=tried, join_error=join_error)
        if omitted:
            context.set_trailing_metadata(((OMITTED, str(omitted)),))
        return result


async def _matching(routes: list[Route], test: Test) -> list[Route]:
    out: list[Route] = []
    for part in _slices(routes):
        out.extend(filter(test, part))
        await asyncio.sleep(0)
    return out


def _slices(routes: list[_T]) -> Iterator[list[_T]]:
    for at in range(0, len(routes), BATCH):
        yield routes[at : at + BATCH]


def _duplicate(route: Route, part: list[Route], first: int) -> McastdError:
    key = parts_of(route.key)
    field = f"routes[{first + next(at for at, one in enumerate(part) if one is route)}]"
    text = f"{field}: {key_text(route.key)} is in the set already: a set holds each route once"
    where = {
        "group": prefix_text(key.group, key.group_length),
        "source": prefix_text(key.source, key.source_length),
        "table": key.table,
    }
    return McastdError(Reason.DUPLICATE_ROUTE, text, field=field, **where)


def _check_cookies(part: list[Route], cookie: str, first: int) -> None:
    for at, route in enumerate(part, first):
        if route.cookie != cookie:
            text = f"differs from header.cookie {cookie!r}, which narrows the scope: every route sent must carry it"
            raise fields.invalid(Reason.INVALID_VALUE, f"routes[{at}].cookie", route.cookie, text)
