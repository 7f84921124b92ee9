"""mcastd.core.linkbook: what events come to, and who is told of which names."""

import pytest

from mcastd.core.linkbook import LinkBook, Note
from mcastd.core.shapes import Shape, World
from mcastd.core.tables import KernelTable
from mcastd.model.address import Family
from mcastd.model.event import LinkChanged, LinkEvent, LinkGone, LinksResync
from mcastd.model.interface import Link
from tests.fakerouter import paths


def link(ifindex: int, name: str, *, up: bool = True) -> Link:
    return Link(ifindex, name, up, multicast=True)


@pytest.fixture
def book() -> LinkBook:
    book = LinkBook(World())
    book.note(LinksResync((link(1, "eth0"), link(2, "eth1"), link(3, "eth2"))))
    return book


def told(book: LinkBook, event: LinkEvent) -> tuple[list[str], list[int], list[int]]:
    """Names, ifindexes that changed, ifindexes that are gone; and the two views of the links agree."""
    note = book.note(event)
    world = book.world
    assert {one.name: one for one in world.by_index.values()} == world.by_name
    return list(note.names), [one.ifindex for one in note.changed], note.gone


def test_new_changed_and_gone(book: LinkBook) -> None:
    assert told(book, LinkChanged(link(4, "eth3"))) == (["eth3"], [4], [])
    assert told(book, LinkChanged(link(4, "eth3"))) == ([], [], [])
    assert told(book, LinkChanged(link(4, "eth3", up=False))) == (["eth3"], [4], [])
    assert told(book, LinkGone(4, "eth3")) == (["eth3"], [], [4])
    assert told(book, LinkGone(4, "eth3")) == ([], [], [])


def test_a_rename_is_about_both_names(book: LinkBook) -> None:
    assert told(book, LinkChanged(link(1, "wan"))) == (["eth0", "wan"], [1], [])


def test_the_name_of_what_is_gone_is_the_one_it_had_here(book: LinkBook) -> None:
    assert told(book, LinkGone(1, "renamed-in-the-last-moment")) == (["eth0"], [], [1])


def test_a_name_passes_to_another_interface_at_once(book: LinkBook) -> None:
    assert told(book, LinksResync((link(1, "eth0"), link(3, "eth1"), link(2, "eth2")))) == (["eth2", "eth1"], [3, 2], [])
    assert told(book, LinksResync((link(9, "eth0"), link(3, "eth1"), link(2, "eth2")))) == (["eth0"], [9], [1])


def test_a_resync_without_news_is_none(book: LinkBook) -> None:
    assert book.note(LinksResync((link(3, "eth2"), link(2, "eth1"), link(1, "eth0")))) == Note()


def test_who_is_interested() -> None:
    book, kernel = LinkBook(World()), KernelTable(0, Family.IPV4)
    named = Shape(kernel, paths("eth0", "eth1", "!eth5"))
    globbed = Shape(kernel, paths("eth2", "eth*", "!eth5"))
    for shape in (named, globbed):
        book.register(shape)

    def interested(*names: str) -> list[Shape]:
        return list(book.interested(dict.fromkeys(names)))

    assert interested("eth0") == [named, globbed]
    assert interested("eth2", "eth1") == [globbed, named]
    assert interested("eth5") == [globbed]
    assert interested("wlan0") == []
    book.unregister(named)
    assert interested("eth0") == [globbed]
    book.unregister(globbed)
    assert interested("eth0", "eth1", "eth2") == []
