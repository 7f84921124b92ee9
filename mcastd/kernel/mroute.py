"""Programs one table of one family through its multicast routing socket, which it is given open and initialised."""

import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from mcastd.kernel._native import ffi, lib
from mcastd.model.address import KEY_SIZE_V4, KEY_SIZE_V6, Family
from mcastd.model.errors import KernelRefused
from mcastd.model.interface import VifCounters

BATCH_MAX = lib.MR_BATCH_MAX
"""Entries in one call: about 2 ms, in which the interpreter is free for others."""

_FORWARDING = lib.MR_FORWARDING

_FAMILIES = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


class Mroute:
    """VIFs and entries of one table. Needs no capability; may be called from any thread."""

    def __init__(self, sock: socket.socket, family: Family, table: int = 0) -> None:
        """Use `sock` (rawsock.open_mroute or adopt), which stays the caller's; ValueError if it is of another family."""
        if sock.family != _FAMILIES[family]:
            raise ValueError(f"a socket of family {sock.family!r} for IPv{family.value}")
        self.family = family
        self.table = table
        self._sock = sock
        ipv4 = family is Family.IPV4
        self._prefix = "MRT" if ipv4 else "MRT6"
        self._vif = "VIF" if ipv4 else "MIF"
        self._key_size = KEY_SIZE_V4 if ipv4 else KEY_SIZE_V6
        self._add_vif = lib.mr_add_vif4 if ipv4 else lib.mr_add_vif6
        self._del_vif = lib.mr_del_vif4 if ipv4 else lib.mr_del_vif6
        self._vif_counters = lib.mr_vif_counters4 if ipv4 else lib.mr_vif_counters6
        self._program = lib.mr_program4 if ipv4 else lib.mr_program6
        self._delete = lib.mr_delete4 if ipv4 else lib.mr_delete6
        self._counters = lib.mr_counters4 if ipv4 else lib.mr_counters6

    def close(self) -> None:
        """Close the socket; the kernel forgets the table with its last copy."""
        self._sock.close()

    def add_vif(self, vif: int, ifindex: int, threshold: int = 1) -> None:
        """Make an interface a VIF; `threshold` 1 to 255 is what the kernel shows of it, entries have their own.

        Raises KernelRefused: EADDRINUSE the number is taken, EADDRNOTAVAIL or ENODEV no such interface, ENFILE no such number,
        ERANGE an interface index that IPv6 cannot say (above 65535, struct mif6ctl).
        """
        number = self._add_vif(self._sock.fileno(), vif, ifindex, threshold)
        if number:
            call = f"{self._prefix}_ADD_{self._vif}"
            message = f"{call}: interface index {ifindex} as {self._vif} {vif} of table {self.table}: {os.strerror(number)}"
            raise KernelRefused(call, number, message, ifindex=ifindex, vif=vif, table=self.table)

    def del_vif(self, vif: int) -> None:
        """Remove a VIF; entries keep its bit. KernelRefused with EADDRNOTAVAIL: there is none (its link is gone, say)."""
        number = self._del_vif(self._sock.fileno(), vif)
        if number:
            call = f"{self._prefix}_DEL_{self._vif}"
            message = f"{call}: {self._vif} {vif} of table {self.table}: {os.strerror(number)}"
            raise KernelRefused(call, number, message, vif=vif, table=self.table)

    def vif_counters(self, vif: int) -> VifCounters | None:
        """What the VIF has carried; None if there is none of this number."""
        counters = ffi.new("uint64_t[4]")
        number = self._vif_counters(self._sock.fileno(), vif, counters)
        if number in {errno.EADDRNOTAVAIL, errno.EINVAL}:  # EINVAL: above the highest number in use (ipmr_ioctl)
            return None
        if number:
            call = "SIOCGETVIFCNT" if self.family is Family.IPV4 else "SIOCGETMIFCNT_IN6"
            raise KernelRefused(call, number, f"{call}: {self._vif} {vif} of table {self.table}: {os.strerror(number)}", vif=vif)
        in_packets, out_packets, in_bytes, out_bytes = counters
        return VifCounters(in_packets, out_packets, in_bytes, out_bytes)

    def program(self, keys: Sequence[bytes], forwardings: Sequence[bytes]) -> Sequence[int] | None:
        """Add or replace entries in place, in order; None = all done, else an errno for each (0 = done).

        `keys` are mcastd.model.address.exact_key of this family and table, `forwardings` mcastd.model.route.Forwarding.packed.
        ValueError beyond BATCH_MAX entries, or where a size is wrong: nothing is done then.
        """
        joined = self._join(keys)
        actions = b"".join(forwardings)
        if len(forwardings) != len(keys) or len(actions) != len(keys) * _FORWARDING:
            raise ValueError(f"{len(keys)} keys with {len(forwardings)} forwardings of {len(actions)} bytes in all")
        return self._batch(len(keys), lambda errnos: self._program(self._sock.fileno(), len(keys), joined, actions, errnos))

    def delete(self, keys: Sequence[bytes]) -> Sequence[int] | None:
        """Delete entries; None = all done, else an errno for each (0 = done, ENOENT = it was not there)."""
        joined = self._join(keys)
        return self._batch(len(keys), lambda errnos: self._delete(self._sock.fileno(), len(keys), joined, errnos))

    def counters(self, keys: Sequence[bytes]) -> list[tuple[int, int, int] | None]:
        """Packets, bytes and wrong_if of each entry; None where there is none (an unresolved one is none)."""
        joined = self._join(keys)
        values = ffi.new("uint64_t[]", 3 * len(keys))
        errnos = self._batch(len(keys), lambda errnos: self._counters(self._sock.fileno(), len(keys), joined, values, errnos))
        if errnos is None:
            errnos = [0] * len(keys)
        unexpected = next((number for number in errnos if number not in {0, errno.EADDRNOTAVAIL}), 0)
        if unexpected:
            call = "SIOCGETSGCNT" if self.family is Family.IPV4 else "SIOCGETSGCNT_IN6"
            raise KernelRefused(call, unexpected, f"{call} in table {self.table}: {os.strerror(unexpected)}", table=self.table)
        flat = list(values)
        triples = zip(flat[0::3], flat[1::3], flat[2::3], strict=True)
        return [None if number else triple for number, triple in zip(errnos, triples, strict=True)]

    def _join(self, keys: Sequence[bytes]) -> bytes:
        if len(keys) > BATCH_MAX:
            raise ValueError(f"{len(keys)} entries in one call, {BATCH_MAX} at most")
        joined = b"".join(keys)
        if len(joined) != len(keys) * self._key_size:
            raise ValueError(f"{len(keys)} keys of {len(joined)} bytes in all: IPv{self.family.value} keys have {self._key_size}")
        return joined

    @staticmethod
    def _batch(size: int, call: Callable[[Any], int]) -> list[int] | None:
        errnos = ffi.new("int32_t[]", size)
        return list(errnos) if call(errnos) else None
