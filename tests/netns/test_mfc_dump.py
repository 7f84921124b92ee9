"""mcastd.kernel.mfc_dump: the kernel's cache as it is."""

import socket

import pytest

from mcastd.kernel.mfc_dump import PROTOCOL_FOREIGN, PROTOCOL_OURS, dump
from mcastd.kernel.mroute import Mroute
from mcastd.kernel.rawsock import open_mroute
from mcastd.model.address import Family
from tests.netns.routed import Routed, forwarding, key_of
from tests.testbed import Testbed

pytestmark = pytest.mark.kernel


def test_entries_show_where_they_go_and_what_they_carried(routed: Routed) -> None:
    sender = routed.sender()
    receivers = [end.receiver(sender.group) for end in routed.star.receivers]
    key = routed.program(sender, 1, 2)
    sender.send(9)
    for receiver in receivers:
        receiver.wait(sender)

    with routed.router.entered():
        seen = dump(routed.family, 0)

    [entry] = seen
    assert (entry.key, entry.packets, entry.wrong_if, entry.protocol, entry.unresolved) == (key, 9, 0, PROTOCOL_OURS, 0)
    assert entry.octets >= 9 * 64
    assert 0 <= entry.idle < 10
    up, *down = (port.ifindex for port in (routed.star.uplink, *routed.star.downlinks))
    assert seen.paths_of(entry) == (up, tuple((ifindex, 1) for ifindex in sorted(down)))


def test_an_unresolved_entry_says_so(routed: Routed) -> None:
    sender = routed.sender()
    sender.send(1)

    with routed.router.entered():
        [entry] = dump(routed.family, 0)

    assert (entry.key, entry.unresolved) == (routed.key(sender), 1)
    assert entry.idle == -1


def test_an_entry_whose_vif_does_not_exist_has_no_iif(routed: Routed) -> None:
    key = key_of(routed.family, 1)
    assert routed.mroute.program([key], [routed.forward(1, parent=20)]) is None

    with routed.router.entered():
        seen = dump(routed.family, 0)

    assert seen.paths_of(seen.by_key[key]) == (0, ((routed.star.downlinks[0].ifindex, 1),))


def test_what_another_program_added_is_foreign(routed: Routed) -> None:
    ipv4 = routed.family is Family.IPV4
    second = routed.router.socket(
        socket.AF_INET if ipv4 else socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_IGMP if ipv4 else socket.IPPROTO_ICMPV6
    )
    theirs, ours = key_of(routed.family, 1), key_of(routed.family, 2)
    with second:
        assert Mroute(second, routed.family).program([theirs], [routed.forward(1)]) is None
    assert routed.mroute.program([ours], [routed.forward(1)]) is None

    with routed.router.entered():
        seen = dump(routed.family, 0)

    assert {entry.key: entry.protocol for entry in seen} == {theirs: PROTOCOL_FOREIGN, ours: PROTOCOL_OURS}


def test_one_table_or_all(testbed: Testbed, family: Family) -> None:
    with testbed.namespace().entered():
        for table in (0, 7, 300):
            sock = testbed.close_with(open_mroute(family, table))
            assert Mroute(sock, family, table).program([key_of(family, 1, table)], [forwarding(family, 0)]) is None

        assert set(dump(family).by_key) == {key_of(family, 1, table) for table in (0, 7, 300)}
        for table in (0, 7, 300):
            assert set(dump(family, table).by_key) == {key_of(family, 1, table)}
        assert len(dump(family, 8)) == 0


def test_ipv4_thresholds_are_shown(testbed: Testbed) -> None:
    routed = Routed(testbed, Family.IPV4)
    key = key_of(Family.IPV4, 1)
    assert routed.mroute.program([key], [forwarding(Family.IPV4, 0, 2, ttl=254)]) is None

    with routed.router.entered():
        seen = dump(Family.IPV4, 0)

    assert seen.paths_of(seen.by_key[key]).oifs == ((routed.star.downlinks[1].ifindex, 254),)


def test_a_namespace_without_multicast_routing_is_empty(testbed: Testbed, family: Family) -> None:
    with testbed.namespace().entered():
        assert len(dump(family)) == len(dump(family, 0)) == 0
