"""mcastd.core.tables: what the kernel is known to have, and the numbers that its entries name."""

import pytest

from mcastd.core.tables import KernelTable
from mcastd.model.address import Family
from mcastd.model.route import Forwarding
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


@pytest.mark.parametrize("numbers", [(1, 2, 3, 4), (1, 2, 1, 3), (5, 5, 5)])
def test_many_entries_are_taken_as_one_after_the_other(numbers: tuple[int, ...]) -> None:
    """In one go or one by one: the same entries, counts, foreign and touched keys."""

    def fresh() -> tuple[KernelTable, list[Forwarding]]:
        kernel = KernelTable(0, Family.IPV4)
        values = [kernel.vifs.intern(b"%d" % n, 1 << n) for n in range(3)]
        kernel.programmed(sg(1), values[0])
        kernel.programmed(sg(2), values[0])
        kernel.foreign = {sg(3), sg(9)}
        kernel.touched = set()
        return kernel, values

    keys = [sg(n) for n in numbers]
    one, values = fresh()
    for at, key in enumerate(keys):
        one.programmed(key, values[1 + at % 2])
    many, alike = fresh()
    many.programmed_all(keys, [alike[1 + at % 2] for at in range(len(keys))])
    assert {key: have.packed for key, have in many.actual.items()} == {key: have.packed for key, have in one.actual.items()}
    assert [value.entries for value in alike] == [value.entries for value in values]
    assert (many.foreign, many.touched) == (one.foreign, one.touched)
    assert many.vifs.forwardings.keys() == one.vifs.forwardings.keys()
