"""The keeper's loop: the kernel's sockets on one side, the server on the other, and the order in which everything ends.

One thread, one selector, nothing that blocks. It parses the kernel's upcalls and the server's messages, nothing else.
"""

import gc
import logging
import os
import resource
import select
import selectors
import signal
import time
from collections.abc import Callable, Sequence

from mcastd.keeper import privileges
from mcastd.keeper.activation import take_listening
from mcastd.keeper.channel import ChannelError, Message, encode, vif_map_values
from mcastd.keeper.ending import Backoff, Ending
from mcastd.keeper.failure import EX_CONFIG, EX_NOPERM, EX_OSERR, EX_UNAVAILABLE, CannotRun
from mcastd.keeper.notify import Notifier
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.places import Places
from mcastd.keeper.process import SERVER_COMMAND, ServerProcess, inherit_nothing, status_text
from mcastd.keeper.requests import Requests
from mcastd.keeper.signals import RELOADING, Signals
from mcastd.keeper.tables import Tables
from mcastd.model.errors import McastdError, Reason
from mcastd.model.settings import Settings

UNANSWERED_MAX = 64
"""Replies that may wait before the keeper stops reading what else the server wants."""

SERVER_UMASK = 0o077
"""What the server makes is its own until it says otherwise: a socket is private before it has its mode."""

FRAMES_MAX = 16
"""Messages taken from the server before the kernel's sockets have their turn."""

FIFO_PRIORITY = 10
"""Of 1 to 99: above no kernel thread that matters, before every ordinary process."""

FILES_MAX = 65_536
"""Open files that keeper and server may have, where the hard limit allows it."""

TABLES_PATIENCE = 5.0
"""Seconds that a table may be taken at the start: the server of a killed keeper needs up to 3 to end its calls."""

_TABLES_RETRY = 0.1

_EXIT_CODES = {Reason.MROUTE_SOCKET_BUSY: EX_UNAVAILABLE, Reason.NOT_ALLOWED: EX_NOPERM}

_log = logging.getLogger(__name__)


