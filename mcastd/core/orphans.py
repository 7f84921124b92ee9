"""Orphans: what the kernel and the keeper hold of ours while the store has begun anew, as routes and joins of owner "kernel".

Nobody knows any more who wanted these, or why. So they go on doing what they do, and are stored like everything else, until an
owner puts a route of the same key (it is changed in place), or somebody deletes them. What templates would make just so is left
to them. Names take the place of VIF numbers, so that an orphan follows its interfaces like any other route. Lost are globs that
exact routes were written with, cookies, idle times and interface settings.
"""

import glob
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple

from mcastd.core.desired import Desired
from mcastd.model.address import Family, split_key
from mcastd.model.event import AdoptedEntry, KernelPaths
from mcastd.model.interface import is_glob
from mcastd.model.join import JoinKey, JoinRecord, Membership
from mcastd.model.owner import KERNEL_OWNER
from mcastd.model.route import Oif, Paths, Route, Template
from mcastd.model.template import TemplateAction, TemplateChange, TemplateIndex, TemplateKey


class FoundTable(NamedTuple):
    """What was found of one table and family."""

    table: int
    family: Family
    vifs: Iterable[tuple[int, int, str]]
    """VIF number, ifindex and name, as the keeper has them."""
    templates: Iterable[TemplateChange]
    """Those by which the keeper answers upcalls."""
    entries: Iterable[AdoptedEntry]
    stops: bool
    """Whether the policy on unrouted traffic makes stop filters here: an entry without oifs that nothing covers is one."""


def orphans_left(desired: Desired) -> tuple[int, int]:
    """Routes and joins that have no owner but "kernel" still."""
    joins = sum(key.owner == KERNEL_OWNER for key in desired.joins)
    return desired.entries.get(KERNEL_OWNER, 0), joins


class _Tree(NamedTuple):
    """A shared tree that was found: what its branches look like."""

    iif: int
    oifs: dict[int, int]


def orphaned_routes(found: FoundTable, names: Mapping[int, str], known: Container[bytes], revision: int) -> list[Route]:
    """The orphans of one table, each of this revision; `names` of links by ifindex, `known`: keys that are routes already."""
    return list(_Finder(found, names, known, revision).routes())


def orphaned_joins(found: Iterable[Membership], names: Mapping[int, str], revision: int) -> list[JoinRecord]:
    """A join for each membership that a predecessor has left, but for those of interfaces that have gone."""
    return [
        JoinRecord(JoinKey(KERNEL_OWNER, name, group, 8 * len(group), source, 8 * len(source)), "", revision)
        for ifindex, group, source in sorted(found)
        if (name := names.get(ifindex)) is not None
    ]


