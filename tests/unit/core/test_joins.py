"""The join book: wishes, where they are joined, and what is told of them."""

import errno
from collections.abc import Iterable
from itertools import pairwise

import pytest

from mcastd.core.joins import JoinBook, JoinWork
from mcastd.core.linkbook import LinkBook
from mcastd.core.shapes import World
from mcastd.model.address import Family, exact_key, pack_address
from mcastd.model.errors import Problem, Reason
from mcastd.model.event import LinkChanged, LinkEvent, LinkGone, LinksResync
from mcastd.model.interface import Link
from mcastd.model.join import JoinKey, JoinRecord, Membership, route_join_key
from mcastd.model.record import Intent
from mcastd.model.route import Paths, Route, Template
from mcastd.model.template import TemplateKey
from tests.fakejoins import FakePool, settle

GROUP = {Family.IPV4: "239.1.1.0", Family.IPV6: "ff3e::1:0"}
SOURCE = {Family.IPV4: "10.0.0.0", Family.IPV6: "fd00::"}

families = pytest.mark.parametrize("family", Family)


class Rig:
    """A book with links, on a pool."""

    def __init__(self, *links: str, memberships_max: int = 100_000) -> None:
        self.world = World()
        self.linkbook = LinkBook(self.world)
        self.told: list[JoinKey] = []
        self.book = JoinBook(self.world, memberships_max, self.told.extend)
        self.pool = FakePool()
        for ifindex, name in enumerate(links, 1):
            self.link(ifindex, name)

    def event(self, event: LinkEvent) -> None:
        """As the engine does it."""
        note = self.linkbook.note(event)
        for _ in self.book.links(note.names, note.gone, {link.ifindex for link in note.changed}.union(note.gone)):
            pass

    def link(self, ifindex: int, name: str, *, up: bool = True, multicast: bool = True) -> None:
        """An interface comes or changes."""
        self.event(LinkChanged(Link(ifindex, name, up, multicast)))

    def gone(self, ifindex: int, name: str) -> None:
        """An interface goes, and its memberships with it."""
        self.pool.link_gone(ifindex)
        self.event(LinkGone(ifindex, name))

    def put(self, *keys: JoinKey) -> JoinWork:
        """Put joins."""
        work = JoinWork()
        for key in keys:
            self.book.put(JoinRecord(key), work)
        self.book.begin(work)
        return work

    def delete(self, *keys: JoinKey) -> JoinWork:
        """Delete joins."""
        work = JoinWork()
        for key in keys:
            self.book.delete(key, work)
        self.book.begin(work)
        return work

    def put_route(self, new: Route, old: Route | None = None) -> JoinWork:
        """A route is in force."""
        work = JoinWork()
        self.book.change_route(old, new, work)
        self.book.begin(work)
        return work

    def drop_route(self, route: Route) -> None:
        """A route is deleted."""
        work = JoinWork()
        self.book.drop_route(route, work)
        self.book.begin(work)

    def settle(self) -> set[Membership]:
        """Carry the plan out; what is joined then."""
        settle(self.book, self.pool)
        assert {m for members in self.book.actual.values() for m in members} == self.pool.joined
        return self.pool.joined

    def error(self, key: JoinKey) -> Reason | None:
        """Why a join is not there."""
        problem = self.book.error_of(key)
        return problem.reason if problem is not None else None


def key(
    family: Family,
    interface: str = "a",
    *,
    owner: str = "alice",
    length: int = 0,
    source_length: int | None = None,
    group: str = "",
) -> JoinKey:
    """A join by prefix lengths counted from the end: 0 = one address; no source length = any source."""
    packed, bits = pack_address(group or GROUP[family]), 32 if family is Family.IPV4 else 128
    if source_length is None:
        return JoinKey(owner, interface, packed, bits - length, b"", 0)
    return JoinKey(owner, interface, packed, bits - length, pack_address(SOURCE[family]), bits - source_length)


