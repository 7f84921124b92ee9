"""mcastd.kernel.mroute: batches of entries and VIFs, with packets that cross the kernel."""

import errno

import pytest

from mcastd.kernel.mfc_dump import dump
from mcastd.kernel.mroute import BATCH_MAX, Mroute
from mcastd.kernel.rawsock import adopt, open_mroute
from mcastd.kernel.upcall import UpcallKind, receive
from mcastd.model.address import Family
from mcastd.model.errors import KernelRefused, Reason
from tests.netns.routed import Routed, forwarding, group, key_of
from tests.testbed import Testbed

pytestmark = pytest.mark.kernel

MANY = 100_000


def test_a_programmed_batch_lets_packets_cross_where_it_says(routed: Routed) -> None:
    senders = [routed.sender(number) for number in (1, 2, 3)]
    first, second = (end.receiver(group(routed.family, 1)) for end in routed.star.receivers)
    third = routed.star.receivers[1].receiver(group(routed.family, 3))
    leaving = routed.star.downlinks[1].capture()
    oifs = [(1,), (1, 2), (2,)]
    assert routed.mroute.program([routed.key(s) for s in senders], [routed.forward(*vifs) for vifs in oifs]) is None

    for sender in senders:
        sender.send(20)

    first.wait(senders[0])
    third.wait(senders[2])  # sent last: had anything of the first gone this way, it would have come before
    leaving.wait(senders[2])
    assert second.count(senders[0]) == 0
    assert leaving.count(senders[0]) == 0
    assert leaving.count(senders[1]) == 20
    assert first.duplicates(senders[0]) == third.duplicates(senders[2]) == 0


def test_replacing_in_place_keeps_the_counters(routed: Routed) -> None:
    sender = routed.sender()
    first, second = (end.receiver(sender.group) for end in routed.star.receivers)
    key = routed.program(sender, 1)
    sender.send(10)
    first.wait(sender)

    routed.program(sender, 2)
    sender.send(5)

    second.wait(sender, 5)
    assert first.count(sender) == 10
    [counters] = routed.mroute.counters([key])
    assert counters is not None
    assert counters[0] == 15
    assert counters[2] == 0


def test_each_refused_entry_has_its_errno_and_the_others_are_done(routed: Routed) -> None:
    good, bad, other = (key_of(routed.family, number) for number in (1, 2, 3))
    size = 4 if routed.family is Family.IPV4 else 16
    bad = bad[:4] + bad[4 + size :] + bad[4 + size :]  # a group that is none

    assert routed.mroute.program([good, bad, other], [routed.forward(1)] * 3) == [0, errno.EINVAL, 0]
    assert routed.mroute.program([good], [routed.forward(1, parent=32)]) == [errno.ENFILE]
    with routed.router.entered():
        assert set(dump(routed.family, 0).by_key) == {good, other}
    assert routed.mroute.delete([good, bad, other]) == [0, errno.ENOENT, 0]
    assert routed.mroute.delete([good]) == [errno.ENOENT]
    assert routed.mroute.counters([good, other]) == [None, None]


def test_a_hundred_thousand_entries_are_in_the_kernels_own_dump(routed: Routed) -> None:
    keys = [key_of(routed.family, number) for number in range(1, MANY + 1)]
    actions = [routed.forward(1), routed.forward(1, 2), routed.forward()]
    for at in range(0, MANY, BATCH_MAX):
        batch = keys[at : at + BATCH_MAX]
        assert routed.mroute.program(batch, [actions[n % 3] for n in range(at, at + len(batch))]) is None

    with routed.router.entered():
        seen = dump(routed.family, 0)

    iif, *oifs = (port.ifindex for port in (routed.star.uplink, *routed.star.downlinks))
    ttls = [(index, 1) for index in oifs]
    wanted = {(iif, (ttls[0],)): 0, (iif, tuple(ttls)): 1, (iif, ()): 2}
    kinds = [wanted[paths] for paths in seen.paths]
    assert len(seen) == MANY
    assert not seen.interrupted
    assert {key: kinds[paths] for *_, paths, _protocol, _unresolved, key in seen.rows()} == {
        key: n % 3 for n, key in enumerate(keys)
    }

    for at in range(0, MANY, BATCH_MAX):
        assert routed.mroute.delete(keys[at : at + BATCH_MAX]) is None
    with routed.router.entered():
        assert len(dump(routed.family, 0)) == 0


