"""The server process: `python -m mcastd.runtime.server`, started by the keeper with the channel as descriptor 3.

Everything is imported here and now, while the program's files can be read; then the privileges go, and only then is
anything opened or parsed.
"""

import gc

if __name__ == "__main__":
    gc.disable()  # What is imported stays: collections meanwhile find nothing, and take a fifth of a start.

import asyncio
import atexit
import faulthandler
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from mcastd.api.listeners import Listeners
from mcastd.api.principals import Principals
from mcastd.api.sockets import ApiSockets
from mcastd.core.engine import REVISION_BITS, Engine
from mcastd.keeper.channel import EX_HANDED_OVER, EX_PROTOCOL, ChannelError
from mcastd.kernel.links import LinkMonitor
from mcastd.kernel.notifications import MfcMonitor
from mcastd.model.address import Family
from mcastd.model.errors import McastdError, Reason
from mcastd.model.event import LinksResync
from mcastd.model.principal import Principal
from mcastd.model.settings import Settings
from mcastd.runtime import orphans, privileges
from mcastd.runtime.actions import ActionCaller
from mcastd.runtime.adoption import adopt
from mcastd.runtime.certificates import tend
from mcastd.runtime.configuration import Configurator
from mcastd.runtime.daemon import Daemon
from mcastd.runtime.housekeeping import Housekeeper
from mcastd.runtime.keeper_client import Callbacks, Hello, KeeperClient, inherited_channel
from mcastd.runtime.observing import Observing, inherited_listening
from mcastd.runtime.preparation import Own, Preparation, ProtocolError, receive_prepare
from mcastd.runtime.router_discovery import RouterDiscovery
from mcastd.runtime.status import Status
from mcastd.runtime.tasks import cancel, in_slices, spawn
from mcastd.sources.known import KnownPrincipals
from mcastd.store.sqlite import Store
from mcastd.telemetry import logs
from mcastd.telemetry.metrics import Metrics

EX_TEMPFAIL = 75
"""sysexits.h: what is wrong may heal (a full disk), the keeper tries again."""

EX_CONFIG = 78
"""sysexits.h: no restart will help."""

SWITCH_SECONDS = 0.0005
"""After which a thread that reads or writes files lets the loop go on: with Python's 5 ms, an RPC waits so long several times."""

SETTLE = 1.0
"""Seconds in which the sessions that ended with this server are written down; the next one does what is left."""

GRACE = 3.0
"""Seconds for calls under way at an orderly end."""

_log = logging.getLogger(__name__)


def main(connect: Callable[[], socket.socket] | None = None, own: Own | None = None) -> int:
    """Run until told to end; the exit code is for the keeper. A server that comes by itself connects, and has its `own`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal sends it to both processes; the keeper ends this one in order.
    faulthandler.enable()  # The keeper sends SIGABRT to a server that hangs: where, is on standard error then.
    logs.configure("server", "info")
    sys.excepthook = logs.log_uncaught
    try:
        preparation = receive_prepare((connect or inherited_channel)(), own)
        logs.configure("server", preparation.settings.log_level)
        logs.configure_audit(preparation.settings.audit)
        imported = frozenset(sys.modules)
        privileges.give_up_protection()
        privileges.drop(preparation.settings)
        os.umask(0o077)
        gc.freeze()  # What is imported stays: no collection need look at it.
        gc.enable()
        # Small generations: 100,000 new routes in one of them kept the loop for 0.2 s; these are done in 13 ms at most.
        gc.set_threshold(10_000, 5, 1000)
        sys.setswitchinterval(SWITCH_SECONDS)
        exit_code = asyncio.run(_serve(preparation))
        # Each would have failed where the program's files are closed to the server's user: a test reads this.
        _log.debug("modules imported without privileges", extra={"modules": " ".join(sorted(sys.modules.keys() - imported))})
    except ProtocolError as exc:
        _log.error("this server can't serve that keeper", extra={"error": str(exc)})
        return EX_PROTOCOL
    except ChannelError as exc:
        _log.error("there is no keeper to serve", extra={"error": str(exc)})
        return EX_CONFIG if own is None else EX_TEMPFAIL
    except McastdError as exc:
        _log.error("the server can't start", extra={"reason": exc.reason.value, "error": str(exc)})
        return EX_TEMPFAIL if exc.reason is Reason.STORE_UNAVAILABLE else EX_CONFIG
    finally:
        logs.finish()
    return exit_code


class _End:
    """Why the server is to end, once it is."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.keep_forwarding = False
        """Whether what forwards outlives the daemon, so that this router goes on to be one."""
        self.successor = 0
        """Seat of the server to which everything is left; 0 = none."""

    def now(self, keep_forwarding: bool | None = None) -> None:
        if keep_forwarding is not None:
            self.keep_forwarding = keep_forwarding
        self._event.set()

    def hand_over(self, seat: int) -> None:
        self.successor = seat
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