def done(work: JoinWork) -> bool:
    """Whether the kernel has answered for all of it."""
    return work.finished


def troubled(book: JoinBook) -> bool:
    """Whether there is anything to retry."""
    return book.troubled


def members(ifindex: int, keys: Iterable[JoinKey]) -> set[Membership]:
    """What joins come to on one interface."""
    return {Membership(ifindex, group, source) for one in keys for group, source in one.pairs()}


def route(family: Family, iif: str = "a", owner: str = "alice", *, table: int = 0, join: bool = True) -> Route:
    """A route with join."""
    return Route(
        exact_key(table, pack_address(GROUP[family]), pack_address(SOURCE[family])), Paths(iif, ()), owner, "r", join=join
    )


@families
def test_a_join_is_joined_and_left(family: Family) -> None:
    rig = Rig("a", "b")
    one = key(family)
    work = rig.put(one)
    assert not done(work)
    assert rig.settle() == members(1, [one])
    assert done(work)
    assert rig.book.finished() == [work]
    assert rig.book.finished() == []
    assert rig.error(one) is None
    assert rig.book.interfaces_of(one) == ["a"]
    gone = rig.delete(one)
    assert not done(gone)
    assert rig.settle() == set()
    assert done(gone)
    assert rig.book.record_of(one) is None
    assert rig.book.interfaces_of(one) == []
    assert rig.told == [one, one]
    assert not rig.book.wanted
    assert not rig.book.wishes


@families
def test_prefixes_stand_for_each_of_their_memberships(family: Family) -> None:
    rig = Rig("a")
    one = key(family, length=3, source_length=2)
    assert one.size == 32
    rig.put(one)
    assert len(rig.settle()) == 32
    assert rig.pool.joined == members(1, [one])
    assert all(m.family is family for m in rig.pool.joined)


def test_link_local_groups_at_the_edge_of_a_prefix_are_not_joined() -> None:
    rig = Rig("a")
    one = key(Family.IPV4, group="224.0.0.0", length=9)
    rig.put(one)
    assert len(rig.settle()) == 256
    assert min(m.group for m in rig.pool.joined) == b"\xe0\0\1\0"


@families
def test_a_membership_stays_until_the_last_who_wants_it_goes(family: Family) -> None:
    rig = Rig("a")
    mine, other, wide = key(family), key(family, owner="bob"), key(family, length=2)
    rig.put(mine, other, wide)
    rig.settle()
    for gone, left in ((mine, [other, wide]), (wide, [other]), (other, [])):
        rig.delete(gone)
        assert rig.settle() == members(1, left)
    joins = [member for what, member in rig.pool.calls if what == "join"]
    assert len(joins) == len(set(joins)) == 4, "nothing was joined twice"


@families
def test_any_source_and_single_sources_of_one_group_are_held_independently(family: Family) -> None:
    rig = Rig("a")
    everybody, one = key(family), key(family, source_length=0)
    rig.put(everybody, one)
    assert rig.settle() == members(1, [everybody, one])
    rig.delete(everybody)
    assert rig.settle() == members(1, [one])


@families
def test_a_join_waits_for_its_interface(family: Family) -> None:
    rig = Rig()
    one = key(family, "late")
    assert rig.put(one).finished, "there is nothing to wait for"
    assert rig.settle() == set()
    assert rig.error(one) is Reason.NO_SUCH_INTERFACE
    rig.told.clear()
    rig.link(7, "late")
    assert rig.settle() == members(7, [one])
    assert rig.error(one) is None
    assert rig.told == [one]
    rig.gone(7, "late")
    assert rig.settle() == set()
    assert rig.error(one) is Reason.NO_SUCH_INTERFACE
    rig.link(9, "late")
    assert rig.settle() == members(9, [one])


