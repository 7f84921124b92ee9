"""The action script: a process of its own runs it, so that the keeper never waits for the start of a program.

Starting a program suspends whoever does it until the new one is loaded, and that runs with ordinary priority: upcalls would wait
for it. The process is forked before the keeper has real-time priority or any socket of the kernel; it keeps
CAP_NET_ADMIN and CAP_NET_RAW alone, which the script gets, and ends when the keeper does.
"""

import contextlib
import logging
import os
import select
import signal
import socket
from typing import NoReturn

from mcastd.keeper.actionloop import ActionLoop
from mcastd.keeper.scheduling import be_ordinary
from mcastd.kernel import privileges

_END_SECONDS = 5.0
"""How long the process may take to end once the keeper has hung up: longer than it gives a script."""

_log = logging.getLogger(__name__)


class Actions:
    """The keeper's end of the process that runs the script; without one nothing is ever run."""

    def __init__(self) -> None:
        """Nothing is started."""
        self._sock: socket.socket | None = None
        self._pid = 0
        self._lost = 0

    def start(self, path: str) -> None:
        """Fork the process; before this one has threads, priority or sockets of the kernel."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        pid = os.fork()
        if pid == 0:
            _become_runner(theirs, path)
        theirs.close()
        self._sock, self._pid = ours, pid

    @property
    def handed(self) -> tuple[int, int] | None:
        """Pid and channel of the process, for the next image of this one; None = there is none."""
        return (self._pid, self._sock.fileno()) if self._sock is not None else None

    def adopt(self, pid: int, channel: int) -> None:
        """Take over the process from an earlier image of this one."""
        self._sock, self._pid = socket.socket(fileno=channel), pid
        self._sock.setblocking(False)

    def abandon(self) -> None:
        """Have the process end, which kills its script first, and don't wait for it."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def pids(self) -> set[int]:
        """The process, which is waited for at the end alone."""
        return {self._pid} if self._sock is not None else set()

    def run(self, body: bytes) -> None:
        """Have the script run with what a RUN_ACTION says, after those that wait; where too many do, it is left out."""
        if self._sock is None:
            return
        try:
            self._sock.send(body, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            self._lost += 1
            if self._lost == 1:
                _log.warning("actions come faster than they can be passed on: some are left out")
        except (BrokenPipeError, ConnectionResetError):
            _log.error("the process that runs the action script is gone: none is run any more", extra={"pid": self._pid})
            self.close()
        else:
            if self._lost:
                _log.warning("actions were left out", extra={"count": self._lost})
                self._lost = 0

    def close(self) -> None:
        """End the process, and the script that it runs."""
        if self._sock is None:
            return
        self._sock.close()
        self._sock = None
        pidfd = os.pidfd_open(self._pid)
        try:
            if not select.select([pidfd], [], [], _END_SECONDS)[0]:
                _log.warning("the process that runs the action script does not end: it is killed", extra={"pid": self._pid})
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        finally:
            os.close(pidfd)


def _become_runner(channel: socket.socket, path: str) -> NoReturn:
    """Be the process that runs the script, from the fork to the end."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # They are for the keeper, with which this process ends.
        be_ordinary()
        _close_all_but(channel.fileno())
        _reduce()
        ActionLoop(channel, path).run()
        code = 0
    finally:
        logging.shutdown()
        os._exit(code)  # Nothing of the keeper's is to be cleaned up from here.


def _close_all_but(kept: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2 and number != kept:
            with contextlib.suppress(OSError):  # the one that listdir itself had
                os.close(number)


def _reduce() -> None:
    """Keep what a script needs to follow routes with interfaces, addresses and packet filters, and hand it on."""
    now = privileges.current()
    keep = now.permitted & (privileges.CAP_NET_ADMIN | privileges.CAP_NET_RAW)
    # What is to be inheritable must be so while the bounding set has it (cap_capset, security/commoncap.c).
    privileges.set_capabilities(now.permitted, now.effective, keep)
    privileges.drop_bounding_set(keep)
    privileges.set_capabilities(keep, keep, keep)
    privileges.set_ambient(keep)
