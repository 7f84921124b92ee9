"""mcastd.runtime.observing: the parts run, are served, and end."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mcastd.model.errors import McastdError
from mcastd.model.settings import Exposition, Settings
from mcastd.runtime import observing
from mcastd.runtime.keeper_client import Hello
from mcastd.runtime.observing import Observing, inherited_listening
from mcastd.runtime.tasks import cancel, spawn
from mcastd.telemetry.metrics import Metrics
from tests.api.rig import Rig
from tests.api.waiting import until
from tests.unit.telemetry.conftest import loopback

__all__ = ["loopback"]

pytestmark = pytest.mark.usefixtures("loopback")


def hello(exposition: Exposition | None = None, metrics: str = "") -> Hello:
    """What a keeper says."""
    settings = Settings((), "/", "me", 0, 0, change_user=False, metrics=metrics, exposition=exposition or Exposition())
    return Hello(settings, 900.0, 1.0, 1)


@asynccontextmanager
async def rig(directory: Path) -> AsyncIterator[Rig]:
    """A daemon that does not run."""
    one = Rig(directory)
    yield one
    await one.listeners.stop(0)
    await one.channel.close(None)
    one.store.close()


async def get(port: int, path: str) -> str:
    """An answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return answer


async def test_served_on_sockets_and_addresses(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        metrics = Metrics()
        observed = Observing(hello(metrics="127.0.0.1:0"), one.daemon, metrics, [listening])
        await observed.listen(lambda: True, lambda: (1, 2, {}))
        assert "alive" in await get(port, "/healthz")
        assert "not exported" in await get(port, "/metrics/flows")
        await observed.stop()
        with pytest.raises(ConnectionRefusedError):
            await get(port, "/healthz")


async def test_lag_and_log_lines_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "LAG_SECONDS", 0.01)
    async with rig(tmp_path) as one:
        metrics = Metrics()
        value = metrics.registry.get_sample_value
        observed = Observing(hello(), one.daemon, metrics)
        parts = [spawn(part, name) for part, name in observed.parts()]
        logging.getLogger("test").warning("seen")
        assert value("mcastd_log_messages_total", {"level": "warning"}) == 1
        await until(lambda: (value("mcastd_event_loop_lag_seconds_count") or 0) > 3)
        await cancel(*parts)
        await observed.stop()
        logging.getLogger("test").warning("not seen")
        assert value("mcastd_log_messages_total", {"level": "warning"}) == 1


async def test_a_broken_web_configuration_is_an_error_where_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    path.write_text("unknown: 1")
    async with rig(tmp_path) as one:
        with pytest.raises(McastdError, match="unknown"):
            Observing(hello(Exposition(str(path)), "127.0.0.1:0"), one.daemon, Metrics())
        await Observing(hello(Exposition(str(path))), one.daemon, Metrics()).stop()


async def test_an_address_that_is_taken_is_told(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            observed = Observing(hello(metrics=address), one.daemon, Metrics())
            with pytest.raises(McastdError, match=address):
                await observed.listen(lambda: True, lambda: (0, 0, {}))
            await observed.stop()


def test_no_sockets_are_inherited_unless_said_so() -> None:
    environ = {"PATH": "/bin"}
    assert inherited_listening(environ) == []
