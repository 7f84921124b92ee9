"""From the model to the contract's messages."""

import asyncio
from collections.abc import Callable, Iterable, Iterator

from google.protobuf.timestamp_pb2 import Timestamp

from mcast.v1 import route_service_pb2 as rs
from mcast.v1 import services_pb2 as sv
from mcast.v1 import types_pb2 as t
from mcastd.api.convert import LearnedRoute
from mcastd.api.ports import CounterSample
from mcastd.core.join_problems import is_refusal
from mcastd.core.settled import unsettled
from mcastd.core.templates import tree_key
from mcastd.model.address import address_text, key_table, split_key
from mcastd.model.effect import BATCH
from mcastd.model.errors import Problem
from mcastd.model.join import JoinKey, JoinRecord
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.record import OwnerRecord
from mcastd.model.route import Action, Route, RouteState, Template
from mcastd.model.template import TEMPLATE_MARK, parts_of, prefix_text, unpack_template_key
from mcastd.model.write import Change, Outcome

ANSWER_BYTES_MAX = 3 * 1024 * 1024
"""What the routes or changes of one answer may come to: a client receives 4 MiB at most unless it says otherwise."""

SLICE = 250
"""Changes that are looked at in one go; telling one takes 10 us."""

_REACHED = frozenset({RouteState.PROGRAMMED, RouteState.TEMPLATE})
"""States of routes that are as asked."""


JoinError = Callable[[Route], Problem | None]
"""Why what a route with `join` asks for is not joined."""


Stale = Callable[[Route], bool]
"""Whether a route's owner has yet to say that it still wants it."""


def _no_join_error(_route: Route) -> None:
    """It is not asked for."""


def _not_stale(_route: Route) -> bool:
    """It is not asked for."""
    return False


def timestamp(seconds: float) -> Timestamp:
    """A point in time from seconds since the epoch."""
    message = Timestamp()
    _set_time(message, seconds)
    return message


def _set_time(message: Timestamp, seconds: float) -> None:
    """Set field by field: making a message and copying it takes twice as long."""
    message.seconds = whole = int(seconds)
    message.nanos = int((seconds - whole) * 1e9)


def error(problem: Problem) -> t.Error:
    """A problem as the contract says it."""
    return t.Error(code=problem.code, reason=problem.reason, message=problem.message, metadata=dict(problem.metadata))


def owner_message(owner: OwnerRecord, entries: int, stale: int) -> sv.Owner:
    """An owner, with how many routes it has, and how many of them are stale."""
    message = sv.Owner(name=owner.name, epoch=owner.epoch, entries=entries, stale=stale, revision=owner.revision)
    message.connected = owner.session > 0
    if owner.lease is not None:
        message.lease.hold_time.FromNanoseconds(round(owner.lease.hold_time * 1e9))
        message.lease.on_expiry = int(owner.lease.on_expiry)  # type: ignore[assignment] # The numbers are the contract's.
        if owner.hold_until and not message.connected:
            _set_time(message.hold_until, owner.hold_until)
    return message


def route_intent(route: Route) -> t.Route:
    """What the owner wants."""
    message = t.Route()
    message.CopyFrom(_alike_intent(route, key_table(route.key)))
    message.group, message.source = _texts(route.key)
    message.cookie = route.cookie
    return message


def join_key(key: JoinKey) -> t.Join:
    """What tells a join from others."""
    group, source = prefix_text(key.group, key.group_length), prefix_text(key.source, key.source_length)
    return t.Join(interface=key.interface, group=group, source=source, owner=key.owner)


def join(record: JoinRecord, problem: Problem | None) -> t.Join:
    """A join, and why it is not joined everywhere it should be."""
    message = join_key(record.key)
    message.cookie = record.cookie
    if problem is not None:
        message.error.CopyFrom(error(problem))
    return message


def route_key(key: bytes) -> t.RouteKey:
    """The key of a route."""
    group, source = _texts(key)
    parts = parts_of(key)
    return t.RouteKey(group=group, source=source, iif=parts.iif, table=parts.table)


def _texts(key: bytes) -> tuple[str, str]:
    """Group and source as text."""
    if key[0] < TEMPLATE_MARK:
        _, group, source = split_key(key)
        return address_text(group), address_text(source)
    parts = unpack_template_key(key)
    return prefix_text(parts.group, parts.group_length), prefix_text(parts.source, parts.source_length)


