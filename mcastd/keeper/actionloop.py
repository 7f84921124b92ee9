"""Running the action script: one run after the other, each with a time limit, from requests that are checked here."""

import logging
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from mcastd.keeper.channel import MESSAGE_MAX, ChannelError, parse_body
from mcastd.keeper.process import status_text

REASONS = frozenset({"start", "reload", "install"})

VARIABLES = frozenset({"MCASTD_INTERFACE", "MCASTD_SOURCE", "MCASTD_GROUP", "MCASTD_OIFS", "MCASTD_TABLE", "source", "group"})
"""What a request may set beside MCASTD_REASON; the last two are those of smcrouted's scripts."""

QUEUE_MAX = 256
"""Runs that may wait."""

TIME_LIMIT = 30.0
"""Seconds that a run may take: then its processes get SIGTERM."""

KILL_AFTER = 2.0
"""Seconds from there, or from the end of the daemon, to SIGKILL."""

_VALUE_MAX = 4096
_KEPT = frozenset({"PATH", "LANG", "LANGUAGE", "TZ", "HOME", "USER", "LOGNAME", "SHELL"})
_KEPT_PREFIX = "LC_"

_log = logging.getLogger(__name__)


class ActionRequest(NamedTuple):
    """One run that is asked for."""

    reason: str
    environment: dict[str, str]


class _Run:
    """The script, running."""

    def __init__(self, path: str, request: ActionRequest, now: float, time_limit: float) -> None:
        """Start it in a session, and so a process group, of its own; OSError if it can't be."""
        self.reason = request.reason
        self.started_at = now
        self.step_at: float = now + time_limit
        """When the next signal is due."""
        self.signals: list[signal.Signals] = []
        kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIX)}
        self.pid = os.posix_spawn(
            path,
            (path, request.reason),
            kept | request.environment | {"MCASTD_REASON": request.reason},
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP),
        )
        self.pidfd = os.pidfd_open(self.pid)

    def end(self, now: float) -> None:
        """Send the next signal to its process group."""
        number = signal.SIGKILL if self.signals else signal.SIGTERM
        self.signals.append(number)
        self.step_at = now + KILL_AFTER
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            _log.debug("the action script has ended before the signal", extra={"signal": number.name})

    def wait(self) -> int:
        """Its exit status, once the pidfd is readable: the exit code, or minus the signal."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)
        if result is None:  # only with WNOHANG, which we do not use
            return 0
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


class ActionLoop:
    """Takes requests from a SOCK_SEQPACKET socket until its other end is closed."""

    def __init__(self, channel: socket.socket, path: str, time_limit: float = TIME_LIMIT) -> None:
        """Run the program at this path for each."""
        self._channel: socket.socket | None = channel
        self._path = path
        self._time_limit = time_limit
        self._queue: deque[ActionRequest] = deque()
        self._run: _Run | None = None
        self._left_out = 0

    def run(self) -> None:
        """Go on until the other end is closed and no script runs."""
        while self._channel is not None or self._run is not None:
            watched: list[Any] = [] if self._channel is None else [self._channel]
            if self._run is not None:
                watched.append(self._run.pidfd)
            ready = select.select(watched, [], [], self._timeout(time.monotonic()))[0]
            if self._run is not None:
                if self._run.pidfd in ready:
                    self._ended(self._run, time.monotonic())
                elif time.monotonic() >= self._run.step_at:
                    self._too_long(self._run, time.monotonic())
            if self._channel is not None and self._channel in ready:
                self._receive(self._channel)
            self._start_next(time.monotonic())

    def _timeout(self, now: float) -> float | None:
        return None if self._run is None else max(0.0, self._run.step_at - now)

    def _receive(self, channel: socket.socket) -> None:
        data = channel.recv(MESSAGE_MAX)
        if not data:
            self._end_of_requests(channel)
            return
        try:
            request = read_request(data)
        except ChannelError as exc:
            _log.error("the server asked for an action that can't be run", extra={"error": str(exc)})
            return
        if len(self._queue) >= QUEUE_MAX:
            self._left_out += 1
            if self._left_out == 1:
                _log.warning("actions come faster than the script runs: some are left out", extra={"waiting": QUEUE_MAX})
            return
        self._queue.append(request)

    def _end_of_requests(self, channel: socket.socket) -> None:
        """The keeper is gone or ending: what waits is not run, what runs is ended."""
        channel.close()
        self._channel = None
        if self._queue:
            _log.info("the daemon is ending: actions that wait are not run", extra={"count": len(self._queue)})
            self._queue.clear()
        if self._run is not None and not self._run.signals:
            self._run.end(time.monotonic())

    def _start_next(self, now: float) -> None:
        while self._run is None and self._queue:
            request = self._queue.popleft()
            try:
                self._run = _Run(self._path, request, now, self._time_limit)
            except OSError as exc:
                _log.error("the action script can't be run", extra={"script": self._path, "error": exc.strerror})
        if self._left_out and not self._queue:
            _log.warning("actions were left out", extra={"count": self._left_out})
            self._left_out = 0

    def _too_long(self, run: _Run, now: float) -> None:
        if not run.signals:
            _log.warning(
                "the action script takes too long: it is ended", extra={"reason": run.reason, "seconds": self._time_limit}
            )
        run.end(now)

    def _ended(self, run: _Run, now: float) -> None:
        status = run.wait()
        self._run = None
        details = {"reason": run.reason, "status": status_text(status), "seconds": round(now - run.started_at, 3)}
        _log.log(logging.WARNING if status else logging.INFO, "the action script has ended", extra=details)


def read_request(data: bytes) -> ActionRequest:
    """The body of a RUN_ACTION; ChannelError if it can't be one."""
    values: Mapping[str, Any] = parse_body(data)
    reason, environment = values.get("reason"), values.get("environment")
    if not isinstance(reason, str) or reason not in REASONS:
        raise ChannelError(f"{reason!r} is no reason for an action")
    if not isinstance(environment, dict) or not environment.keys() <= VARIABLES:
        raise ChannelError(f"the environment of an action may have {', '.join(sorted(VARIABLES))}")
    for name, value in environment.items():
        if not isinstance(value, str) or len(value) > _VALUE_MAX or not value.isprintable():
            raise ChannelError(f"{name} is not a printable string of at most {_VALUE_MAX} characters")
    return ActionRequest(reason, environment)
