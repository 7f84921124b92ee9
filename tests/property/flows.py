"""Flows: the (S,G) that packets made, and what templates, shared trees and the policy on unrouted traffic say of them."""

from typing import TYPE_CHECKING

from mcastd.model.address import exact_key, key_family, key_table, split_key
from mcastd.model.interface import Link
from mcastd.model.route import Paths
from mcastd.model.template import is_template_key, unpack_template_key
from tests.fakekernel import Where
from tests.property.oracle import covers, judge, judge_tree, meant, preference

if TYPE_CHECKING:
    from tests.property.machine import World


class Flows:
    """What is known of them from outside."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._seen: dict[bytes, set[int]] = {}
        """Where packets came in, and where entries that nobody asked for were left."""
        self.unheard = False
        """Whether a record was lost since the last time all was healed."""

    # --- at every moment ---------------------------------------------------------------------------------------------

    def came(self, key: bytes, ifindex: int) -> None:
        """Take note of a packet."""
        self._seen.setdefault(key, set()).add(ifindex)

    def reset(self) -> None:
        """All is as it ought to be: only what is in the kernel has come in anywhere."""
        self._seen = {}
        for key in self._learned():
            known = self._world.kernel.paths(key)
            assert known is not None
            self.came(key, known[0])

    def allowed(self, key: bytes) -> tuple[set[int], set[int]]:
        """Ifindexes where an entry may send and take, by the intents since all was healed."""
        world = self._world
        send, take = set(world.may_send.get(key, ())), {*world.may_take.get(key, ()), *self._seen.get(key, ())}
        tree = not any(split_key(key)[2])
        for template, oifs in world.may_send.items():
            if is_template_key(template) and (self._is_tree_of(template, key) if tree else covers(template, key)):
                send |= oifs
                take |= world.may_take[template]
        if tree:
            send |= take
        return send, take

    def check_keeper(self) -> None:
        """What the keeper would send at this moment, some intent since all was healed has named."""
        world = self._world
        for where, fastpath in world.router.keeper.fastpaths.items():
            vifs = world.kernel.tables[where].vifs
            for template, action in fastpath.actions().items():
                named = {vifs[n] for n in range(len(vifs)) if action.bits(where[1]) >> n & 1} - {None}
                assert named <= world.may_send.get(template, set()), f"{template.hex()} would send to {named}"

    # --- when all is done --------------------------------------------------------------------------------------------

    def expected(self, key: bytes, ifindex: int) -> dict[int, int] | None:
        """Thresholds by ifindex of the entry of what comes in there; None = none, or a stop filter."""
        link, found = self._world.kernel.links[ifindex], self._meant(key, ifindex)
        if found is None:
            return None
        paths = Paths(link.name, self._world.wanted[found].paths.oifs)
        return judge(paths, key_family(key), self._links(), self._world.thresholds).oifs

    def stopped(self, key: bytes) -> bool:
        """Whether a stop filter may be there: the policy says so, and no template or tree covers it on whatever interface."""
        limits = self._world.router.limits
        return limits.stops(key_table(key)) and not any(is_template_key(one) and covers(one, key) for one in self._world.wanted)

    def check_entries(self) -> None:
        """What nobody asked for by name is in the kernel as templates and the policy have it; the keeper knows the same."""
        world = self._world
        for key in self._learned():
            known = world.kernel.paths(key)
            assert known is not None
            assert known[0], f"{key.hex()} comes in nowhere"
            expected = self.expected(key, known[0])
            if expected is None:
                assert self.stopped(key), f"{key.hex()} is there, and ought not to be"
                expected = {}
            assert known[1] == expected, f"{key.hex()} does {known[1]}, not {expected}"
        trees = {self._entry(key) for key, wish in world.wanted.items() if wish.tree}
        for table in world.kernel.tables.values():
            assert {key for key in table.entries if not any(split_key(key)[2])} <= trees
        for where, kernel in world.router.engine.tables.items():
            if kernel.opened:
                templates = {key: shape.action for key, shape in kernel.templates.items() if shape.action is not None}
                assert world.router.keeper.fastpaths[where].actions() == templates
                children = {key: kernel.templates[key].children for key in templates}
                of_shape = dict.fromkeys(children, 0)
                for learned in kernel.learned.values():
                    if learned.shape is not None:
                        of_shape[learned.shape.route.key] += 1
                assert children == of_shape
                assert set(kernel.learned) == {key for key in self._learned() if (key_table(key), key_family(key)) == where}

    def probe(self, key: bytes, link: Link) -> None:
        """A packet of a flow without an entry gets what it ought to; all is settled."""
        world, where = self._world, (key_table(key), key_family(key))
        if where not in world.kernel.tables or key in world.wanted or world.kernel.entry(key) is not None:
            return
        world.kernel.expire()
        seen = link.ifindex in world.kernel.tables[where].vifs
        tree = self._tree(key)
        left = world.packet(key, link.name)
        world.settle()
        known = world.kernel.paths(key)
        if tree is not None and seen and link.ifindex in tree:
            assert known is None
            assert set(left) == tree.keys() - {link.ifindex}
            return
        expected = self.expected(key, link.ifindex) if seen else None
        if expected is not None:
            assert known == (link.ifindex, expected)
            assert set(world.packet(key, link.name)) == expected.keys()
        elif seen and self.stopped(key):
            assert known == (link.ifindex, {})

    def needed(self) -> dict[Where, set[int]]:
        """Interfaces that need a VIF because entries that nobody asked for come in there."""
        needed: dict[Where, set[int]] = {}
        for key in self._learned():
            known = self._world.kernel.paths(key)
            assert known is not None
            needed.setdefault((key_table(key), key_family(key)), set()).add(known[0])
        return needed

    def _learned(self) -> list[bytes]:
        """Keys of the entries that are neither exact routes' nor shared trees'."""
        world = self._world
        return [
            key
            for table in world.kernel.tables.values()
            for key in table.entries
            if key not in world.wanted and any(split_key(key)[2])
        ]

    def _meant(self, key: bytes, ifindex: int) -> bytes | None:
        """The template for what comes in there, unless a shared tree takes it."""
        world, tree = self._world, self._tree(key)
        if tree is not None and ifindex in tree:
            return None
        link = world.kernel.links[ifindex]
        found = [k for k, w in world.wanted.items() if is_template_key(k) and not w.tree and covers(k, key) and meant(k, link)]
        return min(found, key=preference, default=None)

    def _tree(self, key: bytes) -> dict[int, int] | None:
        """Members of the shared tree of the flow's group, if there is one in the kernel."""
        world = self._world
        for template, wish in world.wanted.items():
            if wish.tree and covers(template, key):
                verdict = judge_tree(wish.paths, key_family(key), self._links(), world.thresholds)
                return verdict.oifs if verdict.iif is not None else None
        return None

    def _links(self) -> list[Link]:
        return list(self._world.kernel.links.values())

    def _is_tree_of(self, template: bytes, key: bytes) -> bool:
        return self._entry(template) == key

    @staticmethod
    def _entry(template: bytes) -> bytes | None:
        """Key of the entry of a shared tree; None = it can't be one."""
        parts = unpack_template_key(template)
        full = parts.group_length == 8 * len(parts.group) and not parts.source_length
        return exact_key(parts.table, parts.group, bytes(len(parts.group))) if full else None
