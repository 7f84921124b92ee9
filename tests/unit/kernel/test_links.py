"""mcastd.kernel.links: what needs no change of a link."""

import asyncio
import errno
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mcastd.kernel import links
from mcastd.kernel.links import LinkMonitor
from mcastd.model.event import LinkChanged, LinkEvent, LinkGone, LinksResync
from mcastd.model.interface import Link


def link(number: int, name: str = "") -> Link:
    return Link(number, name or f"eth{number}", up=True, multicast=True)


async def test_the_loopback_is_among_the_links_without_multicast() -> None:
    monitor = LinkMonitor()
    found = await monitor.start()
    monitor.close()
    [loopback] = [one for one in found if one.name == "lo"]
    assert loopback.ifindex == socket.if_nametoindex("lo")
    assert not loopback.multicast


async def test_iteration_ends_after_close_for_every_reader() -> None:
    monitor = LinkMonitor()
    await monitor.start()

    async def read() -> list[LinkEvent]:
        return [event async for event in monitor]

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(read()) for _ in range(2)]
        await asyncio.sleep(0)
        monitor.close()
    assert all(isinstance(event, LinkChanged | LinkGone) for reader in readers for event in reader.result())
    monitor.close()


async def test_close_ends_a_start_that_waits() -> None:
    monitor = LinkMonitor()
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(monitor.start())
        await asyncio.sleep(0)
        monitor.close()
    assert starting.cancelled()


async def test_it_starts_once() -> None:
    monitor = LinkMonitor()
    await monitor.start()
    with pytest.raises(RuntimeError, match="twice"):
        await monitor.start()
    monitor.close()


async def test_an_error_of_the_socket_reaches_whoever_reads() -> None:
    monitor = LinkMonitor()
    await monitor.start()
    monitor._fail(OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        await anext(monitor)
    monitor.close()
    with pytest.raises(OSError, match="broken"):
        await anext(monitor)


async def test_an_error_of_the_socket_reaches_whoever_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = LinkMonitor()
    monkeypatch.setattr(monitor, "_dumped", lambda: monitor._fail(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        await monitor.start()
    monitor.close()


async def test_a_slow_reader_gets_one_resync_instead_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "QUEUE_MAX", 3)
    monitor = LinkMonitor()
    for number in range(1, 6):
        monitor._changed(link(number))
    monitor._gone(5)
    monitor._gone(99)
    monitor._changed(link(1))

    monitor.close()
    assert [event async for event in monitor] == [
        LinksResync(tuple(link(number) for number in range(1, 5))),
        LinkChanged(link(5)),
        LinkGone(5, "eth5"),
    ]


LATE = """
import asyncio, sys
from mcastd.kernel.links import LinkMonitor
import asyncio.runners, asyncio.taskgroups
async def main():
    before = set(sys.modules)
    monitor = LinkMonitor()
    await monitor.start()
    monitor.close()
    async for _ in monitor: pass
    print(sorted(set(sys.modules) - before))
asyncio.run(main())
"""


def test_nothing_is_imported_late() -> None:
    """The server drops its rights after its imports: a file that is read later might not be readable any more."""
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout == "[]\n"