async def _serve(preparation: Preparation) -> int:
    """Prepare what needs no keeper, wait for HELLO, and serve; the channel, whose end lets the next one begin, is closed last."""
    end = _End()
    settings = preparation.settings
    sockets = ApiSockets(settings.listens, preparation.seat, settings.remotes, again=preparation.again)
    if not preparation.stand_by:
        sockets.bind()
    hello, callbacks = preparation.wait_for_hello(), _Callbacks(end)
    if preparation.own is not None:
        end.keep_forwarding = True  # Whoever sends SIGTERM to it ends the server, not the daemon.
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, callbacks.reload)
    with closing(KeeperClient(preparation.channel, callbacks.as_callbacks())) as keeper, preparation.places():
        code = await _serve_keeper(hello, keeper, callbacks, sockets, end)
        if preparation.own is not None and not end.successor:
            sockets.withdraw()
    if end.successor and not code:
        # At once: clients are on connections that nobody answers any more, and find the next server when these are closed.
        logs.finish()
        os._exit(0 if preparation.own is None else EX_HANDED_OVER)
    return code


async def _serve_keeper(hello: Hello, keeper: KeeperClient, callbacks: "_Callbacks", sockets: ApiSockets, end: _End) -> int:
    settings = hello.settings
    end.keep_forwarding |= hello.kept
    store = _open_store(settings)
    links, monitors = LinkMonitor(), [MfcMonitor(family) for family in Family]
    try:
        found = tuple(await links.start())
        revision, stored = await orphans.load(store, hello, keeper, {link.ifindex: link.name for link in found})
        engine = Engine(revision >> REVISION_BITS, stored, settings.limits, revision % (1 << REVISION_BITS))
        engine.links(LinksResync(found))
        tables = await adopt(engine, hello)
        metrics = Metrics()
        daemon = Daemon(engine, store, keeper, tables, metrics, end.now)
        daemon.forwarding_kept = hello.kept
        callbacks.serve(daemon)
        daemon.configuration = Configurator(settings, engine, daemon.write, daemon.executor.wake, daemon.apply_rules)
        _follow_principals(daemon.configuration, daemon.principals, KnownPrincipals(Path(settings.state_dir)))
        daemon.recovery.on_resumed = daemon.configuration.resume
        daemon.recovery.on_changed = lambda: end.now(keep_forwarding=True)
        if settings.action:
            daemon.actions = ActionCaller(engine, daemon.executor.done, keeper.run_action)
            daemon.configuration.on_reload = daemon.actions.reload
        await daemon.joiner.adopt(hello.stored)
        orphans.settle(store, engine)
        daemon.reconciler.follow(monitors)
        observing = Observing(hello, daemon, metrics, inherited_listening(os.environ))
        discovery = RouterDiscovery(engine, keeper.open_control, restarted=hello.starts > 1)
        restarted = hello.starts > 1
        return await _run(settings, daemon, keeper, links, observing, discovery, sockets, metrics, end, restarted=restarted)
    finally:
        links.close()
        for monitor in monitors:
            monitor.close()
        store.close()


def _follow_principals(configuration: Configurator, principals: Principals, known: KnownPrincipals) -> None:
    """Have those in force whom the configuration names; where it is faulty, those whom it named before."""

    def replace(others: Mapping[str, Principal]) -> None:
        principals.replace(others)
        known.keep(others)

    configuration.on_principals = replace
    configuration.on_faulty = lambda: principals.replace(known.read())


def _open_store(settings: Settings) -> Store:
    store = Store.open(Path(settings.state_dir))
    if store.notice:
        _log.error("the stored state could not be used", extra={"notice": store.notice})
    if store.copy is not None:
        _log.info("the stored state was brought up to this version", extra={"copy": str(store.copy)})
    return store


class _Callbacks:
    """What the keeper tells, passed to a daemon that is made after the channel."""

    def __init__(self, end: _End) -> None:
        self.daemon: Daemon | None = None
        self._end = end
        self._early: list[Callable[[Daemon], None]] = []
        """What came before there was one."""

    def as_callbacks(self) -> Callbacks:
        """In the form that KeeperClient wants."""
        return Callbacks(
            upcalls=lambda records: self._tell(lambda daemon: daemon.upcalls(records)),
            losses=lambda losses: self._tell(lambda daemon: daemon.losses(losses)),
            shutdown=self._end.now,
            end=self._end.now,
            reload=self.reload,
            hand_over=self._end.hand_over,
            ping=lambda number: self._tell(lambda daemon: daemon.ping(number)),
        )

    def serve(self, daemon: Daemon) -> None:
        """There is a daemon now: it is told what has come."""
        self.daemon = daemon
        early, self._early = self._early, []
        for tell in early:
            tell(daemon)

    def _tell(self, tell: Callable[[Daemon], None]) -> None:
        if self.daemon is not None:
            tell(self.daemon)
        else:
            self._early.append(tell)

    def reload(self) -> None:
        """Read the configuration again."""
        if self.daemon is not None and self.daemon.configuration is not None:
            self.daemon.configuration.ask()
            self.daemon.recovery.ask()


