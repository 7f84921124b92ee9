"""mcastd.kernel.notifications: what the kernel tells of changes, and what its filter keeps away."""

import socket
from collections.abc import Iterator

import pytest

from mcastd.kernel import notifications
from mcastd.kernel.mfc_dump import MfcPaths, dump
from mcastd.kernel.mroute import Mroute
from mcastd.kernel.notifications import REMOVED, MfcMonitor, Notices, vifs_of_interface
from mcastd.model.address import Family
from tests.netns.routed import Routed, key_of

pytestmark = pytest.mark.kernel

OVERFLOW = 3000


@pytest.fixture
def monitor(routed: Routed) -> Iterator[MfcMonitor]:
    """Hears of what happens in the router from now on."""
    with routed.router.entered():
        made = MfcMonitor(routed.family)
    yield made
    made.close()


@pytest.fixture
def other(routed: Routed) -> Mroute:
    """A second socket: somebody else's."""
    ipv4 = routed.family is Family.IPV4
    kind = (socket.AF_INET, socket.IPPROTO_IGMP) if ipv4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    return Mroute(routed.bed.close_with(routed.router.socket(kind[0], socket.SOCK_RAW, kind[1])), routed.family)


def told(notices: Notices) -> list[tuple[bytes, int, MfcPaths]]:
    """Key, whether it was removed, and paths of each change."""
    return [(entry.key, entry.unresolved, notices.entries.paths_of(entry)) for entry in notices.entries]


def check_nothing(notices: Notices) -> None:
    """See that nothing was told."""
    assert (len(notices.entries), notices.vifs, notices.more, notices.lost) == (0, False, False, False)


def test_ours_are_not_told_unless_we_remove_them(routed: Routed, monitor: MfcMonitor) -> None:
    keys = [key_of(routed.family, n) for n in range(1, 4)]
    up, down = routed.star.uplink.ifindex, routed.star.downlinks[0].ifindex
    for vif in (1, 2, 1):
        assert routed.mroute.program(keys, [routed.forward(vif)] * 3) is None
    check_nothing(monitor.read(100))
    assert routed.mroute.delete(keys[:2]) is None
    notices = monitor.read(100)
    assert told(notices) == [(key, REMOVED, MfcPaths(up, ((down, 1),))) for key in keys[:2]]
    assert (notices.removals, notices.vifs, notices.more, notices.lost) == (True, False, False, False)


def test_what_others_do_is_told(routed: Routed, monitor: MfcMonitor, other: Mroute) -> None:
    ours, theirs = key_of(routed.family, 1), key_of(routed.family, 2)
    up, *down = (port.ifindex for port in (routed.star.uplink, *routed.star.downlinks))
    assert routed.mroute.program([ours], [routed.forward(1)]) is None
    assert other.program([theirs, ours], [routed.forward(1, 2), routed.forward(2)]) is None
    assert other.delete([ours]) is None
    notices = monitor.read(100)
    assert told(notices) == [
        (theirs, 0, MfcPaths(up, tuple(sorted((one, 1) for one in down)))),
        (ours, 0, MfcPaths(up, ((down[1], 1),))),
        (ours, REMOVED, MfcPaths(up, ((down[1], 1),))),
    ]
    assert not notices.removals


def test_what_somebody_has_overwritten_stays_his_in_the_kernels_eyes(routed: Routed, monitor: MfcMonitor, other: Mroute) -> None:
    """So what we write there is told of as well."""
    key = key_of(routed.family, 1)
    assert routed.mroute.program([key], [routed.forward(1)]) is None
    assert other.program([key], [routed.forward(2)]) is None
    assert routed.mroute.program([key], [routed.forward(1)]) is None
    assert [entry.protocol for entry in monitor.read(100).entries] == [4, 4]


def test_packets_that_wait_are_not_told(routed: Routed, monitor: MfcMonitor) -> None:
    sender = routed.sender()
    sender.send(1)
    assert len(routed.router.run(lambda: dump(routed.family, 0))) == 1
    check_nothing(monitor.read(100))


def test_vifs_that_come_and_go_are_told(routed: Routed, monitor: MfcMonitor, other: Mroute) -> None:
    port = routed.star.downlinks[0]

    def count() -> int | None:
        return routed.router.run(lambda: vifs_of_interface(routed.family, port.name))

    assert count() == 1
    other.del_vif(1)
    assert monitor.read(100).vifs
    assert count() == 0
    other.add_vif(1, port.ifindex)
    assert monitor.read(100).vifs
    assert count() == 1


def test_a_loss_is_told_and_what_follows_is_heard(routed: Routed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "RECEIVE_BUFFER", 1 << 16)
    with routed.router.entered():
        monitor = MfcMonitor(routed.family)
    try:
        keys = [key_of(routed.family, n) for n in range(1, OVERFLOW + 1)]
        for at in range(0, OVERFLOW, 1000):
            part = keys[at : at + 1000]
            assert routed.mroute.program(part, [routed.forward(1)] * len(part)) is None
            assert routed.mroute.delete(part) is None
        lost, seen = False, 0
        while (notices := monitor.read(50)).more:
            lost = lost or notices.lost
            seen += len(notices.entries)
        assert lost
        assert 0 < seen < OVERFLOW
        assert routed.mroute.program(keys[:1], [routed.forward(1)]) is None
        assert routed.mroute.delete(keys[:1]) is None
        assert [(key, removed) for key, removed, _ in told(monitor.read(50))] == [(keys[0], REMOVED)]
    finally:
        monitor.close()


def test_as_many_as_asked_for(routed: Routed, monitor: MfcMonitor) -> None:
    keys = [key_of(routed.family, n) for n in range(1, 201)]
    assert routed.mroute.program(keys, [routed.forward(1)] * len(keys)) is None
    assert routed.mroute.delete(keys) is None
    sizes = []
    while (notices := monitor.read(70)).more:
        sizes.append(len(notices.entries))
    assert [*sizes, len(notices.entries)] == [70, 70, 60]
