"""One run of the server process: started with posix_spawn, watched through a pidfd, ended by signals."""

import contextlib
import logging
import os
import signal
import site
import socket
import sys
from collections.abc import Mapping

import mcastd
from mcastd.keeper.activation import COUNT_VARIABLE
from mcastd.keeper.channel import CHANNEL_FD, EX_PROTOCOL, Channel
from mcastd.keeper.ending import Ending
from mcastd.keeper.scheduling import ordinary

SERVER_COMMAND = (sys.executable, "-P", "-s", "-m", "mcastd.runtime.server")
"""-P: the working directory is no place for modules; -s: nor is a home directory."""

_KEPT = frozenset({"PATH", "LANG", "LANGUAGE", "TZ", "TERM", "NO_COLOR", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY"})
_KEPT_PREFIXES = ("LC_", "PYTHON", "GRPC_", "COVERAGE_", "COV_CORE_")

_log = logging.getLogger(__name__)


def server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What of the keeper's environment the server gets: nothing that it does not need."""
    kept = {name: value for name, value in environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    kept["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    root = os.path.dirname(os.path.dirname(mcastd.__file__))
    if root not in site.getsitepackages():  # run from a source tree: there too the server is the keeper's own
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH")]))
    return kept


class Server:
    """A server as the keeper's loop sees it, whoever has started it."""

    pidfd: int | None = None
    """Readable when it has ended; None = it is not our child, and the end of the channel is its end."""

    def __init__(self, channel: Channel, pid: int, now: float) -> None:
        """Speak to it on this channel, which becomes its own."""
        self.channel: Channel | None = channel
        self.pid = pid
        self.started_at = now
        self.ready = False
        self.events = 0
        """What the keeper's selector waits for on the channel; 0 = it is not registered."""
        self.ending: Ending | None = None
        self.seat = 1
        """Tells apart those that run at once; it goes into the names of what they make."""
        self.handing_over = False
        """Whether it was asked to leave everything to the next one."""

    def next_step_at(self) -> float | None:
        """When the next signal is due, if it was asked to end."""
        return self.ending.next_at() if self.ending is not None else None

    def kill(self, number: signal.Signals) -> None:
        """Send a signal, or do what comes next to it."""
        raise NotImplementedError

    def close_channel(self) -> None:
        """Close our end of the channel."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def wait(self) -> int:
        """Take its exit status once it has ended: the exit code, or minus the signal."""
        raise NotImplementedError


class ServerProcess(Server):
    """A server that was started and not yet waited for."""

    pidfd: int

    def __init__(self, command: tuple[str, ...], now: float, listening: tuple[int, ...] = ()) -> None:
        """Start it; it finds its end of the channel at CHANNEL_FD, and has no other descriptor but the standard ones.

        But for sockets that listen (keeper/activation.py), which follow the channel.

        It gets a session of its own: a Ctrl-C in the terminal is the keeper's to handle.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            pid = os.posix_spawn(
                command[0],
                command,
                server_environment(os.environ) | ({COUNT_VARIABLE: str(len(listening))} if listening else {}),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), CHANNEL_FD),
                    *((os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate(listening, CHANNEL_FD + 1)),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP),
                **ordinary(),
            )
        super().__init__(Channel(ours), pid, now)
        self.pidfd = os.pidfd_open(pid)

    def kill(self, number: signal.Signals) -> None:
        """Send a signal; the pidfd never means another process."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            _log.debug("the server has ended before the signal", extra={"signal": number.name})

    def wait(self) -> int:
        """Take its exit status once the pidfd is readable: the exit code, or minus the signal."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)
        self.close_channel()
        if result is None:  # only with WNOHANG, which we do not use
            return 0
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def status_text(status: int) -> str:
    """An exit status in words."""
    if status == EX_PROTOCOL:
        return f"exit code {status}: it speaks another protocol, have the keeper re-executed (kill -USR1)"
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def inherit_nothing() -> None:
    """Mark every descriptor beyond the standard ones that we were started with, so that no server gets it."""
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2:
            with contextlib.suppress(OSError):  # the one that listdir itself had
                os.set_inheritable(number, False)
