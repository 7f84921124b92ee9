"""What writes mean for what is wanted: the rules of the contract, told apart from the engine."""

from mcastd.model.route import Paths
from mcastd.model.write import DeleteRoutes, Patch, PatchRoutes, PutRoutes, ReplaceRoutes, Restore, Write, WriteOptions

Wishes = dict[bytes, tuple[str, Paths, str]]
"""Owner, paths and cookie by key."""


def fulfil(wishes: Wishes, write: Write) -> None:
    """Change what is wanted as a write says that was not refused as a whole."""
    options = write.options
    match write:
        case PutRoutes():
            for route in write.routes:
                _put(wishes, options, route.key, route.paths, route.cookie)
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
            wishes.update({route.key: (route.owner, route.paths, route.cookie) for route in write.puts})


def _may(wishes: Wishes, options: WriteOptions, key: bytes) -> bool:
    return options.take_over or key not in wishes or wishes[key][0] == options.owner


def _put(wishes: Wishes, options: WriteOptions, key: bytes, paths: Paths, cookie: str) -> None:
    if _may(wishes, options, key):
        wishes[key] = options.owner, paths, cookie


def _patch(wishes: Wishes, options: WriteOptions, patch: Patch) -> None:
    if patch.key not in wishes:
        return
    _, paths, cookie = wishes[patch.key]
    named = {oif.interface: oif for oif in paths.oifs if oif.interface not in patch.remove}
    named |= {oif.interface: oif for oif in patch.add}
    if not any("!" + name in named for name in named):
        _put(wishes, options, patch.key, Paths(paths.iif, tuple(sorted(named.values()))), cookie)


def _delete(wishes: Wishes, options: WriteOptions, keys: list[bytes]) -> None:
    for key in keys:
        if _may(wishes, options, key):
            wishes.pop(key, None)


def _replace(wishes: Wishes, write: ReplaceRoutes) -> None:
    for key, (owner, _, cookie) in list(wishes.items()):
        if owner == write.options.owner and write.cookie in {"", cookie} and key not in write.routes:
            del wishes[key]
    for route in write.routes.values():
        _put(wishes, write.options, route.key, route.paths, route.cookie)
