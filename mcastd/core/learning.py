"""Learned entries: what templates, and the policy on unrouted traffic, have put into the kernel because packets came.

Nothing is stored of them: a template's entry is wanted as long as the template is meant for its packets and they keep coming.
"""

import sys
from collections.abc import Container, Iterable
from typing import NamedTuple

from mcastd.core.plan import Work
from mcastd.core.shapes import pack_forwarding
from mcastd.core.tables import KernelTable
from mcastd.core.templates import Learned, TemplateShape, TreeShape
from mcastd.model.address import split_key
from mcastd.model.effect import BATCH, SetTemplates
from mcastd.model.event import Answer
from mcastd.model.route import Forwarding
from mcastd.model.template import TemplateAction, TemplateKey, covers

DAMPING_MAX = 64.0
"""Seconds between two moves of an entry whose source flaps between interfaces; the first is at once, the next after 1, 2, 4..."""


class Caps(NamedTuple):
    """How many learned entries there may be."""

    learned: int
    """Of one template."""
    stops: int
    """Stop filters of one table and family; 0 = unrouted traffic is let alone."""


HASTE = 5.0
"""Idle seconds after which an entry goes where a cap has refused others, if it has seen no more packets than FIRST_PACKETS."""

PRESSED_SECONDS = 15.0
"""How long it matters that a cap has refused an entry: its packet waits in the kernel for 10 s, then the next one calls again."""

EARLY_MAX = 2000
"""Entries that go early in one sweep: what is being deleted counts no more and is there still."""

FIRST_PACKETS = 4
"""As many as wait in the kernel for an entry: a spoofed source has no more."""

_FEW = 16
"""Changed templates whose entries are looked for one by one; for more, all entries are looked at."""


def wanted(kernel: KernelTable, key: bytes) -> Forwarding | None:
    """What an entry that no exact route asks for should do now; None = it should go, and is forgotten."""
    tree = kernel.trees.get(key)
    if tree is not None:
        return tree.forwarding
    learned = kernel.learned.get(key)
    if learned is None:
        return None
    vif = kernel.vifs.by_ifindex.get(learned.ifindex)
    if vif is not None:
        _, group, source = split_key(key)
        tree = tree_of(kernel, group, vif)
        if tree is not None and (packed := _branch(tree, vif)):
            _adopt_child(kernel, learned, tree)
            return kernel.vifs.intern(packed, tree.forwarding.vifs if tree.forwarding is not None else 0)
        shape = kernel.index.find(group, source, vif) if tree is None else None
        if shape is not None and shape.action is not None:
            _adopt_child(kernel, learned, shape)
            packed = shape.action.forwarding(kernel.family, vif)
            return kernel.vifs.intern(packed, 1 << vif | shape.action.bits(kernel.family))
        if learned.stop_wanted and not covered(kernel, group, source):
            _adopt_child(kernel, learned, None)
            return kernel.vifs.intern(*pack_forwarding(kernel.family, vif, {}))
    forget(kernel, key)
    return None


def covered(kernel: KernelTable, group: bytes, source: bytes) -> bool:
    """Whether any template, on whatever iif, or a shared tree covers it: a stop filter would take its packets away."""
    if key_of_tree(kernel, group) in kernel.trees:
        return True
    return next(kernel.index.covering(group, source), None) is not None


def tree_of(kernel: KernelTable, group: bytes, vif: int) -> TreeShape | None:
    """The shared tree that the packets of a group belong to where they come in on a VIF: no template's entry may take them."""
    tree = kernel.trees.get(key_of_tree(kernel, group))
    return tree if tree is not None and tree.forwarding is not None and tree.forwarding.vifs >> vif & 1 else None


def _branch(tree: TreeShape, vif: int) -> bytes:
    """Forwarding.packed of the entry of a source that sends into a tree from this VIF; empty = the tree's own entry serves it."""
    if tree.forwarding is None or tree.forwarding.packed[:2] == vif.to_bytes(2, sys.byteorder):
        return b""
    return TemplateAction(0, tree.forwarding.packed[2:], 0).forwarding(tree.kernel.family, vif)


def key_of_tree(kernel: KernelTable, group: bytes) -> bytes:
    """Key of the MFC entry of a shared tree of this group."""
    return kernel.table.to_bytes(4, "big") + group + bytes(len(group))


def tally(kernel: KernelTable, answer: Answer, name: bytes) -> None:
    """The keeper counts one more learned entry of the template of this name, whatever becomes of the entry."""
    if answer in {Answer.INSTALLED, Answer.ELSEWHERE}:
        shape = kernel.by_name.get(name)
        if shape is not None:
            shape.counted += 1
            kernel.recount[shape] = None


