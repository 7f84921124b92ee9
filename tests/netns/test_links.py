"""mcastd.kernel.links: snapshot and changes of the real kernel's links."""

import asyncio
from collections.abc import Callable

import pytest

from mcastd.kernel.links import LinkMonitor
from mcastd.model.event import LinkChanged, LinkEvent, LinkGone, LinksResync
from mcastd.model.interface import Link
from tests.testbed import Testbed

pytestmark = pytest.mark.kernel

SOON = 1.0


async def until(monitor: LinkMonitor, wanted: Callable[[LinkEvent], bool]) -> list[LinkEvent]:
    """Events up to the one wanted; TimeoutError when it does not come within a second."""
    events: list[LinkEvent] = []
    async with asyncio.timeout(SOON):
        async for event in monitor:
            events.append(event)
            if wanted(event):
                return events
    raise AssertionError(events)


def changed_to(**fields: object) -> Callable[[LinkEvent], bool]:
    return lambda event: isinstance(event, LinkChanged) and all(getattr(event.link, k) == v for k, v in fields.items())


def test_the_snapshot_has_every_link_as_it_is(testbed: Testbed) -> None:
    router = testbed.namespace("router")
    router.ip(
        "link add name a type veth peer name b",
        "link set dev a up",
        "link set dev a multicast off",
        "link add name c type veth peer name d",
    )
    router.ip("link set dev c up", "link set dev d up")

    async def snapshot() -> list[Link]:
        monitor = LinkMonitor()
        try:
            return await monitor.start()
        finally:
            monitor.close()

    links = {link.name: link for link in router.run(lambda: asyncio.run(snapshot()))}
    assert {name: (link.up, link.multicast) for name, link in links.items() if name in "lo a b c d"} == {
        "lo": (True, False),
        "a": (False, False),  # up, without carrier
        "b": (False, True),
        "c": (True, True),
        "d": (True, True),
    }
    assert links["a"].ifindex == router.ifindex("a")


def test_add_rename_down_and_delete_are_told_within_a_second(testbed: Testbed) -> None:
    router = testbed.namespace("router")

    async def watch() -> None:
        monitor = LinkMonitor()
        await monitor.start()
        router.ip("link add name a type veth peer name b", "link set dev b up", "link set dev a up")
        events = await until(monitor, changed_to(name="a", up=True))
        ifindex = router.ifindex("a")
        assert isinstance(events[-1], LinkChanged)
        assert events[-1].link.ifindex == ifindex

        router.ip("link set dev a down")
        await until(monitor, changed_to(name="a", up=False))
        router.ip("link set dev a name renamed")
        await until(monitor, changed_to(name="renamed", ifindex=ifindex))
        router.ip("link set dev renamed multicast off")
        await until(monitor, changed_to(name="renamed", multicast=False))
        router.ip("link del dev renamed")
        await until(monitor, lambda event: event == LinkGone(ifindex, "renamed"))
        monitor.close()
        assert [event async for event in monitor if not isinstance(event, LinkGone)] == []

    router.run(lambda: asyncio.run(watch()))


def test_leaving_a_bridge_is_not_a_deletion(testbed: Testbed) -> None:
    router = testbed.namespace("router")
    router.ip("link add name br type bridge", "link add name a type veth peer name b", "link set dev a master br")
    ifindex = router.ifindex("a")
    other = testbed.namespace("other")

    async def watch() -> list[LinkEvent]:
        monitor = LinkMonitor()
        await monitor.start()
        router.ip("link set dev a nomaster", "link add name last type veth peer name tsal")
        events = await until(monitor, changed_to(name="last"))
        assert not [event for event in events if isinstance(event, LinkGone)]
        router.ip(f"link set dev a netns /proc/self/fd/{other.fd}", pass_fds=(other.fd,))
        events = await until(monitor, lambda event: isinstance(event, LinkGone))
        monitor.close()
        return events

    assert router.run(lambda: asyncio.run(watch()))[-1] == LinkGone(ifindex, "a")


def test_lost_changes_end_in_a_new_snapshot_that_is_right(testbed: Testbed) -> None:
    router = testbed.namespace("router")
    router.ip("link add name a type veth peer name b")

    async def watch() -> None:
        monitor = LinkMonitor(receive_buffer=1)  # the kernel's smallest
        await monitor.start()
        # Nobody reads while the loop is busy here.
        router.ip(*(f"link set dev a {state}" for state in ["up", "down"] * 100), "link set dev a name last", "link del dev last")
        events = await until(monitor, lambda event: isinstance(event, LinksResync))
        assert isinstance(events[-1], LinksResync)
        assert "b" not in {link.name for link in events[-1].links}
        assert "lo" in {link.name for link in events[-1].links}

        router.ip("link add name after type veth peer name wards")
        await until(monitor, lambda event: "after" in names(event))
        monitor.close()

    router.run(lambda: asyncio.run(watch()))


def names(event: LinkEvent) -> set[str]:
    match event:
        case LinkChanged(link):
            return {link.name}
        case LinksResync(links):
            return {link.name for link in links}
        case _:
            return set()


def test_changes_during_the_snapshot_are_in_it_or_come_after(testbed: Testbed) -> None:
    router = testbed.namespace("router")
    router.ip(*(f"link add name a{n} type veth peer name b{n}" for n in range(40)))

    async def watch() -> set[str]:
        monitor = LinkMonitor()
        starting = asyncio.get_running_loop().create_task(monitor.start())
        await asyncio.sleep(0)  # subscribed, and asked; nothing read yet
        await asyncio.to_thread(
            router.ip,
            *(f"link set dev a{n} name c{n}" for n in range(40)),
            *(f"link del dev c{n}" for n in range(20)),
            "link add name end type veth peer name dne",
        )
        known = {link.ifindex: link.name for link in await starting}
        while "end" not in known.values():
            async with asyncio.timeout(SOON):
                event = await anext(monitor)
            match event:
                case LinkChanged(link):
                    known[link.ifindex] = link.name
                case LinkGone(ifindex, _):
                    del known[ifindex]
                case LinksResync(links):
                    known = {link.ifindex: link.name for link in links}
        monitor.close()
        return set(known.values())

    names_known = router.run(lambda: asyncio.run(watch()))
    wanted = {f"{side}{n}" for n in range(20, 40) for side in "bc"} | {"end"}
    assert {name for name in names_known if name[0] in "abce"} == wanted


def test_name_that_is_no_utf_8_is_escaped(testbed: Testbed) -> None:
    """To the kernel a name is any 15 bytes but a few (dev_valid_name)."""
    router = testbed.namespace("router")
    made = ["ip", "link", "add", "name", b"b\xff", "type", "veth", "peer", "name", b"\xfe" * 15]

    async def watch() -> None:
        monitor = LinkMonitor()
        await monitor.start()
        await asyncio.to_thread(router.command, *made)  # type: ignore[arg-type] # bytes are arguments too
        await until(monitor, changed_to(name="b\\xff"))
        monitor.close()
        again = LinkMonitor()
        assert {one.name for one in await again.start()} >= {"lo", "b\\xff", "\\xfe" * 15}
        again.close()

    router.run(lambda: asyncio.run(watch()))
