"""mcastd.kernel.rawsock: opening, refusals and adoption in the real kernel."""

import socket

import pytest

from mcastd.kernel import privileges
from mcastd.kernel.rawsock import adopt, family_of_socket, open_mroute
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from tests.testbed import Testbed

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("table", [0, 7])
def test_a_table_that_somebody_holds_is_busy_until_the_last_duplicate_closes(
    testbed: Testbed, family: Family, table: int
) -> None:
    with testbed.namespace().entered():
        first = open_mroute(family, table)
        duplicate = first.dup()
        first.close()
        with pytest.raises(
            McastdError, match=f"another multicast routing daemon holds table {table} of IPv{family.value}"
        ) as refused:
            open_mroute(family, table)
        duplicate.close()
        open_mroute(family, table).close()
    assert refused.value.reason is Reason.MROUTE_SOCKET_BUSY


@pytest.mark.parametrize("table, capability", [(0, "CAP_NET_RAW"), (7, "CAP_NET_ADMIN")])
def test_a_missing_capability_is_named(testbed: Testbed, family: Family, table: int, capability: str) -> None:
    keep = privileges.CAP_NET_RAW if table else 0

    def attempt() -> Reason:
        privileges.set_capabilities(keep, keep)  # of this thread alone, which ends with the call
        with pytest.raises(McastdError, match=capability) as refused:
            open_mroute(family, table)
        return refused.value.reason

    assert testbed.namespace().run(attempt) is Reason.NOT_ALLOWED


def test_without_net_admin_the_buffer_is_what_the_system_allows(testbed: Testbed, family: Family) -> None:
    def attempt() -> int:
        privileges.set_capabilities(privileges.CAP_NET_RAW, privileges.CAP_NET_RAW)
        with open_mroute(family) as sock:
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    assert testbed.namespace().run(attempt) > 256 << 10


def test_an_adopted_socket_is_the_same_one(testbed: Testbed, family: Family) -> None:
    with testbed.namespace().entered():
        first = open_mroute(family)
    adopted = adopt(first.detach())
    assert family_of_socket(adopted) is family
    assert not adopted.getblocking()
    adopted.close()