class Keeper:
    """One run of the daemon, from the locks to the end."""

    def __init__(self, settings: Settings, command: Sequence[str] = SERVER_COMMAND) -> None:
        """Remember what to do; `command` starts the server."""
        self._settings = settings
        self._command = tuple(command)
        self._selector = selectors.DefaultSelector()
        self._outbox = Outbox()
        self._tables = Tables(self._selector, self._outbox)
        self._requests = Requests(self._tables, self._outbox, self._on_ready, self._on_shutdown_wanted)
        self._notifier = Notifier()
        self._backoff = Backoff()
        self._started_at, self._started_monotonic = time.time(), time.monotonic()
        self._starts = 0
        self._served = False
        """Whether any server was ready: what is set can be used then, or could."""
        self._server: ServerProcess | None = None
        self._start_at: float | None = None
        """When to start a server; None = one runs, or none shall."""
        self._listening: tuple[int, ...] = ()
        """Sockets of the service manager on which metrics are offered."""
        self._stopping = False
        self._failure: CannotRun | None = None

    def run(self) -> None:
        """Run until somebody ends it; CannotRun if it can't start, or not go on."""
        signals = Signals()
        try:
            self._listening = take_listening(os.environ)
            inherit_nothing()
            _raise_file_limit()
            privileges.set_groups(self._settings)
            if self._settings.action:
                self._requests.actions.start(self._settings.action)
            places = Places(self._settings)
            os.umask(SERVER_UMASK)
            try:
                if self._open_tables(signals):
                    places.keep()
                    _take_priority()
                    privileges.reduce(self._settings)
                    self._selector.register(signals, selectors.EVENT_READ, lambda: self._on_signals(signals))
                    self._start_at = time.monotonic()
                    self._loop()
            finally:
                self._tables.close_all()
                self._requests.controls.close_all()
                self._requests.held.close_all()
                self._requests.rules.delete_all()
                places.leave()
        finally:
            self._requests.actions.close()
            signals.close()
        if self._failure is not None:
            raise self._failure
        _log.info("the daemon has ended")

    def _open_tables(self, signals: Signals) -> bool:
        """Open all tables of the start; False if asked to end while they were taken."""
        give_up_at, waiting = time.monotonic() + TABLES_PATIENCE, False
        while True:
            try:
                self._tables.open_default()
                for table in self._settings.tables:
                    self._tables.open(table)
            except McastdError as exc:
                self._tables.close_all()
                if exc.reason is not Reason.MROUTE_SOCKET_BUSY or time.monotonic() >= give_up_at:
                    raise CannotRun(_EXIT_CODES.get(exc.reason, EX_OSERR), str(exc)) from exc
                if not waiting:
                    _log.warning(
                        "waiting for whoever holds the table to end, such as the server of a killed daemon",
                        extra={**exc.problem.metadata, "seconds": TABLES_PATIENCE},
                    )
                waiting = True
            else:
                return True
            select.select([signals], [], [], _TABLES_RETRY)
            for number in signals.take():
                if number in RELOADING:
                    continue  # It will be read in a moment.
                _log.info("asked to end before the start", extra={"signal": number.name})
                return False

    def _loop(self) -> None:
        while True:
            now = time.monotonic()
            self._keep_times(now)
            if self._server is None and self._start_at is None:
                return
            self._flush()
            for key, _ in self._selector.select(self._timeout(now)):
                if self._selector.get_map().get(key.fd) is key:  # an earlier event of this round may have closed it
                    callback: Callable[[], object] = key.data
                    callback()

    def _timeout(self, now: float) -> float | None:
        times = (self._start_at, self._server.next_step_at() if self._server else None)
        return min((max(0.0, at - now) for at in times if at is not None), default=None)

    def _keep_times(self, now: float) -> None:
        if self._start_at is not None and self._start_at <= now:
            self._start_at = None
            self._start_server(now)
        if self._server is not None and self._server.ending is not None:
            for number in self._server.ending.due(now):
                _log.warning("the server has not ended yet", extra={"pid": self._server.pid, "signal": number.name})
                self._server.kill(number)

    def _start_server(self, now: float) -> None:
        try:
            server = ServerProcess(self._command, now, self._listening)
        except OSError as exc:
            self._start_again(now, 0.0, "the server can't be started", {"error": exc.strerror, "program": self._command[0]})
            return
        self._server = server
        self._starts += 1
        self._say_hello()
        self._selector.register(server.pidfd, selectors.EVENT_READ, lambda: self._on_server_end(server))
        _log.info("the server is started", extra={"pid": server.pid, "start": self._starts})

    def _say_hello(self) -> None:
        sockets = self._tables.sockets()
        values = {
            "settings": self._settings.to_json(),
            "sockets": len(sockets),
            "stored": len(self._requests.held),
            "started_at": self._started_at,
            "started_monotonic": self._started_monotonic,
            "starts": self._starts,
        }
        self._outbox.add_message(encode(Message.HELLO, body=values), first=True)
        for one in sockets:
            body = vif_map_values(one.table, one.family, one.vif_map)
            self._outbox.add_message(encode(Message.SOCKET, body=body), (one.sock.fileno(),), first=True)
        self._outbox.add_borrowed(self._requests.held.messages())

    def _flush(self) -> None:
        """Send what the server takes now, and wait for just what can happen next."""
        server = self._server
        if server is None or server.channel is None:
            return
        try:
            all_sent = self._outbox.flush(server.channel.send)
        except (BrokenPipeError, ConnectionResetError):
            self._hang_up(server)
            return
        reading = selectors.EVENT_READ if self._outbox.waiting <= UNANSWERED_MAX else 0
        events = reading | (0 if all_sent else selectors.EVENT_WRITE)
        if server.events == 0:
            self._selector.register(server.channel, events, lambda: self._on_channel(server))
        elif server.events != events:
            self._selector.modify(server.channel, events, lambda: self._on_channel(server))
        server.events = events

    def _on_channel(self, server: ServerProcess) -> None:
        try:
            for _ in range(FRAMES_MAX):
                if server.channel is None or self._outbox.waiting > UNANSWERED_MAX:
                    return
                frame = server.channel.receive()
                if frame is None:
                    self._hang_up(server)
                    return
                self._requests.handle(frame)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self._hang_up(server)
        except ChannelError as exc:
            _log.error("the server said what no server may say: it is killed", extra={"error": str(exc)})
            self._hang_up(server)
            server.kill(signal.SIGKILL)

    def _hang_up(self, server: ServerProcess) -> None:
        """Close the channel of a server that is of no use any more; it ends, or is made to, and its pidfd tells."""
        if server.channel is not None:
            if server.events:
                self._selector.unregister(server.channel)
            server.close_channel()
        self._outbox.clear_messages()
        if server.ending is None:
            server.ending = Ending(time.monotonic())

    def _on_server_end(self, server: ServerProcess) -> None:
        now = time.monotonic()
        self._selector.unregister(server.pidfd)
        self._hang_up(server)
        status, lived = server.wait(), now - server.started_at
        self._server = None
        details = {"pid": server.pid, "status": status_text(status), "lived_seconds": round(lived, 3)}
        if self._stopping:
            _log.info("the server has ended", extra=details)
        elif status == EX_CONFIG and not self._served:
            self._failure = CannotRun(
                EX_CONFIG, f"the server can't start as things are ({status_text(status)}): see its last message"
            )
        else:
            self._start_again(now, lived, "the server has died", details)

    def _start_again(self, now: float, lived: float, what: str, details: dict[str, object]) -> None:
        delay = self._backoff.next_delay(lived)
        _log.error(what, extra={**details, "retry_in_seconds": delay})
        self._notifier.send(f"STATUS={what}; it is started again in {delay} s")
        self._start_at = now + delay

    def _on_ready(self) -> None:
        if self._server is not None:
            self._server.ready = self._served = True
            _log.info("the server is ready", extra={"pid": self._server.pid})
            self._notifier.send("READY=1\nSTATUS=serving")

    def _on_shutdown_wanted(self) -> None:
        """A client asked the server for it, which is ending by itself already."""
        _log.info("the server says that a client wants the daemon to end")
        self._stop()

    def _on_signals(self, signals: Signals) -> None:
        for number in signals.take():
            if number in RELOADING:
                self._reload()
                continue
            if self._stopping:
                _log.warning("asked again to end: no more patience", extra={"signal": number.name})
                if self._server is not None and self._server.ending is not None:
                    self._server.ending.hurry(time.monotonic())
                continue
            _log.info("asked to end", extra={"signal": number.name})
            self._stop()
            if self._server is not None:
                self._outbox.add_message(encode(Message.SHUTDOWN), first=True)

    def _reload(self) -> None:
        """Have the server read the configuration again; one that is being started reads it anyway."""
        _log.info("asked to have the configuration read again", extra={"server": self._server is not None})
        if self._server is not None and not self._stopping:
            self._outbox.add_message(encode(Message.RELOAD))

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._start_at = None
        self._notifier.send("STOPPING=1")
        if self._server is not None:
            self._server.ending = Ending(time.monotonic())


def _take_priority() -> None:
    """Run before everything else that wants a processor, where that is allowed: a flow's first packets wait for this process.

    Reset on fork, so the server does not inherit it. The garbage collector stays out of the way: nothing here makes cycles.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(FIFO_PRIORITY))
    except OSError as exc:
        _log.debug("there is no real-time priority to be had", extra={"error": exc.strerror})
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)


def _raise_file_limit() -> None:
    """Each table costs two descriptors in both processes, each client one in the server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
