"""Acknowledgements of a session: which operations are not in the kernel as asked, and why, in messages a client can receive."""

import asyncio
from collections.abc import AsyncIterator, Iterable

from mcast.v1 import route_service_pb2 as rs
from mcastd.api import present
from mcastd.core.engine import Engine
from mcastd.core.settled import unsettled
from mcastd.model.effect import BATCH
from mcastd.model.errors import Problem
from mcastd.model.route import Action, Route, RouteState
from mcastd.model.write import Change, Outcome

_PROGRAMMED = RouteState.PROGRAMMED


async def exceptions(engine: Engine, outcome: Outcome) -> list[Change]:
    """The operations of a write that failed, or whose routes are anything but PROGRAMMED; in order of their ids.

    Others have their turn after each BATCH of them.
    """
    routes, join_error = engine.desired.routes, engine.joins.error_of_route
    out: list[Change] = []
    for at in range(0, len(outcome.changes), BATCH):
        part = outcome.changes[at : at + BATCH]
        for change in [part[n] for n in unsettled([change.after for change in part])]:
            after = change.after
            if after is None:
                if change.problem is not None:
                    out.append(change)
            elif change.problem is not None or _matters(after, routes, join_error):
                out.append(change)
        await asyncio.sleep(0)
    changed = len(out)
    for at in range(0, len(outcome.kept), BATCH):
        kept = outcome.kept[at : at + BATCH]
        out += [
            Change(Action.NONE, number, None, route)
            for number, route in [kept[n] for n in unsettled([route for _, route in kept])]
            if _matters(route, routes, join_error)
        ]
        await asyncio.sleep(0)
    return in_order(out) if changed and changed < len(out) else out


def _matters(route: Route, routes: dict[bytes, Route], join_error: present.JoinError) -> bool:
    """Whether a client must hear of a route: not of one that a later operation has replaced already."""
    if route.state is _PROGRAMMED and (not route.join or join_error(route) is None):
        return False
    return routes.get(route.key) is route


def in_order(changes: Iterable[Change]) -> list[Change]:
    """By id."""
    return sorted(changes, key=lambda change: change.id)


def all_refused(ids: Iterable[int], problem: Problem) -> list[Change]:
    """Operations of which none was tried."""
    return [Change(Action.NONE, number, None, None, problem) for number in ids]


async def acks(engine: Engine, through: int, found: list[Change], revision: int) -> AsyncIterator[rs.ProgramRoutesResponse]:
    """The messages that acknowledge all up to id `through`; `found` are the exceptions, in order of their ids.

    Where they come to more than a client receives there are several; what one says of the ids up to its own is all there is.
    """
    answer = rs.ProgramRoutesResponse()
    presenter = present.RoutePresenter(None, engine.joins.error_of_route)
    size = 0
    for at, change in enumerate(found, 1):
        if size > present.ANSWER_BYTES_MAX:
            answer.ack.acked_through, answer.ack.revision = found[at - 2].id, revision
            yield answer
            answer, size = rs.ProgramRoutesResponse(), 0
        message = answer.ack.exceptions.add()
        _fill(message, change, presenter, engine)
        size += message.ByteSize() + 4
        if at % present.SLICE == 0:
            await asyncio.sleep(0)
    answer.ack.acked_through, answer.ack.revision = through, revision
    yield answer


def _fill(message: rs.RouteChange, change: Change, presenter: present.RoutePresenter, engine: Engine) -> None:
    message.action = int(change.action)  # type: ignore[assignment] # The numbers are the contract's.
    message.id = change.id
    problem = change.problem
    if change.after is not None:
        message.after.CopyFrom(presenter.present(change.after))
        problem = problem or present.failure(change.after, engine.joins.error_of_route)
    if problem is not None:
        message.error.CopyFrom(present.error(problem))
