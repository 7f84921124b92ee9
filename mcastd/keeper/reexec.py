"""The keeper's re-execution in place: the program as it is now, in the same process, with everything that the old image had.

    SIGUSR1 ─► a trial: a child starts by the same command line and says whether it could go on   (refused: nothing has changed)
            ─► nothing waits for the server ─► signals blocked, descriptors made inheritable, execve
            ─► the new image: state from the log, descriptors by name, the server with its channel as it was

The kernel's sockets are never closed, the server notices nothing, and a stand-in (keeper/standin.py) answers upcalls for as long
as Python starts.
"""

import json
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from mcastd.keeper import privileges
from mcastd.keeper.fdstore import Named
from mcastd.keeper.process import status_text
from mcastd.keeper.scheduling import ordinary
from mcastd.keeper.statelog import FORMAT

VARIABLE = "MCASTD_REEXECUTION"
"""Pid, and descriptor of what the old image hands over."""

TRIAL_VARIABLE = "MCASTD_TRIAL"
"""Format of the state that the new image would find: the process only says whether it could go on with it."""

TRIAL_SECONDS = 20.0
"""How long a trial may take."""

QUIET_SECONDS = 10.0
"""How long to wait for a moment in which nothing is on its way to the server."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class HandedServer:
    """The server that serves."""

    pid: int
    channel: int
    pidfd: int | None
    started_at: float
    ready: bool
    seat: int


@dataclass(slots=True)
class HandedAction:
    """The process that runs the action script."""

    path: str
    pid: int
    channel: int


@dataclass(slots=True)
class HandedStandIn:
    """The process that answers upcalls meanwhile (keeper/standin.py)."""

    pid: int
    channel: int
    report: int


@dataclass(slots=True)
class Handover:
    """All that the next image needs beside the state, which is among the descriptors by name."""

    settings: dict[str, Any]
    named: list[Named]
    stored: list[str]
    """Of these, what the service manager has."""
    locks: dict[str, int]
    listening: list[int]
    reloads: int | None
    """Reloads that were asked for so far; None = no server was ever ready."""
    left_at: float = 0.0
    """time.monotonic() when the old image stopped reading upcalls."""
    server: HandedServer | None = None
    action: HandedAction | None = None
    stand_in: HandedStandIn | None = None
    door: list[int] = field(default_factory=list)
    """Socket and lock of the door."""
    losses: list[list[int]] = field(default_factory=list)
    """Upcalls lost that the server has not heard of: table, family, by the kernel, by the keeper."""
    lost: list[list[int]] = field(default_factory=list)
    """Of the kernel's totals of lost upcalls, what was told: table, family, number."""
    removals: list[str] = field(default_factory=list)
    """Names under which the service manager has what it has yet to hear that it goes."""
    records: bytes = b""
    """Records that the server has not taken."""

    def descriptors(self) -> list[int]:
        """All that have to be inherited."""
        found = [one.fd for one in self.named] + [*self.locks.values(), *self.listening, *self.door]
        if self.server is not None:
            found += [self.server.channel, *([] if self.server.pidfd is None else [self.server.pidfd])]
        if self.stand_in is not None:
            found += [self.stand_in.channel, self.stand_in.report]
        return found + ([self.action.channel] if self.action is not None else [])

    def pack(self) -> bytes:
        """One line of JSON, and the records."""
        values = asdict(self)
        del values["records"]
        return json.dumps(values).encode() + b"\n" + self.records

    @classmethod
    def unpack(cls, data: bytes) -> "Handover":
        """Undo `pack`."""
        line, _, records = data.partition(b"\n")
        values = json.loads(line)
        server, action, stand_in = values.pop("server"), values.pop("action"), values.pop("stand_in")
        made = cls(**values, records=records)
        made.named = [Named(name, fd) for name, fd in made.named]
        made.server = HandedServer(**server) if server else None
        made.action = HandedAction(**action) if action else None
        made.stand_in = HandedStandIn(**stand_in) if stand_in else None
        return made