def _alike_intent(route: Route, table: int) -> t.Route:
    """What an owner wants, but for group, source and cookie."""
    message = t.Route(
        iif=route.paths.iif,
        oifs=[t.Oif(interface=name, ttl_threshold=ttl) for name, ttl in route.paths.oifs],
        table=table,
        monitored=route.monitored,
        join=route.join,
    )
    if isinstance(route, Template):
        if route.idle_timeout:
            message.idle_timeout.FromNanoseconds(int(route.idle_timeout * 1e9))
        message.wildcard = t.WILDCARD_SHARED_TREE if route.shared_tree else t.WILDCARD_UNSPECIFIED
    return message


class RoutePresenter:
    """Presents many routes: what those with one fate have in common is made once, and copied."""

    def __init__(
        self, sample: CounterSample | None = None, join_error: JoinError = _no_join_error, stale: Stale = _not_stale
    ) -> None:
        """With counters where there is a sample."""
        self._sample = sample
        self._join_error = join_error
        self._stale = stale
        self._alike: dict[tuple[object, ...], t.Route] = {}

    def present(self, route: Route) -> t.Route:
        """What the owner wants, and what is."""
        fate, installed_at, problem = route.fate, route.installed_at, route.problem
        table = key_table(route.key)
        # A template keeps its fate when another intent takes its place, which may come to the same.
        template = route if isinstance(route, Template) else None
        kind = (fate, fate.revision, route.owner, route.monitored, route.join, table, not installed_at, route.state, template)
        alike = self._alike.get(kind)
        if alike is None:
            alike = self._alike[kind] = _common(route, table)
        message = t.Route()
        message.CopyFrom(alike)
        message.group, message.source = _texts(route.key)
        if route.cookie:
            message.cookie = route.cookie
        status = message.status
        status.revision = max(route.revision, fate.revision)
        if route.session and self._stale(route):
            status.stale = True
        if installed_at > 0:
            _set_time(status.install_time, installed_at)
        if problem is None and route.join and fate.problem is None:
            problem = self._join_error(route)
        if problem is not None:
            status.last_error.CopyFrom(error(problem))
        if installed_at and self._sample is not None:
            tree = isinstance(route, Template) and route.shared_tree
            set_counters(status.counters, tree_key(route.key) if tree else route.key, self._sample)
        return message


def _common(route: Route, table: int) -> t.Route:
    """What routes of one fate have in common."""
    fate = route.fate
    message = _alike_intent(route, table)
    status = message.status
    status.state = int(route.state)  # type: ignore[assignment] # The numbers are the contract's.
    status.owner = route.owner
    status.origin = t.ORIGIN_FOREIGN if route.owner == KERNEL_OWNER else t.ORIGIN_CONFIGURED
    if isinstance(route, LearnedRoute):
        status.origin = t.ORIGIN_LEARNED if route.template is not None else t.ORIGIN_STOP
        if route.template is not None:
            status.template.CopyFrom(route_key(route.template.key))
    if route.installed_at:
        status.installed_oifs.extend(fate.installed_oifs)
    status.missing_interfaces.extend(fate.missing)
    if fate.problem is not None:
        status.last_error.CopyFrom(error(fate.problem))
    return message


def set_counters(message: t.Counters, key: bytes, sample: CounterSample) -> None:
    """Fill in what the kernel has counted; nothing where it has no such entry."""
    now = sample.counters.get(key)
    if now is None:
        return
    packets, octets, wrong_if, last_used = now
    if packets:
        message.packets, message.bytes = packets, octets
        if last_used:
            _set_time(message.last_used, last_used)
        before = sample.previous.get(key)
        if before is not None and sample.interval > 0 and before.packets <= packets:
            message.packet_rate = (packets - before.packets) / sample.interval
            message.byte_rate = (octets - before.bytes) / sample.interval
    if wrong_if:
        message.wrong_if = wrong_if
    _set_time(message.sample_time, sample.time)


def foreign(key: bytes, iif: str, oifs: Iterable[tuple[str, int]], sample: CounterSample | None) -> t.Route:
    """An entry that somebody else has put into the kernel."""
    table, group, source = split_key(key)
    named = list(oifs)
    ipv4 = len(group) == 4
    message = t.Route(group=address_text(group), source=address_text(source), iif=iif, table=table)
    message.oifs.extend(t.Oif(interface=name, ttl_threshold=ttl if ipv4 else 0) for name, ttl in named)
    message.status.state = t.ROUTE_STATE_PROGRAMMED
    message.status.owner = KERNEL_OWNER
    message.status.origin = t.ORIGIN_FOREIGN
    message.status.installed_oifs.extend(name for name, _ in named)
    if sample is not None:
        set_counters(message.status.counters, key, sample)
    return message


