"""What ought to be: an independent, slow and simple account of what routes come to on the links there are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network

from mcastd.model.address import Family
from mcastd.model.interface import Link
from mcastd.model.route import Paths, RouteState
from mcastd.model.template import parts_of


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


# --- templates -------------------------------------------------------------------------------------------------------


def inside(address: bytes, network: bytes, length: int) -> bool:
    """Whether an address is inside a prefix."""
    return ip_address(address) in ip_network((network, length))


def covers(template: bytes, key: bytes) -> bool:
    """Whether a template, by its key, covers an (S,G) on any interface."""
    parts, flow = parts_of(template), parts_of(key)
    return (
        (parts.table, parts.family) == (flow.table, flow.family)
        and inside(flow.group, parts.group, parts.group_length)
        and inside(flow.source, parts.source, parts.source_length)
    )


def meant(template: bytes, link: Link) -> bool:
    """Whether a template is for what comes in on an interface."""
    iif = parts_of(template).iif
    return not iif or (link.multicast and fnmatchcase(link.name, iif))


def preference(template: bytes) -> tuple[object, ...]:
    """The smaller, the sooner a template is taken among those that are meant (design.md, life of an upcall)."""
    parts = parts_of(template)
    glob = bool(set(parts.iif) & set("*?["))
    literal = len(parts.iif.replace("*", "").replace("?", ""))
    return -parts.group_length, -parts.source_length, not parts.iif, glob, -literal if glob else 0, parts.iif


def judge_tree(paths: Paths, family: Family, links: Iterable[Link], thresholds: Mapping[str, int]) -> Verdict:
    """Say what becomes of a shared tree: its iif is among the oifs."""
    links = list(links)
    verdict = judge(paths, family, links, thresholds)
    if verdict.iif is not None:
        verdict.oifs.setdefault(verdict.iif, thresholds.get(paths.iif, 1) if family is Family.IPV4 else 1)
    return verdict


def judge_template(paths: Paths, family: Family, links: Iterable[Link], thresholds: Mapping[str, int]) -> Verdict:
    """Say what becomes of a template itself; its iif here is 0 where it has no one interface."""
    links = list(links)
    verdict = judge(Paths("", paths.oifs), family, links, thresholds)
    verdict.missing.discard("")
    one = bool(paths.iif) and not set(paths.iif) & set("*?[")
    if one:
        here = judge(Paths(paths.iif, ()), family, links, thresholds)
        verdict.iif = here.iif
        verdict.missing |= here.missing
    else:
        verdict.iif = 0
    return verdict


def incoming(paths: Paths, links: Iterable[Link]) -> set[int]:
    """Interfaces (ifindex) where a template must see packets."""
    return {link.ifindex for link in links if link.multicast and (not paths.iif or fnmatchcase(link.name, paths.iif))}
