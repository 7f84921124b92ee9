"""mcastd.kernel.router_discovery: the bytes of messages, and what is taken for a solicitation."""

import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.kernel import router_discovery as rd
from mcastd.model.address import Family, pack_address
from mcastd.model.router_discovery import Message

LINK_LOCAL, ROUTERS = pack_address("fe80::1"), pack_address("ff02::2")


def packet(body: bytes, *, destination: str = "224.0.0.2", options: bytes = bytes.fromhex("94040000")) -> bytes:
    length = 20 + len(options)
    header = bytes([0x40 | length // 4, 0xC0]) + (length + len(body)).to_bytes(2, "big") + bytes(4) + bytes([1, 2, 0, 0])
    return header + pack_address("10.0.0.9") + pack_address(destination) + options + body


@pytest.mark.parametrize(
    "family,message,interval,expected",
    [
        (Family.IPV4, Message.ADVERTISEMENT, 20, "3014cfeb00000000"),
        (Family.IPV4, Message.ADVERTISEMENT, 180, "30b4cf4b00000000"),
        (Family.IPV4, Message.SOLICITATION, 0, "3100ceff"),
        (Family.IPV4, Message.TERMINATION, 20, "3200cdff"),
        (Family.IPV6, Message.ADVERTISEMENT, 4, "9704000000000000"),
        (Family.IPV6, Message.SOLICITATION, 0, "98000000"),
        (Family.IPV6, Message.TERMINATION, 20, "99000000"),
    ],
)
def test_bytes(family: Family, message: Message, interval: int, expected: str) -> None:
    assert rd.build(family, message, interval).hex() == expected


@given(st.binary(max_size=64))
def test_checksum_is_that_of_the_rfc(data: bytes) -> None:
    """With its checksum in place, in an even position, a message has checksum 0."""
    even = data + bytes(len(data) % 2)
    assert rd.checksum(even + rd.checksum(even).to_bytes(2, "big")) == 0
    assert rd.checksum(data) == rd.checksum(even)


def test_solicitation_v4() -> None:
    body = rd.build(Family.IPV4, Message.SOLICITATION)
    assert rd.is_solicitation_v4(packet(body))
    assert rd.is_solicitation_v4(packet(body, options=b""))


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\x46",
        packet(b""),
        packet(rd.build(Family.IPV4, Message.SOLICITATION)[:3]),
        packet(rd.build(Family.IPV4, Message.ADVERTISEMENT, 20)),
        packet(bytes.fromhex("3100cefe")),
        packet(rd.build(Family.IPV4, Message.SOLICITATION), destination="224.0.0.106"),
        packet(rd.build(Family.IPV4, Message.SOLICITATION))[:-6],
    ],
)
def test_what_is_no_solicitation_v4(wrong: bytes) -> None:
    assert not rd.is_solicitation_v4(wrong)


def test_solicitation_v6() -> None:
    body = rd.build(Family.IPV6, Message.SOLICITATION)
    assert rd.is_solicitation_v6(body, LINK_LOCAL, ROUTERS)
    assert not rd.is_solicitation_v6(body[:3], LINK_LOCAL, ROUTERS)
    assert not rd.is_solicitation_v6(body, pack_address("2001:db8::1"), ROUTERS)
    assert not rd.is_solicitation_v6(body, LINK_LOCAL, pack_address("ff02::6a"))
    assert not rd.is_solicitation_v6(rd.build(Family.IPV6, Message.TERMINATION), LINK_LOCAL, ROUTERS)


@given(st.binary(max_size=80))
def test_any_bytes_are_judged(data: bytes) -> None:
    rd.is_solicitation_v4(data)
    rd.is_solicitation_v6(data, LINK_LOCAL, ROUTERS)


@pytest.mark.parametrize(
    "address,link_local", [("fe80::1", True), ("febf::1", True), ("fec0::1", False), ("fd00::1", False), ("::", False)]
)
def test_link_local(address: str, link_local: bool) -> None:
    assert rd.is_link_local(pack_address(address)) is link_local


class FakeSocket:
    """Refuses memberships by errno."""

    def __init__(self, number: int) -> None:
        self.number = number

    def setsockopt(self, *_: object) -> None:
        """Refuse."""
        if self.number:
            raise OSError(self.number, "refused")


@pytest.mark.parametrize("family", Family)
def test_memberships_by_what_the_kernel_says(family: Family) -> None:
    def control(number: int) -> rd.ControlSocket:
        made: Any = FakeSocket(number)
        return rd.ControlSocket(made, family)

    assert control(0).join(1) is True
    assert control(errno.EADDRINUSE).join(1) is True
    assert control(errno.ENOBUFS).join(1) is False
    assert control(errno.ENOMEM).join(1) is False
    assert control(0).leave(1) is True
    assert control(errno.EADDRNOTAVAIL).leave(1) is False
    for call in (control(errno.ENODEV).join, control(errno.EPERM).leave):
        with pytest.raises(OSError, match="refused"):
            call(1)


class Queue:
    """Gives packets as a raw socket does."""

    def __init__(self, *packets: tuple[Any, ...]) -> None:
        self._packets: Iterator[tuple[Any, ...]] = iter(packets)

    def recvmsg(self, *_: int) -> tuple[Any, ...]:
        """The next packet."""
        found = next(self._packets, None)
        if found is None:
            raise BlockingIOError
        return found


def test_receiving() -> None:
    v4, v6 = rd.build(Family.IPV4, Message.SOLICITATION), rd.build(Family.IPV6, Message.SOLICITATION)
    info4 = (socket.IPPROTO_IP, 8, (3).to_bytes(4, "little") + bytes(8))
    info6 = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, ROUTERS + (4).to_bytes(4, "little"))
    queue: Any = Queue(
        (packet(v4), [info4], 0, ("10.0.0.9", 0)), (packet(v4), [], 0, ("10.0.0.9", 0)), (b"", [info4], 0, ("10.0.0.9", 0))
    )
    assert rd.ControlSocket(queue, Family.IPV4).receive() == [3]
    queue = Queue(
        (v6, [info6], 0, ("fe80::1%eth0", 0, 0, 4)),
        (v6, [info6], 0, ("2001:db8::1", 0, 0, 0)),
        (v6, [info4], 0, ("fe80::1", 0, 0, 4)),
    )
    assert rd.ControlSocket(queue, Family.IPV6).receive() == [4]
