"""mcastd.runtime.samples: rows found by key, and read as they are."""

import pytest

from mcastd.model.address import Family
from mcastd.model.route import Counters
from mcastd.runtime import samples
from mcastd.runtime.samples import KernelCounters, Sample, TableCounters
from tests.fakerouter import sg
from tests.unit.telemetry.counted import Count, dump_of


def table(counts: dict[bytes, Count], family: Family = Family.IPV4, number: int = 0) -> TableCounters:
    return TableCounters(number, dump_of(family, counts), 1000.0)


@pytest.mark.parametrize("family", Family)
async def test_counters_by_key(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "SLICE", 7)
    counts = {sg(n, family): Count(n, 10 * n, 2, idle=5.0) for n in range(100)}
    counts[sg(200, family)] = Count(unresolved=True)
    one = table(counts, family)
    await one.index()
    found = KernelCounters([one])
    assert found[sg(42, family)] == Counters(42, 420, 2, 995.0)
    assert found.get(sg(200, family)) is None
    assert found.get(sg(201, family), 7) == 7
    with pytest.raises(KeyError):
        found[sg(201, family)]
    assert len(found) == 100
    assert set(found) == {sg(n, family) for n in range(100)}
    assert dict(found.items()) == {sg(n, family): Counters(n, 10 * n, 2, 995.0) for n in range(100)}
    assert sg(1, family) in found
    assert sg(1, family, 5) not in found  # of another table


async def test_tables_and_families_are_apart() -> None:
    tables = [
        table({sg(1): Count(1)}),
        table({sg(1, Family.IPV6): Count(2)}, Family.IPV6),
        table({sg(1, table=5): Count(3)}, number=5),
    ]
    sample = Sample(tables, 1000.0, 5.0)
    await sample.index()
    found = KernelCounters(sample.tables)
    assert [found[key].packets for key in (sg(1), sg(1, Family.IPV6), sg(1, table=5))] == [1, 2, 3]
    assert sample.table(5, Family.IPV4) is tables[2]
    assert sample.table(6, Family.IPV4) is None
    assert sample.entries == 3


@pytest.mark.parametrize("first", [True, False])
async def test_an_entry_that_is_there_and_awaited_is_there(first: bool) -> None:
    """A dump may hold an (S,G) twice while its packets are being let go."""
    one = table({sg(1): Count(unresolved=True), sg(2): Count(5)})
    two = dump_of(Family.IPV4, {sg(2): Count(unresolved=True), sg(1): Count(6)})
    parts = [one._dump._records, two._records]
    one._dump._records = b"".join(parts if first else reversed(parts))
    both = TableCounters(0, one._dump, 1000.0)
    await both.index()
    found = KernelCounters([both])
    assert (found[sg(1)].packets, found[sg(2)].packets) == (6, 5)


async def test_nothing_is_found_without_an_index() -> None:
    one = table({sg(1): Count(1)})
    assert not one.indexed
    with pytest.raises(RuntimeError):
        one.row(sg(1))
    with pytest.raises(RuntimeError):
        one.keys()


async def test_somebody_elses_entries() -> None:
    counts = {sg(1): Count(), sg(2): Count(foreign=True), sg(3): Count(foreign=True), sg(4): Count(foreign=True, unresolved=True)}
    sample = Sample([table(counts)], 1000.0, 5.0)
    found = await sample.foreign({sg(3): None})
    assert [(entry.key, entry.foreign, entry.paths[0]) for entry in found] == [(sg(2), True, 1)]


def test_before_and_after() -> None:
    first, second, third = (Sample([], 1000.0 + n, 5.0 + n) for n in (0, 10, 30))
    assert (first.previous, first.interval) == (None, 0.0)
    later = third.after(second.after(first))
    assert later.interval == 20.0
    assert later.previous is not None
    assert later.previous.previous is None  # no chain
