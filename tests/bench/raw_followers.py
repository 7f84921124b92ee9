"""Followers of all routes that cost next to nothing: one process reads the bytes of all their streams and looks at none.

    python -m tests.bench.raw_followers SOCKET COUNT

A connection each, as cheap as HTTP/2 lets a client be (RFC 9113): windows and frames as large as they may be, so there is
nothing to be said but that pings and settings have been seen. Writes "ready" when all have had their first message; when its
input ends it writes how many bytes they have read and the seconds of processor time that took, and ends. It is as nice as can be.
"""

import os
import resource
import selectors
import socket
import struct
import sys

from mcast.v1 import services_pb2 as sv

_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 4, 5
_WINDOW_MAX, _FRAME_MAX, _WINDOW_DEFAULT = (1 << 31) - 1, (1 << 24) - 1, 65_535
_HEAD = 9
"""Bytes of a frame's header."""

_BUFFER = memoryview(bytearray(1 << 20))


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _text(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _call(path: bytes, message: bytes) -> bytes:
    """All that a client has to say; the header fields by RFC 7541: two of its table, the others literal and not compressed."""
    settings = struct.pack(">HIHI", _INITIAL_WINDOW_SIZE, _WINDOW_MAX, _MAX_FRAME_SIZE, _FRAME_MAX)
    fields = b"\x83\x86" + b"\x04" + _text(path) + b"\x01" + _text(b"localhost")
    fields += b"\x00" + _text(b"te") + _text(b"trailers") + b"\x00" + _text(b"content-type") + _text(b"application/grpc")
    return b"".join((
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        _frame(_SETTINGS, 0, 0, settings),
        _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW_MAX - _WINDOW_DEFAULT)),
        _frame(_HEADERS, _END_HEADERS, 1, fields),
        _frame(_DATA, _END_STREAM, 1, struct.pack(">BI", 0, len(message)) + message),
    ))  # fmt: skip


class Follower:
    """One connection."""

    def __init__(self, path: str) -> None:
        """Call."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        request = sv.WatchRequest(kinds=[sv.KIND_ROUTE], changes_only=True)
        self.sock.sendall(_call(b"/mcast.v1.EventService/Watch", request.SerializeToString()))
        self.read = 0
        self.told = False
        """Whether anything of a message has come."""
        self._window = 0
        self._rest = b""
        self._skip = 0

    def take(self) -> None:
        """Read what is there; EOFError at the end."""
        count = self.sock.recv_into(_BUFFER)
        if not count:
            raise EOFError
        self.read += count
        self._window += count
        if self._window > _WINDOW_MAX // 2:
            more = struct.pack(">I", self._window)
            self.sock.sendall(_frame(_WINDOW_UPDATE, 0, 0, more) + _frame(_WINDOW_UPDATE, 0, 1, more))
            self._window = 0
        if count <= self._skip:
            self._skip -= count
            return
        data = self._rest + bytes(_BUFFER[self._skip : count])
        at = self._skip = 0
        while at + _HEAD <= len(data):
            length = int.from_bytes(data[at : at + 3], "big")
            kind, flags = data[at + 3], data[at + 4]
            if kind != _DATA and at + _HEAD + length > len(data):
                break
            self._frame(kind, flags, data[at + _HEAD : at + _HEAD + length] if kind != _DATA else b"")
            at += _HEAD + length
        self._rest, self._skip = data[at:], max(0, at - len(data))

    def _frame(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _DATA:
            self.told = True
        elif kind == _SETTINGS and not flags & _ACK:
            self.sock.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self.sock.sendall(_frame(_PING, _ACK, 0, body))
        elif kind == _GOAWAY:
            raise EOFError


def main() -> None:
    """Follow until the input ends."""
    os.nice(19)
    followers = [Follower(sys.argv[1]) for _ in range(int(sys.argv[2]))]
    chooser = selectors.DefaultSelector()
    for one in followers:
        chooser.register(one.sock, selectors.EVENT_READ, one)
    chooser.register(sys.stdin, selectors.EVENT_READ)
    waiting = True
    while True:
        for key, _ in chooser.select():
            if key.data is None:
                used = resource.getrusage(resource.RUSAGE_SELF)
                print(sum(one.read for one in followers), used.ru_utime + used.ru_stime, flush=True)  # noqa: T201
                return
            key.data.take()
        if waiting and all(one.told for one in followers):
            print("ready", flush=True)  # noqa: T201
            waiting = False


if __name__ == "__main__":
    main()