@families
def test_an_interface_that_takes_the_ifindex_of_another_is_joined_anew(family: Family) -> None:
    rig = Rig()
    one = key(family, "a")
    rig.put(one)
    rig.link(7, "a")
    rig.settle()
    rig.pool.calls.clear()
    rig.gone(7, "a")
    rig.link(7, "a")  # Before anything of it was carried out.
    assert rig.settle() == members(7, [one])
    assert [what for what, _ in rig.pool.calls] == ["leave", "join"]


@families
def test_an_interface_that_goes_while_a_step_is_carried_out_is_joined_anew(family: Family) -> None:
    rig = Rig("a")
    one = key(family)
    rig.put(one)
    step = rig.book.pull()
    assert step is not None
    results = rig.pool.leave(step.leave), rig.pool.join(step.join)
    rig.gone(1, "a")
    rig.link(1, "a")
    rig.book.push(step, *results)
    assert rig.settle() == members(1, [one])


@families
def test_a_renamed_interface_is_left_and_one_renamed_into_place_is_joined(family: Family) -> None:
    rig = Rig("a", "b")
    one = key(family)
    rig.put(one)
    rig.settle()
    rig.link(1, "x")
    assert rig.settle() == set()
    rig.link(2, "a")
    assert rig.settle() == members(2, [one])


@families
def test_a_glob_follows_the_interfaces_that_match(family: Family) -> None:
    rig = Rig("vlan1", "vlan2", "eth0")
    one = key(family, "vlan*")
    rig.put(one)
    assert rig.settle() == members(1, [one]) | members(2, [one])
    assert rig.book.interfaces_of(one) == ["vlan1", "vlan2"]
    rig.link(4, "vlan9")
    rig.link(3, "vlan0")
    rig.gone(1, "vlan1")
    assert rig.settle() == members(2, [one]) | members(3, [one]) | members(4, [one])
    assert rig.error(one) is None


def test_a_glob_that_matches_nothing_is_no_error() -> None:
    rig = Rig("a")
    one = key(Family.IPV4, "vlan*")
    rig.put(one)
    assert rig.settle() == set()
    assert rig.error(one) is None


def test_an_interface_that_is_down_is_joined_on_and_one_without_multicast_is_not() -> None:
    rig = Rig()
    down, incapable, glob = key(Family.IPV4, "down"), key(Family.IPV4, "lo"), key(Family.IPV4, "l*")
    rig.link(1, "down", up=False)
    rig.link(2, "lo", multicast=False)
    rig.put(down, incapable, glob)
    assert rig.settle() == members(1, [down])
    assert rig.error(down) is None
    assert rig.error(incapable) is Reason.NOT_MULTICAST_CAPABLE
    assert rig.error(glob) is None
    rig.link(2, "lo")
    assert rig.settle() == members(1, [down]) | members(2, [incapable])


@families
def test_what_the_kernel_refuses_is_told_and_tried_again(family: Family) -> None:
    rig = Rig("a")
    bad, good = key(family, length=1), key(family, source_length=0)
    rig.pool.refuses = lambda member: 0 if member.source else errno.EPERM
    work = rig.put(bad, good)
    assert rig.settle() == members(1, [good])
    assert done(work)
    problem = rig.book.error_of(bad)
    assert problem is not None
    assert problem.reason is Reason.KERNEL_ERROR
    assert problem.metadata["call"] == "MCAST_JOIN_GROUP"
    assert problem.metadata["errno"] == str(errno.EPERM)
    assert problem.metadata["interface"] == "a"
    assert troubled(rig.book)
    assert rig.book.pull() is None, "it is not tried at once"
    rig.told.clear()
    rig.book.retry()
    rig.settle()
    assert rig.told == [], "the error is the same"
    rig.pool.refuses = lambda _: 0
    rig.book.retry()
    assert rig.settle() == members(1, [bad, good])
    assert rig.told == [bad]
    assert rig.error(bad) is None
    assert not troubled(rig.book)
    assert not rig.book.problems


