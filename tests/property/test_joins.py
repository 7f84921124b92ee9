"""The join book equals a set: whatever joins, routes, links and refusals come, at rest the kernel has what is wanted."""

import errno
from collections.abc import Iterator

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mcastd.core.joins import JoinBook, JoinStep, JoinWork
from mcastd.core.linkbook import LinkBook
from mcastd.core.shapes import World
from mcastd.model.address import exact_key
from mcastd.model.errors import Reason
from mcastd.model.event import LinkChanged, LinkEvent, LinkGone, LinksResync
from mcastd.model.interface import Link, glob_matcher
from mcastd.model.join import JoinKey, JoinRecord, Membership, route_join_key
from mcastd.model.route import Paths, Route
from tests.fakejoins import FakePool, settle

NAMES = ["a1", "a2", "b1"]
GROUPS = {4: b"\xef\1\1", 16: b"\xff\x3e" + bytes(13)}
SOURCES = {4: b"\x0a\0\0", 16: b"\x20\1" + bytes(13)}
MAX = 14
"""Memberships at once: some wishes do not fit."""

names = st.sampled_from(NAMES)
interfaces = names | st.sampled_from(["a*", "*", "z"])
sizes = st.sampled_from([4, 16])


@st.composite
def join_keys(draw: st.DrawFn) -> JoinKey:
    """Joins that overlap: groups 0 to 3, sources 0 and 1 or any, as single addresses and as prefixes."""
    size = draw(sizes)
    length = draw(st.integers(0, 2))
    group = GROUPS[size] + bytes((draw(st.integers(0, 3)) >> length << length,))
    source, source_length = b"", 0
    if draw(st.booleans()):
        short = draw(st.integers(0, 1))
        source, source_length = SOURCES[size] + bytes((draw(st.integers(0, 1)) >> short << short,)), 8 * size - short
    return JoinKey(draw(st.sampled_from(["alice", "bob"])), draw(interfaces), group, 8 * size - length, source, source_length)


@st.composite
def join_routes(draw: st.DrawFn) -> Route:
    """Exact routes, in two tables, of the same few groups."""
    size = draw(sizes)
    group, source = GROUPS[size] + bytes((draw(st.integers(0, 1)),)), SOURCES[size] + b"\0"
    key = exact_key(draw(st.sampled_from([0, 7])), group, source)
    return Route(key, Paths(draw(names), ()), draw(st.sampled_from(["alice", "bob"])), join=draw(st.booleans()))


