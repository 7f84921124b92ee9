"""mcastd.kernel.joins: memberships in the real kernel, its limits, and sockets that were left to a successor."""

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from mcastd.kernel.joins import HeldSocket, JoinPool, Keeping
from mcastd.model.address import Family, address_text, pack_address
from mcastd.model.join import Membership
from tests.descriptors import open_descriptors
from tests.netns.memberships import FilterTable, group_table, source_table
from tests.testbed import Testbed
from tests.testbed.namespace import Namespace

pytestmark = pytest.mark.kernel


class Attic:
    """A holder in memory: it has a duplicate of every socket, as the keeper has."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, int]] = {}
        self.refuse = 0
        self.stores = 0

    def store(self, keepings: list[Keeping]) -> list[int]:
        """Keep duplicates, or refuse."""
        self.stores += 1
        if self.refuse:
            return [self.refuse] * len(keepings)
        for name, note, fd in keepings:
            self.kept[name] = (note, os.dup(fd) if fd is not None else self.kept[name][1])
        return [0] * len(keepings)

    def drop(self, names: list[str]) -> None:
        """Close duplicates."""
        for name in names:
            os.close(self.kept.pop(name)[1])

    def held(self) -> list[HeldSocket]:
        """What a successor gets."""
        return [HeldSocket(name, note, socket.socket(fileno=os.dup(fd))) for name, (note, fd) in self.kept.items()]


class Bench:
    """A pool in a namespace with two interfaces."""

    def __init__(self, bed: Testbed, family: Family) -> None:
        self.family = family
        self.namespace: Namespace = bed.namespace()
        self.namespace.sysctl("net/ipv4/igmp_max_memberships", "20")  # the default, which the testbed raises
        self.link("one", 41)
        self.link("two", 42)
        self.attic = Attic()
        self.pools: list[JoinPool] = []
        self.pool = self.another()

    def link(self, name: str, ifindex: int) -> None:
        """Make an interface."""
        self.namespace.ip(
            f"link add name {name} index {ifindex} type veth peer name p{name}", f"link set {name} up", f"link set p{name} up"
        )

    def another(self, **options: int) -> JoinPool:
        """A successor's pool."""
        self.pools.append(JoinPool(self.attic, **options))
        return self.pools[-1]

    def group(self, number: int) -> bytes:
        """A group by number."""
        text = f"239.1.{number >> 8}.{number & 255}" if self.family is Family.IPV4 else f"ff15::1:{number:x}"
        return pack_address(text)

    def source(self, number: int) -> bytes:
        """A source by number, from 1."""
        text = f"10.9.{number >> 8}.{number & 255}" if self.family is Family.IPV4 else f"fd09::{number:x}"
        return pack_address(text)

    def asm(self, *numbers: int, ifindex: int = 41) -> list[Membership]:
        """Any-source memberships."""
        return [Membership(ifindex, self.group(number), b"") for number in numbers]

    def ssm(self, group: int, *sources: int, ifindex: int = 41) -> list[Membership]:
        """Source-specific memberships of one group."""
        return [Membership(ifindex, self.group(group), self.source(number)) for number in sources]

    def adopt(self) -> set[Membership]:
        """Go on with a successor's pool."""
        self.pool = self.another()
        with self.namespace.entered():
            return self.pool.adopt(self.attic.held())

    def join(self, *wanted: Membership) -> list[int]:
        """Join in the namespace."""
        with self.namespace.entered():
            return self.pool.join(wanted)

    def groups(self, interface: str = "one") -> set[bytes]:
        """Groups that the interface has joined for us, as the kernel lists them."""
        return {group for group in group_table(self.namespace, self.family, interface) if group[:2] in {b"\xef\x01", b"\xff\x15"}}

    def filters(self) -> FilterTable:
        """Sources that are joined, by interface and group, as the kernel lists them."""
        return source_table(self.namespace, self.family)


@pytest.fixture
def bench(testbed: Testbed, family: Family) -> Iterator[Bench]:
    made = Bench(testbed, family)
    yield made
    for pool in made.pools:
        pool.close()
    made.attic.drop(list(made.attic.kept))


def test_any_source_and_source_specific_memberships_are_the_kernels(bench: Bench) -> None:
    assert bench.join(*bench.asm(1, 2), *bench.ssm(3, 1, 2), *bench.asm(1, ifindex=42)) == [0] * 5
    assert bench.groups() == {bench.group(number) for number in (1, 2, 3)}
    assert bench.groups("two") == {bench.group(1)}
    assert bench.filters() == {("one", bench.group(3)): {bench.source(1), bench.source(2)}}
    assert bench.pool.leave(bench.ssm(3, 1)) == [0]
    assert bench.filters() == {("one", bench.group(3)): {bench.source(2)}}
    assert bench.pool.leave([*bench.ssm(3, 2), *bench.asm(1, 2)]) == [0] * 3
    assert bench.groups() == set()
    assert bench.groups("two") == {bench.group(1)}


