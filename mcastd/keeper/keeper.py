"""The keeper's loop: the kernel's sockets on one side, the server on the other, and the order in which everything ends.

One thread, one selector, nothing that blocks. It parses the kernel's upcalls and the server's messages, nothing else.
"""

import logging
import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence

import mcastd
from mcastd.keeper import privileges, scheduling, standin
from mcastd.keeper.adoption import adopt
from mcastd.keeper.channel import ChannelError, Message, encode
from mcastd.keeper.door import Door, DoorAddress
from mcastd.keeper.ending import Backoff, Ending
from mcastd.keeper.failure import EX_CONFIG, CannotRun
from mcastd.keeper.fdstore import FdStore
from mcastd.keeper.handing import Outside, make_handover, start_actions, take_given, take_places, take_server, take_upcalls
from mcastd.keeper.hello import say_hello
from mcastd.keeper.memory import Memory, Parts, new_run
from mcastd.keeper.notify import Notifier
from mcastd.keeper.opening import open_tables
from mcastd.keeper.outbox import Outbox
from mcastd.keeper.places import Places
from mcastd.keeper.process import SERVER_COMMAND, Server, ServerProcess, inherit_nothing, status_text
from mcastd.keeper.reaper import Reaper
from mcastd.keeper.reexec import Handover, Reexecution
from mcastd.keeper.requests import Requests
from mcastd.keeper.signals import REEXECUTING, RELOADING, UPGRADING, Signals
from mcastd.keeper.succession import NEWCOMERS_MAX, Succession, prepare_message
from mcastd.keeper.supervision import Supervision
from mcastd.keeper.tables import Tables
from mcastd.model.errors import McastdError
from mcastd.model.settings import Settings

UNANSWERED_MAX = 64
"""Replies that may wait before the keeper stops reading what else the server wants."""

SERVER_UMASK = 0o077
"""What the server makes is its own until it says otherwise: a socket is private before it has its mode."""

FRAMES_MAX = 16
"""Messages taken from the server before the kernel's sockets have their turn."""

_log = logging.getLogger(__name__)