class JoinMachine(RuleBasedStateMachine):
    """A book, a kernel, and what is wanted as plain dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.linkbook = LinkBook(self.world)
        self.pool = FakePool()
        self.errors: dict[JoinKey, Reason | None] = {}
        """As those who follow know them."""
        self.book = JoinBook(self.world, MAX, self.told)
        self.joins: dict[JoinKey, None] = {}
        self.routes: dict[bytes, Route] = {}
        self.links: dict[int, Link] = {}
        self.refused: dict[Membership, int] = {}
        self.pool.refuses = self.pool.refuses_leave = lambda member: self.refused.get(member, 0)
        self.works: list[JoinWork] = []
        self.step: JoinStep | None = None
        self.results: tuple[list[int], list[int]] = ([], [])

    def told(self, keys: list[JoinKey]) -> None:
        """Somebody follows."""
        for key in keys:
            problem = self.book.error_of(key)
            self.errors[key] = problem.reason if problem is not None else None

    # --- writes ------------------------------------------------------------------------------------------------------

    def begin(self, work: JoinWork) -> None:
        """A write is in force."""
        self.book.begin(work)
        self.works.append(work)

    @rule(keys=st.lists(join_keys(), min_size=1, max_size=3))
    def put(self, keys: list[JoinKey]) -> None:
        work = JoinWork()
        for key in keys:
            self.joins[key] = None
            self.book.put(JoinRecord(key), work)
        self.begin(work)

    @rule(data=st.data())
    @precondition(lambda self: self.joins)
    def delete(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(list(self.joins)))
        del self.joins[key]
        work = JoinWork()
        self.book.delete(key, work)
        self.begin(work)

    @rule(route=join_routes())
    def put_route(self, route: Route) -> None:
        old = self.routes.get(route.key)
        self.routes[route.key] = route
        work = JoinWork()
        self.book.change_route(old, route, work)
        self.begin(work)

    @rule(data=st.data())
    @precondition(lambda self: self.routes)
    def drop_route(self, data: st.DataObject) -> None:
        route = self.routes.pop(data.draw(st.sampled_from(list(self.routes))))
        work = JoinWork()
        if route.join:
            self.book.drop_route(route, work)
        self.begin(work)

    # --- links -------------------------------------------------------------------------------------------------------

    def event(self, event: LinkEvent) -> None:
        """Tell the book of a link, as the engine does."""
        note = self.linkbook.note(event)
        for _ in self.book.links(note.names, note.gone, {link.ifindex for link in note.changed}.union(note.gone)):
            pass

    @rule(ifindex=st.integers(1, 4), name=names, up=st.booleans(), multicast=st.sampled_from([True, True, True, False]))
    def link(self, ifindex: int, name: str, up: bool, multicast: bool) -> None:
        if any(link.name == name and link.ifindex != ifindex for link in self.links.values()):
            return
        self.links[ifindex] = Link(ifindex, name, up, multicast)
        self.event(LinkChanged(self.links[ifindex]))

    @rule(data=st.data())
    @precondition(lambda self: self.links)
    def unlink(self, data: st.DataObject) -> None:
        link = self.links.pop(data.draw(st.sampled_from(list(self.links))))
        self.pool.link_gone(link.ifindex)
        self.event(LinkGone(link.ifindex, link.name))

    @rule(data=st.data())
    @precondition(lambda self: self.links)
    def resync(self, data: st.DataObject) -> None:
        """Changes were lost: an interface is gone, all others are told of."""
        link = self.links.pop(data.draw(st.sampled_from(list(self.links))))
        self.pool.link_gone(link.ifindex)
        self.event(LinksResync(tuple(self.links.values())))

    # --- the kernel --------------------------------------------------------------------------------------------------

    @rule(data=st.data(), number=st.sampled_from([errno.ENOBUFS, errno.EPERM, 0]))
    def refuse(self, data: st.DataObject, number: int) -> None:
        candidates = [*self.book.wanted, *self.pool.joined]
        if candidates:
            self.refused[data.draw(st.sampled_from(candidates))] = number

    @rule()
    @precondition(lambda self: self.step is None)
    def pull(self) -> None:
        self.step = self.book.pull()
        if self.step is not None:
            self.results = self.pool.leave(self.step.leave), self.pool.join(self.step.join)

    @rule()
    @precondition(lambda self: self.step is not None)
    def push(self) -> None:
        assert self.step is not None
        self.book.push(self.step, *self.results)
        self.step = None

    @rule()
    def retry(self) -> None:
        self.book.retry()

    @rule()
    def come_to_rest(self) -> None:
        if self.step is not None:
            self.push()
        settle(self.book, self.pool)
        assert all(work.finished for work in self.works), "every write is answered, whatever the kernel said"
        assert {id(work) for work in self.works} <= {id(work) for work in self.finished()}
        self.works.clear()
        if not any(self.refused.values()):
            self.book.retry()
            settle(self.book, self.pool)
            assert self.pool.joined == set(self.book.wanted)
            assert not self.book.problems
            assert not self.book.troubled
            self.check_wanted()

    @rule()
    def heal(self) -> None:
        self.refused.clear()
        self.book.retry()
        self.come_to_rest()

    def finished(self) -> list[JoinWork]:
        """All works that were told of, once each."""
        found = self.book.finished()
        assert len({id(work) for work in found}) == len(found)
        return [*found, *(work for work in self.works if not work.waiting)]

    # --- what must hold ----------------------------------------------------------------------------------------------

    def wishes(self) -> Iterator[JoinKey]:
        """What is asked for."""
        yield from self.joins
        yield from (route_join_key(route) for route in self.routes.values() if route.join)

    def check_wanted(self) -> None:
        """Every wish is where it should be, unless there was no room for the one that waits longest."""
        waiting: list[JoinKey] = []
        for key in set(self.wishes()):
            match = glob_matcher(key.interface).match
            links = [link for link in self.links.values() if match(link.name) and link.multicast]
            problem = self.book.error_of(key)
            if problem is not None and problem.reason is Reason.MEMBERSHIP_LIMIT:
                waiting.append(key)
                continue
            assert sorted(self.book.interfaces_of(key)) == sorted(link.name for link in links)
            for link in links:
                assert {Membership(link.ifindex, *pair) for pair in key.pairs()} <= self.pool.joined
            if not links and "*" not in key.interface:
                assert problem is not None
                assert problem.reason in {Reason.NO_SUCH_INTERFACE, Reason.NOT_MULTICAST_CAPABLE}
        assert not waiting or any(len(self.book.wanted) + key.size > MAX for key in waiting)

    @invariant()
    def references_are_right(self) -> None:
        assert set(self.book.wishes) == set(self.wishes())
        references = {
            (Membership(ifindex, *pair), key)
            for key, wish in self.book.wishes.items()
            for ifindex in wish.held
            for pair in key.pairs()
        }
        assert references == {(member, wish.key) for member, wishes in self.book.wanted.items() for wish in wishes}
        assert len(self.book.wanted) <= MAX
        assert set(self.book.problems) <= set(self.book.wanted) | {m for ms in self.book.actual.values() for m in ms}

    @invariant()
    def followers_know_every_error(self) -> None:
        for key in self.book.wishes:
            problem = self.book.error_of(key)
            assert self.errors[key] == (problem.reason if problem is not None else None)


TestJoins = JoinMachine.TestCase
TestJoins.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