def test_a_group_may_be_joined_whole_and_by_source_independently(bench: Bench) -> None:
    both = [*bench.asm(7), *bench.ssm(7, 1)]
    assert bench.join(*both) == [0, 0]
    assert bench.pool.sockets == 2
    assert set(bench.pool.memberships) == set(both)
    assert bench.adopt() == set(both)
    assert bench.pool.leave(bench.asm(7)) == [0]
    assert bench.filters() == {("one", bench.group(7)): {bench.source(1)}}
    assert bench.groups() == {bench.group(7)}


def test_what_is_joined_or_left_already_is_no_error(bench: Bench) -> None:
    assert bench.join(*bench.asm(1), *bench.asm(1)) == [0, 0]
    assert bench.join(*bench.asm(1)) == [0]
    assert bench.pool.leave(bench.asm(1, 2)) == [0, 0]
    assert (bench.pool.sockets, bench.attic.kept) == (0, {})


def test_thousands_of_groups_are_spread_over_sockets(bench: Bench) -> None:
    wanted = bench.asm(*range(1500)) + [one for number in range(1500, 2000) for one in bench.ssm(number, 1)]
    assert bench.join(*wanted) == [0] * 2000
    assert len(bench.groups()) == 2000
    assert len(bench.filters()) == 500
    assert bench.pool.sockets <= 110
    assert bench.adopt() == set(wanted)
    assert bench.pool.leave(wanted) == [0] * 2000
    assert (bench.groups("one"), bench.attic.kept) == (set(), {})


def test_many_sources_of_one_group_are_spread_over_sockets(bench: Bench) -> None:
    wanted = bench.ssm(1, *range(1, 301))
    assert bench.join(*wanted) == [0] * 300
    assert len(bench.filters()["one", bench.group(1)]) == 300
    assert bench.pool.sockets == (30 if bench.family is Family.IPV4 else 5)
    assert bench.pool.leave(wanted[:5]) == [0] * 5
    assert bench.join(*bench.ssm(1, *range(1, 6))) == [0] * 5
    assert bench.pool.sockets == (30 if bench.family is Family.IPV4 else 5), "a socket has room once something has left it"


def test_limits_are_found_and_used_as_they_are_now(bench: Bench) -> None:
    if bench.family is Family.IPV6:
        pytest.skip("a socket of IPv6 has no limit that a namespace could set")
    bench.namespace.sysctl("net/ipv4/igmp_max_memberships", "3")
    assert bench.join(*bench.asm(*range(10))) == [0] * 10
    assert bench.pool.sockets == 4
    bench.namespace.sysctl("net/ipv4/igmp_max_memberships", "1000")
    with bench.namespace.entered():
        for number in range(10, 610, 100):
            assert bench.pool.join(bench.asm(*range(number, number + 100))) == [0] * 100
    assert bench.pool.sockets < 30, "a raised limit is used: by the old one they were 203"


def test_source_limits_are_found_and_used_as_they_are_now(bench: Bench) -> None:
    if bench.family is Family.IPV6:
        pytest.skip("mld_max_msf is the same for all namespaces")
    bench.namespace.sysctl("net/ipv4/igmp_max_msf", "2")
    assert bench.join(*bench.ssm(1, *range(1, 8))) == [0] * 7
    assert bench.pool.sockets == 4
    bench.namespace.sysctl("net/ipv4/igmp_max_msf", "64")
    assert bench.pool.leave(bench.ssm(1, 1)) == [0]
    assert bench.join(*bench.ssm(1, 1, *range(8, 20))) == [0] * 13
    assert bench.pool.sockets <= 6, "a raised limit is used: by the old one they were 10"
    assert len(bench.filters()["one", bench.group(1)]) == 19


def test_no_more_sockets_than_allowed_and_full_ones_are_tried_again_first(bench: Bench) -> None:
    if bench.family is Family.IPV6:
        pytest.skip("a socket of IPv6 has no limit that a namespace could set")
    bench.pool = bench.another(sockets_max=2)
    assert bench.join(*bench.asm(*range(42))) == [0] * 40 + [errno.EMFILE] * 2
    bench.namespace.sysctl("net/ipv4/igmp_max_memberships", "21")
    assert bench.join(*bench.asm(40, 41)) == [0, 0]
    assert bench.pool.sockets == 2


def test_an_interface_that_is_not_there_is_said_and_leaves_nothing(bench: Bench) -> None:
    before = open_descriptors()
    assert bench.join(*bench.asm(1, ifindex=99), *bench.ssm(2, 1, ifindex=99)) == [errno.ENODEV] * 2
    assert (bench.pool.sockets, bench.attic.kept, open_descriptors()) == (0, {}, before)