class Keeper:
    """One run of the daemon, from the locks to the end."""

    def __init__(self, settings: Settings, command: Sequence[str] = SERVER_COMMAND, door: DoorAddress | None = None) -> None:
        """Remember what to do; `command` starts the server, unless there is a door at which servers come by themselves."""
        self._settings = settings
        self._command = tuple(command)
        self._selector = selectors.DefaultSelector()
        self._outbox = Outbox()
        self._tables = Tables(self._selector, self._outbox, 2 * settings.limits.routes_max)
        self._supervision = Supervision(self._outbox, Notifier(), os.environ)
        self._reports = self._supervision.reports
        self._requests = Requests(self._tables, self._outbox, self._on_ready, self._on_shutdown_wanted, self._supervision.hear)
        self._backoff = Backoff()
        self._reexecution = Reexecution(self._selector)
        self._reaper = Reaper(lambda: self._requests.actions.pids() | self._reexecution.pids(), time.monotonic())
        parts = Parts(self._tables, self._requests.held, self._requests.rules, self._requests.controls)
        self._memory = Memory(FdStore(os.environ), parts, new_run())
        self._requests.remember = self._memory.record
        self._served = False
        """Whether any server was ready: what is set can be used then, or could."""
        self._server: Server | None = None
        """The one that serves, or will once it has started."""
        self._succession = Succession(self._selector, settings, self._hand_over)
        self._door_address = door
        self._door: Door | None = None
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
            handed, named, self._listening = take_given(os.environ)
            inherit_nothing()
            scheduling.raise_file_limit()
            privileges.set_groups(self._settings)
            start_actions(self._requests.actions, self._settings.action, handed)
            self._settings, places = take_places(self._settings, self._door_address, handed, restarted=bool(named))
            self._door = places if isinstance(places, Door) else None
            self._succession = Succession(self._selector, self._settings, self._hand_over)
            os.umask(SERVER_UMASK)
            try:
                scheduling.take_priority()  # Upcalls wait from the moment that there is a socket.
                adopt(named, self._memory, *((None,) if handed is None else (handed.stored, handed.removals)))
                if open_tables(self._tables, self._settings, signals):
                    places.keep()
                    scheduling.take_priority()
                    privileges.reduce(self._settings)
                    self._selector.register(signals, selectors.EVENT_READ, lambda: self._on_signals(signals))
                    self._invite()
                    if handed is not None:
                        self._resume(handed)
                    self._loop(lambda: self._reexecute(signals, places))
            finally:
                self._memory.end()
                places.leave()
        finally:
            self._requests.actions.close()
            signals.close()
        if self._failure is not None:
            raise self._failure
        _log.info("the daemon has ended")

    def _resume(self, handed: Handover) -> None:
        """Go on with the server of the image before."""
        take_upcalls(handed, self._memory, self._outbox)
        if handed.reloads is not None:
            self._served = True
            self._reports.resume(handed.reloads)
        if handed.server is not None:
            self._start_at = None
            self._server = server = take_server(handed.server)
            if server.pidfd is not None:
                self._selector.register(server.pidfd, selectors.EVENT_READ, lambda: self._on_server_end(server))
            self._supervision.follow(server)
        away = round(time.monotonic() - handed.left_at, 3)
        _log.info("the keeper is re-executed", extra={"version": mcastd.__version__, "away_seconds": away})

    def _reexecute(self, signals: Signals, places: Door | Places) -> None:
        """Become the program as it is now, if nothing is on its way to the server or from a signal; otherwise a little later."""
        server = self._server
        self._succession.dismiss()
        if self._stopping or self._succession or not self._outbox.quiet or (server is not None and server.ending is not None):
            return
        signals.keep_out()
        try:
            self._memory.ensure()
            outside = Outside(places, self._listening, self._requests.actions, self._server)
            reloads = self._reports.reloads if self._served else None
            if not signals.waiting():
                handover = make_handover(self._settings, outside, self._memory, self._outbox, reloads)
                standin.execute(handover, self._memory, self._outbox)
        except OSError as exc:
            self._reexecution.refuse(exc.strerror or str(exc))
        finally:
            signals.let_in()

    def _loop(self, reexecute: Callable[[], None]) -> None:
        while True:
            now = time.monotonic()
            self._keep_times(now)
            if self._server is None and self._start_at is None and not self._succession and self._door is None:
                return
            self._flush()
            if self._reexecution.ready:
                reexecute()
            for key, _ in self._selector.select(self._timeout(now)):
                if self._selector.get_map().get(key.fd) is key:  # an earlier event of this round may have closed it
                    callback: Callable[[], object] = key.data
                    callback()

    def _timeout(self, now: float) -> float | None:
        ending = self._server.next_step_at() if self._server else None
        parts = self._succession.next_at(), self._supervision.next_at(), self._memory.next_at(), self._reaper.next_at()
        times = (self._start_at, ending, self._reexecution.next_at(), *parts)
        return min((max(0.0, at - now) for at in times if at is not None), default=None)

    def _keep_times(self, now: float) -> None:
        self._supervision.keep_times(now)
        self._memory.keep_times(now)
        self._reexecution.keep_times(now)
        self._reaper.keep_times(now)
        if self._start_at is not None and self._start_at <= now:
            self._start_at = None
            self._start_server(now)
        serving = () if self._server is None else (self._server,)
        for server in (*serving, *self._succession.servers()):
            for number in server.ending.due(now) if server.ending is not None else ():
                _log.warning("the server has not ended yet", extra={"pid": server.pid, "signal": number.name})
                server.kill(number)
        self._succession.keep_times(now)

    def _invite(self) -> None:
        """Have a server come: started at once, or let in at the door."""
        if self._door is None:
            self._start_at = time.monotonic()
        else:
            self._door.open(self._selector, self._let_in)

    def _let_in(self, server: Server) -> str | None:
        """Take a server that has come by itself, or say why not."""
        if self._succession.newcomers >= NEWCOMERS_MAX:
            return f"{NEWCOMERS_MAX} servers wait already"
        _log.info("a server has come", extra={"pid": server.pid})
        self._succession.prepare(server, self._server, server.started_at)
        return None

    def _start_server(self, now: float) -> None:
        try:
            self._server = server = self._spawn(now)
        except OSError as exc:
            self._start_again(now, 0.0, "the server can't be started", {"error": exc.strerror, "program": self._command[0]})
            return
        self._outbox.add_message(prepare_message(self._settings, server.seat, again=self._memory.run.starts > 0), first=True)
        self._say_hello()
        _log.info("the server is started", extra={"pid": server.pid, "start": self._memory.run.starts})

    def _spawn(self, now: float) -> ServerProcess:
        server = ServerProcess(self._command, now, self._listening)
        self._selector.register(server.pidfd, selectors.EVENT_READ, lambda: self._on_server_end(server))
        return server

    def _upgrade(self) -> None:
        """Start another server, of the program as it is now, beside the one that serves."""
        if self._stopping or self._door is not None or self._succession.newcomers:
            why = "it is ending" if self._stopping else "servers come by themselves" if self._door else "one is under way"
            _log.warning("asked for an upgrade of the server, which is not begun", extra={"why": why})
            return
        now = time.monotonic()
        if self._server is None:
            _log.info("asked for an upgrade of the server: there is none, it is started now")
            self._start_at = now
            return
        try:
            server = self._spawn(now)
        except OSError as exc:
            _log.error("the new server can't be started", extra={"error": exc.strerror, "program": self._command[0]})
            return
        _log.info("asked for an upgrade of the server: a new one is started", extra={"pid": server.pid})
        self._succession.prepare(server, self._server, now)

    def _hand_over(self) -> None:
        """A newcomer is prepared: it serves when nobody else does, and is let in its turn."""
        server = self._server
        if server is None:
            self._promote()
        elif server.ending is None and (successor := self._succession.successor) is not None:
            _log.info("the server is asked to hand over to the new one", extra={"pid": server.pid, "new_pid": successor.pid})
            server.handing_over, server.ending = True, Ending(time.monotonic())
            self._outbox.add_message(encode(Message.HAND_OVER, body={"seat": successor.seat}), first=True)

    def _promote(self) -> bool:
        """Give everything to a newcomer that is prepared; whether there is one."""
        newcomer = self._succession.take() if not self._stopping else None
        if newcomer is None:
            return False
        for table in newcomer.tables:
            try:
                self._tables.open(table)
            except McastdError as exc:
                _log.error("a table that the server wants can't be opened", extra={"table": table, "error": str(exc)})
        self._start_at = None
        self._server = newcomer.server
        self._say_hello()
        _log.info("the new server takes over", extra={"pid": newcomer.server.pid, "start": self._memory.run.starts})
        self._reports.status("another server takes over")
        return True

    def _say_hello(self) -> None:
        say_hello(self._outbox, self._settings, self._memory)
        if self._server is not None:
            self._supervision.follow(self._server)

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

    def _on_channel(self, server: Server) -> None:
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

    def _hang_up(self, server: Server) -> None:
        """Close the channel of a server that is of no use any more; it ends, or is made to, and its pidfd tells."""
        if server.channel is not None:
            if server.events:
                self._selector.unregister(server.channel)
            server.close_channel()
        self._outbox.clear_messages()
        if server.ending is None:
            server.ending = Ending(time.monotonic())
        if server.pidfd is None:
            self._on_server_end(server)
        elif server.handing_over and self._promote():
            self._succession.leave(server)

    def _on_server_end(self, server: Server) -> None:
        now = time.monotonic()
        if server.pidfd is not None:
            self._selector.unregister(server.pidfd)
        if server is self._server and server.channel is not None:
            self._hang_up(server)
        status, lived = server.wait(), now - server.started_at
        details = {"pid": server.pid, "status": status_text(status), "lived_seconds": round(lived, 3)}
        self._succession.ended(server, details)
        if server is not self._server:
            if self._server is None and self._start_at is None and not self._succession.newcomers and not self._stopping:
                self._start_again(now, lived, "there is no server", details)
            return
        self._server = None
        if self._stopping:
            _log.info("the server has ended", extra=details)
        elif self._succession.newcomers or self._door is not None:
            _log.log(logging.INFO if server.handing_over else logging.ERROR, "the server has ended", extra=details)
            self._promote()
        elif status == EX_CONFIG and not self._served:
            self._failure = CannotRun(
                EX_CONFIG, f"the server can't start as things are ({status_text(status)}): see its last message"
            )
        else:
            self._start_again(now, lived, "the server has died", details)

    def _start_again(self, now: float, lived: float, what: str, details: dict[str, object]) -> None:
        delay = self._backoff.next_delay(lived)
        _log.error(what, extra={**details, "retry_in_seconds": delay})
        self._reports.status(f"{what}; it is started again in {delay} s")
        self._start_at = now + delay

    def _on_ready(self) -> None:
        if self._server is not None:
            self._server.ready = self._served = True
            _log.info("the server is ready", extra={"pid": self._server.pid})
            self._supervision.ready()

    def _on_shutdown_wanted(self, keep: bool) -> None:
        """A client asked the server for it, which is ending by itself already."""
        _log.info("the server says that a client wants the daemon to end", extra={"keep_forwarding": keep})
        self._memory.keeps = self._memory.keeps and keep
        self._stop()

    def _on_signals(self, signals: Signals) -> None:
        for number in signals.take():
            if number in RELOADING + UPGRADING:
                (self._reload if number in RELOADING else self._upgrade)()
                continue
            if number in REEXECUTING:
                self._reexecution.ask(time.monotonic())
                continue
            if self._stopping:
                _log.warning("asked again to end: no more patience", extra={"signal": number.name})
                if self._server is not None and self._server.ending is not None:
                    self._server.ending.hurry(time.monotonic())
                continue
            _log.info("asked to end", extra={"signal": number.name})
            self._stop()
            if self._server is not None:
                self._outbox.add_message(encode(Message.SHUTDOWN, body={"keep_forwarding": self._memory.keeps}), first=True)

    def _reload(self) -> None:
        """Have the server read the configuration again; one that is being started reads it anyway."""
        _log.info("asked to have the configuration read again", extra={"server": self._server is not None})
        number = self._reports.reload()
        if self._server is not None and not self._stopping:
            self._outbox.add_message(encode(Message.RELOAD, number))

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._start_at = None
        self._succession.end_newcomers()
        if self._door is not None:
            self._door.close()
            self._door = None
        self._reports.stopping()
        if self._server is not None:
            self._server.ending = Ending(time.monotonic())