async def _run(
    settings: Settings,
    daemon: Daemon,
    keeper: KeeperClient,
    links: LinkMonitor,
    observing: Observing,
    discovery: RouterDiscovery,
    sockets: ApiSockets,
    metrics: Metrics,
    end: _End,
    *,
    restarted: bool,
) -> int:
    """Start everything, wait for the end, stop everything in order."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.now)
    listeners = Listeners(daemon, sockets, observing.rpc)
    ready = asyncio.Event()
    status = Status(daemon.engine, keeper, listeners.sessions, lambda: listeners.watchers()[0], daemon.store_refusal)
    if daemon.configuration is not None:
        daemon.configuration.around_reload = status.reloading
    daemon.leases.start()
    tasks = [
        spawn(daemon.executor.run(), "executor"),
        spawn(daemon.writer.run(), "writer"),
        spawn(daemon.recovery.run(), "recovery"),
        spawn(daemon.leases.run(), "leases"),
        spawn(daemon.joiner.run(), "joiner"),
        spawn(_follow_links(links, daemon), "links"),
        spawn(Housekeeper(daemon.engine, daemon.executor, lambda: _tables_to_keep(settings, daemon)).run(), "housekeeping"),
        spawn(daemon.reconciler.run(), "drift"),
        *(spawn(part, name) for part, name in observing.parts()),
        spawn(discovery.run(), "router discovery"),
        spawn(tend(sockets.certificates, metrics, listeners.start_late), "certificates"),
        spawn(status.run(), "status"),
        *([spawn(daemon.configuration.run(), "configuration")] if daemon.configuration is not None else []),
        *([spawn(daemon.actions.run(), "actions")] if daemon.actions is not None else []),
    ]
    waiting = spawn(end.wait(), "end")
    try:
        await listeners.start()
        await observing.listen(ready.is_set, listeners.watchers)
        starting = spawn(_become_ready(daemon, listeners, keeper, ready, status, restarted=restarted), "start")
        starting.add_done_callback(lambda task: end.now() if not task.cancelled() and task.exception() else None)
        done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in done if task is not waiting]
        for task in failed:
            _log.critical("a part of the server has failed", extra={"part": task.get_name()}, exc_info=task.exception())
        ready.clear()
        await cancel(starting)
        daemon.leases.leave()
        if end.successor and not failed:
            _log.info("the server hands over to another")
            await listeners.hand_over(end.successor, GRACE)
        else:
            if not failed and not end.keep_forwarding:
                discovery.stop()
            await listeners.stop(0 if failed else GRACE)
        if not failed:
            await daemon.leases.settled(SETTLE)
        return 1 if failed else 0
    finally:
        if not end.successor:
            await listeners.stop(0)  # After an error; gRPC's servers complain of a loop that is gone otherwise.
        await observing.stop()
        for task in (waiting, *reversed(tasks)):
            if not task.done():
                await cancel(task)
        discovery.close()


async def _become_ready(
    daemon: Daemon, listeners: Listeners, keeper: KeeperClient, ready: asyncio.Event, status: Status, *, restarted: bool
) -> None:
    """Serve once the kernel holds what is wanted; `restarted`: not the first server of this daemon."""
    if daemon.configuration is not None:
        await daemon.configuration.start(restarted=restarted)
    daemon.executor.wake()
    await daemon.executor.quiet()
    await daemon.joiner.quiet()
    await listeners.serving()
    ready.set()
    keeper.ready()
    await status.ready()
    if daemon.actions is not None and not restarted:
        daemon.actions.start()
    _log.info("the server serves", extra={"routes": len(daemon.engine.desired.routes), "instance_id": daemon.info.instance_id})


def _tables_to_keep(settings: Settings, daemon: Daemon) -> frozenset[int]:
    described = daemon.configuration.tables if daemon.configuration is not None else frozenset[int]()
    return described.union(settings.tables)


async def _follow_links(links: LinkMonitor, daemon: Daemon) -> None:
    """Tell the engine of interfaces that come, go and change."""
    async for event in links:
        await in_slices(daemon.engine.links_in_slices(event), daemon.executor.wake)
        if isinstance(event, LinksResync):
            daemon.reconciler.check_vifs()
        daemon.executor.wake()
        daemon.joiner.wake()


def _leave(code: int) -> NoReturn:
    """End the process without taking the interpreter apart, which takes as long as a fifth of the imports and is of no use."""
    atexit._run_exitfuncs()  # noqa: SLF001 - all that sys.exit would do besides, for those who measure coverage
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
