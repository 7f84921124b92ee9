"""Dumps the multicast forwarding cache with its counters: one netlink request, decoded by native/mfc_dump.c."""

import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

from mcastd.kernel._native import ffi, lib
from mcastd.kernel.rawsock import kernel_table
from mcastd.model.address import KEY_SIZE_V4, KEY_SIZE_V6, Family
from mcastd.model.errors import KernelRefused, McastdError, Reason

PROTOCOL_OURS: int = lib.RTPROT_MROUTED
"""rtm_protocol of an entry made through the socket that did MRT_INIT (17)."""

PROTOCOL_FOREIGN: int = lib.RTPROT_STATIC
"""rtm_protocol of an entry that somebody else added (4)."""

_ATTEMPTS = 5
_TIMEOUT = struct.pack("@ll", 10, 0)
"""struct timeval: the kernel answers at once; a dump that stops halfway must not hang a thread."""

_SOL_NETLINK = 270
_RECORD = {Family.IPV4: struct.Struct(f"=QQQdIBB{KEY_SIZE_V4}s"), Family.IPV6: struct.Struct(f"=QQQdIBB{KEY_SIZE_V6}s")}
_KEY = {Family.IPV4: struct.Struct(f"=38x{KEY_SIZE_V4}s"), Family.IPV6: struct.Struct(f"=38x{KEY_SIZE_V6}s")}
"""The key of a record alone; one octet each for the two fields before it (RECORD_FIXED of native/mfc_dump.c)."""
_PROTOCOL_AT, _UNRESOLVED_AT = 36, 37
_PATHS_HEAD = struct.Struct("=iI")
_PATHS_OIF = struct.Struct("=iI")

_sequence = itertools.count(1)


class MfcPaths(NamedTuple):
    """Where an entry comes from and goes to, by ifindex; a value to compare and to look up."""

    iif: int
    """0 = its VIF does not exist (any more), or the entry is unresolved."""
    oifs: tuple[tuple[int, int], ...]
    """(ifindex, TTL threshold), sorted by ifindex; IPv6 has threshold 1. VIFs that do not exist are not shown by the kernel."""


class MfcEntry(NamedTuple):
    """One entry of the kernel's cache."""

    packets: int
    octets: int
    """Bytes forwarded, or waiting for it."""
    wrong_if: int
    idle: float
    """Seconds since a packet used it or it was last programmed; -1 = the kernel does not say (it is unresolved)."""
    paths: int
    """Index into MfcDump.paths."""
    protocol: int
    """PROTOCOL_OURS or PROTOCOL_FOREIGN."""
    unresolved: int
    """1 = packets wait for an entry, and the daemon was asked for it."""
    key: bytes
    """mcastd.model.address.exact_key."""


MfcRow = tuple[int, int, int, float, int, int, int, bytes]
"""The fields of MfcEntry in their order."""


class MfcDump:
    """One dump: its entries as they were, 50 (IPv4) or 74 bytes each until they are walked."""

    def __init__(self, family: Family, records: bytes, paths: list[MfcPaths], *, interrupted: bool) -> None:
        """Made by `dump` and `decode`."""
        self.family = family
        self.paths = paths
        """The distinct paths, by the number that entries have: compare or translate each once, not once an entry."""
        self.interrupted = interrupted
        """The table changed while it was dumped, and the kernel says so: entries may be missing or twice."""
        self._records = records

    def __len__(self) -> int:
        return len(self._records) // _RECORD[self.family].size

    def __iter__(self) -> Iterator[MfcEntry]:
        return map(MfcEntry._make, self.rows())

    def rows(self, first: int = 0, last: int | None = None) -> Iterator[MfcRow]:
        """The entries as plain tuples with the fields of MfcEntry in their order: for loops over 100,000 of them.

        From number `first` to before `last`: for loops that let others run in between.
        """
        return _RECORD[self.family].iter_unpack(self._part(first, last))

    def keys(self, first: int = 0, last: int | None = None) -> Iterator[tuple[bytes]]:
        """Their keys alone, each in a tuple."""
        return _KEY[self.family].iter_unpack(self._part(first, last))

    def row(self, number: int) -> MfcRow:
        """One entry by its number."""
        record = _RECORD[self.family]
        row: MfcRow = record.unpack_from(self._records, number * record.size)
        return row

    def unresolved(self) -> list[int]:
        """Numbers of the unresolved entries; a few µs where there is none, however many others there are."""
        return self._with(_UNRESOLVED_AT, 1)

    def foreign(self) -> list[int]:
        """Numbers of the entries that somebody else has added; as cheap."""
        return self._with(_PROTOCOL_AT, PROTOCOL_FOREIGN)

    def _part(self, first: int, last: int | None) -> memoryview:
        size = _RECORD[self.family].size
        return memoryview(self._records)[first * size : None if last is None else last * size]

    def _with(self, offset: int, value: int) -> list[int]:
        """Numbers of the entries whose octet at an offset has a value; the search is C's."""
        octets, found = self._records[offset :: _RECORD[self.family].size], []
        at = octets.find(value)
        while at >= 0:
            found.append(at)
            at = octets.find(value, at + 1)
        return found

    @cached_property
    def by_key(self) -> dict[bytes, MfcEntry]:
        """The entries by key; of an (S,G) that is both resolved and not, the resolved one."""
        entries: dict[bytes, MfcEntry] = {}
        for entry in self:
            if not entry.unresolved or entry.key not in entries:
                entries[entry.key] = entry
        return entries

    def paths_of(self, entry: MfcEntry) -> MfcPaths:
        """The paths of an entry of this dump."""
        return self.paths[entry.paths]


