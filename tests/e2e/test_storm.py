"""Hundreds of link events in a second, while routes are written and while nobody listens: the end is what it should be."""

import logging
import os
import random
import signal
import threading
import time

import pytest

from mcast.v1 import route_service_pb2 as rs
from mcastd.model.address import Family
from tests.e2e.router import PARTIAL, PROGRAMMED, Router, bulk
from tests.testbed import Testbed
from tests.testbed.daemon import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("heavy")]

EVENTS = 500
ROUTES = 20_000
OWNER = {"owner": "bulk"}

_log = logging.getLogger(__name__)


def storm() -> list[str]:
    """Commands of `ip` that flap, rename, delete and make interfaces; at the end there are just those of the beginning."""
    names = {"flap": "flap", "move": "move"}
    commands = []
    for n in range(EVENTS):
        match random.randrange(4):
            case 0:
                commands += [f"link set {names['flap']} down", f"link set {names['flap']} up"]
            case 1:
                new = f"name{n}"
                commands.append(f"link set {names['move']} name {new}")
                names["move"] = new
            case 2:
                commands.append(f"link add name down9{n} type veth peer name peer{n}")
                commands.append(f"link del down9{n}")
            case _:
                commands.append(f"link set {names['flap']} multicast {'off' if n % 2 else 'on'}")
    return [
        *commands,
        f"link set {names['move']} name move",
        "link set move up",
        "link set flap multicast on",
        "link set flap up",
    ]


def test_storm_of_link_events_while_routes_are_written(testbed: Testbed) -> None:
    """Both families at once."""
    with Router(testbed, Family.IPV4) as router:
        for name in ("flap", "move"):
            router.bed.connect(router.bed.namespace(f"behind {name}"), "eth0", router.namespace, name)
        shapes = [("down1",), ("down1", "flap"), ("down2", "move"), ("down*", "flap")]
        sources = {family: router.star.source.address(family) for family in Family}
        routes = [
            one
            for at, oifs in enumerate(shapes)
            for family, source in sources.items()
            for one in bulk(family, ROUTES // 8, source, *oifs, first=0x10000 * (at + 1))
        ]
        results: list[rs.WriteResult] = []

        def write() -> None:
            results.append(router.daemon.replace(routes, options=OWNER))
            results.append(router.daemon.replace(routes[: ROUTES // 2], options=OWNER))
            results.append(router.daemon.replace(routes, options=OWNER))

        writer = threading.Thread(target=write)
        writer.start()
        began = time.monotonic()
        commands = storm()
        router.namespace.ip(*commands)
        took = time.monotonic() - began
        writer.join()
        _log.info("%d link commands in %.2f s, three writes meanwhile", len(commands), took)
        done = [(one.created, one.deleted, one.failed) for one in results]
        assert done == [(ROUTES, 0, 0), (0, ROUTES // 2, 0), (ROUTES // 2, 0, 0)]
        check_calm(router, len(routes))
        wanted = {("up", ("down1",)), ("up", ("down1", "flap")), ("up", ("down2", "move")), ("up", ("down1", "down2", "flap"))}
        for family, source in sources.items():
            router.family = family
            kernel = router.kernel()
            assert len(kernel) == ROUTES // 2
            assert set(kernel.values()) == wanted
            assert router.vifs().keys() == {"up", "down1", "down2", "flap", "move"}
            sender = router.star.source.sender(next(bulk(family, 1, source, first=0x20000)).group)
            router.check_leaves(sender, "down1", "flap")


def check_calm(router: Router, count: int) -> None:
    router.namespace.wait_running("flap")
    wait_until(lambda: router.states() == {"ROUTE_STATE_PROGRAMMED": count}, 30, lambda: str(router.states()))
    assert router.daemon.log().count("the server is started") == 1
    wait_until(lambda: router.daemon.status().limits.vifs_used == 5, 20)


def deafen(router: Router) -> None:
    """More link events than the stopped server's socket holds: what it hears next is that it has missed some."""
    router.namespace.ip(*(f"link set dev up txqueuelen {1000 + n}" for n in range(6000)))


def test_interface_moved_out_and_back_while_the_server_is_deaf(router: Router) -> None:
    """A snapshot shows the same ifindex and name, and yet the VIF is gone."""
    sender = router.sender()
    router.put(router.route(sender, "down1", "down2"))
    server = router.daemon.server_pid()
    os.kill(server, signal.SIGSTOP)
    deafen(router)
    outside = router.bed.namespace("outside")
    router.namespace.ip(f"link set dev down1 netns /proc/self/fd/{outside.fd}", pass_fds=(outside.fd,))
    here = router.namespace.fd
    outside.ip(f"link set dev down1 netns /proc/self/fd/{here}", pass_fds=(here,))
    router.namespace.ip("link set dev down1 up")
    router.namespace.wait_running("down1")
    os.kill(server, signal.SIGCONT)
    wait_until(lambda: router.vifs().keys() == {"up", "down1", "down2"}, 20)
    router.wait_state(sender, PROGRAMMED)
    router.check_leaves(sender, "down1", "down2")


def test_changes_while_the_server_is_deaf(router: Router) -> None:
    sender, other = router.sender(1), router.sender(2)
    router.put(router.route(sender, "down1", "down2"), router.route(other, "fresh"))
    server = router.daemon.server_pid()
    os.kill(server, signal.SIGSTOP)
    deafen(router)
    router.namespace.ip("link del down1")
    router.rename("down2", "fresh")
    router.bed.connect(router.bed.namespace("third"), "eth0", router.namespace, "down2")
    os.kill(server, signal.SIGCONT)
    router.wait_state(other, PROGRAMMED)
    router.wait_state(sender, PARTIAL)
    router.check_leaves(sender, "down2")
    router.check_leaves(other, "fresh")
