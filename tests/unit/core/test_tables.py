"""mcastd.core.tables: what the kernel is known to have, and the numbers that its entries name."""

from mcastd.core.tables import KernelTable
from mcastd.model.address import Family
from tests.fakerouter import sg


def test_entries_hold_the_numbers_they_name() -> None:
    kernel = KernelTable(0, Family.IPV4)
    vifs = kernel.vifs
    vifs.acquire(7, "eth0")
    vifs.added(0, 0)
    one, two = vifs.intern(b"one", 0b1), vifs.intern(b"two", 0b10)
    kernel.programmed(sg(1), one)
    kernel.programmed(sg(2), one)
    vifs.release(7, 0)
    assert (one.entries, vifs.to_delete()) == (2, [])
    kernel.programmed(sg(1), two)
    kernel.programmed(sg(2), one)
    assert (one.entries, two.entries, vifs.to_delete()) == (1, 1, [])
    kernel.deleted(sg(2))
    kernel.deleted(sg(2))
    assert (one.entries, vifs.to_delete(), kernel.actual) == (0, [0], {sg(1): two})


def test_a_doubted_entry_holds_its_numbers_until_it_is_written_again() -> None:
    kernel = KernelTable(0, Family.IPV4)
    kernel.vifs.acquire(7, "eth0")
    kernel.vifs.added(0, 0)
    one = kernel.vifs.intern(b"one", 0b1)
    kernel.programmed(sg(1), one)
    kernel.doubt(sg(1))
    kernel.vifs.release(7, 0)
    assert kernel.actual[sg(1)].packed != one.packed
    assert kernel.vifs.to_delete() == []
    kernel.deleted(sg(1))
    assert kernel.vifs.to_delete() == [0]