class _Finder:
    """Looks through one table."""

    def __init__(self, found: FoundTable, names: Mapping[int, str], known: Container[bytes], revision: int) -> None:
        self._found = found
        self._known = known
        self._revision = revision
        self._ipv4 = found.family is Family.IPV4
        self._links = names
        self._vif_of = {ifindex: number for number, ifindex, _ in found.vifs}
        self._link_of = {number: ifindex for ifindex, number in self._vif_of.items()}
        self._names = {number: names.get(ifindex, name) for number, ifindex, name in found.vifs}
        self._index: TemplateIndex[TemplateAction] = TemplateIndex(found.family)
        self._expected: dict[tuple[TemplateAction, int], KernelPaths] = {}
        self._paths: dict[KernelPaths, Paths] = {}
        self._trees: dict[bytes, _Tree] = {}

    def routes(self) -> Iterator[Route]:
        """Templates, then shared trees, then exact routes that neither of these would make."""
        for change in self._found.templates:
            if change.action is not None:
                self._index.put(change.key, change.action)
                if change.key.pack() not in self._known:
                    yield self._template(change.key, change.action)
        exact: list[tuple[bytes, KernelPaths]] = []
        for key, paths, foreign in self._found.entries:
            if foreign or not paths[0]:  # Without a VIF where packets come in it forwards nothing.
                continue
            _, group, source = split_key(key)
            if any(source):
                exact.append((key, paths))
                continue
            self._trees[group] = _Tree(paths[0], dict(paths[1]))
            tree = self._tree(group, paths)
            if tree is not None and tree.key not in self._known:
                yield tree
        for key, paths in exact:
            if key not in self._known and not self._would_be_made(key, paths):
                yield Route(key, self._paths_of(paths), KERNEL_OWNER, revision=self._revision)

    def _template(self, key: TemplateKey, action: TemplateAction) -> Template:
        """Oifs that a glob had matched are left out where packets come in on them, as that glob would have done."""
        oifs = []
        for number in range(32):
            ttl = action.body[number] if self._ipv4 else (0 if action.bits(Family.IPV6) >> number & 1 else 255)
            name = self._names.get(number)
            if ttl == 255 or name is None:
                continue
            if action.named >> number & 1 or not action.allowed >> number & 1:
                oifs.append(Oif(_plain(name), ttl))
            elif name != key.iif:
                oifs.append(Oif(_own_glob(name), ttl))
        return Template(key.pack(), Paths(key.iif, tuple(sorted(oifs))), KERNEL_OWNER, revision=self._revision)

    def _tree(self, group: bytes, paths: KernelPaths) -> Template | None:
        """The shared tree behind a (*,G) entry; None = where its packets come from has no name any more."""
        found, iif = self._found, self._links.get(paths[0])
        if iif is None:
            return None
        key = TemplateKey(found.table, found.family, group, 8 * len(group), bytes(len(group)), 0, iif)
        usual = (paths[0], 1)  # The iif is among the oifs by itself.
        made = self._paths_of((paths[0], tuple(oif for oif in paths[1] if oif != usual)))
        return Template(key.pack(), made, KERNEL_OWNER, revision=self._revision, shared_tree=True)

    def _would_be_made(self, key: bytes, paths: KernelPaths) -> bool:
        """Whether it is what a template or a shared tree makes of the packets of its source, or a stop filter."""
        _, group, source = split_key(key)
        iif, oifs = paths
        tree = self._trees.get(group)
        if tree is not None and (iif == tree.iif or iif in tree.oifs):
            rest = {ifindex: ttl for ifindex, ttl in tree.oifs.items() if ifindex != iif}
            return iif != tree.iif and rest == dict(oifs)
        vif = self._vif_of.get(iif)
        action = self._index.find(group, source, vif) if vif is not None else None
        if action is not None and vif is not None:
            return self._made_by(action, vif, iif) == paths
        return not oifs and self._found.stops and tree is None and next(self._index.covering(group, source), None) is None

    def _made_by(self, action: TemplateAction, vif: int, iif: int) -> KernelPaths:
        """What a dump says of an entry that a template makes."""
        made = self._expected.get((action, vif))
        if made is None:
            body = action.forwarding(self._found.family, vif)[2:]
            numbers = TemplateAction(0, body, 0).bits(self._found.family)
            links = {self._link_of[n]: body[n] if self._ipv4 else 1 for n in self._link_of if numbers >> n & 1}
            made = iif, tuple(sorted((ifindex, ttl) for ifindex, ttl in links.items() if ifindex in self._links))
            self._expected[action, vif] = made
        return made

    def _paths_of(self, paths: KernelPaths) -> Paths:
        """The names of what a dump tells, which are the same for many entries."""
        made = self._paths.get(paths)
        if made is None:
            named = ((self._links.get(ifindex), ttl if self._ipv4 else 0) for ifindex, ttl in paths[1])
            oifs = sorted(Oif(_plain(name), ttl) for name, ttl in named if name is not None)
            made = self._paths[paths] = Paths(self._links.get(paths[0], ""), tuple(oifs))
        return made


def _plain(name: str) -> str:
    """A name as an oif; one with the characters of a glob is a glob that matches it alone."""
    return glob.escape(name) if is_glob(name) else name


def _own_glob(name: str) -> str:
    """A glob that matches this name alone: unlike the name, it leaves out the interface where a packet comes in."""
    return f"[{name[0]}]{glob.escape(name[1:])}"
