"""mcastd.keeper.activation: of all that the service manager passes only TCP sockets that listen are taken."""

import fcntl
import json
import os
import socket
import subprocess
import sys

PROGRAM = """
import json, os, sys
from mcastd.keeper.activation import take_listening
pid = sys.argv[1] or str(os.getpid())
taken = take_listening({"LISTEN_PID": pid, "LISTEN_FDS": sys.argv[2]})
left = [fd for fd in range(3, 3 + 5) if "socket" in os.path.realpath(f"/proc/self/fd/{fd}")]
print(json.dumps([[fd >= 64 and not os.get_inheritable(fd) for fd in taken], left]))
"""


PLACE = """
import os, sys
for at, fd in enumerate(map(int, sys.argv[1].split()), 3):
    os.dup2(fd, at)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""Puts descriptors at 3 and on, and becomes the program."""


def run(sockets: list[socket.socket], count: str, pid: str = "") -> tuple[list[bool], list[int]]:
    """What a process does that finds these at 3 and on: whether each that it took is out of the way, and what is left."""
    high = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 100) for sock in sockets]
    done = subprocess.run(
        [sys.executable, "-c", PLACE, " ".join(map(str, high)), "-c", PROGRAM, pid, count],
        capture_output=True,
        text=True,
        check=True,
        pass_fds=high,
        timeout=30,
    )
    for fd in high:
        os.close(fd)
    taken, left = json.loads(done.stdout)
    return taken, left


def test_what_listens_is_taken_and_the_rest_left() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one,
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as six,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as silent,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as local,
    ):
        one.bind(("127.0.0.1", 0))
        one.listen()
        six.bind(("::1", 0))
        six.listen()
        assert run([one, silent, six, datagrams, local], "5") == ([True, True], [4, 6, 7])
        assert run([one, silent], "1") == ([True], [4])
        assert run([one], "x") == ([], [3])
        assert run([one], "1", pid="1") == ([], [3])


def test_nothing_is_nothing() -> None:
    assert run([], "3") == ([], [])
