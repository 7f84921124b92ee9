"""The variant in which only the keeper has capabilities: two containers share a channel, and traffic outlives the server's."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcastd.model.address import Family
from tests.deploy.container import Container, Limits, init, mask, stop
from tests.deploy.image import Image
from tests.deploy.manifests import added, containers, pod
from tests.deploy.running import assert_powerless, volumes_of_node
from tests.e2e.keeper_bench import status_of
from tests.e2e.router import Router
from tests.e2e.templates import template
from tests.testbed import Testbed
from tests.testbed.daemon import McastdProcess, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("container"), pytest.mark.timeout(300)]

CHANNEL = "/run/mcastd-channel"
ANY = 0o1777
"""Mode of an emptyDir, near enough."""


class Pod(Router):
    """A router whose daemon is the pod's containers, started in their order."""

    def __init__(self, bed: Testbed, family: Family, image: Image, directory: Path) -> None:
        """Build and start all."""
        self._image, self._directory = image, directory
        self._binds = volumes_of_node(directory) | {CHANNEL: directory / "channel"}
        (directory / "channel").mkdir()
        (directory / "channel").chmod(ANY)
        prepared = subprocess.run(
            self._container("directories").prefix(), capture_output=True, text=True, check=False, timeout=30
        )
        assert prepared.returncode == 0, prepared.stderr
        self.keeper: subprocess.Popen[Any] | None = None
        self.server = self._container("server")
        super().__init__(bed, family, directory=directory, prefix=self.server.prefix())

    def start(self, **options: Any) -> McastdProcess:
        """Start a server's container, after the keeper's."""
        if self.keeper is None:
            with (self._directory / "keeper.log").open("ab") as log:
                keeper = self._container("keeper").prefix()
                self.keeper = self.bed.popen(self.namespace, keeper, stderr=log, stdin=subprocess.DEVNULL)
        return super().start(**options)

    def start_server(self) -> McastdProcess:
        """Start another container for the server, as the kubelet does when one has ended."""
        return self.start(directory=self._directory, prefix=self.server.prefix())

    def _container(self, name: str) -> Container:
        spec = containers("keeper-sidecar")[name]
        context = spec["securityContext"]
        binds = {one["mountPath"]: self._binds[one["mountPath"]] for one in spec["volumeMounts"] if one["name"] != "tmp"}
        limits = Limits(
            added(spec),
            context["runAsUser"],
            context["runAsGroup"],
            tuple(pod("keeper-sidecar")["securityContext"]["supplementalGroups"]),
            binds,
            ("/etc/mcastd",),
            tuple(spec["command"]),
        )
        return Container(self._image, limits)


@pytest.fixture
def both(testbed: Testbed, family: Family, image: Image, directory: Path) -> Iterator[Pod]:
    """The pod, which ends in order."""
    with Pod(testbed, family, image, directory) as made:
        yield made
        assert stop(made.daemon.process) == 0, made.daemon.log()
        assert made.keeper is not None
        assert stop(made.keeper) == 0, (directory / "keeper.log").read_text()


def processes(container: "subprocess.Popen[Any]") -> set[int]:
    """All processes of a container, as seen from here."""
    waiting, found = [init(container)], set()
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return found


def test_only_the_keeper_has_capabilities(both: Pod) -> None:
    assert both.keeper is not None
    (keeper,) = processes(both.keeper)
    assert int(status_of(keeper)["CapEff"], 16) == mask(("NET_ADMIN", "NET_RAW"))
    user = str(containers("keeper-sidecar")["server"]["securityContext"]["runAsUser"])
    for pid in processes(both.daemon.process):
        assert_powerless(pid)
        assert int(status_of(pid)["CapBnd"], 16) == 0
        assert set(status_of(pid)["Uid"].split()) == {user}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "asked to end, as for another image"])
def test_traffic_outlives_the_servers_container(both: Pod, how: signal.Signals) -> None:
    exact, learned, new, late = (both.sender(number) for number in range(1, 5))
    both.put(both.route(exact, "down1"), template(learned.group, "up", "down2"), template(new.group, "up", "down1"))
    both.check_leaves(exact, "down1")
    both.check_leaves(learned, "down2", count=1)
    notices = both.notices()
    os.kill(init(both.daemon.process), how)
    both.daemon.process.wait(20)
    both.check_leaves(exact, "down1")
    both.check_leaves(learned, "down2")
    assert notices.take() == 0
    both.check_leaves(new, "down1", count=1)  # the keeper answers alone
    both.check_leaves(new, "down1")
    assert notices.take() > 0
    both.start_server()
    for sender, interface in ((exact, "down1"), (learned, "down2"), (new, "down1")):
        both.check_leaves(sender, interface)
    assert notices.take() == 0
    both.put(both.route(late, "down2"))
    both.check_leaves(late, "down2")


def test_another_user_is_not_let_in(both: Pod, directory: Path) -> None:
    """Whoever may reach the channel's socket: the keeper asks the kernel who it is."""
    script = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1]); s.recv(1)"
    command = ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", script, f"{directory}/channel/keeper.sock"]
    subprocess.run(command, check=False, timeout=20, capture_output=True)
    wait_until(lambda: "somebody is not let in" in (directory / "keeper.log").read_text())
