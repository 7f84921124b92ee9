"""The action script of a real daemon: when it is run, what it is told, with which rights, and what it costs the packets."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcast.v1 import types_pb2 as t
from mcastd.model.address import Family, address_text, pack_address
from tests.e2e.keeper_bench import run_to_end
from tests.e2e.router import Router, group
from tests.testbed import Sender, Testbed
from tests.testbed.daemon import wait_until

pytestmark = pytest.mark.kernel

SCRIPT = """#!/bin/sh
{
  echo "$1 $MCASTD_REASON $MCASTD_TABLE $MCASTD_INTERFACE $MCASTD_SOURCE $MCASTD_GROUP [$MCASTD_OIFS] $source $group"
} >>%(out)s
%(more)s
"""


START = "start start     []  "
"""What is written at the start: nothing but the reason is set."""


class Scripted:
    """A router whose daemon runs a script that writes a line each time."""

    def __init__(self, bed: Testbed, family: Family, directory: Path, more: str = "") -> None:
        self.directory = directory
        self.out = directory / "out"
        self.script = directory / "script"
        self.script.write_text(SCRIPT % {"out": self.out, "more": more})
        self.script.chmod(0o755)
        self.config = directory / "mcastd.toml"
        self.config.write_text("")
        arguments = ["--action", str(self.script), "--config", str(self.config)]
        self.router = Router(bed, family, arguments=arguments, directory=directory)

    def lines(self, reason: str = "") -> list[str]:
        """What the script has written, of one reason."""
        lines = self.out.read_text().splitlines() if self.out.exists() else []
        return [line for line in lines if line.startswith(reason)]

    def wait(self, *wanted: str, reason: str = "") -> None:
        """Wait until it has written just this."""
        wait_until(lambda: self.lines(reason) == list(wanted), 20, lambda: f"{self.lines()}\n{self.router.daemon.log()}")

    def check(self, sender: Sender, *oifs: str) -> None:
        """See a flow forwarded whose first packet makes the entry; four packets can wait for it."""
        sender.send(1)
        wait_until(lambda: self.router.key(sender) in self.router.kernel(), 20)
        self.router.check_leaves(sender, *oifs)

    def template(self, *oifs: str, iif: str = "up") -> None:
        """A template for all groups of the test."""
        prefix = "232.0.0.0/8" if self.router.family is Family.IPV4 else "ff3e::/32"
        message = t.Route(group=prefix, iif=iif, oifs=[t.Oif(interface=oif) for oif in oifs])
        self.router.put(message)


@pytest.fixture
def scripted(testbed: Testbed, family: Family, directory: Path) -> Iterator[Scripted]:
    made = Scripted(testbed, family, directory)
    yield made
    made.router.close()


def test_start_entries_and_reloads_are_told(scripted: Scripted) -> None:
    router = scripted.router
    scripted.wait(START, reason="start")
    scripted.template("down1", "down2")
    senders = [router.sender(number) for number in (1, 2)]
    for sender in senders:
        scripted.check(sender, "down1", "down2")
    source = address_text(pack_address(router.source))
    groups = [address_text(pack_address(one.group)) for one in senders]
    told = [f"install install 0 up {source} {one} [down1 down2] {source} {one}" for one in groups]
    scripted.wait(*told, reason="install")
    scripted.check(senders[0], "down1", "down2")  # no further entry, no further run
    router.daemon.process.send_signal(signal.SIGHUP)
    scripted.wait(START.replace("start", "reload"), reason="reload")
    router.wait_server_after(router.daemon.kill_server())
    scripted.check(router.sender(3), "down1", "down2")
    wait_until(lambda: len(scripted.lines("install")) == 3, 20)
    assert len(scripted.lines("start")) == 1, "it is the daemon's start that is told, not each server's"


def test_exact_routes_and_stop_filters_are_no_reason(scripted: Scripted) -> None:
    router = scripted.router
    scripted.wait(START)
    sender = router.sender(1)
    router.put(router.route(sender, "down1"))
    scripted.check(sender, "down1")
    unrouted = router.sender(2)
    unrouted.send(1)
    wait_until(lambda: router.key(unrouted) in router.kernel(), 20)
    scripted.template("down2")
    scripted.check(router.sender(3), "down2")
    wait_until(lambda: bool(scripted.lines("install")), 20)
    assert [line.split()[5] for line in scripted.lines("install")] == [address_text(pack_address(group(router.family, 3)))]


def test_an_entry_that_moves_is_told_with_its_new_interface(scripted: Scripted, testbed: Testbed) -> None:
    router = scripted.router
    near, _ = testbed.connect(testbed.namespace("other source"), "eth0", router.namespace, "up2")
    router.wait_links("up2")
    scripted.template("down1", iif="up*")
    sender = router.sender(1)
    scripted.check(sender, "down1")
    wait_until(lambda: len(scripted.lines("install")) == 1, 20)
    other = near.sender(sender.group, source=sender.source)
    end = time.monotonic() + 20
    while len(scripted.lines("install")) < 2:  # the first ones are told of at most every 3 s (MFC_ASSERT_THRESH)
        assert time.monotonic() < end
        other.send(1)
        time.sleep(0.1)
    assert [line.split()[3] for line in scripted.lines("install")] == ["up", "up2"]
    assert scripted.lines("install")[1].split("[")[1].startswith("down1]")


def test_rights_and_surroundings_of_the_script(testbed: Testbed, directory: Path) -> None:
    more = f"""{{
        grep -E "^Cap(Eff|Bnd|Prm)" /proc/$$/status
        for fd in /proc/$$/fd/*; do readlink $fd; done
        echo policy $(cut -d' ' -f41 /proc/$$/stat)
        tr '\\0' '\\n' </proc/$$/environ | grep NOTIFY
        ip link set dev down1 alias changed && echo allowed
    }} >{directory}/seen"""
    scripted = Scripted(testbed, Family.IPV4, directory, more)
    try:
        wait_until(lambda: "allowed" in (directory / "seen").read_text() if (directory / "seen").exists() else False, 20)
        wait_until(lambda: "reason=start" in scripted.router.daemon.log(), 20)
        seen = (directory / "seen").read_text().splitlines()
        capabilities = {line.split()[1] for line in seen if line.startswith("Cap")}
        assert capabilities == {"0000000000003000"}, "CAP_NET_ADMIN and CAP_NET_RAW"
        assert not [line for line in seen if line.startswith(("socket:", "anon_inode:", "pipe:", "/dev/net"))], seen
        assert "NOTIFY_SOCKET" not in " ".join(seen)
        assert "policy 0" in seen, "SCHED_OTHER"
    finally:
        scripted.router.close()


def test_a_script_that_fails_is_logged_and_one_that_lasts_ends_with_the_daemon(testbed: Testbed, directory: Path) -> None:
    scripted = Scripted(
        testbed, Family.IPV4, directory, more="[ $1 = start ] && exit 5\necho $$ >>%s; exec sleep 300" % (directory / "pid")
    )
    try:
        wait_until(lambda: 'reason=start status="exit code 5"' in scripted.router.daemon.log(), 20)
        scripted.template("down1")
        scripted.check(scripted.router.sender(1), "down1")
        wait_until((directory / "pid").exists, 20)
        pid = int((directory / "pid").read_text())
        began = time.monotonic()
        scripted.router.daemon.close()
        assert time.monotonic() - began < 6
        assert not Path(f"/proc/{pid}").exists()
    finally:
        scripted.router.close()


def test_packets_do_not_wait_for_a_script(testbed: Testbed, family: Family, directory: Path) -> None:
    """While a slow script runs, and 300 wait, each new flow is forwarded from its first packet on."""
    scripted = Scripted(testbed, family, directory, more="[ $1 = start ] || sleep 1")
    router = scripted.router
    try:
        scripted.template("down1")
        for number in range(1, 301):
            router.sender(number).send(1)
        scripted.check(router.sender(400), "down1")
        assert len(router.kernel()) == 301
        assert len(scripted.lines("install")) <= 10
    finally:
        router.close()


@pytest.mark.parametrize(
    "value, words",
    [
        ("relative", "write the absolute path"),
        ("/nonexistent/script", "can't be looked at"),
        ("/etc/passwd", "no program that can be executed"),
        ("/usr", "no program that can be executed"),
    ],
)
def test_what_is_no_program_is_refused_at_the_start(testbed: Testbed, value: str, words: str) -> None:
    done = run_to_end(testbed.namespace(), "serve", "--state-dir", "/nonexistent", "--action", value)
    assert done.returncode == 64
    assert words in done.stderr
    assert "--action" in done.stderr
