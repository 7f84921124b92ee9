"""The file format in which the keeper's state outlives it: a memfd that holds a header and a log of records.

The file is only ever appended to; what is older than a snapshot is punched out of it, so positions grow and a record never moves.
So a process that is killed at any moment leaves a log that can be read: at worst its last record is torn, and nobody needs that.
Knows nothing of what the records mean.
"""

import mmap
import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

FORMAT = 1
"""Version of the format and of the records' meaning, and of what is handed over with it (keeper/reexec.py): code of another one
refuses it."""

RECORD_MAX = 65_536
"""Bytes of one record's body: any message of the channel fits."""

_MAGIC = b"mcastd\0s"
_HEADER = struct.Struct("!8sIQI")
"""Magic, format, position of the first record; a checksum of these. Written by one call, and well within a page."""
_RECORD = struct.Struct("!BII")
"""Kind, length of the body, checksum of both and the body."""
_FIRST = 64


class UnreadableState(Exception):  # noqa: N818 - the name says what is wrong
    """What is stored can't be used: it is damaged, of a newer version, or no state at all."""


class Record(NamedTuple):
    """One entry of the log."""

    kind: int
    body: bytes


class StateLog:
    """One log; it owns the descriptor."""

    def __init__(self, fd: int, start: int, end: int) -> None:
        """Use `create` or `adopt`."""
        self.fd = fd
        self._start = start
        self._end = end

    @classmethod
    def create(cls) -> "StateLog":
        """Make an empty one; OSError if there is no memory for it."""
        fd = os.memfd_create("mcastd-state", os.MFD_CLOEXEC)
        log = cls(fd, _FIRST, _FIRST)
        try:
            log._write_header(FORMAT)
        except OSError:
            os.close(fd)
            raise
        return log

    @classmethod
    def adopt(cls, fd: int) -> "StateLog":
        """Take over one that another process has made; UnreadableState if it can't be used, the descriptor is the caller's then.

        A torn record at its end is cut off.
        """
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise UnreadableState("it is no file")
            head = os.pread(fd, _HEADER.size, 0)
        except OSError as exc:
            raise UnreadableState(f"it can't be read: {exc.strerror}") from exc
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            raise UnreadableState("it has no header")
        _, version, start, checksum = _HEADER.unpack(head)
        if checksum != crc32(head[:-4]):
            raise UnreadableState("its header is damaged")
        if version != FORMAT:
            raise UnreadableState(f"it is of version {version}, this program knows version {FORMAT}")
        log = cls(fd, start, start)
        for at, record in log._read(found.st_size):
            log._end = at + _RECORD.size + len(record.body)
        os.ftruncate(fd, log._end)
        return log

    @property
    def size(self) -> int:
        """Bytes of records."""
        return self._end - self._start

    @property
    def end(self) -> int:
        """Position after the last record: what `begin_at` takes once a snapshot from here on is whole."""
        return self._end

    def append(self, kind: int, body: bytes) -> None:
        """Add a record; OSError if there is no memory for it, the log is as before then."""
        if len(body) > RECORD_MAX:
            msg = f"a record of {len(body)} bytes"
            raise ValueError(msg)
        start = _RECORD.pack(kind, len(body), 0)[:5]
        data = _RECORD.pack(kind, len(body), crc32(body, crc32(start))) + body
        done = os.pwrite(self.fd, data, self._end)
        while done < len(data):
            done += os.pwrite(self.fd, data[done:], self._end + done)
        self._end += len(data)

    def records(self) -> Iterator[Record]:
        """All of them, oldest first; UnreadableState at one that is damaged."""
        for _, record in self._read(self._end):
            yield record

    def begin_at(self, position: int) -> None:
        """Forget what is before a position, which `end` was; OSError if that can't be, all is as before then."""
        before, self._start = self._start, position
        try:
            self._write_header(FORMAT)
        except OSError:
            self._start = before
            raise
        first, last = (-(-at // mmap.PAGESIZE) * mmap.PAGESIZE for at in (before, position - mmap.PAGESIZE + 1))
        if first < last:
            with mmap.mmap(self.fd, last - first, offset=first) as gone:
                gone.madvise(mmap.MADV_REMOVE)

    def spoil(self) -> None:
        """Have nobody believe it any more."""
        self._write_header(0)

    def close(self) -> None:
        """Close our descriptor; others may keep the log."""
        os.close(self.fd)

    def _write_header(self, version: int) -> None:
        head = _HEADER.pack(_MAGIC, version, self._start, 0)[:-4]
        os.pwrite(self.fd, head + crc32(head).to_bytes(4, "big"), 0)

    def _read(self, size: int) -> Iterator[tuple[int, Record]]:
        at = self._start
        while at + _RECORD.size <= size:
            head = os.pread(self.fd, _RECORD.size, at)
            kind, length, checksum = _RECORD.unpack(head)
            if length > RECORD_MAX:
                raise UnreadableState(f"the record at {at} is damaged")
            if at + _RECORD.size + length > size:
                return  # Torn: whoever wrote it was killed, and has told nobody of it.
            body = os.pread(self.fd, length, at + _RECORD.size)
            if checksum != crc32(body, crc32(head[:5])):
                raise UnreadableState(f"the record at {at} is damaged")
            yield at, Record(kind, body)
            at += _RECORD.size + length