def learn(kernel: KernelTable, key: bytes, vif: int, answer: Answer, name: bytes, now: float, *, caps: Caps) -> bool:
    """Take note of a NOCACHE upcall of an (S,G) that no exact route asks for. Whether its entry needs a look."""
    installed = answer in {Answer.INSTALLED, Answer.ELSEWHERE}
    if answer is Answer.ELSEWHERE:
        vif = _only_vif(kernel, name)
    slot = kernel.vifs.slots[vif] if 0 <= vif < len(kernel.vifs.slots) else None
    if slot is None:  # The interface has gone since, or the template has changed.
        if installed:
            kernel.programmed(key, kernel.unlike())
        return installed
    learned = kernel.learned.get(key)
    if answer is Answer.CAPPED:
        _refused(kernel, kernel.by_name.get(name), now)
        if learned is not None:
            kernel.deleted(key)
        return learned is not None
    if answer is Answer.NONE and _refuses(kernel, key, learned, vif, now, caps):
        return False
    if learned is None:
        learned = kernel.learned[key] = Learned(slot.ifindex, now)
    learned.ifindex = slot.ifindex
    _want_stop(kernel, learned, wanted=answer is Answer.NONE)
    if installed:
        _record_installed(kernel, key, vif, name)
    elif answer in {Answer.NONE, Answer.REFUSED}:
        kernel.deleted(key)  # The kernel has none, whatever we thought.
    return True


def _only_vif(kernel: KernelTable, name: bytes) -> int:
    """The one VIF on which a template's packets come in; -1 = there is not just one."""
    shape = kernel.by_name.get(name)
    allowed = shape.allowed if shape is not None else 0
    return -1 if allowed & (allowed - 1) else allowed.bit_length() - 1


def _refuses(kernel: KernelTable, key: bytes, learned: Learned | None, vif: int, now: float, caps: Caps) -> bool:
    """Whether a cap refuses what the keeper had no template for: a stop filter, or an entry of a template that came since."""
    if learned is not None and learned.stop_wanted:
        return False
    _, group, source = split_key(key)
    shape = kernel.index.find(group, source, vif)
    if shape is not None:
        if learned is None and shape.children >= caps.learned:
            _refused(kernel, shape, now)
            return True
        return False
    if kernel.stops >= caps.stops:
        if caps.stops:
            kernel.stops_refused += 1
            kernel.pressed[None] = now
        return True
    return False


def _refused(kernel: KernelTable, shape: TemplateShape | TreeShape | None, now: float) -> None:
    """A template's cap has refused an entry."""
    kernel.capped += 1
    if shape is not None:
        kernel.pressed[shape] = now


def _record_installed(kernel: KernelTable, key: bytes, vif: int, name: bytes) -> None:
    """The keeper has written the entry from what it had acknowledged then."""
    shape = kernel.by_name.get(name)
    if shape is not None and shape.sent is not None and shape.sent == shape.action and shape not in kernel.unsent:
        packed = shape.action.forwarding(kernel.family, vif)
        kernel.programmed(key, kernel.vifs.intern(packed, 1 << vif | shape.action.bits(kernel.family)))
    else:
        kernel.programmed(key, kernel.unlike())


def move(kernel: KernelTable, key: bytes, vif: int, now: float, *, caps: Caps) -> bool:
    """A WRONGVIF upcall: a learned entry moves to the new iif if a template is meant for that; a tree grows a branch.

    Whether the entry needs a look. There is no exact route of this key.
    """
    learned = kernel.learned.get(key)
    slot = kernel.vifs.slots[vif] if vif < len(kernel.vifs.slots) else None
    if slot is None or (learned is not None and slot.ifindex == learned.ifindex):
        return False
    _, group, source = split_key(key)
    tree = tree_of(kernel, group, vif)
    if learned is None:
        return tree is not None and _grow(kernel, tree, key, vif, slot.ifindex, now, caps)
    if tree is None and kernel.index.find(group, source, vif) is None:
        return False
    quiet = now - learned.moved_at
    if quiet > DAMPING_MAX:
        learned.moves = 0
    elif quiet < min(DAMPING_MAX, 2.0 ** (learned.moves - 1)):
        return False
    learned.moves += 1
    learned.moved_at = now
    learned.ifindex = slot.ifindex
    return True


def _grow(kernel: KernelTable, tree: TreeShape, key: bytes, vif: int, ifindex: int, now: float, caps: Caps) -> bool:
    if not _branch(tree, vif):
        return False
    if tree.children >= caps.learned:
        _refused(kernel, tree, now)
        return False
    kernel.learned[key] = Learned(ifindex, now)
    return True


def forget(kernel: KernelTable, key: bytes) -> Learned | None:
    """A learned entry is not wanted any more (or asked for by an exact route now)."""
    learned = kernel.learned.pop(key, None)
    if learned is not None:
        _adopt_child(kernel, learned, None)
        _want_stop(kernel, learned, wanted=False)
    return learned


def _want_stop(kernel: KernelTable, learned: Learned, *, wanted: bool) -> None:
    kernel.stops += wanted - learned.stop_wanted
    learned.stop_wanted = wanted