@pytest.mark.parametrize("again", ["put", "link", "again"])
def test_a_refusal_is_forgotten(again: str) -> None:
    rig = Rig("a")
    one = key(Family.IPV4)
    rig.pool.refuses = lambda _: errno.ENOBUFS
    rig.put(one)
    rig.settle()
    rig.pool.refuses = lambda _: 0
    if again == "put":
        work = rig.put(one)
        assert not done(work)
    elif again == "link":
        rig.link(1, "a", up=False)
    else:
        work = rig.book.again([one, key(Family.IPV4, "nobody")])
        assert not done(work)
    assert rig.settle() == members(1, [one])


def test_what_is_deleted_after_a_refusal_leaves_nothing() -> None:
    rig = Rig("a")
    one = key(Family.IPV4, "*")
    rig.pool.refuses = lambda _: errno.ENOBUFS
    rig.put(one)
    rig.settle()
    assert rig.error(one) is Reason.MEMBERSHIP_LIMIT
    rig.delete(one)
    assert rig.error(one) is None
    assert not rig.book.problems
    assert not troubled(rig.book)


def test_a_leave_that_is_refused_is_tried_again() -> None:
    rig = Rig("a")
    one = key(Family.IPV4)
    rig.put(one)
    rig.settle()
    rig.pool.refuses_leave = lambda _: errno.EIO
    work = rig.delete(one)
    rig.settle()
    assert done(work)
    assert troubled(rig.book)
    rig.pool.refuses_leave = lambda _: 0
    rig.book.retry()
    assert rig.settle() == set()
    assert not troubled(rig.book)


def test_room_that_a_leave_makes_is_used_at_once() -> None:
    rig = Rig("a")
    first, second = key(Family.IPV4), key(Family.IPV4, group="239.9.9.9")
    rig.pool.limit = 1
    rig.put(first)
    rig.put(second)
    rig.settle()
    assert rig.error(second) is Reason.MEMBERSHIP_LIMIT
    rig.delete(first)
    assert rig.settle() == members(1, [second])


def test_what_does_not_fit_waits_for_room() -> None:
    rig = Rig("a", "b", memberships_max=10)
    large, small = key(Family.IPV4, length=3), key(Family.IPV4, group="239.9.9.8", length=2)
    rig.put(large)
    rig.put(small)
    assert rig.settle() == members(1, [large])
    assert rig.error(small) is Reason.MEMBERSHIP_LIMIT
    rig.delete(large)
    assert rig.settle() == members(1, [small])
    assert rig.error(small) is None
    rig.delete(small)
    glob = key(Family.IPV4, "[ab]", length=3)
    rig.put(glob)
    assert len(rig.settle()) == 8
    assert rig.error(glob) is Reason.MEMBERSHIP_LIMIT
    rig.gone(1, "a")
    assert rig.settle() == members(2, [glob])
    assert rig.error(glob) is None


def test_there_may_be_more_from_now_on() -> None:
    rig = Rig("a", memberships_max=4)
    one, two = key(Family.IPV4, length=2), key(Family.IPV4, group="239.9.9.8", length=2)
    rig.put(one, two)
    assert rig.settle() == members(1, [one])
    rig.told.clear()
    rig.book.allow(8)
    assert rig.settle() == members(1, [one, two])
    assert rig.told == [two]
    rig.book.allow(1)
    assert rig.settle() == members(1, [one, two])


@families
def test_a_route_joins_on_its_iif_while_it_is_there(family: Family) -> None:
    rig = Rig("a", "b")
    one = route(family)
    made = route_join_key(one)
    assert made == key(family, source_length=0)
    assert not rig.put_route(one).finished
    assert rig.settle() == members(1, [made])
    record = rig.book.record_of(made)
    assert record is not None
    assert (record.key.owner, record.cookie) == ("alice", "r")
    moved = route(family, "b")
    rig.put_route(moved, one)
    assert rig.settle() == members(2, [made])
    off = route(family, "b", join=False)
    rig.put_route(off, moved)
    assert rig.settle() == set()
    assert rig.book.error_of_route(off) is None
    rig.drop_route(off)
    assert not rig.book.wishes


