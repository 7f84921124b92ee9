"""Reads upcalls, what the kernel reports through a multicast routing socket; the keeper's part of the adapter."""

import os
import socket
import struct
from typing import Any, NamedTuple

from mcastd.kernel._native import ffi, lib
from mcastd.model.address import Family
from mcastd.model.event import UpcallKind

__all__ = ["LIMIT_MAX", "Received", "Upcall", "UpcallKind", "decode", "receive"]

LIMIT_MAX = 4096
"""Packets in one call of `receive`."""

# MR_UPCALL bytes as native/upcall.c writes them: kind, VIF, group, source.
_RECORD = {Family.IPV4: struct.Struct("=BxH4s12x4s12x"), Family.IPV6: struct.Struct("=BxH16s16s")}
_RECORD_SIZE = lib.MR_UPCALL


class Upcall(NamedTuple):
    """One report of the kernel."""

    kind: UpcallKind
    vif: int
    """Where the packet came in."""
    group: bytes
    source: bytes


class Received(NamedTuple):
    """What one reading of a socket gave."""

    upcalls: list[Upcall]
    lost: int
    """Packets that the kernel had dropped at a full buffer when the last one read was queued, since the socket was made and
    modulo 2**32; 0 = nothing read says so. It never falls: keep the greatest. At most so many were upcalls: while the buffer is
    full, IGMP and ICMPv6 packets are counted too, since the kernel looks at the buffer before it asks the filter (measured)."""
    garbage: int
    """Packets that were no upcalls: the socket has no filter, or the kernel speaks another language."""


_KINDS = {kind.value: kind for kind in UpcallKind}


def decode(family: Family, packet: bytes) -> Upcall | None:
    """The upcall in the bytes of a packet as read from the socket; None if it is none."""
    record = ffi.new("uint8_t[]", _RECORD_SIZE)
    native = lib.mr_decode_upcall4 if family is Family.IPV4 else lib.mr_decode_upcall6
    if not native(packet, len(packet), record):
        return None
    kind, vif, group, source = _RECORD[family].unpack(ffi.buffer(record))
    return Upcall(_KINDS[kind], vif, group, source)


def receive(sock: socket.socket, limit: int = 256) -> Received:
    """Read at most `limit` packets that wait in the socket; less than `limit` in all means that it is empty.

    Raises OSError for what the kernel reports of the socket itself, ValueError for a limit outside 1 to LIMIT_MAX.
    """
    if not 1 <= limit <= LIMIT_MAX:
        raise ValueError(f"limit is {limit}, not 1 to {LIMIT_MAX}")
    ipv4 = sock.family == socket.AF_INET
    buffer = ffi.new("uint8_t[]", limit * _RECORD_SIZE)
    result: Any = ffi.new("mr_received *")
    number = (lib.mr_receive4 if ipv4 else lib.mr_receive6)(sock.fileno(), limit, buffer, result)
    if number and not result.upcalls:  # else what was read comes first; a socket that is broken says so again
        raise OSError(number, os.strerror(number))
    records = _RECORD[Family.IPV4 if ipv4 else Family.IPV6].iter_unpack(ffi.buffer(buffer, result.upcalls * _RECORD_SIZE))
    upcalls = [Upcall(_KINDS[kind], vif, group, source) for kind, vif, group, source in records]
    return Received(upcalls, result.lost, result.garbage)
