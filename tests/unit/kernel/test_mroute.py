"""mcastd.kernel.mroute: what is refused before the kernel is asked, and what any other socket says."""

import errno
import socket
from collections.abc import Callable

import pytest

from mcastd.kernel.mroute import BATCH_MAX, Mroute
from mcastd.model.address import Family
from mcastd.model.errors import KernelRefused

KEY = bytes(12)
FORWARDING = bytes(34)


@pytest.fixture
def mroute() -> Mroute:
    """Over a socket that is no multicast routing socket: nothing can be changed by it."""
    return Mroute(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), Family.IPV4, 7)


@pytest.fixture(autouse=True)
def _close(mroute: Mroute) -> object:
    yield
    mroute._sock.close()


def test_the_socket_must_be_of_the_family(mroute: Mroute) -> None:
    with pytest.raises(ValueError, match="IPv6"):
        Mroute(mroute._sock, Family.IPV6)


def test_sizes_are_checked_before_anything_is_done(mroute: Mroute) -> None:
    for keys, forwardings in (
        ([KEY] * (BATCH_MAX + 1), [FORWARDING] * (BATCH_MAX + 1)),
        ([KEY, bytes(11)], [FORWARDING] * 2),
        ([bytes(36)], [FORWARDING]),
        ([KEY] * 2, [FORWARDING]),
        ([KEY], [FORWARDING * 2]),
        ([KEY, KEY], [FORWARDING + b"x", FORWARDING]),
    ):
        with pytest.raises(ValueError, match=r"keys|entries"):
            mroute.program(keys, forwardings)
    for keys in ([KEY] * (BATCH_MAX + 1), [bytes(36)]):
        with pytest.raises(ValueError, match=r"keys|entries"):
            mroute.delete(keys)
        with pytest.raises(ValueError, match=r"keys|entries"):
            mroute.counters(keys)


def test_nothing_to_do_is_done(mroute: Mroute) -> None:
    assert mroute.program([], []) is None
    assert mroute.delete([]) is None
    assert mroute.counters([]) == []


def test_every_entry_has_its_errno(mroute: Mroute) -> None:
    for result in (mroute.program([KEY] * 3, [FORWARDING] * 3), mroute.delete([KEY] * 3)):
        assert result is not None
        assert len(result) == 3
        assert 0 not in result
    with pytest.raises(KernelRefused, match="SIOCGETSGCNT in table 7"):
        mroute.counters([KEY])


def test_refusals_name_the_call_and_the_vif(mroute: Mroute) -> None:
    with pytest.raises(KernelRefused, match="MRT_ADD_VIF: interface index 4 as VIF 3 of table 7") as refused:
        mroute.add_vif(3, 4)
    assert refused.value.problem.metadata["call"] == "MRT_ADD_VIF"
    with pytest.raises(KernelRefused, match="MRT_DEL_VIF: VIF 3 of table 7"):
        mroute.del_vif(3)
    with pytest.raises(KernelRefused, match="SIOCGETVIFCNT"):
        mroute.vif_counters(3)
    refusals: list[tuple[Callable[[], object], int]] = [
        (lambda: mroute.add_vif(32, 4), errno.ENFILE),
        (lambda: mroute.add_vif(3, 4, threshold=256), errno.ERANGE),
        (lambda: mroute.add_vif(3, 1 << 31), errno.ERANGE),
        (lambda: mroute.del_vif(32), errno.ENFILE),
        (lambda: mroute.vif_counters(32), errno.ENFILE),
    ]
    for refuse, number in refusals:
        with pytest.raises(KernelRefused) as refused:
            refuse()
        assert refused.value.errno == number
