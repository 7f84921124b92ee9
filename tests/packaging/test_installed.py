"""The .deb in a Debian of its own: its daemon forwards packets there, is upgraded under traffic and removed without a trace."""

import contextlib
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcastd.model.address import Family
from tests.packaging.build import Built
from tests.packaging.chroot import Chroot, debian
from tests.testbed import Star, Testbed
from tests.testbed.daemon import wait_until
from tests.testbed.rights import is_root

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("packages"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def system(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chroot]:
    """A Debian with what the package says that it depends on, and with the package's file in /root."""
    if not is_root():
        pytest.fail("debootstrap needs root: sudo make test-dist")
    # Of alternatives the one that is no whole init system.
    choices = ([one.split()[0] for one in group.split("|")] for group in built.field("Depends").split(","))
    needs = [next((one for one in group if "standalone" in one), group[0]) for group in choices]
    with debian(tmp_path_factory.mktemp("chroot"), needs) as made:
        shutil.copy(built.package(), made.root / "root/mcastd.deb")
        yield made


@pytest.fixture(scope="module")
def before(system: Chroot) -> set[str]:
    """Names of its files before the package came."""
    return system.files()


@pytest.fixture(scope="module")
def installed(system: Chroot, before: set[str]) -> Chroot:
    """The same with the package installed, by dpkg, which fetches nothing."""
    assert "/usr/bin/mcastd" not in before
    system.run("dpkg", "--install", "/root/mcastd.deb")
    return system


class Installed:
    """The installed daemon, serving in a router of the testbed."""

    def __init__(self, bed: Testbed, star: Star, system: Chroot, directory: Path) -> None:
        """Start it, with its log in the directory, and wait until it answers."""
        self._star = star
        self._system = system
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process: subprocess.Popen[Any] = bed.popen(star.router, system.entering("/usr/bin/mcastd", "serve"), stderr=log)
        wait_until(self._answers, 60, self.log.read_text)

    def ctl(self, *arguments: str) -> str:
        """Run the installed mcastctl."""
        return self._star.router.command(*self._system.entering("/usr/bin/mcastctl", *arguments), timeout=60)

    def server(self) -> int:
        """Pid of the only server, 0 while there is none or two."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if len(children) == 1 else 0

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(RuntimeError):
            return bool(self.ctl("status"))
        return False


def test_it_serves_forwards_and_is_upgraded_under_traffic(testbed: Testbed, installed: Chroot, tmp_path: Path) -> None:
    star = testbed.star(1)
    daemon = Installed(testbed, star, installed, tmp_path)
    senders = [star.source.sender(group) for group in ("232.1.1.1", "ff3e::1")]
    receivers = [star.receivers[0].receiver(one.group, source=one.source) for one in senders]
    for one in senders:
        daemon.ctl("route", "add", one.group, one.source, "--iif", "up", "--oif", "down1")
    flows = [one.start(rate=500) for one in senders]
    for one, receiver in zip(senders, receivers, strict=True):
        receiver.wait(one, 100, timeout=30)
    # The same again: dpkg takes the way of an upgrade. There is no systemd here that would restart it afterwards.
    installed.run("dpkg", "--install", "/root/mcastd.deb")
    assert daemon.process.poll() is None, daemon.log.read_text()
    assert "PROGRAMMED" in daemon.ctl("route", "list", "-o", "json").upper()
    # What an operator does instead: the keeper's code is replaced, then the server's.
    server = daemon.server()
    daemon.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: "the keeper is re-executed" in daemon.log.read_text(), 60, daemon.log.read_text)
    assert daemon.server() == server
    daemon.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: daemon.server() not in {0, server}, 60, daemon.log.read_text)
    user = Path(f"/proc/{daemon.server()}").stat().st_uid
    assert f"mcastd:x:{user}:" in (installed.root / "etc/passwd").read_text()
    for one, flow, receiver in zip(senders, flows, receivers, strict=True):
        flow.stop()
        receiver.wait(one)
        assert receiver.missing(one) == []
    assert "Warning" not in daemon.log.read_text()
    daemon.process.terminate()
    assert daemon.process.wait(30) == 0


@pytest.mark.parametrize("family", list(Family), ids=["ipv4", "ipv6"])
def test_its_configuration_takes_effect(testbed: Testbed, installed: Chroot, tmp_path: Path, family: Family) -> None:
    star = testbed.star(1)
    sender = star.source.sender("232.1.1.2" if family is Family.IPV4 else "ff3e::2")
    receiver = star.receivers[0].receiver(sender.group, source=sender.source)
    route = f'[[route]]\ngroup = "{sender.group}"\nsource = "{sender.source}"\niif = "up"\noifs = ["down1"]\n'
    configuration = installed.root / "etc/mcastd/mcastd.toml"
    shipped = configuration.read_text()
    configuration.write_text(shipped + route)
    try:
        assert installed.run("mcastd", "check")
        Installed(testbed, star, installed, tmp_path)
    finally:
        configuration.write_text(shipped)
    sender.send(10)
    receiver.wait(sender)


def test_manual_pages_completions_and_bytecode_are_there(installed: Chroot) -> None:
    root = installed.root
    for page, title in (("man1/mcastctl.1", "mcastctl"), ("man8/mcastd.8", "mcastd")):
        path = root / f"usr/share/man/{page}.gz"
        # minbase leaves man out; the page is read by that of this machine.
        shown = subprocess.run(["man", "--local-file", "--warnings", path], check=True, capture_output=True, text=True)
        assert shown.stdout.startswith(title.upper())
        assert not re.sub(r".*cannot adjust line\n", "", shown.stderr)  # a long word in a narrow column, no fault
    complete = "source /usr/share/bash-completion/completions/mcastctl && complete -p mcastctl"
    assert "_mcastctl" in installed.run("bash", "-c", complete)
    answer = "_MCASTCTL_COMPLETE=bash_complete _MCASTCTL_LINE='mcastctl rou' mcastctl"
    assert installed.run("sh", "-c", answer).split() == ["words", "route"]
    assert list((root / "usr/lib/mcastd").rglob("mcastd/keeper/__pycache__/keeper.*.pyc"))


def test_removal_keeps_what_purge_takes(installed: Chroot, before: set[str]) -> None:
    (installed.root / "var/lib/mcastd").mkdir(exist_ok=True)
    (installed.root / "var/lib/mcastd/state.db").write_text("")
    installed.run("dpkg", "--remove", "mcastd")
    assert (installed.root / "etc/mcastd/mcastd.toml").exists()
    assert (installed.root / "var/lib/mcastd/state.db").exists()
    assert not (installed.root / "usr/lib/mcastd").exists()
    installed.run("dpkg", "--purge", "mcastd")
    assert installed.files() == before
    installed.run("dpkg", "--install", "/root/mcastd.deb")  # for the tests that come after
