"""mcastd.kernel.links: what needs no change of a link."""

import asyncio
import errno
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2.netlink.rtnl import RTM_NEWLINK
from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP, ifinfmsg

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


def newlink(name: bytes | str) -> ifinfmsg:
    message = ifinfmsg()
    message["header"].update(type=RTM_NEWLINK, flags=0, sequence_number=0, error=None)
    message.update(family=socket.AF_UNSPEC, index=7, flags=IFF_UP, attrs=[("IFLA_IFNAME", name)])
    return message


def test_name_that_is_no_utf_8_is_text_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    monitor = LinkMonitor()
    for name in (b"b\xff", b"b\xff", b"\xc3\xa9\xc3", "\u00e9"):
        monitor._take(newlink(name))
        monitor._take(newlink("other"))
    monitor._take(newlink(b"c\xff" * 5))
    events = [monitor._events.get_nowait() for _ in range(monitor._events.qsize())]
    names = [event.link.name for event in events if isinstance(event, LinkChanged)]
    assert names[::2] == ["b\\xff", "b\\xff", "\u00e9\\xc3", "\u00e9", "c\\xff" * 5]
    assert [record.__dict__["interface"] for record in caplog.records] == ["b\\xff", "\u00e9\\xc3", "c\\xff" * 5]


async def test_what_cannot_be_decoded_makes_a_new_snapshot(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = LinkMonitor()
    found = await monitor.start()
    real, broken = monitor._marshal.parse, [struct.error("too short"), KeyError("family")]

    def parse(data: bytes) -> Iterator[ifinfmsg]:
        if broken:
            raise broken.pop()
        yield from real(data)

    monkeypatch.setattr(monitor._marshal, "parse", parse)
    monitor._resync()
    async with asyncio.timeout(10):
        async for event in monitor:
            if isinstance(event, LinksResync):
                break
    assert not broken
    assert isinstance(event, LinksResync)
    assert {one.name for one in event.links} >= {one.name for one in found if one.name == "lo"}
    assert caplog.text.count("cannot be decoded: all are read again") == 2
    monitor.close()


async def test_start_that_can_decode_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_RESYNC_DELAY", 0.001)
    monitor = LinkMonitor()
    monkeypatch.setattr(monitor, "_take", lambda _message: struct.unpack("B", b""))
    with pytest.raises(OSError, match=r"cannot be decoded: error\('unpack requires"):
        await monitor.start()
    monitor.close()


async def test_start_without_an_answer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "START_PATIENCE", 0.05)
    monitor = LinkMonitor()
    monkeypatch.setattr(monitor, "_take", lambda _message: True)
    with pytest.raises(TimeoutError, match=r"no whole snapshot of the links within 0\.05 s"):
        await monitor.start()
    assert [event async for event in monitor] == []
