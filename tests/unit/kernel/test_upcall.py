"""mcastd.kernel.upcall: decoding of upcalls and of anything else."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastd.kernel._native import lib
from mcastd.kernel.upcall import LIMIT_MAX, Upcall, UpcallKind, decode, receive
from mcastd.model.address import Family, pack_address

GROUP = {Family.IPV4: pack_address("239.1.1.1"), Family.IPV6: pack_address("ff3e::1")}
SOURCE = {Family.IPV4: pack_address("10.0.0.1"), Family.IPV6: pack_address("fd00::1")}


def packet(family: Family, kind: int, vif: int, must_be_zero: int = 0) -> bytes:
    """As struct igmpmsg and struct mrt6msg have it."""
    if family is Family.IPV4:
        return struct.pack("=8xBBBB4s4s8x", kind, must_be_zero, vif & 0xFF, vif >> 8, SOURCE[family], GROUP[family])
    return struct.pack("=BBHI16s16s", must_be_zero, kind, vif, 0, SOURCE[family], GROUP[family])


def test_the_kinds_have_the_kernels_numbers() -> None:
    numbers = (lib.IGMPMSG_NOCACHE, lib.IGMPMSG_WRONGVIF, lib.IGMPMSG_WHOLEPKT, lib.IGMPMSG_WRVIFWHOLE)
    assert tuple(UpcallKind) == numbers


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("kind", UpcallKind)
def test_every_kind_is_decoded(family: Family, kind: UpcallKind) -> None:
    assert decode(family, packet(family, kind, 3)) == Upcall(kind, 3, GROUP[family], SOURCE[family])
    assert decode(family, packet(family, kind, 0x123)) == Upcall(kind, 0x123, GROUP[family], SOURCE[family])
    assert decode(family, packet(family, kind, 3) + bytes(1400)) is not None


@pytest.mark.parametrize("family", Family)
def test_what_is_no_upcall_is_none(family: Family) -> None:
    good = packet(family, 1, 0)
    size = 20 if family is Family.IPV4 else 40
    assert decode(family, good[: size - 1]) is None
    assert decode(family, good[:size]) is not None
    assert decode(family, b"") is None
    for kind in (0, 5, 255):
        assert decode(family, packet(family, kind, 0)) is None
    assert decode(family, packet(family, 1, 0, must_be_zero=2)) is None


@given(st.sampled_from(Family), st.binary(max_size=64))
def test_any_bytes_are_an_upcall_or_none(family: Family, data: bytes) -> None:
    upcall = decode(family, data)
    if upcall is not None:
        assert len(upcall.group) == len(upcall.source) == (4 if family is Family.IPV4 else 16)
        assert packet(family, upcall.kind, upcall.vif)[:1] == data[:1] or family is Family.IPV4


def test_reading_takes_upcalls_counts_garbage_and_ends_when_there_is_nothing() -> None:
    family = Family.IPV6  # any socket that is not IPv4 is read as IPv6: a pair serves for the kernel
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        for data in (packet(family, 1, 0), b"garbage", packet(family, 2, 4)):
            theirs.send(data)
        assert receive(ours) == (
            [
                Upcall(UpcallKind.NOCACHE, 0, GROUP[family], SOURCE[family]),
                Upcall(UpcallKind.WRONGVIF, 4, GROUP[family], SOURCE[family]),
            ],
            0,
            1,
        )
        assert receive(ours) == ([], 0, 0)
        for limit in (0, -1, LIMIT_MAX + 1):
            with pytest.raises(ValueError, match="limit"):
                receive(ours, limit)
    with pytest.raises(OSError, match="Bad file descriptor"):
        receive(ours)
