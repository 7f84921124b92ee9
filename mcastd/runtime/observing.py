"""What the daemon tells of itself, put together: metrics listeners, the watch for silent flows, the event loop's lag.

Part of the server; the metrics themselves are mcastd.telemetry's.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from mcastd.keeper.activation import COUNT_VARIABLE
from mcastd.keeper.channel import CHANNEL_FD
from mcastd.model.errors import KernelRefused, McastdError, Reason
from mcastd.model.interface import VifCounters
from mcastd.model.settings import metrics_host_port
from mcastd.runtime.daemon import Daemon
from mcastd.runtime.keeper_client import Hello
from mcastd.telemetry.flows import Flows
from mcastd.telemetry.gate import WebGate
from mcastd.telemetry.http import HttpServer
from mcastd.telemetry.metrics import LogCounter, Metrics
from mcastd.telemetry.pages import Pages
from mcastd.telemetry.rpc import RpcMetrics
from mcastd.telemetry.scrape import Facts, Scraper
from mcastd.telemetry.silence import SilenceWatch

LAG_SECONDS = 0.1
"""Between two looks at how late the event loop is."""

LOOKS = 4
"""Times that expected flows are looked at until one counts as silent; so late is it told at most, and a second."""

_log = logging.getLogger(__name__)


def inherited_listening(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Sockets that listen already, as a server that was started by the keeper finds them."""
    count = int(environ.pop(COUNT_VARIABLE, "0"))
    return [socket.socket(fileno=CHANNEL_FD + 1 + number) for number in range(count)]


class _View:
    """The daemon, as a scrape asks of it."""

    def __init__(self, daemon: Daemon, watchers: Callable[[], tuple[int, int, Mapping[str, int]]]) -> None:
        self._daemon = daemon
        self.watchers = watchers

    def store_refuses(self) -> bool:
        return self._daemon.store_refusal() is not None

    def vif_counters(self, table: int, ipv6: bool, vif: int) -> VifCounters | None:
        return self._daemon.vif_counters(table, ipv6, vif)


class Observing:
    """Everything that observes the server, and tells."""

    def __init__(self, hello: Hello, daemon: Daemon, metrics: Metrics, listening: Sequence[socket.socket] = ()) -> None:
        """Take over sockets that listen already, and count log lines from now on; nothing is served yet.

        Raises McastdError if the web configuration can't be used.
        """
        self._settings = settings = hello.settings
        self._listening = listening
        self._hello = hello
        self._daemon = daemon
        self._metrics = metrics
        self._silence = SilenceWatch(settings.exposition.silent_after)
        self._flows = Flows(daemon.engine, self._silence, settings.exposition.flows_top)
        self._lag = metrics.loop_lag
        self._http: HttpServer | None = None
        self._log_counter = LogCounter(metrics)
        self.rpc = RpcMetrics(metrics.registry)
        path = settings.exposition.web_config
        wanted = bool(path and (settings.metrics or listening))
        self._gate = WebGate(Path(path), metrics) if wanted else None
        logging.getLogger().addHandler(self._log_counter)

    async def listen(self, ready: Callable[[], bool], watchers: Callable[[], tuple[int, int, Mapping[str, int]]]) -> None:
        """Serve where the settings say, and on sockets that listen already; McastdError if an address can't be had."""
        daemon, settings = self._daemon, self._settings
        facts = Facts(daemon.info.instance_id, self._hello.started_at, self._hello.starts, settings.config)
        scraper = Scraper(daemon.engine, _View(daemon, watchers), daemon.sampler, self._metrics.registry, self._flows, facts)
        pages = Pages(scraper, ready, flows_all=settings.exposition.flows_all)
        self._http = HttpServer(pages.answer, self._gate, self._metrics.http_requests)
        for listening in self._listening:
            await self._http.take(listening)
        for address in settings.metrics.split():
            host, port = metrics_host_port(address)
            try:
                await self._http.start(host, port)
            except OSError as exc:
                text = f"the metrics address {address} can't be had: {exc.strerror}: choose another (setting metrics)"
                raise McastdError(Reason.INVALID_VALUE, text, field="metrics", value=address) from exc

    def parts(self) -> Sequence[tuple[Coroutine[Any, Any, None], str]]:
        """What runs beside everything else, with names."""
        return (self._daemon.sampler.run(), "counters"), (self._watch_silence(), "silence"), (self._watch_lag(), "lag")

    async def stop(self) -> None:
        """Hang up."""
        logging.getLogger().removeHandler(self._log_counter)
        if self._http is not None:
            await self._http.stop()
        if self._gate is not None:
            self._gate.close()

    async def _watch_silence(self) -> None:
        """Look at the flows that are expected, while there are any."""
        interval = max(1.0, self._silence.after / LOOKS)
        while True:
            await asyncio.sleep(interval)
            try:
                await self._flows.watch(self._daemon.sampler, interval)
            except KernelRefused as exc:
                _log.warning("expected flows can't be looked at", extra={"error": str(exc)})

    async def _watch_lag(self) -> None:
        while True:
            due = time.monotonic() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self._lag.observe(max(0.0, time.monotonic() - due))
