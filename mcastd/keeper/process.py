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
from mcastd.keeper.channel import CHANNEL_FD, Channel
from mcastd.keeper.ending import Ending

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


class ServerProcess:
    """A server that was started and not yet waited for."""

    def __init__(self, command: tuple[str, ...], now: float, listening: tuple[int, ...] = ()) -> None:
        """Start it; it finds its end of the channel at CHANNEL_FD, and has no other descriptor but the standard ones.

        But for sockets that listen (keeper/activation.py), which follow the channel.

        It gets a session of its own: a Ctrl-C in the terminal is the keeper's to handle.
        """
        self.started_at = now
        self.ready = False
        self.events = 0
        """What the keeper's selector waits for on the channel; 0 = it is not registered."""
        self.ending: Ending | None = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            self.pid = os.posix_spawn(
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
            )
        self.channel: Channel | None = Channel(ours)
        self.pidfd = os.pidfd_open(self.pid)

    def next_step_at(self) -> float | None:
        """When the next signal is due, if it was asked to end."""
        return self.ending.next_at() if self.ending is not None else None

    def kill(self, number: signal.Signals) -> None:
        """Send a signal; the pidfd never means another process."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            _log.debug("the server has ended before the signal", extra={"signal": number.name})

    def close_channel(self) -> None:
        """Close our end of the channel."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None

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
