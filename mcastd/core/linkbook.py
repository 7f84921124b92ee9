"""Interfaces as the kernel reports them, and which shapes care about which name."""

from dataclasses import dataclass, field
from typing import assert_never

from mcastd.core.shapes import Shape, World
from mcastd.model.event import LinkChanged, LinkEvent, LinkGone, LinksResync
from mcastd.model.interface import Link, glob_matcher


@dataclass(slots=True)
class Note:
    """What an event comes to."""

    gone: list[int] = field(default_factory=list)
    """Interfaces (ifindex) that are no more."""
    changed: list[Link] = field(default_factory=list)
    names: dict[str, None] = field(default_factory=dict)
    """Names whose interface came, went or changed."""


class LinkBook:
    """Keeps World's links, and the shapes by the names and globs they mention."""

    __slots__ = ("_globbed", "_named", "world")

    def __init__(self, world: World) -> None:
        """No links, no shapes."""
        self.world = world
        self._named: dict[str, dict[Shape, None]] = {}
        self._globbed: dict[str, dict[Shape, None]] = {}
        """By pattern: many shapes have the same few."""

    def register(self, shape: Shape) -> None:
        """Tell of this shape when its interfaces change."""
        for name in shape.names:
            self._named.setdefault(name, {})[shape] = None
        for glob in shape.globs:
            self._globbed.setdefault(glob, {})[shape] = None

    def unregister(self, shape: Shape) -> None:
        """No more."""
        for index, keys in ((self._named, shape.names), (self._globbed, set(shape.globs))):
            for key in keys:
                shapes = index[key]
                del shapes[shape]
                if not shapes:
                    del index[key]

    def interested(self, names: dict[str, None]) -> dict[Shape, None]:
        """Shapes that care about any of these names, in a stable order."""
        out: dict[Shape, None] = {}
        for name in names:
            out.update(self._named.get(name, {}))
            for glob, shapes in self._globbed.items():
                if glob_matcher(glob).match(name):
                    out.update(shapes)
        return out

    def note(self, event: LinkEvent) -> Note:
        """Bring the links up to date."""
        note = Note()
        match event:
            case LinkChanged(link):
                self._changed(link, note)
            case LinkGone(ifindex):
                self._gone(ifindex, note)
            case LinksResync(links):
                present = {link.ifindex for link in links}
                for ifindex in [i for i in self.world.by_index if i not in present]:
                    self._gone(ifindex, note)
                for link in links:
                    self._changed(link, note)
            case _:
                assert_never(event)
        return note

    def _changed(self, link: Link, note: Note) -> None:
        world = self.world
        old = world.by_index.get(link.ifindex)
        if old == link:
            return
        if old is not None and old.name != link.name:
            note.names[old.name] = None
            if world.by_name.get(old.name) is old:
                del world.by_name[old.name]
        world.forget_matches()
        world.by_index[link.ifindex] = link
        world.by_name[link.name] = link
        note.names[link.name] = None
        note.changed.append(link)

    def _gone(self, ifindex: int, note: Note) -> None:
        self.world.forget_matches()
        old = self.world.by_index.pop(ifindex, None)
        if old is None:
            return
        if self.world.by_name.get(old.name) is old:
            del self.world.by_name[old.name]
        note.names[old.name] = None
        note.gone.append(ifindex)
