"""mcastd.runtime.drift: notifications are read, what they mean is put right, told once and counted; losses cost one dump."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from mcastd.kernel import mfc_dump
from mcastd.kernel.mfc_dump import MfcDump
from mcastd.kernel.notifications import MfcMonitor, Notices, decode
from mcastd.model.address import Family
from mcastd.model.errors import KernelRefused
from mcastd.model.write import PutRoutes, WriteOptions
from mcastd.runtime import drift
from mcastd.runtime.tasks import cancel, spawn
from tests.api.rig import Rig, running
from tests.api.waiting import until
from tests.fakerouter import route
from tests.netns.routed import forwarding
from tests.unit.kernel.test_mfc_dump import RTM_NEWROUTE, key, message
from tests.unit.kernel.test_mfc_dump import route as payload
from tests.unit.kernel.test_notifications import RTM_DELROUTE, RTM_NEWNETCONF

DEFAULT = 253
KEY = key(Family.IPV4, 0)
ALICE = WriteOptions("alice")
NOTHING = decode(Family.IPV4, [])._replace(more=False)


class FakeMonitor:
    """A monitor that tells what it is given."""

    def __init__(self, family: Family = Family.IPV4) -> None:
        self.family = family
        self.queue: deque[Notices] = deque()
        self.reads = 0
        self._fd = os.eventfd(0, os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Readable while anything is queued."""
        return self._fd

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def tell(self, *notices: Notices) -> None:
        """Queue these."""
        self.queue.extend(notices)
        os.eventfd_write(self._fd, 1)

    def read(self, _limit: int) -> Notices:
        """The next."""
        self.reads += 1
        if len(self.queue) <= 1:
            os.eventfd_write(self._fd, 1)
            os.eventfd_read(self._fd)
        return self.queue.popleft() if self.queue else NOTHING


@pytest.fixture
def monitor() -> Iterator[FakeMonitor]:
    made = FakeMonitor()
    yield made
    made.close()


@asynccontextmanager
async def following(rig: Rig, *monitors: FakeMonitor) -> AsyncIterator[None]:
    """Let the reconciler follow."""
    rig.daemon.reconciler.follow(cast("list[MfcMonitor]", monitors))
    task = spawn(rig.daemon.reconciler.run(), "drift")
    try:
        async with asyncio.timeout(30):
            yield
    finally:
        await cancel(task)


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """With one route in the kernel; the interfaces are there whatever this machine has."""
    monkeypatch.setattr(drift, "link_exists", lambda _ifindex: True)
    monkeypatch.setattr(drift, "vifs_of_interface", lambda _family, _name: None)
    async with running(Rig(tmp_path)) as one:
        await one.daemon.write(PutRoutes(ALICE, [route(KEY, "up", "down1")]))
        yield one


def told(*changes: tuple[int, int], more: bool = False, lost: bool = False) -> Notices:
    """Notifications of the entry: kind of message, and the ifindex of its one oif."""
    buffers = [message(kind, payload(Family.IPV4, table=DEFAULT, iif=1, oifs=[(oif, 1)], protocol=4)) for kind, oif in changes]
    return decode(Family.IPV4, buffers)._replace(more=more, lost=lost)


LOST = NOTHING._replace(lost=True, more=True)


def counted(rig: Rig, name: str, **labels: str) -> float | None:
    """A metric."""
    return rig.daemon._metrics.registry.get_sample_value(name, labels)


