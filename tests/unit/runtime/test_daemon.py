"""mcastd.runtime.daemon: what the keeper tells, and undoing a write."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mcast.v1 import types_pb2 as t
from mcastd.api import present
from mcastd.keeper.channel import Losses, UpcallRecord
from mcastd.model.address import Family, split_key
from mcastd.model.errors import McastdError, Reason
from mcastd.model.event import UpcallKind
from mcastd.model.route import Paths, Route
from mcastd.model.write import DeleteRoutes, PutRoutes, WriteOptions
from tests.api.rig import Rig, running
from tests.fakerouter import route
from tests.netns.routed import key_of

KEY = key_of(Family.IPV4, 1)
ALICE = WriteOptions("alice")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(Rig(tmp_path)) as one:
        yield one


def upcall(kind: UpcallKind = UpcallKind.NOCACHE, key: bytes = KEY) -> UpcallRecord:
    """An upcall for a key."""
    table, group, source = split_key(key)
    return UpcallRecord(table, Family.IPV4, int(kind), 0, group, source, 1.0)


async def test_an_entry_that_the_kernel_has_lost_is_put_back(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.daemon.write(PutRoutes(ALICE, [route(KEY, "up", "down1")]))
    del rig.kernel.tables[0, Family.IPV4].entries[KEY]
    rig.daemon.upcalls([upcall()])
    await rig.daemon.executor.quiet()
    assert rig.kernel.paths(KEY) == (1, {2: 1})
    assert "lacked an entry" in caplog.text


async def test_an_upcall_for_what_is_there_does_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.daemon.write(PutRoutes(ALICE, [route(KEY, "up", "down1")]))
    changes = rig.kernel.mfc_changes
    rig.daemon.upcalls([upcall(), upcall(UpcallKind.WRONGVIF)])
    await rig.daemon.executor.quiet()
    assert rig.kernel.mfc_changes == changes
    assert caplog.text == ""


async def test_a_packet_that_is_stuck_beside_a_new_entry_is_let_go(rig: Rig) -> None:
    """Only a new entry lets go of what waits (ipmr_mfc_add)."""
    await rig.daemon.write(PutRoutes(ALICE, [route(KEY, "up", "down1")]))
    made_at, changes = rig.daemon.engine.desired.routes[KEY].installed_at, rig.kernel.mfc_changes
    for late in (-1.0, 2.0):
        rig.daemon.upcalls([upcall()._replace(time=made_at + late)])
    assert rig.kernel.mfc_changes == changes
    rig.daemon.upcalls([upcall()._replace(time=made_at + 0.01)])
    assert rig.kernel.mfc_changes == changes + 2
    assert rig.kernel.paths(KEY) == (1, {2: 1})


async def test_what_no_route_wants_gets_a_stop_filter(rig: Rig) -> None:
    await rig.daemon.write(PutRoutes(ALICE, [route(KEY, "up", "down1")]))
    unknown = key_of(Family.IPV4, 2)
    rig.daemon.upcalls([upcall(key=unknown)])
    await rig.daemon.executor.quiet()
    assert rig.kernel.paths(unknown) == (1, {})
    assert await rig.daemon.flush({unknown, KEY}) == 1
    assert rig.kernel.paths(unknown) is None
    assert rig.kernel.paths(KEY) == (1, {2: 1})


async def test_upcalls_and_losses_are_counted(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.daemon.upcalls([upcall(), upcall(UpcallKind.WRONGVIF), upcall()])
    rig.daemon.losses(Losses(0, Family.IPV4, 3, 4))
    rig.daemon.losses(Losses(7, Family.IPV6, 1, 0))
    value = rig.daemon._metrics.registry.get_sample_value
    assert value("mcastd_upcalls_total", {"table": "0", "family": "ipv4", "kind": "nocache"}) == 2
    assert value("mcastd_upcalls_total", {"table": "0", "family": "ipv4", "kind": "wrongvif"}) == 1
    assert value("mcastd_upcall_queue_drops_total") == 8
    assert rig.daemon.upcalls_lost() == 4, "the kernel's; the keeper's are not the kernel's"
    assert caplog.text.count("upcalls were lost") == 2


async def test_vif_counters_of_what_is_not_there_are_none(rig: Rig) -> None:
    assert rig.daemon.vif_counters(0, False, 5) is None
    assert rig.daemon.vif_counters(99, False, 0) is None
    await rig.daemon.write(PutRoutes(ALICE, [route(KEY, "up", "down1")]))
    assert rig.daemon.vif_counters(0, False, 0) is not None
    assert rig.daemon.vif_counters(0, True, 0) is None


async def test_undo_puts_back_what_was(rig: Rig) -> None:
    other = key_of(Family.IPV4, 2)
    await rig.daemon.write(PutRoutes(ALICE, [route(KEY, "up", "down1", cookie="before")]))
    write = PutRoutes(ALICE, [route(KEY, "up", "down2"), route(other, "up", "down1"), route(KEY, "up")])
    outcome = await rig.daemon.write(write)
    await rig.daemon.undo(write, outcome)
    routes = rig.engine.desired.routes
    assert list(routes) == [KEY]
    assert routes[KEY].same_intent(route(KEY, "up", "down1", cookie="before"))
    assert rig.kernel.paths(KEY) == (1, {2: 1})
    assert rig.kernel.paths(other) is None


async def test_undo_puts_back_what_was_deleted(rig: Rig) -> None:
    await rig.daemon.write(PutRoutes(ALICE, [route(KEY, "up", "down1")]))
    write = DeleteRoutes(ALICE, [KEY, key_of(Family.IPV4, 9)])
    await rig.daemon.undo(write, await rig.daemon.write(write))
    assert list(rig.engine.desired.routes) == [KEY]
    assert rig.kernel.paths(KEY) == (1, {2: 1})


async def test_undo_leaves_what_was_refused_alone(rig: Rig) -> None:
    theirs = Route(KEY, Paths("up", ()), "bob")
    await rig.daemon.write(PutRoutes(WriteOptions("bob"), [theirs]))
    write = PutRoutes(ALICE, [route(KEY, "up", "down1")])
    outcome = await rig.daemon.write(write)
    revision = rig.engine.revision
    await rig.daemon.undo(write, outcome)
    assert rig.engine.revision == revision
    assert rig.engine.desired.routes[KEY].owner == "bob"


async def test_a_write_is_under_way_until_it_is_answered(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The making of a large answer takes its time: what can wait waits for it, too."""
    daemon, seen, make = rig.daemon, list[bool](), present.write_result

    async def observed(*arguments: Any, **options: Any) -> tuple[Any, int]:
        assert not daemon.writer.busy
        seen.append(daemon.busy())
        return await make(*arguments, **options)

    monkeypatch.setattr(present, "write_result", observed)
    assert not daemon.busy()
    await rig.put(t.Route(group="239.1.1.1", source="10.0.0.1", iif="up", oifs=[t.Oif(interface="down1")]))
    assert seen == [True]
    assert not daemon.busy()
    with pytest.raises(KeyError), daemon.writing():
        raise KeyError
    assert not daemon.busy()


async def test_what_is_asked_of_the_keeper_may_be_refused(rig: Rig) -> None:
    with pytest.raises(McastdError) as caught:
        await rig.daemon.executor._keeper.open_table(5)
    assert caught.value.reason is Reason.MROUTE_SOCKET_BUSY
    await rig.daemon.executor._keeper.set_vif_map(0, Family.IPV4, ((0, 1, "up"),))
    assert rig.keeper.maps[0, Family.IPV4] == ((0, 1, "up"),)


async def test_the_server_is_told_of_its_end_once_the_keeper_is(rig: Rig) -> None:
    rig.daemon.request_shutdown(keep_forwarding=False)
    assert rig.keeper.shutdown_requested
    assert rig.ended.is_set()


async def test_forwarding_is_kept_only_where_somebody_holds_it(rig: Rig) -> None:
    with pytest.raises(McastdError, match="FileDescriptorStoreMax") as caught:
        rig.daemon.request_shutdown(keep_forwarding=True)
    assert caught.value.reason is Reason.NOT_IMPLEMENTED
    assert not rig.ended.is_set()
    rig.daemon.forwarding_kept = True
    rig.daemon.request_shutdown(keep_forwarding=True)
    assert rig.ended.is_set()