def test_an_entry_keeps_the_bit_of_a_deleted_vif_so_a_number_used_again_leaks(routed: Routed) -> None:
    """The reason for the engine's quarantine of VIF numbers."""
    sender = routed.sender()
    first = routed.star.receivers[0].receiver(sender.group)
    key = routed.program(sender, 1, 2)
    routed.mroute.del_vif(2)
    with routed.router.entered():
        entry = dump(routed.family, 0)
        assert entry.paths_of(entry.by_key[key]).oifs == ((routed.star.downlinks[0].ifindex, 1),)  # the dump does not show it

    other, far = routed.bed.connect(routed.router, "other", routed.bed.namespace("other"), "eth0")
    routed.mroute.add_vif(2, other.ifindex)
    leaked = far.receiver(sender.group)
    sender.send(20)

    first.wait(sender)
    leaked.wait(sender)


def test_vifs_are_counted_and_refused_by_name(routed: Routed) -> None:
    sender = routed.sender()
    first = routed.star.receivers[0].receiver(sender.group)
    routed.program(sender, 1)
    sender.send(7)
    first.wait(sender)

    up, down, unused = (routed.mroute.vif_counters(vif) for vif in (0, 1, 2))
    assert up is not None
    assert down is not None
    assert unused is not None
    assert (up.in_packets, up.out_packets) == (7, 0)
    assert (down.in_packets, down.out_packets, down.out_bytes) == (0, 7, up.in_bytes)
    assert (unused.in_packets, unused.out_packets) == (0, 0)
    assert routed.mroute.vif_counters(3) is None
    routed.mroute.del_vif(1)
    assert routed.mroute.vif_counters(1) is None

    ifindex = routed.star.uplink.ifindex
    with pytest.raises(KernelRefused, match=f"interface index {ifindex} as (VIF|MIF) 2 of table 0") as refused:
        routed.mroute.add_vif(2, ifindex)
    assert refused.value.errno == errno.EADDRINUSE
    assert refused.value.reason is Reason.KERNEL_ERROR
    for vif, index, number in ((5, 60_000, {errno.EADDRNOTAVAIL, errno.ENODEV}), (32, ifindex, {errno.ENFILE})):
        with pytest.raises(KernelRefused) as refused:
            routed.mroute.add_vif(vif, index)
        assert refused.value.errno in number
    with pytest.raises(KernelRefused) as refused:
        routed.mroute.del_vif(9)
    assert refused.value.errno == errno.EADDRNOTAVAIL


def test_a_deleted_link_takes_its_vif_along(routed: Routed) -> None:
    routed.router.ip("link del dev down2")
    assert routed.mroute.vif_counters(2) is None
    assert routed.mroute.vif_counters(1) is not None


def test_an_interface_index_that_ipv6_cannot_say_is_refused_instead_of_cut(testbed: Testbed) -> None:
    router = testbed.namespace("router")
    router.ip("link add name a index 65538 type veth peer name b")
    for family in Family:
        with router.entered():
            mroute = Mroute(testbed.close_with(open_mroute(family)), family)
        if family is Family.IPV4:
            mroute.add_vif(0, 65538)
        else:
            with pytest.raises(KernelRefused) as refused:
                mroute.add_vif(0, 65538)
            assert refused.value.errno == errno.ERANGE


def test_a_duplicate_keeps_everything_when_the_first_socket_closes(routed: Routed) -> None:
    sender = routed.sender()
    first = routed.star.receivers[0].receiver(sender.group)
    key = routed.program(sender, 1)
    kept = routed.bed.close_with(adopt(routed.sock.dup().detach()))
    routed.sock.close()

    sender.send(20)

    first.wait(sender)
    with routed.router.entered():
        entry = dump(routed.family, 0).by_key[key]
    assert Mroute(kept, routed.family).counters([key]) == [(20, entry.octets, 0)]
    assert receive(kept).upcalls == []


@pytest.mark.parametrize("table", [100, 1000, 253, 254])
def test_tables_are_apart(testbed: Testbed, family: Family, table: int) -> None:
    router = testbed.namespace("router")
    default = 253 if family is Family.IPV4 else 254
    with router.entered():
        mroute = Mroute(testbed.close_with(open_mroute(family, table)), family, table)
        mroute.program([key_of(family, 1, table)], [forwarding(family, 0)])
        seen = dump(family, table)
        everything = dump(family)
    canonical = 0 if table == default else table
    assert list(seen.by_key) == list(everything.by_key) == [key_of(family, 1, canonical)]


def test_an_unknown_flow_is_reported_and_then_programmed(routed: Routed) -> None:
    sender = routed.sender()
    receiver = routed.star.receivers[1].receiver(sender.group)
    sender.send(3)
    [upcall] = receive(routed.sock).upcalls
    assert (upcall.kind, upcall.vif) == (UpcallKind.NOCACHE, 0)

    routed.program(sender, 2)

    receiver.wait(sender)  # the three that waited
