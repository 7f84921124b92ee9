"""Owns the wishes file: which segments want which groups, from which sources."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from mcast_controller.topology import FileError, Port, Topology, keys, read, tables, text
from mcast_controller.trees import Flow

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Wish:
    """Segments that want something."""

    groups: Network
    sources: Network | None
    """None = any."""
    segments: frozenset[str]


class Wishes:
    """What the file says."""

    def __init__(self, wishes: Iterable[Wish] = ()) -> None:
        self._wishes = tuple(wishes)
        self._exact: dict[str, list[Wish]] = {}
        self._wide: list[Wish] = []
        for wish in self._wishes:
            if wish.groups.num_addresses == 1:
                self._exact.setdefault(str(wish.groups.network_address), []).append(wish)
            else:
                self._wide.append(wish)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wishes) and self._wishes == other._wishes

    __hash__ = None  # type: ignore[assignment]

    def receivers(self, flow: Flow, topology: Topology) -> frozenset[Port]:
        """Where a flow is to go: the interfaces of all segments that want it."""
        group, source = ip_address(flow.group), ip_address(flow.source)
        wanted = self._exact.get(flow.group, []) + [wish for wish in self._wide if group in wish.groups]
        return frozenset(
            topology.segments[segment]
            for wish in wanted
            if wish.sources is None or source in wish.sources
            for segment in wish.segments
        )


def load(path: Path, topology: Topology) -> Wishes:
    """Read a wishes file; FileError where it cannot be used."""
    document = read(path)
    keys(path, "the file", document, {"wish"})
    return Wishes(_wish(path, f"wish {n}", value, topology) for n, value in enumerate(tables(path, document, "wish"), 1))


def _wish(path: Path, place: str, value: Any, topology: Topology) -> Wish:
    keys(path, place, value, {"group", "source", "segments"})
    groups = _network(path, f"{place}.group", text(path, place, value, "group"))
    if not groups.is_multicast:
        raise FileError(f"{path}: {place}.group: {groups} is no multicast group or prefix of groups")
    sources = _network(path, f"{place}.source", value["source"]) if "source" in value else None
    if sources is not None and sources.version != groups.version:
        raise FileError(f"{path}: {place}.source: {sources} and {groups} are of two address families")
    segments = value.get("segments")
    if not isinstance(segments, list) or not segments:
        raise FileError(f"{path}: {place}.segments: must be a list of segments of the topology")
    for segment in segments:
        if not isinstance(segment, str) or segment not in topology.segments:
            raise FileError(f"{path}: {place}.segments: {segment!r} is no segment of the topology")
    return Wish(groups, sources, frozenset(segments))


def _network(path: Path, place: str, value: Any) -> Network:
    try:
        return ip_network(str(value))
    except ValueError as exc:
        raise FileError(f"{path}: {place}: {exc}; write an address or a prefix without host bits") from exc
