"""What ought to be: an independent, slow and simple account of what routes come to on the links there are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mcastd.model.address import Family
from mcastd.model.interface import Link
from mcastd.model.route import Paths, RouteState


@dataclass(slots=True)
class Verdict:
    """What one route comes to, if VIFs suffice and the kernel refuses nothing."""

    iif: int | None
    """Ifindex; None = there is none that carries multicast, and so no entry."""
    oifs: dict[int, int] = field(default_factory=dict)
    """Thresholds by ifindex."""
    missing: set[str] = field(default_factory=set)
    """Names said outright that do not exist, carry no multicast or are down."""

    @property
    def state(self) -> RouteState:
        """As the contract defines it (RouteState, types.proto)."""
        if self.iif is None:
            return RouteState.PENDING
        return RouteState.PARTIAL if self.missing else RouteState.PROGRAMMED

    @property
    def ifindexes(self) -> set[int]:
        """Interfaces that need a VIF."""
        return set() if self.iif is None else {self.iif, *self.oifs}


def judge(paths: Paths, family: Family, links: Iterable[Link], thresholds: Mapping[str, int]) -> Verdict:
    """Say what becomes of a route with these paths."""
    links = list(links)
    taken = [oif for oif in paths.oifs if oif.interface[0] != "!"]
    globs = [oif for oif in taken if set(oif.interface) & set("*?[")]
    named = {oif.interface: oif.ttl_threshold for oif in taken if oif not in globs}
    excluded = [oif.interface[1:] for oif in paths.oifs if oif.interface[0] == "!"]
    verdict = Verdict(next((link.ifindex for link in links if link.name == paths.iif and link.multicast), None))
    fit = {link.name for link in links if link.multicast and link.up}
    verdict.missing = {name for name in [*named, paths.iif] if name not in fit}
    for link in links:
        asked = named.get(link.name)
        if asked is None and link.name != paths.iif and not any(fnmatchcase(link.name, pattern) for pattern in excluded):
            asked = next((oif.ttl_threshold for oif in globs if fnmatchcase(link.name, oif.interface)), None)
        if asked is not None and link.multicast:
            verdict.oifs[link.ifindex] = (asked or thresholds.get(link.name, 1)) if family is Family.IPV4 else 1
    return verdict
