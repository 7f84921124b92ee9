"""mcastd.core.shapes: the kernel's form of an entry, and resolution on its own; its life in a router is in test_engine_links."""

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.core.shapes import Shape, World, interest, pack_forwarding, resolve
from mcastd.core.tables import KernelTable
from mcastd.model.address import Family
from mcastd.model.errors import Reason
from mcastd.model.interface import Link
from mcastd.model.route import RouteState
from tests.fakekernel import NO_OIF, unpack
from tests.fakerouter import paths

numbers = st.integers(0, 31)


@given(st.sampled_from(Family), numbers, st.dictionaries(numbers, st.integers(1, 254)))
def test_the_kernels_form(family: Family, parent: int, ttls: dict[int, int]) -> None:
    packed, bits = pack_forwarding(family, parent, ttls)
    known = {n: ttl for n, ttl in enumerate(unpack(family, packed)[1]) if ttl != NO_OIF}
    assert (unpack(family, packed)[0], len(packed)) == (parent, 34)
    assert known == (ttls if family is Family.IPV4 else dict.fromkeys(ttls, 1))
    assert bits == sum(1 << n for n in {parent, *ttls})


def test_the_bytes_are_in_the_machines_order() -> None:
    assert pack_forwarding(Family.IPV6, 1, {9: 1})[0] == struct.pack("=H8I", 1, 1 << 9, *[0] * 7)
    assert pack_forwarding(Family.IPV4, 258 % 32, {0: 7})[0] == (2).to_bytes(2, sys.byteorder) + b"\7" + b"\xff" * 31


def test_what_paths_are_interested_in() -> None:
    assert interest(paths("eth0", "eth1", "vlan*", "!vlan1", "!lan*")) == (frozenset({"eth0", "eth1"}), ("vlan*",))


@pytest.fixture
def world() -> World:
    world = World()
    for ifindex, name in enumerate(("eth0", "eth1", "eth2"), 1):
        world.by_index[ifindex] = world.by_name[name] = Link(ifindex, name, up=True, multicast=True)
    return world


def test_nothing_is_taken_in_a_table_that_is_not_open(world: World) -> None:
    kernel = KernelTable(0, Family.IPV4)
    shape = Shape(kernel, paths("eth0", "eth1"))
    assert resolve(shape, world) is False
    assert (shape.state, shape.forwarding, shape.held, kernel.vifs.used) == (RouteState.PENDING, None, {}, 0)


def test_resolving_again_changes_nothing(world: World) -> None:
    kernel = KernelTable(0, Family.IPV4)
    kernel.opened = True
    shape = Shape(kernel, paths("eth0", "eth1", "eth*"))
    assert resolve(shape, world) is True
    assert shape.revision == -1
    shape.revision = 5
    before = shape.forwarding, dict(shape.held)
    assert resolve(shape, world) is False
    assert (shape.revision, shape.forwarding, shape.held) == (5, *before)
    assert {slot.users for slot in kernel.vifs.slots if slot is not None} == {1}


def test_the_first_problem_is_told(world: World) -> None:
    kernel = KernelTable(0, Family.IPV4)
    kernel.opened = True
    shape = Shape(kernel, paths("eth0", "eth8", "eth9"))
    resolve(shape, world)
    assert shape.missing == ("eth8", "eth9")
    assert shape.problem is not None
    assert (shape.problem.reason, shape.problem.metadata) == (Reason.NO_SUCH_INTERFACE, {"interface": "eth8"})