class Reexecution:
    """One that is asked for, from its trial to the moment when it can be."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        """None is asked for."""
        self._selector = selector
        self._pid = 0
        self._pidfd = -1
        self._give_up_at: float | None = None
        self.ready = False
        """Whether the trial has succeeded: it can be done as soon as nothing is on its way to the server."""

    def ask(self, now: float) -> None:
        """Begin with the trial."""
        if self._give_up_at is not None:
            _log.warning("asked to re-execute the keeper, which is under way already")
            return
        try:
            self._pid = _start_trial()
        except OSError as exc:
            _log.error("the keeper is not re-executed: its program can't be started", extra={"error": exc.strerror})
            return
        self._pidfd = os.pidfd_open(self._pid)
        self._give_up_at = now + TRIAL_SECONDS
        self._selector.register(self._pidfd, selectors.EVENT_READ, self._on_trial_end)
        _log.info("asked to re-execute the keeper: the program is tried first", extra={"pid": self._pid})

    def pids(self) -> set[int]:
        """The trial, while it is not waited for."""
        return {self._pid} if self._pidfd >= 0 else set()

    def next_at(self) -> float | None:
        """When patience ends."""
        return self._give_up_at

    def keep_times(self, now: float) -> None:
        """Give up what takes too long."""
        if self._give_up_at is None or now < self._give_up_at:
            return
        if self.ready:
            self.refuse("the server does not take what waits for it, or another one is about to take over")
        else:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._give_up_at = now + TRIAL_SECONDS

    def refuse(self, why: str) -> None:
        """Go on as before."""
        _log.error("the keeper is not re-executed: it goes on as it is", extra={"why": why})
        self.ready, self._give_up_at = False, None

    def _on_trial_end(self) -> None:
        self._selector.unregister(self._pidfd)
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        self._pidfd = -1
        status = 0
        if result is not None:
            status = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        if status:
            self.refuse(f"the program on disk can't go on: {status_text(status)}; see its messages")
        else:
            self.ready, self._give_up_at = True, time.monotonic() + QUIET_SECONDS


def command() -> list[str]:
    """The command line by which this process was started."""
    return [sys.executable, *sys.orig_argv[1:]]


def trial_wanted(environ: Mapping[str, str]) -> bool:
    """Whether this process is a trial."""
    return TRIAL_VARIABLE in environ


def trial_verdict(environ: Mapping[str, str]) -> int:
    """Exit code of a trial that has come so far: 0 if this program could go on with the state that there is."""
    if environ[TRIAL_VARIABLE] == str(FORMAT):
        return 0
    _log.critical("the state is of another version", extra={"version": environ[TRIAL_VARIABLE], "known": FORMAT})
    return os.EX_CONFIG


def take(environ: MutableMapping[str, str]) -> Handover | None:
    """What the old image of this process has handed over; None = this is a start like any other."""
    pid, _, fd = environ.pop(VARIABLE, "").partition(":")
    if pid != str(os.getpid()) or not fd.isdecimal():
        return None
    with open(int(fd), "rb") as file:
        file.seek(0)
        return Handover.unpack(file.read())


def execute(handover: Handover) -> NoReturn:
    """Become the new image; OSError if that can't be, and all is as before."""
    fd = os.memfd_create("mcastd-handover", 0)
    descriptors = handover.descriptors()
    before = privileges.allow_execution()
    try:
        write_all(fd, handover.pack())
        for one in descriptors:
            os.set_inheritable(one, True)
        os.execve(sys.executable, command(), {**os.environ, VARIABLE: f"{os.getpid()}:{fd}"})  # noqa: S606 - there is no shell in it
    finally:
        for one in descriptors:
            os.set_inheritable(one, False)
        os.close(fd)
        privileges.restore(before)


def _start_trial() -> int:
    return os.posix_spawn(
        sys.executable,
        command(),
        {**os.environ, TRIAL_VARIABLE: str(FORMAT)},
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
        setsigmask=(),
        setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
        **ordinary(),
    )


def write_all(fd: int, data: bytes) -> None:
    """Write to a file of ours, in as many calls as it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