async def test_what_was_removed_comes_back_and_is_told_of(
    rig: Rig, monitor: FakeMonitor, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(rig, monitor):
        rig.kernel.del_mfc(KEY)
        monitor.tell(told((RTM_DELROUTE, 2)))
        await until(lambda: rig.kernel.paths(KEY) == (1, {2: 1}))
        await until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert record.getMessage() == "entries that were gone are put back"
    assert (vars(record)["entries"], vars(record)["family"]) == (1, "IPV4")
    assert "239.1.1.1" in vars(record)["example"]
    assert counted(rig, "mcastd_drift_repairs_total", kind="missing") == 1
    assert counted(rig, "mcastd_drift_routes", kind="missing") == 0


async def test_what_was_overwritten_is_put_right(rig: Rig, monitor: FakeMonitor, caplog: pytest.LogCaptureFixture) -> None:
    async with following(rig, monitor):
        rig.kernel.add_mfc(KEY, forwarding(Family.IPV4, 0), static=True)
        monitor.tell(told((RTM_NEWROUTE, 2), (RTM_NEWROUTE, 3), more=True), NOTHING)
        await until(lambda: rig.kernel.paths(KEY) == (1, {2: 1}))
        changes = rig.kernel.mfc_changes
        monitor.tell(told((RTM_NEWROUTE, 3), (RTM_NEWROUTE, 2)))
        await until(lambda: monitor.reads == 3)
        await asyncio.sleep(3 * drift.GATHER)
        assert rig.kernel.mfc_changes == changes, "the last word was what it should be"
    assert "somebody else changed" in caplog.text
    assert counted(rig, "mcastd_drift_repairs_total", kind="different") == 1


async def test_what_others_have_is_counted(rig: Rig, monitor: FakeMonitor) -> None:
    other = message(RTM_NEWROUTE, payload(Family.IPV4, table=DEFAULT, protocol=4))
    async with following(rig, monitor):
        kernel = rig.engine.tables[0, Family.IPV4]
        kernel.deleted(KEY)
        monitor.tell(decode(Family.IPV4, [other])._replace(more=False))
        await until(lambda: kernel.foreign == {KEY})
        assert counted(rig, "mcastd_drift_routes", kind="foreign") == 1


async def test_losses_cost_one_dump(
    rig: Rig, monitor: FakeMonitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dumps = []

    def dump(family: Family, table: int) -> MfcDump:
        dumps.append((table, family))
        return MfcDump(family, b"", [], interrupted=False)

    monkeypatch.setattr(mfc_dump, "dump", dump)
    async with following(rig, monitor):
        rig.kernel.del_mfc(KEY)
        monitor.tell(told((RTM_DELROUTE, 2), more=True, lost=True), *[LOST] * 20)
        await until(lambda: bool(dumps))
        await until(lambda: rig.kernel.paths(KEY) == (1, {2: 1}))
        await until(lambda: counted(rig, "mcastd_reconcile_duration_seconds_count") == 1)
        monitor.tell(LOST, LOST)
        rig.kernel.del_mfc(KEY)
        await until(lambda: rig.kernel.paths(KEY) == (1, {2: 1}))
        await until(lambda: counted(rig, "mcastd_reconcile_duration_seconds_count") == 2)
    assert dumps == [(0, Family.IPV4)] * 2
    assert counted(rig, "mcastd_drift_repairs_total", kind="missing") == 2


async def test_a_dump_that_cannot_be_had_is_told_of(
    rig: Rig, monitor: FakeMonitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def dump(_family: Family, _table: int) -> MfcDump:
        raise KernelRefused("RTM_GETROUTE", 12, "no memory")

    monkeypatch.setattr(mfc_dump, "dump", dump)
    async with following(rig, monitor):
        monitor.tell(LOST)
        await until(lambda: "can't be compared" in caplog.text)
        monkeypatch.undo()
        rig.kernel.del_mfc(KEY)
        monitor.tell(told((RTM_DELROUTE, 2)))
        await until(lambda: rig.kernel.paths(KEY) == (1, {2: 1}))
    assert rig.engine.tables[0, Family.IPV4].touched is None
    assert counted(rig, "mcastd_reconcile_duration_seconds_count") == 0


async def test_vifs_that_went_unheard_are_made_anew(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.daemon.reconciler.check_vifs()
    assert caplog.text == ""
    rig.kernel.tables[0, Family.IPV4].vifs[1] = None
    rig.daemon.reconciler.check_vifs()
    await rig.daemon.executor.quiet()
    assert rig.kernel.paths(KEY) == (1, {2: 1})
    assert "lost their VIFs" in caplog.text
    assert counted(rig, "mcastd_drift_repairs_total", kind="vif") == 1


async def test_vifs_are_looked_at_from_time_to_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "VERIFY_SECONDS", 0.02)
    async with following(rig):
        rig.kernel.tables[0, Family.IPV4].vifs[0] = None
        await until(lambda: rig.kernel.paths(KEY) == (1, {2: 1}))


async def test_a_vif_that_went_with_its_link_is_nobodys_doing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(drift, "link_exists", lambda ifindex: ifindex != 2)
    rig.kernel.tables[0, Family.IPV4].vifs[1] = None
    rig.daemon.reconciler.check_vifs()
    assert caplog.text == ""


async def test_a_number_that_is_another_interfaces_by_now(
    rig: Rig, monitor: FakeMonitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = rig.kernel.tables[0, Family.IPV4]
    kernel.vifs[1] = 4

    def there(family: Family, name: str) -> int:
        return sum(ifindex == rig.kernel.named(name).ifindex for ifindex in rig.kernel.tables[0, family].vifs)

    monkeypatch.setattr(drift, "vifs_of_interface", there)
    rig.daemon.reconciler.check_vifs()
    assert caplog.text == "", "it is looked at where the kernel says that something has changed"
    async with following(rig, monitor):
        monitor.tell(decode(Family.IPV4, [message(RTM_NEWNETCONF, bytes(4))])._replace(more=False))
        await until(lambda: rig.kernel.paths(KEY) == (1, {2: 1}))
    assert caplog.text.count("lost their VIFs") == 1