def portions(routes: list[t.Route]) -> Iterator[list[t.Route]]:
    """The list in parts that a client can receive: 1,000 routes of 64 globs each come to more than it takes."""
    if len(routes) > 1 and sum(map(t.Route.ByteSize, routes)) > ANSWER_BYTES_MAX:
        half = len(routes) // 2
        yield from portions(routes[:half])
        yield from portions(routes[half:])
    else:
        yield routes


class _Reached:
    """How far a route is as asked."""

    __slots__ = ("failed", "whole")

    def __init__(self, route: Route, join_error: JoinError) -> None:
        problem = join_error(route) if route.join else None
        self.whole = route.state in _REACHED and problem is None
        self.failed = route.state is RouteState.FAILED or is_refusal(problem)


def failure(route: Route, join_error: JoinError) -> Problem | None:
    """Why a route has failed; what only waits for something (PENDING, PARTIAL) says in its status what that is."""
    if route.state is RouteState.FAILED:
        return route.problem or route.fate.problem
    problem = join_error(route) if route.join else None
    return problem if is_refusal(problem) else None


class Changes:
    """The changes of an answer, as many as a client can receive."""

    def __init__(self, result: rs.WriteResult, join_error: JoinError) -> None:
        """Fill this result."""
        self._result = result
        self._bytes = 0
        self._presenter = RoutePresenter(None, join_error)
        self._join_error = join_error
        self.omitted = 0

    def add(self, change: Change) -> None:
        """One more, or one more left out."""
        if self._bytes > ANSWER_BYTES_MAX:
            self.omitted += 1
            return
        message = self._result.changes.add()
        message.action = int(change.action)  # type: ignore[assignment]
        message.id = change.id
        if change.before is not None:
            message.before.CopyFrom(route_intent(change.before))
        if change.after is not None:
            message.after.CopyFrom(self._presenter.present(change.after))
            if (problem := failure(change.after, self._join_error)) is not None:
                message.error.CopyFrom(error(problem))
        if change.problem is not None:
            message.error.CopyFrom(error(change.problem))
        self._bytes += message.ByteSize() + 4


async def _to_tell(changes: list[Change]) -> list[Change]:
    """Those that are not plainly as asked: of a bulk write hardly any."""
    out: list[Change] = []
    for at in range(0, len(changes), BATCH):
        if at:
            await asyncio.sleep(0)
        part = changes[at : at + BATCH]
        out += [part[n] for n in unsettled([change.after for change in part]) if part[n].after or part[n].problem]
    return out


async def _kept_to_tell(kept: list[tuple[int, Route]]) -> list[tuple[int, Route]]:
    """The same of items that were as asked before."""
    out: list[tuple[int, Route]] = []
    for at in range(0, len(kept), BATCH):
        if at:
            await asyncio.sleep(0)
        part = kept[at : at + BATCH]
        out += [part[n] for n in unsettled([route for _, route in part])]
    return out


async def write_result(
    outcome: Outcome, *, every: bool, tried: bool, join_error: JoinError = _no_join_error
) -> tuple[rs.WriteResult, int]:
    """The outcome as the contract says it, and how many changes were left out for size.

    `every` = all changes rather than the exceptions; `tried` = the kernel was asked (not a dry run). Others have their turn
    after each SLICE changes: 10,000 that are told take 0.1 s.
    """
    result = rs.WriteResult(
        revision=outcome.revision,
        created=outcome.created,
        updated=outcome.updated,
        deleted=outcome.deleted,
        unchanged=outcome.unchanged,
        failed=outcome.refused,
    )
    changes = Changes(result, join_error)
    told = outcome.changes if every or not tried else await _to_tell(outcome.changes)
    for at, change in enumerate(told, 1):
        if at % SLICE == 0:
            await asyncio.sleep(0)
        after = change.after
        if tried and after is not None and not (reached := _Reached(after, join_error)).whole:
            result.failed += reached.failed
        elif not every and change.problem is None:
            continue
        changes.add(change)
    if tried:
        # A request may name a route again and change it then: what it was before has no state any more.
        to_tell = await _kept_to_tell(outcome.kept)
        changed = {change.after.key for change in outcome.changes if change.after is not None} if to_tell else set()
        for at, (index, kept) in enumerate(to_tell, 1):
            if at % SLICE == 0:
                await asyncio.sleep(0)
            if not (reached := _Reached(kept, join_error)).whole and kept.key not in changed:
                result.failed += reached.failed
                changes.add(Change(Action.NONE, index, None, kept))
    return result, changes.omitted
