"""What writes mean for what is wanted: the rules of the contract, told apart from the engine."""

from typing import NamedTuple

from mcastd.model.route import Paths, Route, Template
from mcastd.model.template import is_template_key, parts_of
from mcastd.model.write import DeleteRoutes, Patch, PatchRoutes, PutRoutes, ReplaceRoutes, Restore, Write, WriteOptions


class Wish(NamedTuple):
    """What an owner wants of one key."""

    owner: str
    paths: Paths
    cookie: str
    tree: bool = False
    """Whether it is a shared tree."""


Wishes = dict[bytes, Wish]


def wish_of(route: Route, owner: str = "") -> Wish:
    """A route as a wish, of its own owner or of the one who writes it."""
    return Wish(owner or route.owner, route.paths, route.cookie, isinstance(route, Template) and route.shared_tree)


def fulfil(wishes: Wishes, write: Write) -> None:
    """Change what is wanted as a write says that was not refused as a whole."""
    options = write.options
    match write:
        case PutRoutes():
            for route in write.routes:
                _put(wishes, options, route.key, wish_of(route, options.owner))
        case PatchRoutes():
            for patch in write.patches:
                _patch(wishes, options, patch)
        case DeleteRoutes():
            _delete(wishes, options, list(wishes) if write.keys is None else write.keys)
        case ReplaceRoutes():
            _replace(wishes, write)
        case Restore():
            for key in write.deletes:
                wishes.pop(key, None)
            for route in write.puts:
                _put(wishes, options, route.key, wish_of(route))


def _may(wishes: Wishes, options: WriteOptions, key: bytes) -> bool:
    return options.take_over or key not in wishes or wishes[key].owner == options.owner


def _put(wishes: Wishes, options: WriteOptions, key: bytes, wish: Wish) -> None:
    if _may(wishes, options, key) and not (wishes.get(key) != wish and _stood_off(wishes, key, wish)):
        wishes[key] = wish


def _stood_off(wishes: Wishes, key: bytes, wish: Wish) -> bool:
    """Whether another one of the same group prefix is a shared tree, or this one is and there is another."""
    if not is_template_key(key):
        return False
    group = parts_of(key)[:4]
    others = [other for of, other in wishes.items() if of != key and is_template_key(of) and parts_of(of)[:4] == group]
    return any(other.tree or wish.tree for other in others)


def _patch(wishes: Wishes, options: WriteOptions, patch: Patch) -> None:
    if patch.key not in wishes:
        return
    wish = wishes[patch.key]
    named = {oif.interface: oif for oif in wish.paths.oifs if oif.interface not in patch.remove}
    named |= {oif.interface: oif for oif in patch.add}
    if not any("!" + name in named for name in named):
        new = Paths(wish.paths.iif, tuple(sorted(named.values())))
        _put(wishes, options, patch.key, wish._replace(owner=options.owner, paths=new))


def _delete(wishes: Wishes, options: WriteOptions, keys: list[bytes]) -> None:
    for key in keys:
        if _may(wishes, options, key):
            wishes.pop(key, None)


def _replace(wishes: Wishes, write: ReplaceRoutes) -> None:
    for key, wish in list(wishes.items()):
        if wish.owner == write.options.owner and write.cookie in {"", wish.cookie} and key not in write.routes:
            del wishes[key]
    for route in write.routes.values():
        _put(wishes, write.options, route.key, wish_of(route, write.options.owner))
