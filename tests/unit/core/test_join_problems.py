"""mcastd.core.join_problems: what an errno means, and what to do."""

import errno

import pytest

from mcastd.core.join_problems import is_refusal, no_such_interface, not_capable, refused, too_many
from mcastd.model.address import Family, pack_address
from mcastd.model.errors import Reason
from mcastd.model.join import JoinKey, Membership

GROUPS = {Family.IPV4: pack_address("239.1.1.1"), Family.IPV6: pack_address("ff3e::1")}
SOURCES = {Family.IPV4: pack_address("10.0.0.1"), Family.IPV6: pack_address("fd00::1")}


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("source", [False, True])
@pytest.mark.parametrize(
    "number,reason,words",
    [
        (errno.ENOBUFS, None, "join less"),
        (errno.ENOMEM, Reason.MEMBERSHIP_LIMIT, "net.core.optmem_max"),
        (errno.EMFILE, Reason.MEMBERSHIP_LIMIT, "LimitNOFILE"),
        (errno.ENODEV, Reason.NO_SUCH_INTERFACE, "tried again"),
        (errno.EPERM, Reason.KERNEL_ERROR, "Operation not permitted"),
    ],
)
def test_a_refused_join(family: Family, source: bool, number: int, reason: Reason | None, words: str) -> None:
    member = Membership(1, GROUPS[family], SOURCES[family] if source else b"")
    problem = refused(member, "eth0", number)
    expected = reason or (Reason.SOURCE_FILTER_LIMIT if source else Reason.MEMBERSHIP_LIMIT)
    assert problem.reason is expected
    assert words in problem.message
    assert "on eth0" in problem.message
    assert problem.metadata["errno"] == str(number)
    assert problem.metadata["call"] == ("MCAST_JOIN_SOURCE_GROUP" if source else "MCAST_JOIN_GROUP")
    assert problem.metadata["interface"] == "eth0"


@pytest.mark.parametrize(
    "family,source,sysctl",
    [
        (Family.IPV4, False, "net.ipv4.igmp_max_memberships"),
        (Family.IPV4, True, "net.ipv4.igmp_max_msf"),
        (Family.IPV6, True, "net.ipv6.mld_max_msf"),
    ],
)
def test_the_limit_is_named(family: Family, source: bool, sysctl: str) -> None:
    member = Membership(1, GROUPS[family], SOURCES[family] if source else b"")
    assert sysctl in refused(member, "eth0", errno.ENOBUFS).message


def test_a_refused_leave() -> None:
    problem = refused(Membership(1, GROUPS[Family.IPV4], b""), "eth0", errno.EIO, leaving=True)
    assert problem.reason is Reason.KERNEL_ERROR
    assert "left" in problem.message
    assert problem.metadata["call"] == "MCAST_LEAVE_GROUP"


def test_what_waits_is_no_refusal() -> None:
    assert not is_refusal(None)
    assert not is_refusal(no_such_interface("eth0"))
    assert not is_refusal(not_capable("lo"))
    assert is_refusal(too_many(JoinKey("alice", "eth0", GROUPS[Family.IPV4], 24, b"", 0), 100))
    assert "256" in too_many(JoinKey("alice", "eth0", GROUPS[Family.IPV4], 24, b"", 0), 100).message