def dump(family: Family, table: int | None = None) -> MfcDump:
    """Dump one table, or every table of the family in this network namespace (None). Blocks: for a thread.

    Needs no capability. A dump that the kernel calls interrupted is repeated, a few times. A table that does not exist is empty.
    Raises KernelRefused.
    """
    for _ in range(_ATTEMPTS - 1):
        result = _dump_once(family, table)
        if not result.interrupted:
            return result
    return _dump_once(family, table)


def decode(family: Family, buffers: list[bytes], sequence: int) -> tuple[MfcDump, bool]:
    """Decode received buffers; True = the dump is complete. Raises KernelRefused as `dump` does."""
    native = _new(family, sequence)
    for buffer in buffers:
        result = lib.mr_dump_feed(native, buffer, len(buffer))
        if result != lib.MR_MORE:
            _check(result, family, None)
            return take(native, family), True
    return take(native, family), False


def _dump_once(family: Family, table: int | None) -> MfcDump:
    number = 0 if table is None else kernel_table(family, table)
    native = _new(family, next(_sequence) & 0xFFFFFFFF)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        # The kernel filters by table, and refuses what it does not understand instead of ignoring it (Linux 4.20).
        sock.setsockopt(_SOL_NETLINK, lib.NETLINK_GET_STRICT_CHK, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
        sock.bind((0, 0))
        result = lib.mr_dump_request(native, sock.fileno(), number) or lib.mr_dump_run(native, sock.fileno())
    if not (number and result == errno.ENOENT):
        _check(result, family, table)
    return take(native, family)


def _new(family: Family, sequence: int) -> Any:
    native = lib.mr_dump_new(family is Family.IPV6, sequence)
    if native == ffi.NULL:
        raise MemoryError
    native = ffi.gc(native, lib.mr_dump_free)
    if lib.mr_dump_record_size(native) != _RECORD[family].size:
        raise RuntimeError("mcastd.kernel._native is of another version: rebuild it")
    return native


def take(native: Any, family: Family) -> MfcDump:
    """The entries that native/mfc_dump.c has decoded."""
    size = lib.mr_dump_count(native) * lib.mr_dump_record_size(native)
    records = bytes(ffi.buffer(lib.mr_dump_records(native), size)) if size else b""
    size = lib.mr_dump_paths_size(native)
    joined = bytes(ffi.buffer(lib.mr_dump_paths(native), size)) if size else b""
    return MfcDump(family, records, list(_each_paths(joined)), interrupted=bool(lib.mr_dump_interrupted(native)))


def _each_paths(joined: bytes) -> Iterator[MfcPaths]:
    at = 0
    while at < len(joined):
        iif, count = _PATHS_HEAD.unpack_from(joined, at)
        at += _PATHS_HEAD.size
        end = at + count * _PATHS_OIF.size
        yield MfcPaths(iif, tuple(_PATHS_OIF.iter_unpack(joined[at:end])))
        at = end


def _check(result: int, family: Family, table: int | None) -> None:
    if result == lib.MR_DONE:
        return
    what = f"dump of the IPv{family.value} multicast forwarding cache" + ("" if table is None else f", table {table}")
    if result > 0:
        raise KernelRefused("RTM_GETROUTE", result, f"{what}: {os.strerror(result)}", family=family.name)
    reason = "a message was larger than the buffer" if result == lib.MR_TRUNCATED else "a malformed message"
    raise McastdError(Reason.KERNEL_ERROR, f"{what}: {reason}", call="RTM_GETROUTE", family=family.name)
