"""Socket activation: listening sockets that the service manager has made for the metrics, sd_listen_fds(3).

The keeper holds them, so that scrapers that come while there is no server wait instead of being refused; each server gets copies.
Nothing is ever accepted here.
"""

import fcntl
import os
import socket
import stat
from collections.abc import Mapping

FIRST_FD = 3
"""SD_LISTEN_FDS_START of sd-daemon.h."""

LISTENING_MAX = 8

COUNT_VARIABLE = "MCASTD_LISTENING"
"""Tells the server how many there are; they follow its end of the channel."""

_OUT_OF_THE_WAY = 64
"""Descriptors from here on are the target of none of a server's."""


def take_listening(environ: Mapping[str, str]) -> tuple[int, ...]:
    """TCP sockets that listen, of those that this process was started with, under other numbers; what else there is stays."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return ()
    taken: list[int] = []
    for fd in range(FIRST_FD, FIRST_FD + min(int(count), _OUT_OF_THE_WAY - FIRST_FD)):
        if len(taken) < LISTENING_MAX and _listens(fd):
            taken.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY))
            os.close(fd)
    return tuple(taken)


def _listens(fd: int) -> bool:
    """Whether it is a TCP socket that listens."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
    except OSError:
        return False
    sock = socket.socket(fileno=fd)
    try:
        return (
            sock.family in {socket.AF_INET, socket.AF_INET6}
            and sock.type == socket.SOCK_STREAM
            and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        )
    finally:
        sock.detach()
