"""Networks for the controller's tests: a leaf-spine fabric as a file, and any network that hypothesis thinks of."""

from pathlib import Path

from hypothesis import strategies as st

from mcast_controller.topology import Link, Port, Router, Topology, load
from mcast_controller.trees import Entry, Flow, Tree

FLOWS = [Flow(f"232.1.0.{n}", f"10.0.0.{n}") for n in range(1, 21)] + [Flow(f"ff3e::{n:x}", f"fd00::{n:x}") for n in range(1, 21)]


def fabric_text(spines: int = 2, leaves: int = 4) -> str:
    """A topology file."""
    lines = ['owner = "fabric"']
    for n in range(1, spines + 1):
        lines += [f"[router.spine{n}]", f'address = "unix:/run/spine{n}"']
    for n in range(1, leaves + 1):
        lines += [f"[router.leaf{n}]", f'address = "unix:/run/leaf{n}"', f"[segment.h{n}]", f'at = "leaf{n}/hosts"']
        for spine in range(1, spines + 1):
            lines += ["[[link]]", f'a = "leaf{n}/spine{spine}"', f'b = "spine{spine}/leaf{n}"']
    return "\n".join(lines)


def fabric(directory: Path, spines: int = 2, leaves: int = 4) -> Topology:
    """A leaf-spine fabric."""
    path = directory / "topology.toml"
    path.write_text(fabric_text(spines, leaves))
    return load(path)


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    """Some routers, links between any of them, also in parallel, each router with a segment."""
    count = draw(st.integers(2, 6))
    names = [f"r{n}" for n in range(count)]
    if draw(st.booleans()):  # Two spines, the others leaves: where a change has most to choose from.
        wires = [(spine, leaf) for spine in names[:2] for leaf in names[2:]]
        return topology_of(names, tuple(Link(Port(a, f"{a}{b}"), Port(b, f"{a}{b}"), 1) for a, b in wires))
    pairs = st.tuples(st.sampled_from(names), st.sampled_from(names)).filter(lambda pair: pair[0] != pair[1])
    links = tuple(
        Link(Port(a, f"l{n}"), Port(b, f"l{n}"), cost)
        for n, ((a, b), cost) in enumerate(draw(st.lists(st.tuples(pairs, st.integers(1, 3)), max_size=14)))
    )
    return topology_of(names, links)


def topology_of(names: list[str], links: tuple[Link, ...]) -> Topology:
    """A topology; each router has a segment of its own name, at its interface `hosts`."""
    segments = {name: Port(name, "hosts") for name in names}
    ends = {port: link for link in links for port in (link.a, link.b)}
    return Topology(
        "test", {name: Router(name, f"unix:/{name}", None) for name in names}, links, segments, frozenset(segments.values()), ends
    )


def reachable(topology: Topology, start: str, down: frozenset[Port]) -> set[str]:
    """Routers to which there is a way, found without the code under test."""
    found, new = {start}, {start}
    while new:
        new = {
            far.router
            for link in topology.links
            if link.a not in down and link.b not in down
            for near, far in ((link.a, link.b), (link.b, link.a))
            if near.router in new
        } - found
        found |= new
    return found


def delivered(
    topology: Topology, entries: dict[str, Entry] | Tree, root: Port, down: frozenset[Port] = frozenset()
) -> list[Port]:
    """Interfaces at which a packet comes out to hosts, one for each copy; AssertionError where it goes in circles."""
    table = dict(entries.entries) if isinstance(entries, Tree) else entries
    came, out, hops = [root], [], 0
    while came:
        port = came.pop()
        hops += 1
        assert hops < 1000, "a packet goes in circles"
        entry = table.get(port.router)
        if entry is None or entry.iif != port.interface:
            continue
        for oif in entry.oifs:
            leaving = Port(port.router, oif)
            link = topology.link_of.get(leaving)
            if link is None:
                out.append(leaving)
            elif link.a not in down and link.b not in down:
                came.append(link.peer(leaving))
    return out
