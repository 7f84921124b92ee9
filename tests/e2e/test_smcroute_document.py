"""docs/smcroute.md: what is given there for an smcroute.conf forwards and joins the same, as SMCRoute itself does it."""

import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from mcastd.kernel import mfc_dump
from mcastd.model.address import Family
from tests.testbed import Port, Testbed
from tests.testbed.daemon import McastdProcess, wait_until
from tests.testbed.namespace import Namespace

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not shutil.which("smcrouted"), reason="SMCRoute is not installed (Debian package smcroute)"),
]

TEXT = (Path(__file__).parents[2] / "docs" / "smcroute.md").read_text("utf-8")
_MEMBERSHIPS = {"/proc/net/igmp": r"(\w{8}) +\d+ ", "/proc/net/mcfilter": r"eth0 0x(\w{8} 0x\w{8}) +1 "}


class Site(NamedTuple):
    """A router with the document's interfaces."""

    router: Namespace
    source: Port

    def fitted(self, text: str) -> str:
        """An example of the document for the source that is there."""
        return text.replace("10.0.0.5", self.source.ipv4).replace("fd00::/64", "fd00:0:0:1::/64")

    def entries(self) -> dict[bytes, tuple[str, list[str]]]:
        """What the kernel has of both families: iif and oifs by name."""
        names = dict(self.router.run(socket.if_nameindex))
        found: dict[bytes, tuple[str, list[str]]] = {}
        for family in Family:
            dump = self.router.run(partial(mfc_dump.dump, family, 0))
            paths = [(names.get(iif, ""), sorted(names[oif] for oif, _ in oifs)) for iif, oifs in dump.paths]
            found |= {row[7]: paths[row[4]] for row in dump.rows() if not row[6]}
        return found

    def memberships(self) -> dict[str, set[str]]:
        """Groups, and groups with sources, that are joined, as the kernel writes them; not those of every host or router."""
        with self.router.entered():
            texts = {name: Path(name).read_text() for name in _MEMBERSHIPS}
        return {name: set(re.findall(form, texts[name])) - {"010000E0", "020000E0"} for name, form in _MEMBERSHIPS.items()}

    def learned(self) -> Callable[[], bool]:
        """Whether packets of each template have made an entry; each look sends some more."""
        senders = [self.source.sender("225.3.1.1"), self.source.sender("ff3e::77")]

        def looked() -> bool:
            for sender in senders:
                sender.send()
            return len(self.entries()) == 3

        return looked


def example(begin: str) -> str:
    """The code block of the document that begins so."""
    (found,) = re.findall(rf"(?ms)^```\w*\n({re.escape(begin)}.*?)^```", TEXT)
    return str(found)


@pytest.fixture
def site(testbed: Testbed) -> Site:
    """A router, a source, and somebody behind each of the other interfaces."""
    router = testbed.namespace("router")
    source, _ = testbed.connect(testbed.namespace("source"), "eth0", router, "eth0")
    for name in ("eth1", "eth2"):
        testbed.connect(testbed.namespace(f"behind {name}"), "eth0", router, name)
    return Site(router, source)


def test_the_example_does_what_smcroute_does(testbed: Testbed, site: Site, directory: Path) -> None:
    (directory / "smcroute.conf").write_text(site.fitted(example("phyint eth0 enable")))
    command = ["smcrouted", "-n", "-f", "smcroute.conf", "-u", "sock", "-P", "pid"]
    theirs = testbed.popen(site.router, command, cwd=directory, stderr=subprocess.DEVNULL)
    wait_until((directory / "sock").exists, 20)
    wait_until(site.learned(), 20)
    entries, memberships = site.entries(), site.memberships()
    theirs.terminate()
    theirs.wait(20)
    assert {oif for _, oifs in entries.values() for oif in oifs} == {"eth1", "eth2"}
    assert all(memberships.values())
    assert site.entries() == {}

    config = directory / "mcastd.toml"
    config.write_text(site.fitted(example("[interface.eth0]")))
    config.chmod(0o644)
    with McastdProcess(site.router, directory, "--config", str(config)):
        wait_until(site.learned(), 20)
        assert site.entries() == entries
        assert site.memberships() == memberships
