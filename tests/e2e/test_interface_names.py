"""Names that the kernel allows and text does not: the daemon goes on, and their interfaces are used."""

import re
import subprocess
from pathlib import Path

import pytest

from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family
from tests.e2e.router import PROGRAMMED, group
from tests.testbed import Namespace, Testbed
from tests.testbed.daemon import McastdProcess, route, wait_until

pytestmark = pytest.mark.kernel

LONGEST = b"b" + b"\xfe" * 14
"""15 bytes, of which the daemon makes 57."""

COUNT = 50


def received(namespace: Namespace, interface: str) -> int:
    """Packets that have come in; those of the system itself are few."""
    words = ("ip", "-s", "-o", "link", "show", "dev", interface)
    with namespace.entered():
        text = subprocess.run(words, capture_output=True, check=True).stdout  # its peer's name is no text
    found = re.search(rb"RX: [^\\]*\\ +\d+ +(\d+)", text)
    assert found, text
    return int(found[1])


def test_interfaces_whose_names_are_no_utf_8_match_a_glob(testbed: Testbed, family: Family, directory: Path) -> None:
    star = testbed.star(1)
    sender = star.source.sender(group(family), hops=16)
    with McastdProcess(star.router, directory) as daemon:
        daemon.put(route(sender.group, sender.source, "up", "down1", "b*"))
        server = daemon.server_pid()
        for name, peer in ((b"b\xff", "far1"), (LONGEST, "far2")):
            star.router.command("ip", "link", "add", "name", name, "type", "veth", "peer", "name", peer)  # type: ignore[arg-type]
            star.router.ip(f"link set {peer} up")
            star.router.command("ip", "link", "set", name, "up")  # type: ignore[arg-type]

        def status() -> t.RouteStatus:
            return daemon.state(sender.group, sender.source)

        wanted = {"down1", "b\\xff", "b" + "\\xfe" * 14}
        wait_until(lambda: set(status().installed_oifs) == wanted, 20, lambda: f"{status()}\n{daemon.log()}")
        assert status().state == PROGRAMMED
        assert daemon.server_pid() == server
        assert daemon.log().count("name is not UTF-8") == 2
        sender.send(COUNT)
        for peer in ("far1", "far2"):
            wait_until(lambda peer=peer: received(star.router, peer) >= COUNT, 20)  # type: ignore[misc]

        daemon.kill_server()  # the keeper tells the next server of the VIFs
        wait_until(lambda: daemon.server_pid() not in {0, server}, 20)
        daemon.wait_ready()
        assert set(status().installed_oifs) == wanted
        assert status().state == PROGRAMMED
