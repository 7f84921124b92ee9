"""Looking after the server that serves: it is asked whether it lives, replaced if it does not, and heard on how it does."""

import contextlib
import logging
import signal
import time
from collections.abc import Mapping
from typing import Any

from mcastd.keeper.channel import ChannelError, Frame, Message, encode, take_int
from mcastd.keeper.ending import Ending
from mcastd.keeper.notify import Notifier
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.process import Server
from mcastd.keeper.reports import Reports
from mcastd.keeper.watchdog import Watchdog, watchdog_period

_log = logging.getLogger(__name__)


class Supervision:
    """The keeper's side of PING, PONG and NOTIFY, and all that the service manager is told."""

    def __init__(self, outbox: Outbox, notifier: Notifier, environ: Mapping[str, str]) -> None:
        """Questions go through the outbox; the environment says whether the service manager has a watchdog."""
        self._outbox = outbox
        self.reports = Reports(notifier)
        self._watchdog = Watchdog(watchdog_period(environ), time.monotonic())
        self._server: Server | None = None
        self._spared = False

    def follow(self, server: Server) -> None:
        """Look after this one, which has just been given the sockets."""
        self._server, self._spared = server, False
        self._watchdog.follow(time.monotonic(), ready=server.ready)

    def ready(self) -> None:
        """The server that serves says that it is ready."""
        self._watchdog.ready()
        self.reports.ready()

    def leave(self) -> None:
        """Nobody serves, or who does is ending."""
        self._server = None
        self._watchdog.leave()

    def next_at(self) -> float | None:
        """When `keep_times` has something to do."""
        return min((at for at in (self._watchdog.next_at(), self.reports.next_at()) if at is not None), default=None)

    def keep_times(self, now: float) -> None:
        """Do what is due."""
        self.reports.retry(now)
        if self._server is not None and self._server.ending is not None:
            self.leave()
        due = self._watchdog.due(now)
        if due is None:
            return
        if due.ping:
            self._outbox.add_message(encode(Message.PING, due.ping), first=True)
        if due.overdue and self._server is not None:
            self._replace(self._server, now)
        if due.well:
            self.reports.well()

    def hear(self, frame: Frame) -> None:
        """Take a PONG or a NOTIFY of the server that serves; ChannelError if it is not well-formed."""
        if frame.message is Message.PONG:
            self._watchdog.answered(frame.request)
            return
        values = frame.values()
        text = values.get("text")
        if not isinstance(text, str):
            raise ChannelError(f"the text of a NOTIFY is {text!r}")
        self.reports.say(text, reloading=_flag(values, "reloading"), reloads=take_int(values, "reloads", 0, 2**32 - 1))

    def _replace(self, server: Server, now: float) -> None:
        """End a server that does not answer; its end has the next one started. Forwarding goes on meanwhile.

        It is told to say where it hangs (SIGABRT, faulthandler), and killed a moment later if it can't even do that.
        """
        if tracer := _tracer(server.pid):
            self._watchdog.spare()
            if not self._spared:
                _log.warning("the server does not answer: somebody debugs it", extra={"pid": server.pid, "tracer": tracer})
            self._spared = True
            return
        _log.error("the server does not answer: it is replaced", extra={"pid": server.pid, "seconds": self._watchdog.patience})
        self.reports.status("the server does not answer: it is replaced")
        self.leave()
        server.kill(signal.SIGABRT)
        server.ending = Ending(now)
        server.ending.hurry(now)


def _flag(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name)
    if not isinstance(value, bool):
        raise ChannelError(f"{name} is {value!r}, not true or false")
    return value


def _tracer(pid: int) -> int:
    """Pid of whoever traces a process; 0 = nobody, or not to be seen (ProtectProc=)."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("TracerPid:"):
                return int(line.split()[1])
    return 0
