"""mcastd.kernel.rawsock: table numbers, adoption of the wrong thing, and the words of refusals."""

import errno
import os
import socket

import pytest

from mcastd.kernel import rawsock
from mcastd.kernel.rawsock import adopt, canonical_table, kernel_table, open_mroute
from mcastd.model.address import Family
from mcastd.model.errors import KernelRefused, McastdError, Reason


def test_the_default_table_has_one_number() -> None:
    assert [canonical_table(Family.IPV4, table) for table in (0, 7, 253, 254)] == [0, 7, 0, 254]
    assert [canonical_table(Family.IPV6, table) for table in (0, 7, 253, 254)] == [0, 7, 253, 0]
    assert [kernel_table(family, table) for family in Family for table in (0, 7)] == [253, 7, 254, 7]


def test_what_is_no_multicast_routing_socket_is_not_adopted_and_stays_open() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        with pytest.raises(ValueError, match="no multicast routing socket"):
            adopt(other.fileno())
        other.bind(("127.0.0.1", 0))
    read, write = os.pipe()
    with pytest.raises(ValueError, match="no socket"):
        adopt(read)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize(
    "number, table, reason, words",
    [
        (errno.EADDRINUSE, 0, Reason.MROUTE_SOCKET_BUSY, "another multicast routing daemon holds table 0 .*mcastd\\)$"),
        (errno.EADDRINUSE, 7, Reason.MROUTE_SOCKET_BUSY, "another multicast routing daemon holds table 7 .*another table$"),
        (errno.EPERM, 0, Reason.NOT_ALLOWED, "CAP_NET_RAW"),
        (errno.EACCES, 7, Reason.NOT_ALLOWED, "CAP_NET_ADMIN"),
        (errno.ENOPROTOOPT, 0, Reason.KERNEL_ERROR, "CONFIG_IP.*_MROUTE"),
        (errno.ENOPROTOOPT, 7, Reason.KERNEL_ERROR, "MULTIPLE_TABLES"),
        (errno.EAFNOSUPPORT, 0, Reason.KERNEL_ERROR, "the kernel has no IPv. multicast routing"),
        (errno.ENOMEM, 0, Reason.KERNEL_ERROR, "Cannot allocate memory"),
    ],
)
def test_refusals_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, family: Family, number: int, table: int, reason: Reason, words: str
) -> None:
    made: list[socket.socket] = []

    def plain_socket(_: Family) -> socket.socket:
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        return made[-1]

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(rawsock, "_raw_socket", plain_socket)
    monkeypatch.setattr(rawsock, "_filter", lambda *_: None)
    monkeypatch.setattr(rawsock, "_set", refuse)
    with pytest.raises(McastdError, match=words) as refused:
        open_mroute(family, table)
    assert refused.value.reason is reason
    assert refused.value.problem.metadata["table"] == str(table)
    assert not isinstance(refused.value, KernelRefused) or refused.value.errno == number
    assert made[0].fileno() == -1


def test_a_kernel_without_pim_is_told_and_lived_with(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(number: int) -> None:
        def setter(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(rawsock, "_set", setter)
        with socket.socket() as sock:
            rawsock._ask_for_every_wrong_interface(sock, Family.IPV4)

    refuse(errno.ENOPROTOOPT)
    assert "reported for oifs only" in caplog.text
    with pytest.raises(OSError, match="Invalid"):
        refuse(errno.EINVAL)