def next_templates(kernel: KernelTable, cap: int) -> SetTemplates | None:
    """What the keeper is to be told next: all templates at first, then changes; None = it knows."""
    if not kernel.keeper_knows:
        shapes = list(kernel.templates.values())
        kernel.unsent.clear()
        changes = [shape.change(cap) for shape in shapes if shape.action is not None]
    elif kernel.unsent:
        shapes = list(kernel.unsent)[:BATCH]
        for shape in shapes:
            del kernel.unsent[shape]
        changes = [shape.change(cap) for shape in shapes]
    else:
        return None
    for shape in shapes:
        if (old := kernel.holds.pop(shape.name, None)) is not None:
            kernel.stale_holds.append(old)
        if shape.action is not None:
            kernel.holds[shape.name] = _hold(kernel, shape.action, any_iif=not shape.paths.iif)
    return SetTemplates(kernel.table, kernel.family, changes, whole=not kernel.keeper_knows)


def templates_set(kernel: KernelTable, effect: SetTemplates) -> Work:
    """The keeper uses them: entries that what was there before has made are looked at again."""
    if effect.whole:
        kernel.keeper_knows = True
    stale, kernel.stale_holds = kernel.stale_holds, []
    for hold in stale:
        kernel.vifs.entry_removed(hold)
    for change in effect.changes:
        shape = kernel.by_name.get(change.name)
        if shape is not None:
            if effect.whole or shape.sent is None:
                shape.counted = change.learned  # It has started to count from what we said.
                kernel.recount[shape] = None
            shape.sent = change.action
            if shape.deleted and shape not in kernel.unsent:
                del kernel.by_name[change.name]
    return Work(list(kernel.learned) if effect.whole else under(kernel, [change.key for change in effect.changes]))


def _hold(kernel: KernelTable, action: TemplateAction, *, any_iif: bool) -> Forwarding:
    """The keeper may use these numbers from now on, until it has acknowledged something else: they count as an entry's."""
    hold = Forwarding(b"", action.bits(kernel.family) | (0 if any_iif else action.allowed))
    kernel.vifs.entry_added(hold)
    return hold


def under(kernel: KernelTable, templates: list[TemplateKey]) -> list[bytes]:
    """Learned entries that the templates cover, and others where there are many of these."""
    if len(templates) > _FEW:
        return list(kernel.learned)
    entries = []
    for key in kernel.learned:
        _, group, source = split_key(key)
        if any(covers(template, group, source) for template in templates):
            entries.append(key)
    return entries


def sweep(
    kernel: KernelTable, found: Iterable[tuple[bytes, float, int, int]], exact: Container[bytes], timeout: float, now: float
) -> Work:
    """Compare with a dump of our own entries (key, seconds idle, ifindex of the iif, packets); `exact`: keys of exact routes.

    What is idle goes; what the keeper has made unheard (its record was lost) is learned. Where a cap has refused entries of late,
    those of sources that hardly ever sent go early: a flood of spoofed sources can't keep others out for long.
    """
    work = Work()
    pressed = kernel.pressed
    kernel.pressed = {one: since for one, since in pressed.items() if now - since < PRESSED_SECONDS}
    unheard, kernel.unheard = kernel.unheard, set()
    kernel.blind = max(0, kernel.blind - 1)
    early = 0
    for key, idle, iif, packets in found:
        learned = kernel.learned.get(key)
        if learned is not None:
            shape = learned.shape
            limit = shape.route.idle_timeout if shape is not None and shape.route.idle_timeout else timeout
            if idle < limit:
                if idle < HASTE or packets > FIRST_PACKETS or shape not in pressed or early >= EARLY_MAX:
                    continue
                early += 1
            forget(kernel, key)
            work.add((key,))
        elif key in kernel.actual:
            continue
        elif key not in unheard:
            kernel.unheard.add(key)  # Its record may be on its way, or it has gone since.
        else:
            kernel.programmed(key, kernel.unlike())
            if iif and key not in exact:  # Without a VIF where it came in it goes.
                _learn_unheard(kernel, key, iif, now)
            work.add((key,))
    return work


def _learn_unheard(kernel: KernelTable, key: bytes, ifindex: int, now: float) -> None:
    """The keeper has made an entry, and counts it, but its record was lost."""
    kernel.learned[key] = Learned(ifindex, now)
    vif = kernel.vifs.by_ifindex.get(ifindex)
    _, group, source = split_key(key)
    shape = kernel.index.find(group, source, vif) if vif is not None else None
    if shape is not None:
        tally(kernel, Answer.INSTALLED, shape.name)


def _adopt_child(kernel: KernelTable, learned: Learned, shape: TemplateShape | TreeShape | None) -> None:
    old = learned.shape
    if old is shape:
        return
    for one, step in ((old, -1), (shape, 1)):
        if one is not None:
            one.children += step
        if isinstance(one, TemplateShape):  # The keeper knows nothing of trees.
            kernel.recount[one] = None
    learned.shape = shape
