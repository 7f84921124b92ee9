"""What must be true of what the demo shows; each check returns its problems in words, and none when all is well."""

from collections.abc import Iterable, Mapping, Sequence

from demo.calls import Route
from demo.stage import Process
from demo.traffic import Count


def arrivals(counts: Iterable[Count]) -> list[str]:
    """Every packet came once to every receiver that a route leads it to, and to no other."""
    problems = []
    for count in counts:
        if not count.sent:
            problems.append(f"no packet of {count.group} was sent")
        for arrival in count.arrivals:
            if arrival.wanted and arrival.packets < count.sent:
                missing = count.sent - arrival.packets
                problems.append(
                    f"{arrival.receiver} misses {missing:,} of {count.sent:,} packets of {count.group}, "
                    f"the first is packet {(arrival.first_missing or 0) + 1:,}"
                )
            if not arrival.wanted and arrival.packets:
                problems.append(f"{arrival.receiver} got {arrival.packets:,} packets of {count.group} that no route leads there")
            if arrival.duplicates:
                problems.append(f"{arrival.receiver} got {arrival.duplicates:,} packets of {count.group} more than once")
    return problems


def silence(counts: Iterable[Count], group: str, receiver: str) -> list[str]:
    """One receiver got nothing of one stream."""
    got = {(count.group, one.receiver): one.packets for count in counts for one in count.arrivals}[group, receiver]
    return [f"{receiver} still got {got:,} packets of {group}"] if got else []


def routes(found: Sequence[Route], wanted: Mapping[str, Route]) -> list[str]:
    """The daemon has the wanted routes, all of them in the kernel exactly as asked, and no others."""
    known = {route.group: route for route in found}
    problems = [f"the route of {group} is missing" for group in wanted.keys() - known.keys()]
    problems += [f"there is a route of {group}, which nobody asked for" for group in known.keys() - wanted.keys()]
    for group in wanted.keys() & known.keys():
        route, wish = known[group], wanted[group]
        if route.state != "PROGRAMMED":
            problems.append(f"the route of {group} is {route.state} {route.reason}".rstrip())
        if (route.source, route.iif, route.oifs) != (wish.source, wish.iif, wish.oifs):
            problems.append(f"there is a route of {_leads(route)}")
    return sorted(problems)


def entries(found: Iterable[Route], wanted: Mapping[str, Route]) -> list[str]:
    """The kernel has an entry for each route, exactly as asked, and no others."""
    there, asked = set(found), set(wanted.values())
    missing = [f"the kernel has no entry of {_leads(route)}" for route in asked - there]
    return sorted(missing + [f"the kernel has an entry of {_leads(route)}, which nobody asked for" for route in there - asked])


def counters(found: Iterable[Route], packets: Mapping[str, int]) -> list[str]:
    """The kernel has counted as many packets as were sent."""
    return [
        f"the kernel counted {route.packets:,} packets of {route.group}, sent were {packets.get(route.group, 0):,}"
        for route in found
        if route.packets != packets.get(route.group, 0)
    ]


def powerless(process: Process) -> list[str]:
    """The process has no capability."""
    return [f"the {process.name} has {' '.join(process.capabilities)}"] if process.capabilities else []


def _leads(route: Route) -> str:
    return f"{route.group} from {route.iif or 'nowhere'} to {' '.join(route.oifs) or 'nowhere'}"
