"""Which of many routes are as asked: the answer for nearly all of a bulk write, without a closer look at each."""

from collections.abc import Iterable

from mcastd.core.shapes import Shape
from mcastd.model.route import Fate, Forwarding, Route, RouteState


def unsettled(routes: Iterable[Route | None]) -> list[int]:
    """Positions of the routes that may be anything but PROGRAMMED and without a join, and of those that are None."""
    out: list[int] = []
    fate: Fate | None = None  # Of the route before: mostly it is that of the next one, too.
    wanted: Forwarding | None = None
    actual: dict[bytes, Forwarding] = {}
    for at, route in enumerate(routes):
        if route is None:
            out.append(at)
            continue
        if route.fate is not fate:
            fate = route.fate
            alike = type(fate) is Shape and fate.state is RouteState.PROGRAMMED
            wanted, actual = (fate.forwarding, fate.kernel.actual) if isinstance(fate, Shape) and alike else (None, {})
        if wanted is None or actual.get(route.key) is not wanted or not route.installed_at or route.problem or route.join:
            out.append(at)
    return out