@families
def test_a_route_that_is_replaced_leaves_nothing_meanwhile(family: Family) -> None:
    rig = Rig("a")
    one, two = route(family), route(family)
    rig.put_route(one)
    rig.settle()
    rig.pool.calls.clear()
    rig.put_route(two, one)
    rig.settle()
    taken_over = route(family, owner="bob")
    rig.put_route(taken_over, two)
    rig.settle()
    assert rig.pool.calls == []
    rig.drop_route(taken_over)
    assert rig.settle() == set()


@families
def test_a_route_and_a_join_of_the_same_share_one_wish(family: Family) -> None:
    rig = Rig("a")
    one, other_table, join = route(family), route(family, table=7), key(family, source_length=0)
    rig.put(join)
    rig.put_route(one)
    rig.put_route(other_table)
    assert list(rig.book.wishes) == [join]
    rig.settle()
    for step in (lambda: rig.delete(join), lambda: rig.drop_route(one)):
        step()
        assert rig.settle() == members(1, [join])
    rig.drop_route(other_table)
    assert rig.settle() == set()


@families
def test_templates_join_their_prefixes_and_trees_any_source(family: Family) -> None:
    rig = Rig("a", "b")
    bits = 32 if family is Family.IPV4 else 128
    group, source = pack_address(GROUP[family]), pack_address(SOURCE[family])
    wide = TemplateKey(0, family, group, bits - 2, source, bits - 1, "*")
    template = Template(wide.pack(), Paths("*", ()), "alice", join=True)
    tree = Template(
        TemplateKey(0, family, group, bits, bytes(bits // 8), 0, "a").pack(), Paths("a", ()), "alice", shared_tree=True, join=True
    )
    rig.put_route(template)
    rig.put_route(tree)
    prefixes, everybody = key(family, "*", length=2, source_length=1), key(family)
    assert rig.settle() == members(1, [prefixes, everybody]) | members(2, [prefixes])


def test_what_is_found_at_start_is_kept_left_or_completed() -> None:
    rig = Rig("a")
    kept, missing, unwanted = (key(Family.IPV4, group=f"239.9.9.{n}") for n in range(3))
    found = members(1, [kept, unwanted]) | members(99, [kept])
    rig.pool.joined |= found
    rig.book.load([JoinRecord(kept), JoinRecord(missing)], [])
    rig.book.adopt(found)
    assert rig.settle() == members(1, [kept, missing])
    assert ("join", Membership(1, kept.group, b"")) not in rig.pool.calls
    assert len(rig.pool.calls) == 3


def test_a_write_waits_for_what_is_under_way() -> None:
    rig = Rig("a")
    one = key(Family.IPV4)
    first = rig.put(one)
    step = rig.book.pull()
    assert step is not None
    again, gone = rig.put(one), rig.delete(one)
    rig.book.push(step, [], rig.pool.join(step.join))
    assert not done(gone)
    assert rig.settle() == set()
    assert done(first)
    assert done(again)
    assert done(gone)


def test_a_step_is_limited_and_leaves_first() -> None:
    rig = Rig("a")
    old, new = key(Family.IPV4, length=8), key(Family.IPV4, group="239.2.0.0", length=9)
    rig.put(old)
    rig.settle()
    rig.put(new)
    rig.delete(old)
    sizes = []
    while step := rig.book.pull():
        sizes.append((len(step.leave), len(step.join)))
        rig.book.push(step, rig.pool.leave(step.leave), rig.pool.join(step.join))
    assert sizes == [(256, 0), (0, 256), (0, 256)]


def test_a_link_event_is_handled_in_slices() -> None:
    rig = Rig()
    keys = [JoinKey("alice", "late", (0xEF000000 + n * 4096).to_bytes(4, "big"), 20, b"", 0) for n in range(4)]
    rig.put(*keys)
    note = rig.linkbook.note(LinkChanged(Link(1, "late", up=True, multicast=True)))
    slices = rig.book.links(note.names, note.gone, {1})
    assert sum(1 for _ in slices) == 4
    assert len(rig.settle()) == 4 * 4096


def test_a_large_join_on_many_interfaces_comes_and_goes_in_slices() -> None:
    rig = Rig(*(f"eth{n}" for n in range(8)))
    large = JoinKey("alice", "eth*", bytes([239, 0, 0, 0]), 20, b"", 0)
    work = JoinWork()
    grown = [0, *(len(rig.book.wanted) for _ in rig.book.commit(Intent(join_puts=[JoinRecord(large)]), work))]
    grown.append(len(rig.book.wanted))
    assert max(after - before for before, after in pairwise(grown)) == 4096
    assert len(rig.settle()) == 8 * 4096
    assert work.finished
    for _ in rig.book.commit(Intent(join_deletes=[large]), work := JoinWork()):
        assert rig.book.record_of(large) is None, "nobody finds half of it"
        grown.append(len(rig.book.wanted))
    assert max(abs(after - before) for before, after in pairwise(grown)) == 4096
    assert rig.settle() == set()
    assert work.finished


@pytest.mark.parametrize("event", ["renamed", "gone", "deleted"])
def test_what_happens_between_the_slices_of_a_large_join_counts(event: str) -> None:
    rig = Rig("eth0", "eth1", "eth2")
    large = JoinKey("alice", "eth*", bytes([239, 0, 0, 0]), 20, b"", 0)
    slices = rig.book.commit(Intent(join_puts=[JoinRecord(large)]), work := JoinWork())
    next(slices)
    if event == "renamed":
        rig.link(1, "other")
        rig.link(3, "other3")
    elif event == "gone":
        rig.gone(1, "eth0")
        rig.gone(3, "eth2")
    else:
        rig.delete(large)
    for _ in slices:
        pass
    assert len(rig.settle()) == (0 if event == "deleted" else 4096)
    assert work.finished
    rig.delete(large)
    assert rig.settle() == set()
    assert not rig.book.wanted


def test_a_join_deleted_between_slices_stays_deleted() -> None:
    rig = Rig()
    keys = [JoinKey("alice", "late", (0xEF000000 + n * 4096).to_bytes(4, "big"), 20, b"", 0) for n in range(2)]
    rig.put(*keys)
    note = rig.linkbook.note(LinkChanged(Link(1, "late", up=True, multicast=True)))
    slices = rig.book.links(note.names, note.gone, {1})
    next(slices)
    rig.delete(keys[1])
    assert list(slices) == []
    assert rig.settle() == members(1, keys[:1])


def test_memberships_are_counted_by_family_and_interface() -> None:
    rig = Rig("a", "b")
    rig.put(key(Family.IPV4, "a"), key(Family.IPV4, "*", source_length=1), key(Family.IPV6, "b"))
    rig.settle()
    assert rig.book.held() == {(Family.IPV4, "a"): 3, (Family.IPV4, "b"): 2, (Family.IPV6, "b"): 1}
    rig.linkbook.note(LinksResync(()))
    assert rig.book.held() == {}


def test_an_error_is_told_with_words_that_help() -> None:
    rig = Rig("a")
    one = key(Family.IPV4)
    numbers = [errno.ENOBUFS, errno.EMFILE, errno.ENOMEM, errno.ENODEV]
    results = iter(numbers)
    rig.pool.refuses = lambda _: next(results)
    rig.put(one)
    problems: dict[int, Problem] = {}
    for number in numbers:
        rig.settle()
        found = rig.book.error_of(one)
        assert found is not None
        problems[number] = found
        rig.book.again([one])
    assert "net.ipv4.igmp_max_memberships" in problems[errno.ENOBUFS].message
    assert "LimitNOFILE" in problems[errno.EMFILE].message
    assert "optmem_max" in problems[errno.ENOMEM].message
    assert problems[errno.ENODEV].reason is Reason.NO_SUCH_INTERFACE
