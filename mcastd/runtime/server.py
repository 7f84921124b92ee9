"""The server process: `python -m mcastd.runtime.server`, started by the keeper with the channel as descriptor 3.

Everything is imported here and now, while the program's files can be read; then the privileges go, and only then is
anything opened or parsed.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from mcastd.api.listeners import Listeners
from mcastd.core.engine import Engine
from mcastd.keeper.channel import ChannelError
from mcastd.kernel.links import LinkMonitor
from mcastd.model.errors import McastdError, Reason
from mcastd.model.event import LinksResync
from mcastd.model.settings import Settings, metrics_host_port
from mcastd.runtime import privileges
from mcastd.runtime.adoption import adopt
from mcastd.runtime.daemon import Daemon
from mcastd.runtime.housekeeping import Housekeeper
from mcastd.runtime.keeper_client import Callbacks, Hello, KeeperClient, inherited_channel
from mcastd.runtime.tasks import cancel, in_slices, spawn
from mcastd.store.sqlite import Store
from mcastd.telemetry import logs
from mcastd.telemetry.http import HttpServer
from mcastd.telemetry.metrics import EngineCollector, Metrics

EX_TEMPFAIL = 75
"""sysexits.h: what is wrong may heal (a full disk), the keeper tries again."""

EX_CONFIG = 78
"""sysexits.h: no restart will help."""

VERIFY_SECONDS = 2.0
"""Between two looks at our VIFs: one ioctl each."""

GRACE = 3.0
"""Seconds for calls under way at an orderly end."""

_log = logging.getLogger(__name__)


def main() -> int:
    """Run until told to end; the exit code is for the keeper."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal sends it to both processes; the keeper ends this one in order.
    logs.configure("server", "info")
    sys.excepthook = logs.log_uncaught
    try:
        channel = inherited_channel()
        hello = KeeperClient.receive_hello(channel)
        logs.configure("server", hello.settings.log_level)
        imported = frozenset(sys.modules)
        privileges.drop(hello.settings)
        os.umask(0o077)
        gc.collect()
        gc.freeze()  # What is imported stays: no collection need look at it.
        gc.set_threshold(50_000, 20, 100)
        exit_code = asyncio.run(_serve(hello, channel))
        # Each would have failed where the program's files are closed to the server's user: a test reads this.
        _log.debug("modules imported without privileges", extra={"modules": " ".join(sorted(sys.modules.keys() - imported))})
    except ChannelError as exc:
        _log.error("there is no keeper to serve", extra={"error": str(exc)})
        return EX_CONFIG
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

    def now(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


async def _serve(hello: Hello, channel: socket.socket) -> int:
    settings, end = hello.settings, _End()
    store = _open_store(settings)
    links = LinkMonitor()
    try:
        engine = Engine(store.begin(), store.load(), settings.limits)
        engine.links(LinksResync(tuple(await links.start())))
        tables = await adopt(engine, hello)
        metrics = Metrics()
        callbacks = _Callbacks(end)
        keeper = KeeperClient(channel, callbacks.as_callbacks())
        daemon = Daemon(engine, store, keeper, tables, metrics, end.now)
        callbacks.daemon = daemon
        metrics.registry.register(EngineCollector(engine, daemon.info.instance_id))
        return await _run(settings, daemon, keeper, links, metrics, end)
    finally:
        links.close()
        store.close()


def _open_store(settings: Settings) -> Store:
    store = Store.open(Path(settings.state_dir))
    if store.notice:
        _log.error("the stored state could not be used", extra={"notice": store.notice})
    return store


class _Callbacks:
    """What the keeper tells, passed to a daemon that is made after the channel."""

    def __init__(self, end: _End) -> None:
        self.daemon: Daemon | None = None
        self._end = end

    def as_callbacks(self) -> Callbacks:
        """In the form that KeeperClient wants."""
        return Callbacks(
            upcalls=lambda records: self.daemon.upcalls(records) if self.daemon else None,
            losses=lambda losses: self.daemon.losses(losses) if self.daemon else None,
            shutdown=self._end.now,
            end=self._end.now,
        )


async def _run(settings: Settings, daemon: Daemon, keeper: KeeperClient, links: LinkMonitor, metrics: Metrics, end: _End) -> int:
    """Start everything, wait for the end, stop everything in order."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.now)
    listeners = Listeners(daemon, settings.listens)
    ready = asyncio.Event()
    http = HttpServer(metrics.registry, ready.is_set)
    tasks = [
        spawn(daemon.executor.run(), "executor"),
        spawn(daemon.writer.run(), "writer"),
        spawn(_follow_links(links, daemon), "links"),
        spawn(Housekeeper(daemon.engine, daemon.executor).run(), "housekeeping"),
        spawn(_verify(daemon), "verification"),
    ]
    waiting = spawn(end.wait(), "end")
    try:
        await listeners.start()
        if settings.metrics:
            await _start_http(http, settings.metrics)
        starting = spawn(_become_ready(daemon, listeners, keeper, ready), "start")
        done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in done if task is not waiting]
        for task in failed:
            _log.critical("a part of the server has failed", extra={"part": task.get_name()}, exc_info=task.exception())
        ready.clear()
        await cancel(starting)
        await listeners.stop(0 if failed else GRACE)
        return 1 if failed else 0
    finally:
        await listeners.stop(0)  # After an error; gRPC's servers complain of a loop that is gone otherwise.
        await http.stop()
        for task in (waiting, *reversed(tasks)):
            if not task.done():
                await cancel(task)
        keeper.close()


async def _become_ready(daemon: Daemon, listeners: Listeners, keeper: KeeperClient, ready: asyncio.Event) -> None:
    """Serve once the kernel holds what is wanted."""
    daemon.executor.wake()
    await daemon.executor.quiet()
    await listeners.serving()
    ready.set()
    keeper.ready()
    _log.info("the server serves", extra={"routes": len(daemon.engine.desired.routes), "instance_id": daemon.info.instance_id})


async def _follow_links(links: LinkMonitor, daemon: Daemon) -> None:
    """Tell the engine of interfaces that come, go and change."""
    async for event in links:
        await in_slices(daemon.engine.links_in_slices(event), daemon.executor.wake)
        if isinstance(event, LinksResync):
            await daemon.verify()
        daemon.executor.wake()


async def _verify(daemon: Daemon) -> None:
    """See from time to time that nobody has taken our VIFs away."""
    while True:
        await asyncio.sleep(VERIFY_SECONDS)
        await daemon.verify()


async def _start_http(http: HttpServer, address: str) -> None:
    host, port = metrics_host_port(address)
    try:
        await http.start(host, port)
    except OSError as exc:
        text = f"the metrics address {address} can't be had: {exc.strerror}: choose another (setting metrics)"
        raise McastdError(Reason.INVALID_VALUE, text, field="metrics", value=address) from exc


if __name__ == "__main__":
    sys.exit(main())