def test_what_an_interface_had_can_be_left_after_it_has_gone(bench: Bench) -> None:
    wanted = [*bench.asm(1, 2), *bench.ssm(3, 1, 2, 3), *bench.asm(4, ifindex=42)]
    assert bench.join(*wanted) == [0] * 6
    bench.namespace.ip("link del one")
    bench.link("one", 41)
    assert bench.groups() == set()
    assert bench.pool.leave(wanted[:5]) == [0] * 5
    assert bench.join(*wanted[:5]) == [0] * 5
    assert bench.groups() == {bench.group(number) for number in (1, 2, 3)}
    bench.namespace.ip("link del one")
    assert bench.pool.leave(wanted[:5]) == [0] * 5
    assert set(bench.pool.memberships) == set(bench.asm(4, ifindex=42))


def test_a_successor_finds_what_is_joined_and_nothing_that_was_only_noted(bench: Bench) -> None:
    wanted = [*bench.asm(1), *bench.ssm(2, *range(1, 90)), *bench.asm(3, ifindex=42)]
    assert bench.join(*wanted) == [0] * 91
    note, fd = bench.attic.kept["join-1"]
    extra = " ".join(f"29/{bench.group(number).hex()}" for number in (70, 71))
    bench.attic.kept["join-1"] = (f"{note} {extra}", fd)
    bench.pool.close()
    assert bench.adopt() == set(wanted)
    assert bench.pool.leave(wanted[:-1]) == [0] * 90
    assert bench.groups() == set()
    assert bench.join(*bench.asm(*range(100, 110))) == [0] * 10
    assert len(bench.groups()) == 10
    assert bench.adopt() == {*bench.asm(3, ifindex=42), *bench.asm(*range(100, 110))}


def test_what_is_gone_with_its_interface_is_not_adopted(bench: Bench) -> None:
    assert bench.join(*bench.asm(1), *bench.asm(1, ifindex=42)) == [0, 0]
    bench.namespace.ip("link del one")
    bench.link("one", 41)
    assert bench.adopt() == set(bench.asm(1, ifindex=42))


@pytest.mark.parametrize(
    "name, note", [("table-1", ""), ("join-x", ""), ("join-9", "nonsense"), ("join-9", "29/ef"), ("join-9", "")]
)
def test_a_socket_that_is_none_of_ours_is_given_back(bench: Bench, name: str, note: str) -> None:
    with bench.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        bench.attic.store([Keeping(name, note, other.fileno())])
    before = open_descriptors()
    assert bench.adopt() == set()
    assert bench.attic.kept == {}
    assert open_descriptors() == before - 1


def test_nothing_is_joined_that_the_holder_has_not_noted(bench: Bench) -> None:
    bench.attic.refuse = errno.EMFILE
    assert bench.join(*bench.asm(1, 2)) == [errno.EMFILE] * 2
    assert (bench.groups(), bench.pool.sockets) == (set(), 0)
    bench.attic.refuse = 0
    assert bench.join(*bench.asm(1, 2)) == [0, 0]
    bench.attic.refuse = errno.ESHUTDOWN
    assert bench.join(*bench.asm(3), *bench.ssm(4, 1)) == [errno.ESHUTDOWN] * 2
    assert bench.groups() == {bench.group(1), bench.group(2)}


def test_a_batch_costs_few_questions_to_the_holder(bench: Bench) -> None:
    assert bench.join(*bench.asm(*range(256))) == [0] * 256
    assert bench.attic.stores == 1
    assert bench.join(*bench.ssm(500, 1)) == [0]
    stores = bench.attic.stores
    assert bench.join(*bench.ssm(500, 2, 3)) == [0, 0]
    assert bench.attic.stores == stores, "a source of a group that is noted need not be"


def test_received_data_is_never_queued(bench: Bench, testbed: Testbed) -> None:
    """Also where the socket were bound: nothing binds it, but whoever holds a copy could."""
    a, b = testbed.namespace("a"), testbed.namespace("b")
    near, far = testbed.connect(a, "left", b, "right")
    membership = Membership(far.ifindex, bench.group(1), b"")
    pool = bench.another()
    with b.entered():
        assert pool.join([membership]) == [0]
    ((_, fd),) = bench.attic.kept.values()
    copy = socket.socket(fileno=os.dup(fd))
    with copy:
        copy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        copy.bind(("", 5000))
        copy.setblocking(False)
        receiver = far.receiver(address_text(bench.group(1)))
        sender = near.sender(address_text(bench.group(1)))
        sender.send(5)
        receiver.wait(sender, 5)
        with pytest.raises(BlockingIOError):
            copy.recv(1)
